"""The `salpipe` command line: every file parses, calls one function of the library and prints its result."""
