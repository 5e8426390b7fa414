"""The mixer against published values, the permutation against a version in plain integers, both against chance."""

import itertools
from collections import Counter
from math import factorial, isqrt

import numpy as np
import pytest
from scipy import stats

from ecgcohorts.samplers import permutation
from ecgcohorts.samplers.permutation import _streams, below, key_of, mix64, permute, permuted_range, unit_interval

WORD = 2**64 - 1


def by_hand(position: int, size: int, key: int) -> int:
    """permute() for one position, in Python integers."""
    high = isqrt(size - 1) + 1
    low = -(-size // high)
    rounds = permutation.HALF_ROUNDS_SMALL if size < permutation.SMALL_DOMAIN else permutation.HALF_ROUNDS

    def draw(half: int, number: int, bound: int) -> int:
        word = (key + (number + 1) * permutation.GOLDEN) & WORD
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & WORD
        word = ((word ^ word >> 31) + half) & WORD
        word = (word * 0xBF58476D1CE4E5B9) & WORD
        word = ((word ^ word >> 32) * 0x94D049BB133111EB) & WORD
        return (word >> 32) * bound >> 32

    while True:
        left, right = divmod(position, low)
        for number in range(0, rounds, 2):
            left = (left + draw(right, number, high)) % high
            right = (right + draw(left, number + 1, low)) % low
        position = left * low + right
        if position < size:
            return position


def test_mixer_gives_the_published_sequence():
    """splitmix64 from seed 1234567, as published with Vigna's code."""
    assert _streams(1234567, 5).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_mix64_is_one_to_one_on_a_sample():
    assert len(np.unique(mix64(np.arange(100_000, dtype=np.uint64)))) == 100_000


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 97, 1000, 4095, 4096, 20_011])
def test_is_a_permutation(size):
    assert np.array_equal(np.sort(permute(np.arange(size), size, key_of("k", size))), np.arange(size))


@pytest.mark.parametrize("size", [2, 7, 100, 4095, 4096, 1_224_880, 2**32])
def test_equals_the_version_in_plain_integers(size):
    positions = np.unique(np.linspace(0, size - 1, 50).astype(np.int64))
    expected = [by_hand(position, size, 12345678901234567890) for position in positions.tolist()]
    assert permute(positions, size, 12345678901234567890).tolist() == expected


def test_frozen_values():
    """If this fails, every plan changes: saved runs resume to other batches."""
    assert key_of(0, "order", "code15", 3) == 1498729961568892990
    assert permute(np.arange(10), 10, key_of(0, "order", "code15", 3)).tolist() == [1, 8, 7, 4, 9, 0, 6, 2, 3, 5]
    assert permute(np.arange(5), 1_224_880, key_of(1)).tolist() == [301498, 1187856, 767038, 38918, 92189]


def test_blocks_join_without_a_seam():
    size, key = 3 * permutation.BLOCK + 17, key_of("blocks")
    whole = permute(np.arange(size), size, key)
    edge = permutation.BLOCK
    for start, stop in ((0, 1), (edge - 3, edge + 5), (edge - 1, 3 * edge + 2), (size - 4, size)):
        assert np.array_equal(permuted_range(start, stop, size, key), whole[start:stop])


@pytest.mark.parametrize("size", [3, 4])
def test_all_orders_are_equally_likely(size):
    """Chi-square over all size! orders, 100 draws expected of each."""
    draws = 100 * factorial(size)
    seen = Counter(tuple(permute(np.arange(size), size, key_of("all", k)).tolist()) for k in range(draws))
    observed = [seen[order] for order in itertools.permutations(range(size))]
    assert sum(observed) == draws
    assert stats.chisquare(observed).pvalue > 1e-4


@pytest.mark.parametrize("size", [6, 16])
def test_neighbours_land_independently(size):
    """Where positions 0 and 1 land, over keys: uniform over ordered pairs of different places."""
    draws = 10 * size * size
    landed = np.array([permute(np.arange(2), size, key_of("two", k)) for k in range(draws)])
    counts = np.bincount(landed[:, 0] * size + landed[:, 1], minlength=size * size).reshape(size, size)
    assert np.trace(counts) == 0
    assert stats.chisquare(counts[~np.eye(size, dtype=bool)]).pvalue > 1e-4


def test_bounded_draws_are_uniform():
    words = _streams(key_of("bounded"), 70_000)
    assert stats.chisquare(np.bincount(below(words, 7), minlength=7)).pvalue > 1e-4
    assert stats.kstest(unit_interval(words), "uniform").pvalue > 1e-4
    assert unit_interval(np.array([WORD], np.uint64))[0] < 1


@pytest.mark.parametrize("size", [0, -1, 2**32 + 1])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="found size"):
        permute(np.arange(1), size, 0)


def test_keys_tell_parts_apart():
    keys = [key_of(1, 2), key_of(12), key_of("1", 2), key_of(1, "2"), key_of(2, 1), key_of(1, 2, 0)]
    assert len(set(keys)) == len(keys)
