"""Access to folders, archives and lists: listing, tar members, lines of text."""
