"""Recipe `cape-v1` on real recordings: equal to plain SciPy, and the outcomes that were measured before it was written."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecgcohorts.errors import Reason, RejectedRecording, UnreadableRecording
from ecgcohorts.leads import select
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.filter import resample_and_filter
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import _check_amplitude, _cut_strip, _p99, make_strip
from ecgcohorts.readers.wfdb import reader as wfdb
from ecgcohorts.recording import Recording

pytestmark = pytest.mark.shared


def read(path: Path) -> Recording:
    return next(iter(wfdb.read(path)))


def headers(folder: Path, at_most: int) -> list[Path]:
    """Headers spread evenly over a folder, at any depth."""
    found = sorted(folder.rglob("*.hea"))
    return found[:: max(1, len(found) // at_most)][:at_most]


def readable(folder: Path, at_most: int) -> Iterator[Recording]:
    yield from (read(path) for path in headers(folder, at_most))


def allowed_uv(rate_hz: float) -> float:
    """From SciPy's own chain, ends included: rounding alone, or with what its resampling filter folds back."""
    return 0.501 if rate_hz == CAPE_V1.rate_hz else 2.5


@pytest.mark.parametrize(
    ("folder", "at_most", "mains_hz"),
    [
        ("ptb_xl/records500", 50, 50),
        ("ptb_xl/records100", 10, 50),
        ("cinc2021", 50, "auto"),
        ("mimic_iv_ecg", 8, 60),
        ("sami_trop", 5, 60),
    ],
)
def test_strips_are_the_scipy_reference(made, shared, folder, at_most, mains_hz):
    compared = 0
    for recording in readable(shared / folder, at_most):
        try:
            strip = make_strip(recording, mains_hz=mains_hz)
        except RejectedRecording:
            continue
        eight_mv = select(recording.signal_mv, recording.leads)
        alive = np.flatnonzero(eight_mv.any(axis=0))
        notch_hz = strip.quality.columns["notch_hz"]
        expected = made.reference_mv(
            eight_mv[:, alive[0] : alive[-1] + 1], recording.rate_hz, None if np.isnan(notch_hz) else notch_hz
        )
        found = strip.samples[:, : strip.valid_stop]
        assert np.abs(found - 1000 * expected).max() <= allowed_uv(recording.rate_hz), recording.recording_id
        compared += 1
    assert compared >= 0.9 * at_most


def test_code_recordings_shorter_than_seven_seconds_are_refused_as_such(made, shared):
    outcome: Counter[Reason | None] = Counter()
    for path in sorted((shared / "code15").glob("*.hea")):
        recording = read(path)
        try:
            strip = make_strip(recording, mains_hz=60)
        except RejectedRecording as refused:
            outcome[refused.reason] += 1
            continue
        outcome[None] += 1
        eight_mv = select(recording.signal_mv, recording.leads)
        alive = np.flatnonzero(eight_mv.any(axis=0))
        expected = made.reference_mv(eight_mv[:, alive[0] : alive[-1] + 1], recording.rate_hz, 60)
        error_uv = np.abs(strip.samples[:, : strip.valid_stop] - 1000 * expected).max()
        assert error_uv <= allowed_uv(recording.rate_hz), path.stem
    assert outcome == {None: 302, Reason.TOO_SHORT: 6, Reason.EMPTY: 1, Reason.AMPLITUDE: 1}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cinc2021/G12EC/E00015", Reason.AMPLITUDE),  # gain 4880 where 1000 is right
        ("cinc2021/G12EC/E00018", Reason.AMPLITUDE),
        ("cinc2021/G12EC/E00793", None),  # the same, in a heart of large voltages: not seen
        ("cinc2021/PTB-XL/HR00599", None),  # gain 200 where 1000 is right: not seen
        ("cinc2021/PTB-XL/HR20715", None),
        ("cinc2021/PTB/S0004", Reason.AMPLITUDE),  # gain 2,000,000 per mV
        ("code15/9190_all_data_is_zero", Reason.EMPTY),
        ("code15/1111554", Reason.AMPLITUDE),  # saturated
        ("code15/9190_low_sample_rate", None),  # a wrong rate nobody can see
    ],
)
def test_extreme_recordings(shared, name, reason):
    recording = read(shared / f"{name}.hea")
    if reason is None:
        make_strip(recording)
        return
    with pytest.raises(RejectedRecording) as refused:
        make_strip(recording)
    assert refused.value.reason is reason


