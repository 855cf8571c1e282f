"""Access to folders, archives and lists: listing, tar members, lines of text, notes on what is skipped."""
