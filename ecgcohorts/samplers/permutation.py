"""Counter-based randomness: every draw is a pure function of its key, on any platform and any version of numpy or Python.

Nothing here is secret and nothing is stored. Changing a constant changes every plan ever made: saved runs would resume
to other batches.
"""

import hashlib
import json
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

# splitmix64: increment and finaliser. Source: Steele, Lea, Flood, OOPSLA 2014; constants of Vigna's public-domain code.
GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

# Half rounds of the network below. 4 suffice for large domains (Luby, Rackoff 1988); the rest is margin. Small domains
# forget their order more slowly and are cheap. Our choice, held by the uniformity tests.
HALF_ROUNDS = 8
HALF_ROUNDS_SMALL = 16
SMALL_DOMAIN = 4096
DOMAIN_LIMIT = 1 << 32  # draws below a bound use 32 random bits
BLOCK = 1 << 13  # positions permuted at a time, for 16 batches of 512; resuming in the middle pays for one block


def key_of(*parts: int | str) -> int:
    """Return a 64-bit key of some integers and texts."""
    # JSON keeps ("a", "bc") and ("ab", "c") apart, and 1 and "1". Python's hash() differs between processes.
    return int.from_bytes(hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest(), "little")


def mix64(words: Words) -> Words:
    """Scramble 64-bit words, one to one. words: any shape, at least 1-d (numpy scalars warn of the wanted overflow)."""
    mixed: Words = words >> np.uint64(30)
    mixed ^= words
    mixed *= _MIX_1
    mixed ^= mixed >> 27
    mixed *= _MIX_2
    mixed ^= mixed >> 31
    return mixed


def _streams(key: int, count: int) -> Words:
    """Return the first words of the splitmix64 sequence that starts at `key`: (count,)."""
    return mix64(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN + np.uint64(key))


def below(words: Words, bound: Words | int) -> Words:
    """Map random words to integers 0 .. bound - 1, uniform within bound / 2**32."""
    # A multiplication instead of a remainder: no division, and the bias is at most 2**-32 for any bound.
    scaled: Words = words >> np.uint64(32)
    # Multiply and shift instead of a remainder: no division, and the bias is below bound / 2**32.
    scaled *= bound
    scaled >>= 32
    return scaled


def unit_interval(words: Words) -> NDArray[np.float64]:
    """Map random words to multiples of 2**-53 in [0, 1)."""
    # 53 bits are what a float64 holds: more would round up, and now and then to 1.0 itself.
    return (words >> np.uint64(11)) * np.float64(2.0**-53)


def permute(positions: NDArray[np.integer], size: int, key: int) -> NDArray[np.int64]:
    """Return where the permutation `key` of 0 .. size - 1 sends some positions. Cost grows with the positions, not with `size`.

    A Feistel network with addition in place of exclusive or, so that its domain high * low exceeds `size` by less than
    high; what falls outside walks on until it is inside. Source: Black, Rogaway, CT-RSA 2002 ("cycle walking",
    "generalized Feistel").
    """
    if not 0 < size <= DOMAIN_LIMIT:
        raise ValueError(f"found size {size}, expected 1 to {DOMAIN_LIMIT}.")
    # Halves as equal as possible: the domain then exceeds `size` by less than its root, and few places walk on.
    high = isqrt(size - 1) + 1
    low = -(-size // high)
    keys = _streams(key, HALF_ROUNDS_SMALL if size < SMALL_DOMAIN else HALF_ROUNDS)
    places = _network(positions.astype(np.uint64), high, low, keys)
    # Ends: a permutation of the domain returns to its start, so a walk that began inside comes back inside.
    while len(outside := np.flatnonzero(places >= size)):
        places[outside] = _network(places[outside], high, low, keys)
    return places.astype(np.int64)


def permuted_range(start: int, stop: int, size: int, key: int) -> NDArray[np.int64]:
    """Return permute(start .. stop - 1), from blocks that are kept for the batches that follow."""
    blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
    parts = [_block(number, size, key)[max(0, start - number * BLOCK) : stop - number * BLOCK] for number in blocks]
    return np.concatenate(parts)


# One cached block serves 16 batches of 512 pairs; a cached permutation of the whole cohort would be 8 bytes a patient.
@lru_cache(maxsize=64)  # 4 MB at most, a few blocks per cohort
def _block(number: int, size: int, key: int) -> NDArray[np.int64]:
    return permute(np.arange(number * BLOCK, min(size, (number + 1) * BLOCK)), size, key)


def _network(places: Words, high: int, low: int, keys: Words) -> Words:
    left = places // low
    right = places - left * low
    for first, second in keys.reshape(-1, 2):
        left += _round(right, first, high)
        left %= high
        right += _round(left, second, low)
        right %= low
    left *= low
    left += right
    return left


def _round(half: Words, key: np.uint64, bound: int) -> Words:
    """Draw below `bound` for each half, by its key: two thirds of mix64, since eight rounds follow each other."""
    # In place from here on: no array is allocated for each operation on a block.
    words = half + key
    words *= _MIX_1
    words ^= words >> 32
    words *= _MIX_2
    words >>= 32
    words *= bound
    words >>= 32
    return words
