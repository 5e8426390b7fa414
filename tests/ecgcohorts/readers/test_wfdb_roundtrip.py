"""Whatever a small writer can write, the reader reads back: formats, files, offsets, gains, header spellings."""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgcohorts.readers.wfdb import reader as wfdb

BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 10, 311: 10}
RATES = {"500": 500.0, "257": 257.0, "360.": 360.0, "3.6e2": 360.0, "1E3": 1000.0, "128/64(0)": 128.0}
GAINS = {"200": 200.0, "1000.0": 1000.0, "1e3": 1000.0, "-5.5": -5.5, "1.052e+04": 10520.0}
UNITS = {"": 1.0, "/mV": 1.0, "/mv": 1.0, "/uV": 1e-3, "/nV": 1e-6, "/V": 1e3}
NAMES = st.text("abcIVRLF126 ,.-+()/", min_size=1, max_size=12).map(str.strip).filter(bool)


def integers(fmt: int, shape: int) -> st.SearchStrategy[Any]:
    """Any value of the format, its sentinel included; format 8 holds no steps beyond a byte."""
    bound = 1 << (BITS[fmt] - 1) if fmt != 8 else 63
    return hnp.arrays(np.int64, shape, elements=st.integers(-bound, bound - 1))


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Up to three signal files of up to three signals, and one of many spellings of their header."""
    n_frames = draw(st.integers(1, 23))
    signals = []
    for place in range(draw(st.integers(1, 3))):
        fmt, offset = draw(st.sampled_from(sorted(BITS))), draw(st.sampled_from([0, 0, 1, 24, 300]))
        for _ in range(draw(st.integers(1, 3))):
            gain, unit = draw(st.sampled_from(sorted(GAINS))), draw(st.sampled_from(sorted(UNITS)))
            baseline = draw(st.none() | st.integers(-40000, 40000))
            signals.append(
                {
                    "samples": draw(integers(fmt, n_frames)),
                    "name": draw(NAMES),
                    "file": f"r.d{place}",
                    "fmt": fmt,
                    "offset": offset,
                    "gain": gain + ("" if baseline is None else f"({baseline})") + unit,
                    "scale": (GAINS[gain] / UNITS[unit], baseline, draw(st.integers(-2000, 2000))),
                    "unsigned": draw(st.booleans()),
                }
            )
    rate = draw(st.sampled_from(sorted(RATES)))
    return {
        "signals": signals,
        "rate": rate,
        "record_line": f"r {len(signals)} {rate} {n_frames}"
        + draw(st.sampled_from(["", " 10:00:00", " 1:2:3.5 4/5/2006"])),
        "newline": draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n# between\n"])),
    }


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(record=records())
def test_every_record_comes_back(record: dict[str, Any], wfdb_files: ModuleType) -> None:
    channels, expected = [], []
    for signal in record["signals"]:
        gain_per_mv, baseline, adc_zero = signal.pop("scale")
        total = wfdb_files.checksum(signal["samples"])
        total = total % (1 << 16) if signal.pop("unsigned") else total
        first = signal["samples"][0]
        channels.append(wfdb_files.Channel(**signal, tail=f"16 {adc_zero} {first} {total} 0"))
        expected.append((gain_per_mv, adc_zero if baseline is None else baseline))
    with tempfile.TemporaryDirectory() as folder:
        path = wfdb_files.write_record(Path(folder), channels, record["record_line"], newline=record["newline"])
        (found,) = wfdb.read(path)
    samples = np.array([channel.samples for channel in channels])
    assert np.array_equal(found.digital, samples)
    assert found.leads == tuple(channel.name for channel in channels)
    assert found.rate_hz == RATES[record["rate"]]
    assert list(zip(found.gain_per_mv.tolist(), found.baseline.tolist(), strict=True)) == [
        (pytest.approx(gain), baseline) for gain, baseline in expected
    ]
    least = np.array([1 if channel.fmt == 8 else -(1 << (BITS[channel.fmt] - 1)) for channel in channels])[:, None]
    missing = (samples == least) & (least < 0)
    assert np.array_equal(np.zeros_like(missing) if found.missing is None else found.missing, missing)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_frames_and_skew_come_back_and_agree_with_the_package(
    data: st.DataObject, wfdb_files: ModuleType, package: ModuleType
) -> None:
    """One rate: every signal has as many samples per frame. Tails that skew uncovers are missing."""
    fmt, per_frame = data.draw(st.sampled_from([16, 24, 80, 212])), data.draw(st.integers(1, 3))
    n_frames, count = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    skews = data.draw(st.lists(st.integers(0, 14), min_size=count, max_size=count))
    bound = (1 << (BITS[fmt] - 1)) - 1
    channels = [
        wfdb_files.Channel(
            data.draw(hnp.arrays(np.int64, n_frames * per_frame, elements=st.integers(-bound, bound))),
            f"s{place}",
            fmt=fmt,
            per_frame=per_frame,
            skew=skew,
        )
        for place, skew in enumerate(skews)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = wfdb_files.write_record(Path(folder), channels)
        (found,) = wfdb.read(path)
        (scanned,) = wfdb.scan(path)
        stored = package.rdrecord(str(path.with_suffix("")), physical=False, smooth_frames=False, ignore_skew=True)
    assert (found.rate_hz, found.n_samples) == (500.0 * per_frame, n_frames * per_frame)
    assert (scanned.rate_hz, scanned.n_samples) == (found.rate_hz, found.n_samples)
    for row, channel in enumerate(channels):
        assert np.array_equal(stored.e_d_signal[row], channel.samples)
        shift = min(channel.skew * per_frame, len(channel.samples))
        kept = len(channel.samples) - shift
        assert np.array_equal(found.digital[row, :kept], channel.samples[shift:])
        expected = np.arange(len(channel.samples)) >= kept
        assert np.array_equal(expected if found.missing is None else found.missing[row], expected)


def test_signals_at_another_rate_than_the_ecg_are_left_out_by_name(wfdb_files: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    channels = [
        wfdb_files.Channel(rng.integers(-99, 99, 40), "II", per_frame=4),
        wfdb_files.Channel(rng.integers(-99, 99, 10), "RESP", gain="10/NU"),
        wfdb_files.Channel(rng.integers(-99, 99, 40), "V1", per_frame=4),
    ]
    (found,) = wfdb.read(wfdb_files.write_record(tmp_path, channels, "r 3 125 10"))
    assert (found.leads, found.rate_hz) == (("II", "V1"), 500.0)
    assert found.digital.tolist() == [channels[0].samples.tolist(), channels[2].samples.tolist()]
    assert "signals at other rates than the ECG left out" in found.notes
    plain = [replace(channel, name=f"s{place}") for place, channel in enumerate(channels)]
    (found,) = wfdb.read(wfdb_files.write_record(tmp_path, plain, "r 3 125 10"))
    assert (found.leads, found.rate_hz) == (("s0", "s2"), 500.0)  # no lead among them: the fastest
