"""Adjusted p values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.statistics.multiplicity import holm


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(p):
    adjusted = holm(p)
    assert all(own <= raised <= 1 for own, raised in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert adjusted[order[0]] == min(1, p[order[0]] * len(p))
    if len(p) == 1:
        assert adjusted == p
