"""Placeholders are no ids; anything else is one."""

import pytest

from ecgcohorts.privacy.placeholders import is_placeholder

EMPTY = ["", "  ", "0", "000000", "0.0", "000-00-0000", "X", "xxxxxx", "XX/XX/XXXX", "---", "?", "*****", None]
WORDS = ["UNKNOWN", "Unknown ", "ANON", "anon-17", "ANONYMOUS^PATIENT", "n/a", "NA", "None", "nan", "NULL"]
IDS = ["1", "0001", "10019777", "15709.0", "A0", "MAX", "X1", "Xx-9", "X0", "00-00-01", "nanny", "Hanon", "-5"]


@pytest.mark.parametrize("text", EMPTY + WORDS)
def test_placeholders_are_no_ids(text: str | None) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", IDS)
def test_everything_else_is_an_id(text: str) -> None:
    assert not is_placeholder(text)
