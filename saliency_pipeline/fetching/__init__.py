"""Downloading what a data set publishes as a list of URLs: PubFig."""
