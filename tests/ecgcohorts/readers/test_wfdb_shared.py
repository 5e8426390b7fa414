"""Own reader against the `wfdb` package, on every real record at hand that both accept."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared import units as _units
from ecgcohorts.readers.wfdb import reader as wfdb

# Folder -> records, refused by the package (a dot in the record name), refused by us (checksum).
FOLDERS = {
    "ptb_xl": (600, 0, 0),
    "code15": (310, 0, 0),
    "cinc2021": (327, 44, 0),
    "sami_trop": (5, 0, 0),
    "mimic_iv_ecg": (8, 0, 0),
    "brugada_huca": (10, 0, 0),
    "ptb_diagnostic": (3, 0, 0),
    "ecg_id": (310, 0, 11),
    "wfdb_samples": (5, 0, 0),
}
# First 4 or 8 kB overwritten with 0xFF as published: natural positives for the checksum.
DAMAGED_ECG_ID = {
    *("Person_13/rec_2", "Person_15/rec_1", "Person_24/rec_5", "Person_25/rec_4", "Person_26/rec_3", "Person_27/rec_3"),
    *("Person_28/rec_4", "Person_32/rec_6", "Person_44/rec_1", "Person_72/rec_3", "Person_83/rec_1"),
}

pytestmark = pytest.mark.shared


class Specs:
    """The two uses the package makes of its field tables, without pandas: thirty times faster, same answers."""

    def __init__(self, table: Any) -> None:
        self.index = list(table.index)
        self.loc = {(row, column): table.loc[row, column] for row in table.index for column in table.columns}


@pytest.fixture
def quick(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("RECORD_SPECS", "SIGNAL_SPECS"):
        monkeypatch.setattr(package.io._header, name, Specs(getattr(package.io._header, name)))
    return package


def by_package(package: ModuleType, path: Path) -> Any:
    try:
        return package.rdrecord(str(path.with_suffix("")), physical=False)
    except package.io.header.HeaderSyntaxError:
        return None


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_readers_agree_on_every_record(folder: str, shared: Path, quick: ModuleType) -> None:
    if folder == "wfdb_samples":
        pytest.importorskip("soundfile")
    paths = sorted((shared / folder).rglob("*.hea"))
    refused = {"package": 0, "ours": 0}
    for path in paths:
        try:
            (ours,) = wfdb.read(path)
        except UnreadableRecording as error:
            refused["ours"] += error.reason is Reason.CHECKSUM
            continue
        theirs = by_package(quick, path)
        if theirs is None:
            refused["package"] += 1
            continue
        assert np.array_equal(ours.digital, theirs.d_signal.T), path
        assert (ours.rate_hz, list(ours.leads)) == (theirs.fs, theirs.sig_name), path
        assert ours.missing is None
        per_mv = [
            _units.steps_per_mv(gain, unit, "", "") for gain, unit in zip(theirs.adc_gain, theirs.units, strict=True)
        ]
        np.testing.assert_array_equal(ours.gain_per_mv, per_mv)
        np.testing.assert_array_equal(ours.baseline, theirs.baseline)
        physical = theirs.dac().T * (np.array(theirs.adc_gain) / per_mv)[:, None]
        np.testing.assert_allclose(ours.signal_mv, physical, rtol=1e-12, atol=0)
    assert (len(paths), refused["package"], refused["ours"]) == FOLDERS[folder]


def test_exactly_the_eleven_overwritten_ecg_id_records_fail_their_checksum(shared: Path) -> None:
    refused = set()
    for path in (shared / "ecg_id").rglob("*.hea"):
        try:
            list(wfdb.read(path))
        except UnreadableRecording as error:
            assert error.reason is Reason.CHECKSUM  # noqa: PT017 - the set below says which may raise at all
            refused.add(f"{path.parent.name}/{path.stem}")
    assert refused == DAMAGED_ECG_ID


def test_a_scan_says_the_same_of_every_record(shared: Path) -> None:
    paths = [
        path
        for folder in ("cinc2021", "code15", "wfdb_samples", "ptb_diagnostic")
        for path in (shared / folder).rglob("*.hea")
    ]
    assert len(paths) == 645
    for path in paths:
        (scanned,) = wfdb.scan(path)
        (read,) = wfdb.read(path)
        assert (scanned.n_samples, scanned.leads, scanned.rate_hz) == (read.n_samples, read.leads, read.rate_hz), path
        assert (scanned.fields, scanned.acquired_at) == (read.fields, read.acquired_at), path
