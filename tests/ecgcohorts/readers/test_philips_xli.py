"""XLI: what the encoder of the tests packs comes back, and bytes that lie are refused before anything grows."""

import base64
import itertools
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.philips_xml import reader as philips_xml
from ecgcohorts.readers.philips_xml import xli as _xli


@pytest.fixture
def files(writers: Any) -> ModuleType:
    return writers("philips_xml")


def decode(payload: bytes, n_samples: int, n_leads: int = 12) -> np.ndarray:
    return _xli.rebuild_limb_leads(_xli.decode(payload, n_leads, n_samples, "here"))


def refused(payload: bytes, n_samples: int) -> Reason:
    with pytest.raises(UnreadableRecording) as caught:
        decode(payload, n_samples)
    return caught.value.reason


def test_values_that_wrap_at_16_bits(files: ModuleType) -> None:
    """Second differences and sums of full-range samples leave 16 bits, as in one published file; they come back."""
    samples = files.known_samples(12, 300, 3, 32768)
    samples[:, :4] = [-32768, 32767, -32768, 32767]
    assert np.array_equal(decode(files.xli(samples), 300), samples)


def test_a_table_that_fills_up(files: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 768 codes nothing is learned. V2 uses the last string of the table, so one fewer would be seen."""
    samples = files.beats(3000)
    codes = files.lzw_codes(files.planes(files.deltas(samples[7])[0]))
    assert 1022 in codes[768:]
    assert np.array_equal(decode(files.xli(samples), 3000), samples)
    monkeypatch.setattr(_xli, "LAST_CODE", 1021)
    assert refused(files.xli(samples), 3000) is Reason.TRUNCATED


def test_a_string_may_end_in_itself(files: ModuleType) -> None:
    """The code that the decoder is about to add: runs of one byte use it at every step."""
    codes = files.lzw_codes(bytes(40))
    assert codes[:4] == [0, 256, 257, 258]
    assert _xli.decode(files.chunk(files.pack([*codes, 1023]), 0), 1, 20, "here").shape == (1, 20)


def test_halves_are_rounded_down() -> None:
    stored = np.zeros((12, 2), np.int16)
    stored[:2] = [[-3, 3], [0, 0]]
    leads = _xli.rebuild_limb_leads(stored)
    assert leads[:6].tolist() == [[-3, 3], [0, 0], [3, -3], [2, -1], [-3, 3], [1, -2]]


def test_the_end_code_may_be_absent_and_spare_chunks_too(files: ModuleType) -> None:
    samples = files.known_samples()
    for spare, end in ((0, True), (0, False), (4, False), (40, True)):
        assert np.array_equal(decode(files.xli(samples, spare, end), 60), samples)


def test_chunks_that_lie(files: ModuleType) -> None:
    samples = files.known_samples()
    whole, lead = files.xli(samples), files.lead_chunk(samples[0])
    cases = {
        Reason.TRUNCATED: [
            b"",
            whole[:-1],  # the last chunk is cut, although no lead needs it
            whole + b"\0",
            lead * 11,
            files.chunk(lead[8:], 0, size=-1) + whole,
            files.chunk(files.pack([65, 66]), 0) * 12,  # fewer bytes than declared
            files.chunk(files.pack([0, *range(256, 1023)]), 0) * 12,  # more bytes
            files.chunk(files.pack([65] * 121), 0) * 12,  # more codes than bytes
            files.chunk(files.pack([1023]), 0) * 12,
            files.chunk(b"", 0) * 12,
        ],
        Reason.UNSUPPORTED: [files.chunk(lead[8:], 0, kind=2) * 12],
        Reason.HEADER: [files.chunk(files.pack(codes), 0) * 12 for codes in ([256], [300], [65, 257], [65, 256, 999])],
        Reason.LIMIT: [files.chunk(b"", 0) * 65],
    }
    for reason, payloads in cases.items():
        for payload in payloads:
            assert refused(payload, 60) is reason


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 40])
def test_lzw_cut_inside_a_lead(cut: int, files: ModuleType) -> None:
    samples = files.known_samples()
    packed = files.lead_chunk(samples[0], end=False)[8:]
    assert refused(files.chunk(packed[:-cut], 0) + files.xli(samples, spare=0), 60) is Reason.TRUNCATED


def test_a_flipped_bit_in_the_codes_is_seen_or_harmless_to_the_length(files: ModuleType) -> None:
    """No checksum: a flip may give other samples, as the documentation says, but never another number of them."""
    samples = files.known_samples(12, 40)
    payload = files.xli(samples)
    seen = 0
    for place, bit in itertools.product(range(0, len(payload), 3), (0, 5)):
        broken = bytearray(payload)
        broken[place] ^= 1 << bit
        try:
            assert decode(bytes(broken), 40).shape == (12, 40)
        except UnreadableRecording:
            seen += 1
    assert seen > 0


def test_a_payload_in_a_file_is_refused_by_name(files: ModuleType, tmp_path: Path) -> None:
    samples = files.known_samples()
    text = base64.b64encode(files.xli(samples)[:-1]).decode()
    path = files.save(tmp_path / "p.xml", files.document(samples, text=text))
    with pytest.raises(UnreadableRecording) as caught:
        list(philips_xml.read(path))
    assert caught.value.reason is Reason.TRUNCATED
    assert str(path) in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200), st.booleans())
def test_any_lead_comes_back(writers: Any, values: list[int], end: bool) -> None:
    chunk = writers("philips_xml").lead_chunk(np.array(values), end)
    assert _xli.decode(chunk, 1, len(values), "here").tolist() == [values]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 100))
def test_any_bytes_are_refused_or_give_the_declared_length(payload: bytes, n_samples: int) -> None:
    for data in (payload, len(payload).to_bytes(4, "little") + b"\1\0\0\0" + payload):
        with suppress(UnreadableRecording):
            assert _xli.decode(data, 1, n_samples, "here").shape == (1, n_samples)
