"""Which images of a catalogue are taken, and how they are split: classes, draws, duplicates, splits."""
