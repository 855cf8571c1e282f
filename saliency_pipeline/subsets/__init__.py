"""Subsets of a catalogue: selection of classes and images, duplicates, groups and splits."""
