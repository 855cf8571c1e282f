"""Quality of stored maps: metrics over folders of shards, floors, intervals, and a page that ranks the methods."""
