"""Real text recordings by manifests that state what they do not: the unit is an assumption of these tests."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays import reader as arrays
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording

pytestmark = pytest.mark.shared
CHALLENGE_2011 = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")  # by Goldberger


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def limb_error(recording: Recording) -> int:
    """The largest difference, in half steps, between the limb leads and what Einthoven and Goldberger say they are."""
    names = ("I", "II", "III", "aVR", "aVL", "aVF")
    rows = recording.digital[[recording.leads.index(name) for name in names]].astype(np.int64)
    one, two, three, right, left, foot = rows
    differences = (two - one - three, 2 * right + one + two, 2 * left + three - one, 2 * foot - two - three)
    return max(int(np.abs(each).max()) for each in differences)


@pytest.mark.parametrize(("name", "leads"), [
    ("tereshchenko_testing_ecg_12lead.txt", TWELVE_LEADS), ("tereshchenko_15leads.txt", (*TWELVE_LEADS, "X", "Y", "Z")),
])  # fmt: skip
def test_text_exports_of_twelve_and_fifteen_leads(
    name: str, leads: tuple[str, ...], files: ModuleType, shared: Path, tmp_path: Path
) -> None:
    """Microvolts without a fraction, 500 Hz (as its maker's other exports)."""
    source = shared / "vendor" / "text_12lead" / name
    (tmp_path / name).write_bytes(source.read_bytes())
    keys = {"leads": f"[{', '.join(leads)}]", "samples": 5000, "skip_lines": 6, "separator": "space"}
    (recording,) = ec.read(files.manifest(tmp_path / "arrays.yaml", files="['*.txt']", **keys))
    rows = [line.split() for line in source.read_text("ascii").splitlines()[6:]]
    np.testing.assert_array_equal(recording.digital.T, np.array(rows, int))
    assert recording.digital.shape == (len(leads), 5000)
    assert limb_error(recording) <= 4  # fractions were cut off in each lead
    assert 0.3 < np.abs(recording.signal_mv).max() < 5


def test_the_first_rows_of_the_twelve_lead_export(shared: Path) -> None:
    description = ArrayDescription(
        kind="csv", rate_hz=500, unit="uV", leads=TWELVE_LEADS, axes="time_lead", skip_lines=6, separator="space"
    )
    path = shared / "vendor" / "text_12lead" / "tereshchenko_testing_ecg_12lead.txt"
    (recording,) = arrays.described(description).read(path)
    assert recording.digital[:, 0].tolist() == [19, -19, -39, 0, 29, -29, 9, 9, 9, 9, -9, -19]
    assert recording.digital[:, -1].tolist()[-3:] == [48, 29, -24]
    assert recording.notes == (arrays.UNDECLARED,)


def test_the_challenge_of_2011(files: ModuleType, shared: Path, tmp_path: Path) -> None:
    """All 300: index and twelve leads, the limb leads consistent, 5 uV a step (assumed; the files say nothing)."""
    folder = shared / "cinc2011_seta"
    for path in folder.glob("*.txt.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    keys = {
        "leads": f"[{', '.join(CHALLENGE_2011)}]",
        "unit": "mV",
        "steps_per_unit": 200,
        "samples": 5000,
        "columns": list(range(1, 13)),
    }
    path = files.manifest(tmp_path / "arrays.yaml", files="['*.txt.gz']", **keys)
    found = list(arrays.read(path))
    assert len(found) == 300
    assert {recording.digital.shape for recording in found} == {(12, 5000)}
    assert {recording.gain_per_mv[0] for recording in found} == {200.0}
    assert max(map(limb_error, found)) <= 1
    first = next(recording for recording in found if recording.recording_id == "1002867")
    rows = gzip.decompress((folder / "1002867.txt.gz").read_bytes()).decode().splitlines()
    np.testing.assert_array_equal(first.digital.T, [[int(cell) for cell in row.split(",")[1:]] for row in rows])


def test_a_column_too_many_is_refused_and_not_taken_for_a_lead(shared: Path) -> None:
    description = ArrayDescription(kind="csv", rate_hz=500, unit="uV", leads=TWELVE_LEADS, axes="time_lead")
    with pytest.raises(UnreadableRecording) as caught:
        list(arrays.described(description).read(shared / "cinc2011_seta" / "1002867.txt.gz"))
    assert caught.value.reason is Reason.LEADS


def test_challenge_matlab_files_hold_what_their_headers_read(shared: Path) -> None:
    """MATLAB 4, `val` (lead, time): the reader of WFDB decodes the same file on its own."""
    folder = shared / "cinc2021" / "PTB-XL"
    for header in sorted(folder.glob("*.hea"))[:20]:
        (known,) = ec.read(header)
        description = ArrayDescription(
            kind="matlab",
            name="val",
            rate_hz=500,
            unit="uV",
            leads=known.leads,
            axes="lead_time",
            samples=known.n_samples,
        )
        (recording,) = arrays.described(description).read(header.with_suffix(".mat"))
        np.testing.assert_array_equal(recording.digital, known.digital)
