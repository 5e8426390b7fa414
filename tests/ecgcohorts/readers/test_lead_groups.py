"""ECGs stored as on paper, 4 x 2.5 s: put together by the times that DICOM groups and aECG sequence sets state."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ecgcohorts as ec
from ecgcohorts.errors import Reason, RejectedRecording, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import open_reader
from ecgcohorts.readers._shared.lead_groups import TOGETHER, LeadGroup, Placement
from ecgcohorts.recording import Recording

QUARTER = 1250  # samples of 2.5 s at 500 Hz
STARTS_MS = (0, 2500, 5000, 7500)
SAMPLES = np.random.default_rng(3).integers(1, 700, (12, QUARTER))  # never zero: a zero must not come from anywhere
STRIP = np.random.default_rng(4).integers(1, 700, (1, 4 * QUARTER))
OFFSET = 0x00181068
Write = Callable[..., Path]


def expected(starts: Sequence[int], n_samples: int) -> NDArray[np.float64]:
    """(12, time) in mV at 2.5 uV a step, NaN outside each lead's own group."""
    signal = np.full((12, n_samples), np.nan)
    for row in range(12):
        signal[row, starts[row // 3] : starts[row // 3] + QUARTER] = SAMPLES[row] / 400
    return signal


def dicom(writers: Callable[[str], ModuleType], folder: Path, starts_ms: Sequence[Any], *more: Any) -> Path:
    files = writers("dicom")
    groups = [
        files.Group(
            SAMPLES[row : row + 3],
            TWELVE_LEADS[row : row + 3],
            group={OFFSET: None if start is None else ("DS", str(start))},
        )
        for row, start in zip(range(0, 12, 3), starts_ms, strict=True)
    ]
    path = folder / "ecg.dcm"
    path.write_bytes(files.document([*groups, *more]))
    return path


def aecg(writers: Callable[[str], ModuleType], folder: Path, heads: Sequence[str], strip: bool = False) -> Path:
    """Sets with absolute heads (long texts) or relative ones (seconds)."""
    files = writers("hl7_aecg")
    sets = []
    for row, head in zip(range(0, 12, 3), heads, strict=True):
        time = files.absolute(head) if len(head) > 8 else files.relative().replace('"0.000"', f'"{head}"')
        sets.append(
            files.sequence_set(
                time,
                *(
                    files.lead_xml(f"MDC_ECG_LEAD_{TWELVE_LEADS[at].upper()}", SAMPLES[at])
                    for at in range(row, row + 3)
                ),
            )
        )
    if strip:
        sets.append(files.sequence_set(files.absolute(heads[0]), files.lead_xml("MDC_ECG_LEAD_II", STRIP[0])))
    path = folder / "ecg.xml"
    path.write_text(files.document(files.series_xml(*sets)), "utf-8")
    return path


HEADS = [
    f"2019033114{minute}{second}"
    for minute, second in (("05", "58.500"), ("06", "01.000"), ("06", "03.500"), ("06", "06.000"))
]


def one(path: Path) -> Recording:
    (recording,) = ec.read(path)
    (header,) = open_reader(recording.source.reader).scan(path)
    assert (header.leads, header.n_samples) == (recording.leads, recording.n_samples)
    assert TOGETHER in recording.notes
    return recording


def refused(path: Path) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        ec.read(path)
    return caught.value


def ordered(recording: Recording) -> NDArray[np.float64]:
    return recording.signal_mv[
        [[ec.leads.canonical(lead) for lead in recording.leads].index(lead) for lead in TWELVE_LEADS]
    ]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)])
