"""Statistics of paired runs: tests, intervals, power, sequential analysis, several data sets; functions of scores."""
