"""Bare arrays as text: every way people write numbers, and what is no number."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import Reader
from ecgcohorts.readers.arrays import reader as arrays
from ecgcohorts.readers.arrays import text as text_of_numbers
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording

ROWS = np.array([[1, -2], [30, 400], [-5, 6]])  # (time, lead)


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def described(**keys: Any) -> Reader:
    known = {"kind": "csv", "rate_hz": 500, "unit": "uV", "leads": ("I", "II"), "axes": "time_lead"}
    return arrays.described(ArrayDescription.model_validate(known | keys))


def one(path: Path, **keys: Any) -> Recording:
    (recording,) = described(**keys).read(path)
    return recording


def text(folder: Path, content: str | bytes, **keys: Any) -> Recording:
    path = folder / "1.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return one(path, **keys)


def refused(call: Callable[[], object]) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("unit", "steps", "gain"), [("uV", 1, 1000), ("mV", 200, 200), ("nV", 1, 1e6), ("V", 2e5, 200)]
)
def test_the_unit_is_stated(unit: str, steps: float, gain: float, tmp_path: Path) -> None:
    recording = text(tmp_path, "1,-2\n", unit=unit, steps_per_unit=steps)
    np.testing.assert_allclose(recording.gain_per_mv, gain)
    analog = text(tmp_path, "1.0,-2\n", unit=unit, steps_per_unit=steps)
    np.testing.assert_allclose(analog.signal_mv, [[1 / gain], [-2 / gain]])


@pytest.mark.parametrize(("content", "keys"), [
    ("1,-2\n30,400\n-5,6\n", {}), ("1,-2\r\n30,400\r\n-5,6\r\n", {}), ("\ufeff1,-2\n30,400\n-5,6\n", {}),
    ("1, -2\n30 ,400\n -5,6\n", {}), ("1;-2\n30;400\n-5;6\n", {"separator": ";"}),
    ("1\t-2\n30\t400\n-5\t6\n", {"separator": "tab"}), (" 1  -2 \r\n30\t400 \r\n-5 6\r\n", {"separator": "space"}),
    ("Name: X\nI,II\n1,-2\n30,400\n-5,6\n", {"skip_lines": 2}), ("1,-2\n30,400\n-5,6\n\n\n", {}),
    ("0,-2,9,1\n1,400,9,30\n2,6,9,-5\n", {"columns": (3, 1)}), ("1,30,-5\n-2,400,6\n", {"axes": "lead_time"}),
    ("+1,-2\n30,400\n-05,6\n", {"samples": 3}),
])  # fmt: skip
def test_integers_as_people_write_them(content: str, keys: dict[str, Any], tmp_path: Path) -> None:
    recording = text(tmp_path, content, **keys)
    np.testing.assert_array_equal(recording.digital, ROWS.T)
    assert recording.notes == (() if "samples" in keys else (arrays.UNDECLARED,))


@pytest.mark.parametrize(("content", "keys"), [
    ("1.0,-2\n30,4e2\n-5.,6\n", {}), ("1,0;-2\n30;4E+2\n-5;6,000\n", {"separator": ";", "decimal": ","}),
    ("1,0 -2,0\n30 400\n-5 6\n", {"separator": "space", "decimal": ","}), ("0.001,1,-2\n.2,30,400\n3,-5,6\n", {"columns": (1, 2)}),
])  # fmt: skip
def test_floats_as_people_write_them(content: str, keys: dict[str, Any], tmp_path: Path) -> None:
    recording = text(tmp_path, content, **keys)
    assert recording.digital is None
    np.testing.assert_array_equal(recording.signal_mv, ROWS.T / 1000)


@pytest.mark.parametrize(("content", "reason"), [
    ("", Reason.EMPTY), ("\n", Reason.EMPTY), ("1,2\n3,4", Reason.TRUNCATED), ("I,II\n1,2\n", Reason.HEADER),
    ("1,2\n3\n", Reason.HEADER), ("1,2\n3,4,5\n", Reason.HEADER), ("1,2\n\n3,4\n", Reason.HEADER), ("1,\n3,4\n", Reason.HEADER),
    ("1,nan\n", Reason.HEADER), ("1,inf\n", Reason.HEADER), ("1.0,1e999\n", Reason.HEADER), ("1,--2\n", Reason.HEADER),
    ("1,0x10\n", Reason.HEADER), ("1,1_0\n", Reason.HEADER), ('"1","2"\n', Reason.HEADER), ("1,2 3\n", Reason.HEADER),
    ("1,2;3\n", Reason.HEADER), ("1,\u0663\n", Reason.HEADER), ("1,2\r3,4\r", Reason.TRUNCATED), (" \n", Reason.LEADS),
    (",\n", Reason.HEADER), ("1,2#3\n", Reason.HEADER), ("1,2\n1\t,2\n", Reason.HEADER), ("1,99999999999999999999\n", Reason.HEADER),
    ("1,9999999999\n", Reason.UNSUPPORTED), ("1,2,3\n", Reason.LEADS), ("1\n2\n", Reason.LEADS), ("1,e\n", Reason.HEADER),
    ("1;2\n", Reason.LEADS), ("00000000000000000000000000000000000000000000000000000000000000000000000000000000001,2\n", Reason.HEADER),
])  # fmt: skip
def test_a_text_in_which_not_every_cell_is_a_number_is_refused(content: str, reason: Reason, tmp_path: Path) -> None:
    assert refused(lambda: text(tmp_path, content)).reason is reason


def test_utf_16_is_refused_by_name(tmp_path: Path) -> None:
    error = refused(lambda: text(tmp_path, "1,2\n".encode("utf-16")))
    assert error.reason is Reason.UNSUPPORTED
    assert "UTF-16" in error.found


def test_a_point_where_the_comma_is_decimal_is_a_thousand_and_refused(tmp_path: Path) -> None:
    assert refused(lambda: text(tmp_path, "1.000;2\n", separator=";", decimal=",")).reason is Reason.HEADER


def test_the_declared_length_is_compared(tmp_path: Path, files: ModuleType) -> None:
    content = files.text_of(ROWS)
    assert text(tmp_path, content, samples=3).n_samples == 3
    assert refused(lambda: text(tmp_path, content, samples=4)).reason is Reason.TRUNCATED
    assert refused(lambda: text(tmp_path, content, samples=2)).reason is Reason.HEADER
    assert refused(lambda: text(tmp_path, content[:-1], samples=3)).reason is Reason.TRUNCATED
    assert next(described(samples=4).scan(tmp_path / "1.csv")).n_samples == 4


def test_blocks_of_a_long_text_are_one_array(
    files: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks end anywhere; one float makes floats of all."""
    monkeypatch.setattr(text_of_numbers, "BLOCK_BYTES", 7)
    uv = files.beats(2, 60)
    np.testing.assert_array_equal(text(tmp_path, files.text_of(uv.T, end="\r\n")).digital, uv)
    np.testing.assert_array_equal(text(tmp_path, files.text_of(uv), axes="lead_time").digital, uv)
    mixed = text(tmp_path, files.text_of(uv.T) + b"1.5,2\n")
    np.testing.assert_array_equal(mixed.signal_mv[:, :60], uv / 1000)
    assert mixed.digital is None
    assert refused(lambda: text(tmp_path, b"1,2\n" * 9 + b"\n" * 20 + b"1,2\n")).reason is Reason.HEADER


