"""A page and a contact sheet to look at what shards hold."""