def test_dicom_groups_that_follow_each_other(order: Sequence[int], writers: Any, tmp_path: Path) -> None:
    starts_ms = [STARTS_MS[place] for place in order]
    recording = one(dicom(writers, tmp_path, starts_ms))
    assert recording.duration_s == 10
    np.testing.assert_array_equal(ordered(recording), expected([start // 2 for start in starts_ms], 4 * QUARTER))


def test_absent_parts_are_missing_and_never_zero(writers: Any, tmp_path: Path) -> None:
    recording = one(dicom(writers, tmp_path, STARTS_MS))
    assert recording.missing.sum() == 12 * 3 * QUARTER
    assert not (recording.signal_mv == 0).any()
    with pytest.raises(RejectedRecording) as caught:  # no recipe takes 2.5 s of a lead for ten
        make_strip(recording, CAPE_V1, 50)
    assert caught.value.reason in (Reason.GAPS, Reason.TOO_SHORT)


def test_a_gap_between_dicom_groups_stays_a_gap(writers: Any, tmp_path: Path) -> None:
    recording = one(dicom(writers, tmp_path, (1000, 3600, 6200, 8800)))
    starts = [0, 1300, 2600, 3900]  # the first sample of all is the first of the recording
    np.testing.assert_array_equal(ordered(recording), expected(starts, 3900 + QUARTER))


def test_a_rhythm_strip_beside_the_groups_is_kept_whole(writers: Any, tmp_path: Path) -> None:
    recording = one(dicom(writers, tmp_path, STARTS_MS, writers("dicom").Group(STRIP, ("II",))))
    assert sorted(recording.leads) == sorted(TWELVE_LEADS)
    whole = expected([start // 2 for start in STARTS_MS], 4 * QUARTER)
    whole[1] = STRIP[0] / 400
    np.testing.assert_array_equal(ordered(recording), whole)


def test_each_lead_keeps_the_gain_of_its_own_group(writers: Any, tmp_path: Path) -> None:
    files = writers("dicom")
    groups = [
        files.Group(
            SAMPLES[row : row + 6],
            TWELVE_LEADS[row : row + 6],
            group={OFFSET: ("DS", str(start))},
            channel={0x003A0210: ("DS", size)},
        )
        for row, start, size in ((0, 0, "2.5"), (6, 2500, "5"))
    ]
    (tmp_path / "ecg.dcm").write_bytes(files.document(groups))
    recording = one(tmp_path / "ecg.dcm")
    np.testing.assert_array_equal(recording.signal_mv[:6, :QUARTER], SAMPLES[:6] / 400)
    np.testing.assert_array_equal(recording.signal_mv[6:, QUARTER:], SAMPLES[6:] / 200)


@pytest.mark.parametrize("starts_ms", [
    (None, None, None, None), (0, 2500, 5000, None), (0, 0, 0, 0), (0, 2000, 4000, 6000), (0, 2498, 5000, 7500), (0, 2500, 2500, 5000),
    (0, 2500, 5000, 10**9),
])  # fmt: skip
def test_dicom_groups_without_such_times_are_refused(starts_ms: Sequence[Any], writers: Any, tmp_path: Path) -> None:
    assert refused(dicom(writers, tmp_path, starts_ms)).reason in (Reason.UNSUPPORTED, Reason.LIMIT)


def test_groups_of_other_rates_are_refused(writers: Any, tmp_path: Path) -> None:
    strip = writers("dicom").Group(STRIP, ("II",), rate="250")
    assert refused(dicom(writers, tmp_path, STARTS_MS, strip)).reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "heads", [HEADS, ["0", "2.5", "5.000", "7.5"], [HEADS[0] + "+0100", *(head + "+0100" for head in HEADS[1:])]]
)
def test_sequence_sets_that_follow_each_other(heads: Sequence[str], writers: Any, tmp_path: Path) -> None:
    recording = one(aecg(writers, tmp_path, heads))
    np.testing.assert_array_equal(ordered(recording), expected([0, QUARTER, 2 * QUARTER, 3 * QUARTER], 4 * QUARTER))
    assert recording.missing.sum() == 12 * 3 * QUARTER


def test_a_strip_beside_sequence_sets(writers: Any, tmp_path: Path) -> None:
    recording = one(aecg(writers, tmp_path, HEADS, strip=True))
    np.testing.assert_array_equal(ordered(recording)[1], STRIP[0] / 400)
    assert recording.acquired_at.second == 58


@pytest.mark.parametrize("heads", [
    [HEADS[0]] * 4, [head[:14] for head in HEADS], [*HEADS[:3], "7.5"], ["0"] * 4, ["0", "2.5", "5", "x"], ["", "", "", ""],
])  # fmt: skip
def test_sequence_sets_without_such_times_are_refused(heads: Sequence[str], writers: Any, tmp_path: Path) -> None:
    """Whole seconds cannot say where 2.5 s begin: the sets would overlap."""
    assert refused(aecg(writers, tmp_path, heads)).reason is Reason.UNSUPPORTED


def test_one_lead_in_two_groups_is_refused() -> None:
    """The second may go on where the first ends; nothing says so, and none is dropped in silence."""
    groups = [LeadGroup(("I", "II"), 0, 5), LeadGroup(("MDC_ECG_LEAD_II", "III"), 5, 5)]
    with pytest.raises(UnreadableRecording):
        Placement.of(groups, "x")
