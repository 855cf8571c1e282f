"""Statistics of paired runs: tests, intervals, power, planned looks, several data sets. Pure functions of scores."""
