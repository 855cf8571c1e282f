"""Folders, archives and lists as data sets use them: listed and read, without a meaning."""
