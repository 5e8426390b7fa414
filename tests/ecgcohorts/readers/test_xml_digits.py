"""Integers as text: exactly what a strict reader of words would give, and numpy's ways out pinned."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._xml.values import count_integers, integers

WORD = re.compile(r"[+-]?[0-9]+")


def parsed(text: str, commas: bool = False) -> list[int]:
    return integers(text, count_integers(text, commas), "x", commas).tolist()


def strictly(text: str, commas: bool) -> list[int] | None:
    """Word by word, as slowly as it gets; None if it must be refused."""
    if commas:
        items = [item.strip(" \t\r\n") for item in text.split(",")]
        if not items[-1]:
            items.pop()
        if not all(items) and text.strip(" \t\r\n"):
            return None
        text = " ".join(items)
    words = text.split()
    return [int(word) for word in words] if all(WORD.fullmatch(word) for word in words) else None


@pytest.mark.parametrize(
    "text", ["1 2 x", "1 2 3.5", "1,2", "--1", "1_0", "0x10", "1e3", "nan", "1 2\0", "٣ 4", "1\u00a02"]
)
def test_numpy_raises_on_junk(text: str) -> None:
    """Older versions warned and gave what came before the junk: a shorter ECG."""
    with pytest.raises(ValueError, match="could not be read to its end"):
        np.fromstring(text, np.int64, sep=" ")


@pytest.mark.parametrize(
    ("text", "gives"),
    [("- 1", [-1]), (" ", [0]), ("5 -", [5, 0]), ("9" * 30, [2**63 - 1]), ("1 - 2", [1, -2])],
)
def test_what_numpy_lets_through_is_refused_here(text: str, gives: list[int]) -> None:
    assert np.fromstring(text, np.int64, sep=" ").tolist() == gives  # if this changes, the check may go
    if text.strip():
        with pytest.raises(UnreadableRecording) as caught:
            parsed(text)
        assert caught.value.reason is Reason.HEADER
    assert parsed(" ") == parsed("") == []


@pytest.mark.parametrize("last", [",", ",\n", ",\n\t ", ""])
def test_a_comma_may_end_a_list_and_adds_no_sample(last: str) -> None:
    assert parsed(f"\n\t1,2,\n\t\t-3{last}", commas=True) == [1, 2, -3]


@pytest.mark.parametrize("text", ["1,,2", ",1", "1,\n,2", "1;2", "1,2 x", ",", "1,-,2"])
def test_holes_and_junk_in_lists_with_commas(text: str) -> None:
    with pytest.raises(UnreadableRecording):
        parsed(text, commas=True)


@pytest.mark.parametrize(
    ("text", "fits"), [("-2147483648 2147483647", True), ("2147483648", False), ("-2147483649", False)]
)
def test_samples_fit_32_bits(text: str, fits: bool) -> None:
    if fits:
        assert parsed(text) == [int(word) for word in text.split()]
    else:
        with pytest.raises(UnreadableRecording, match="32 bits"):
            parsed(text)


@given(st.text("0123456789-+ \n\t,x.é", max_size=12) | st.text("12 ,-", max_size=12), st.booleans())
@example("5 -", False)
@example(",", True)
@settings(max_examples=400, deadline=None)
def test_any_text_gives_what_a_strict_reader_gives(text: str, commas: bool) -> None:
    wanted = strictly(text, commas)
    if wanted is None or any(abs(value) >= 2**31 for value in wanted):
        with pytest.raises(UnreadableRecording):
            parsed(text, commas)
    else:
        assert parsed(text, commas) == wanted


def test_counting_goes_over_its_own_seams() -> None:
    text = "12 " * (1 << 20)
    assert count_integers(text) == 1 << 20
    assert count_integers("x" * ((1 << 20) - 1) + " y") == 2
