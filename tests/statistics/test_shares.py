"""Wilson's score interval of a share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saliency_pipeline.statistics.shares import wilson


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_is_scipys(counts):
    hits, count = counts
    interval = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert [float(end) for end in wilson(hits, count)] == pytest.approx([interval.low, interval.high], abs=1e-9)


def test_no_trial_leaves_every_share_possible():
    assert [float(end) for end in wilson(0, 0)] == [0.0, 1.0]
