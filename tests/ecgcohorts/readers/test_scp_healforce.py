"""Healforce's slices: packed samples, leads by Einthoven's law, time by number of the slice, what is refused."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.scp import reader as scp
from ecgcohorts.recording import Recording


@pytest.fixture
def make(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("scp")


def read(path: Path, data: bytes) -> Recording:
    path.write_bytes(data)
    (recording,) = scp.read(path)
    (scanned,) = scp.scan(path)
    assert (scanned.n_samples, scanned.leads, scanned.acquired_at) == (
        recording.n_samples, recording.leads, recording.acquired_at,
    )  # fmt: skip
    return recording


def refused(path: Path, data: bytes) -> Reason:
    with pytest.raises(UnreadableRecording) as caught:
        read(path, data)
    return caught.value.reason


@pytest.mark.parametrize("n_samples", [4, 40, 4500])
def test_four_samples_in_six_bytes_come_back(n_samples: int, make: ModuleType, tmp_path: Path) -> None:
    samples = make.einthoven_samples(n_samples)
    recording = read(tmp_path / "1.SCP", make.healforce_bytes(samples, nv=10_000))
    np.testing.assert_array_equal(recording.digital, samples)
    np.testing.assert_allclose(recording.signal_mv, samples * 1e-2, rtol=1e-12)
    assert ec.read(tmp_path / "1.SCP")[0].source.reader == "scp"


def test_the_whole_range_of_ten_bits(make: ModuleType, tmp_path: Path) -> None:
    samples = np.array([[511, 0, -512, 0], [511, 511, -512, -512], [0, 511, 0, -512]])
    assert read(tmp_path / "1.SCP", make.healforce_bytes(samples)).digital.tolist() == samples.tolist()


@pytest.mark.parametrize(("start", "second"), [(1, 10), (4501, 40)])
def test_a_slice_begins_after_those_before_it(start: int, second: int, make: ModuleType, tmp_path: Path) -> None:
    recording = read(tmp_path / "1.SCP", make.healforce_bytes(make.einthoven_samples(), start=start))
    assert recording.acquired_at == datetime(2019, 8, 8, 0, 4, second)
    assert recording.patient_id == make.CANARIES[2]
    unnamed = read(tmp_path / "1.SCP", make.healforce_bytes(make.einthoven_samples(), patient="00000"))
    assert unnamed.patient_id is None


def test_leads_in_another_order_are_refused(make: ModuleType, tmp_path: Path) -> None:
    samples = make.einthoven_samples()
    assert refused(tmp_path / "1.SCP", make.healforce_bytes(samples[[1, 0, 2]])) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("bent", "reason"),
    [
        ({"n_leads": 1}, Reason.UNSUPPORTED),
        ({"size": 0}, Reason.HEADER),
        ({"size": 174}, Reason.HEADER),
        ({"end": 283_501 + 40}, Reason.HEADER),
        ({"end": 5}, Reason.UNSUPPORTED),
        ({"rate": 0}, Reason.HEADER),
        ({"nv": 0}, Reason.UNSUPPORTED),
        ({"declared": 60_000}, Reason.TRUNCATED),
        ({"declared": 70}, Reason.HEADER),
        ({"declared": 0}, Reason.HEADER),
        ({"declared": 13}, Reason.HEADER),
    ],
)
def test_declared_numbers_that_do_not_fit_are_refused(
    bent: dict[str, Any], reason: Reason, make: ModuleType, tmp_path: Path
) -> None:
    assert refused(tmp_path / "1.SCP", make.healforce_bytes(make.einthoven_samples(), **bent)) is reason


def test_every_changed_byte_is_found_by_the_checksum(make: ModuleType, tmp_path: Path) -> None:
    data = make.healforce_bytes(make.einthoven_samples())
    for place in [0, 1, *range(40, len(data) - 50)]:
        changed = bytearray(data)
        changed[place] ^= 0x10
        assert refused(tmp_path / "1.SCP", bytes(changed)) is Reason.CHECKSUM
    assert read(tmp_path / "1.SCP", data[:-50]).n_samples == 40  # what fills up the file says nothing