def test_the_one_lead_recording_of_112_millivolts(shared):
    """Its second half is damaged: refused as a whole, while the strip, the first 10 s, is an ordinary ECG."""
    recording = read(shared / "ecg_id/Person_76/rec_2.hea")
    lead_mv = recording.signal_mv[:1]
    first_mv, _, _ = _cut_strip(lead_mv, recording.rate_hz, CAPE_V1)
    whole_mv, strip_mv = (
        resample_and_filter(part_mv, recording.rate_hz, (4, 5), CAPE_V1, None) for part_mv in (lead_mv, first_mv)
    )
    with pytest.raises(RejectedRecording, match=r"found an amplitude of 11\d mV"):
        _check_amplitude(_p99(whole_mv), CAPE_V1)
    assert _check_amplitude(_p99(strip_mv), CAPE_V1) == pytest.approx(0.42, abs=0.01)


@pytest.mark.parametrize(
    ("name", "n_leads", "mains_hz", "score_db"),
    [("ptb_diagnostic/s0010_re", 15, 50.0, 5.4), ("wfdb_samples/100", 2, 60.0, 10.5)],
)
def test_mains_scores_measured_before(shared, name, n_leads, mains_hz, score_db):
    recording = read(shared / f"{name}.hea")
    first_mv = recording.signal_mv[:n_leads, : int(10 * recording.rate_hz)]
    density = quality.power_density(first_mv, recording.rate_hz)
    assert quality.mains_score(density, mains_hz) == pytest.approx(score_db, abs=0.5)


def test_ptb_xl_is_filtered_already_and_code_is_not(shared):
    hum = {"ptb_xl/records500": [], "code15": []}
    for folder, scores in hum.items():
        for recording in readable(shared / folder, 60):
            try:
                columns = make_strip(recording).quality.columns
            except RejectedRecording:
                continue
            scores.append(max(columns["mains_50_before_db"], columns["mains_60_before_db"]))
    assert np.mean(np.array(hum["ptb_xl/records500"]) >= quality.MAINS_DB) == 0
    assert np.mean(np.array(hum["code15"]) >= quality.MAINS_DB) > 0.2


def test_swapped_arms_in_real_recordings(shared):
    """Half of the swaps are seen, and hardly any recording is accused."""
    as_is = swapped = total = 0
    for recording in readable(shared / "ptb_xl/records500", 100):
        filtered_mv = make_strip(recording).samples / 1000
        as_is += quality._lead_i_inverted(filtered_mv, CAPE_V1)
        filtered_mv[1] -= filtered_mv[0]
        filtered_mv[0] *= -1
        swapped += quality._lead_i_inverted(filtered_mv, CAPE_V1)
        total += 1
    assert total == 100
    assert as_is <= 1
    assert swapped >= 50


@pytest.mark.parametrize(
    ("name", "flag"), [("code15/919803", Flag.EINTHOVEN), ("cinc2021/CPSC2018/A0115", Flag.FLAT_LEAD)]
)
def test_flags_of_real_recordings(shared, name, flag):
    assert make_strip(read(shared / f"{name}.hea")).quality.flags & flag
    sound = make_strip(read(shared / "ptb_xl/records500/00000/00010_hr.hea")).quality
    assert not sound.flags & flag


def test_no_real_recording_is_taken_for_scaled(shared):
    # Every WFDB record at hand: twelve leads of seven sources, and one lead of ECG-ID.
    looked = Counter[str]()
    for path in sorted(shared.rglob("*.hea")):
        try:
            recording = read(path)
        except UnreadableRecording:
            continue
        assert not quality._scaling(recording), path
        looked[path.relative_to(shared).parts[0]] += 1
    assert looked.total() > 1500, looked
    assert {"ptb_xl", "cinc2021", "code15", "ecg_id", "mimic_iv_ecg", "brugada_huca", "sami_trop"} <= set(looked)
