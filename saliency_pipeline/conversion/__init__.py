"""Conversion of shards into the formats of other tools: WebDataset, Parquet, folders of PNG, COCO, FiftyOne."""
