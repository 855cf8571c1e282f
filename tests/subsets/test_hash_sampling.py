"""Hashes depend on seed, purpose and name alone, and never change."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_pipeline.subsets.hash_sampling import hashes, ranks

FIRST_RELEASE = [5224297344788543186, 8217667069550049332, 17093286328569828041]


def test_lots_are_those_of_the_first_release():
    # users hold sets drawn with them: another hash would give other sets
    keys = ["n01440764/n01440764_10026.JPEG", "Ada Lovelace/1.jpg", "été/ü.png"]
    assert hashes(0, "draw", keys).tolist() == FIRST_RELEASE
    assert [f"{number:016x}" for number in FIRST_RELEASE] == [
        hashlib.blake2b(b"draw 0\n" + key.encode(), digest_size=8).hexdigest() for key in keys
    ]


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.integers(0, 2**32 - 1))
def test_a_lot_depends_on_its_name_alone(names, seed):
    assert hashes(seed, "draw", names).tolist() == [int(hashes(seed, "draw", [name])[0]) for name in names]


def test_seeds_and_purposes_have_hashes_of_their_own():
    distinct = {int(hashes(seed, purpose, ["a"])[0]) for seed in range(50) for purpose in ("class", "draw", "deal")}
    assert len(distinct) == 150


def test_lots_are_spread_evenly():
    # a sum of 4,000 uniform numbers leaves 5 standard deviations once in two million seeds
    values = hashes(1, "draw", map(str, range(4000))) / 2.0**64
    assert values.mean() == pytest.approx(0.5, abs=5 * (1 / 12 / 4000) ** 0.5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5))))
def test_ranks_count_the_lower_lots_of_the_pool(pairs):
    pools = np.array([pool for pool, _ in pairs], np.int64)
    values = np.array([number for _, number in pairs], np.uint64)
    assert ranks(pools, values).tolist() == [
        sum(other_pool == pool and (other, place) < (number, here) for place, (other_pool, other) in enumerate(pairs))
        for here, (pool, number) in enumerate(pairs)
    ]
