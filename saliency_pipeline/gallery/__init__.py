"""Pages that show the content of shards and the duplicates of a data set."""
