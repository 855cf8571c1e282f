"""The tests of salpipe. Folders mirror those of the package; `reference.py` holds slow twins of its formulas."""
