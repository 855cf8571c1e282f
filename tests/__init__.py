"""The tests of salpipe. Folders mirror those of the package; `reference.py` holds slow twins of its formulas."""

import pytest
from _pytest.mark import ParameterSet


def rare(*values: object) -> list[ParameterSet]:
    """Parameters of a test that only the whole suite runs."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