@pytest.mark.parametrize("members", [1, 3])
def test_gzipped_text(members: int, files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 60)
    path = tmp_path / "1002867.txt.gz"
    content = files.text_of(uv.T)
    pieces = [
        content[place * len(content) // members : (place + 1) * len(content) // members] for place in range(members)
    ]
    path.write_bytes(b"".join(map(gzip.compress, pieces)))
    recording = one(path, samples=60)
    np.testing.assert_array_equal(recording.digital, uv)
    assert recording.recording_id == "1002867"
    assert next(described().scan(path)).n_samples == 60
    whole = path.read_bytes()
    for data, reasons in (
        (whole[:-1], {Reason.TRUNCATED}),
        (whole[:-5], {Reason.TRUNCATED}),
        (whole[:-8] + b"\1\2\3\4" + whole[-4:], {Reason.CHECKSUM}),
        (whole + b"x", {Reason.HEADER, Reason.TRUNCATED}),
        (content, {Reason.HEADER}),
    ):
        path.write_bytes(data)
        assert refused(lambda: one(path)).reason in reasons


def test_a_gzipped_ecg_of_zeros_is_no_bomb(tmp_path: Path) -> None:
    path = tmp_path / "1.csv.gz"
    path.write_bytes(gzip.compress(b"0,0\n" * 50_000))
    assert one(path).n_samples == 50_000


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_text_comes_back_exactly(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, files: ModuleType
) -> None:
    n_leads, n_samples = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    values = (
        st.integers(-(2**31), 2**31 - 1)
        if data.draw(st.booleans())
        else st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False)
    )
    array = np.array([[data.draw(values) for _ in range(n_leads)] for _ in range(n_samples)])
    separator, decimal = data.draw(st.sampled_from([(",", "."), (";", ","), ("\t", "."), ("  ", ",")]))
    names = {",": ",", ";": ";", "\t": "tab", "  ": "space"}
    path = tmp_path_factory.mktemp("text") / "1.csv"
    path.write_bytes(files.text_of(array, separator, decimal))
    leads = ("I", "II", "III", "V1")[:n_leads]
    recording = one(path, unit="mV", leads=leads, separator=names[separator], decimal=decimal)
    np.testing.assert_array_equal(recording.signal_mv, array.T)
