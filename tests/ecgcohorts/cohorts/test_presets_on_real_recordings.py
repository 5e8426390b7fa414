"""The presets on the real samples: how many recordings, whose they are, and what is known about them."""

import csv
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pytest

from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.errors import Reason, RejectedRecording
from ecgcohorts.leads import LIMB_LEADS, select
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import open_reader
from ecgcohorts.readers.wfdb import reader as wfdb

pytestmark = pytest.mark.shared
CINC2011_GRADES = {"1.0": 181, "0.0": 117, "nan": 2}  # two of set a are in neither list


def described(name: str, shared: Path, folder: str = "") -> tuple[CohortSpec, list[Description]]:
    spec, root = CohortSpec.load(name), shared / (folder or name)
    tables = spec.load_tables(root)
    items = spec.sources(root)
    assert [item.path for item in items] == sorted(item.path for item in items)
    assert [item.error for item in items] == [None] * len(items)
    found = [spec.describe(tables, item) for item in items]
    assert len({(d.cohort, d.recording_id) for d in found}) == len(found)
    return spec, found


def patients(found: Sequence[Description]) -> Counter[str]:
    return Counter(d.patient_id for d in found if d.patient_id is not None)


def positives(found: Sequence[Description], label: str) -> int:
    return sum(d.labels[label] == 1 for d in found)


def test_ptb_xl(shared: Path) -> None:
    _, found = described("ptb_xl", shared)
    owners = patients(found)
    assert (len(found), len(owners), sum(owners.values())) == (500, 466, 500)
    repeated = [count for count in owners.values() if count > 1]
    assert (len(repeated), sum(repeated), max(repeated)) == (25, 59, 8)
    assert sum(math.isnan(d.age_years) for d in found) == 4
    assert max(d.age_years for d in found if not math.isnan(d.age_years)) == 90  # the table has a 91
    assert Counter(d.sex for d in found) == {"female": 251, "male": 249}
    assert all(d.acquired_at is not None and d.device and d.site for d in found)
    one = next(d for d in found if d.recording_id == "00001_hr")
    assert (one.patient_id, one.age_years, one.sex, one.device) == ("15709", 56, "female", "CS-12 E")
    assert one.acquired_at == datetime(1984, 11, 9, 9, 17, 34)
    assert {name for name, value in one.labels.items() if value == 1} == {"norm", "scp_norm", "scp_lvolt", "scp_sr"}
    assert one.labels["strat_fold"] == 3


def test_ptb_xl_superclasses_are_those_of_its_own_table(shared: Path) -> None:
    labels = CohortSpec.load("ptb_xl").layouts[0].labels
    with (shared / "ptb_xl" / "scp_statements.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("diagnostic_class")
    published: dict[str, set[str]] = {}
    for row in rows[1:]:
        if row[place]:
            published.setdefault(row[place].lower(), set()).add(row[0])
    assert {name: set(labels[name].codes) for name in published} == published
    assert set(published) == {"norm", "mi", "sttc", "cd", "hyp"}


def test_code15(shared: Path) -> None:
    _, found = described("code15", shared)
    owners = patients(found)
    assert (len(found), len(owners), sum(owners.values())) == (310, 299, 309)
    repeated = [count for count in owners.values() if count > 1]
    assert (len(repeated), sum(repeated)) == (7, 17)
    unknown = [d for d in found if d.patient_id is None]
    assert [d.recording_id for d in unknown] == ["9190_all_data_is_zero"]
    assert math.isnan(unknown[0].age_years)
    assert unknown[0].sex is None
    assert positives(found, "chagas") == 13
    assert {d.mains_hz for d in found} == {60}
    assert all(math.isnan(d.labels["af"]) for d in found)  # not in these headers: unknown, not absent


def test_cinc2021(shared: Path) -> None:
    spec, found = described("cinc2021", shared)
    assert Counter(d.cohort for d in found) == {
        "cpsc2018": 155,
        "cpsc2018_extra": 36,
        "georgia": 74,
        "chapman_shaoxing": 20,
        "cinc2021_ptb_xl": 39,
        "cinc2021_ptb": 3,
    }
    assert len(found) == 327
    assert not patients(found)
    assert sum(math.isnan(d.age_years) for d in found) == 3  # all "NaN"
    assert {d.sex for d in found} == {"male", "female"}
    assert {d.acquired_at for d in found} == {None}  # the header's date is that of the conversion
    assert {d.cohort: d.mains_hz for d in found}["georgia"] == 60
    by_text = [d for d in found if d.cohort == "cpsc2018"]  # 140 headers say AF, I-AVB ... in text, 15 in SNOMED CT
    assert [positives(by_text, label) for label in ("af", "avb1", "rbbb", "lbbb")] == [16 + 4 + 7, 7, 25 + 4 + 4, 8 + 1]
    assert all(math.isnan(d.labels["sb"]) for d in by_text)
    assert set(spec.cohort_names) - {d.cohort for d in found} == {"incart", "ningbo", "cinc2021"}


@pytest.mark.parametrize(
    "name", ["G12EC/E00015", "G12EC/E00018", "G12EC/E00793", "PTB-XL/HR00599", "PTB-XL/HR20715", "PTB/S0004"]
)
def test_a_challenge_header_with_a_wrong_gain_is_refused(name: str, shared: Path) -> None:
    spec = CohortSpec.load("cinc2021")
    (recording,) = wfdb.read(shared / "cinc2021" / f"{name}.hea")
    before = recording.signal_mv.copy()
    with pytest.raises(RejectedRecording, match="expected 1000") as caught:
        spec.apply_rules("georgia", recording)
    assert caught.value.reason == Reason.GAIN
    np.testing.assert_array_equal(recording.signal_mv, before)


def test_all_other_challenge_headers_pass_the_gain_rule(shared: Path) -> None:
    spec = CohortSpec.load("cinc2021")
    refused = []
    for item in spec.sources(shared / "cinc2021"):
        assert item.header is not None
        try:
            spec.apply_rules(spec.cohort_of(item).name, item.header)
        except RejectedRecording:
            refused.append(item.header.recording_id)
    assert refused == ["E00015", "E00018", "E00793", "HR00599", "HR20715", "S0004"]


def test_sami_trop(shared: Path) -> None:
    _, found = described("sami_trop", shared)
    assert len(found) == 5
    assert not patients(found)
    assert positives(found, "chagas") == 5
    assert {d.sex for d in found} == {"male", "female"}
    assert all(18 < d.age_years <= 90 for d in found)


def test_mimic_iv_ecg(shared: Path) -> None:
    _, found = described("mimic_iv_ecg", shared)
    assert patients(found) == {"10012343": 5, "10012688": 2, "10019777": 1}
    assert all(d.acquired_at is not None and d.acquired_at.year > 2100 for d in found)  # shifted, as published
    last = next(d for d in found if d.recording_id == "49865286")
    assert last.acquired_at == datetime(2187, 2, 10, 15, 46)
    assert all(math.isnan(d.age_years) and d.sex is None for d in found)


def test_ptb_diagnostic_without_its_folders_has_no_patients(shared: Path) -> None:
    _, found = described("ptb_diagnostic", shared)
    assert [d.recording_id for d in found] == ["s0010_re", "s0014lre", "s0016lre"]
    assert not patients(found)
    assert {(d.age_years, d.sex) for d in found} == {(81, "female")}
    assert [d.acquired_at for d in found][:2] == [datetime(1990, 10, 1), datetime(1990, 10, 17)]
    assert positives(found, "admitted_mi") == 3
    assert {d.labels["healthy_control"] for d in found} == {0}


def test_ptb_diagnostic_in_its_folders_is_of_one_patient(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "patient001").mkdir()
    for header in (shared / "ptb_diagnostic").glob("*.hea"):
        shutil.copy(header, tmp_path / "patient001")
    _, found = described("ptb_diagnostic", tmp_path, ".")
    assert patients(found) == {"patient001": 3}


def test_ecg_id(shared: Path) -> None:
    _, found = described("ecg_id", shared)
    owners = patients(found)
    assert (len(found), len(owners), sum(owners.values())) == (310, 90, 310)
    assert (sum(count > 1 for count in owners.values()), max(owners.values())) == (89, 22)
    assert all(d.acquired_at is not None and d.acquired_at.year in (2004, 2005) for d in found)
    assert {d.sex for d in found} == {"male", "female"}
    assert (min(d.age_years for d in found), max(d.age_years for d in found)) == (13, 75)


def test_ecg_id_cannot_fill_a_recipe_of_eight_leads(shared: Path) -> None:
    (recording,) = wfdb.read(shared / "ecg_id" / "Person_01" / "rec_1.hea")
    with pytest.raises(RejectedRecording, match=r"no II, V1, .* among 2 signals") as caught:
        make_strip(recording)
    assert caught.value.reason == Reason.LEADS


def test_brugada_huca(shared: Path) -> None:
    _, found = described("brugada_huca", shared)
    assert len(patients(found)) == len(found) == 10
    assert {name: positives(found, name) for name in found[0].labels} == {
        "brugada": 2,
        "basal_pattern": 1,
        "sudden_death": 0,
    }
    assert all(math.isnan(d.age_years) and d.sex is None and d.acquired_at is None for d in found)


def test_cinc2011(shared: Path) -> None:
    _, found = described("cinc2011", shared, "cinc2011_seta")
    assert len(found) == 300
    assert not patients(found)
    grades = Counter(str(d.labels["acceptable"]) for d in found)
    assert grades == CINC2011_GRADES


def test_cinc2011_text_is_in_steps_of_5_uv_and_in_the_order_we_assume(shared: Path) -> None:
    """In another order these are no limb leads, with aVL before aVF for one. In another unit they are no ECGs."""
    spec, root = CohortSpec.load("cinc2011"), shared / "cinc2011_seta"
    tables = spec.load_tables(root)
    reader = open_reader(tables.layout.reader, tables.layout.arrays)
    accepted = [item for item in spec.sources(root, 60) if spec.describe(tables, item).labels["acceptable"] == 1]
    peaks_mv = []
    for item in accepted:
        (recording,) = reader.read(root / item.path)
        stored = select(recording.signal_mv, recording.leads, LIMB_LEADS)
        derived = select(recording.signal_mv[:2], recording.leads[:2], LIMB_LEADS)
        np.testing.assert_allclose(stored, derived, atol=0.006)  # one step of rounding
        above_mv = np.abs(recording.signal_mv - np.median(recording.signal_mv, axis=1, keepdims=True))
        peaks_mv.append(np.percentile(above_mv, 99.5, axis=1).max())
    assert len(accepted) == 40
    assert 1.0 < np.median(peaks_mv) < 2.0  # 60 of PTB-XL: 1.6


def test_a_folder_of_de_identified_muse_exports(shared: Path) -> None:
    _, found = described("muse_folder", shared, "vendor/ge_muse_xml")
    assert [d.recording_id for d in found] == ["braveheart_example1", "braveheart_example2"]
    assert not patients(found)
    assert {d.mains_hz for d in found} == {"auto"}


def test_a_folder_of_philips_exports_with_and_without_its_table(shared: Path, tmp_path: Path) -> None:
    for name in ("1_03_129DYPRG.XML", "1_04_01_2020-5-18_15-48-11.xml"):
        shutil.copy(shared / "vendor" / "philips_sierra_xml" / name, tmp_path)
    _, found = described("philips_folder", tmp_path, ".")
    assert [d.patient_id for d in found] == ["1112010721168bdc", None]
    table = "file,patient_id,age,sex,acquired_at,device,site\n1_04_01_2020-5-18_15-48-11,P7,40,F,,,\n"
    (tmp_path / "ids.csv").write_text(table)
    _, found = described("philips_folder", tmp_path, ".")
    assert [d.patient_id for d in found] == ["1112010721168bdc", "P7"]
    assert (found[1].age_years, found[1].sex) == (40, "female")
    assert found[1].acquired_at == datetime(2020, 5, 18, 15, 48, 11)


def test_a_label_of_the_challenge_is_unlabelled_where_no_record_of_the_source_has_it(shared: Path) -> None:
    counts = {}
    for which in ("scored", "unscored"):
        table = shared / f"metadata/physionetchallenges-evaluation-2021/dx_mapping_{which}.csv"
        with table.open(newline="") as file:
            counts |= {row["SNOMEDCTCode"]: row for row in csv.DictReader(file)}
    columns = {
        "cpsc2018": "CPSC",
        "cpsc2018_extra": "CPSC_Extra",
        "incart": "StPetersburg",
        "cinc2021_ptb": "PTB",
        "cinc2021_ptb_xl": "PTB_XL",
        "georgia": "Georgia",
        "chapman_shaoxing": "Chapman_Shaoxing",
        "ningbo": "Ningbo",
    }
    spec = CohortSpec.load("cinc2021")
    assert {cohort.name for cohort in spec.cohorts} == set(columns)
    for cohort in spec.cohorts:
        absent = {
            name
            for name, label in spec.layouts[0].labels.items()
            if not sum(int(counts[code][columns[cohort.name]]) for code in label.codes if code in counts)
        }
        assert set(cohort.unlabelled) == absent, cohort.name


def test_a_header_scan_of_500_recordings_takes_less_than_a_second(shared: Path) -> None:
    import time

    spec, root = CohortSpec.load("ptb_xl"), shared / "ptb_xl"
    spec.sources(root, limit=1)  # the reader is loaded
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        spec.sources(root)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_code_test_counts_what_its_paper_counts(shared: Path, tmp_path: Path) -> None:
    """The published tables by row, beside as many made tracings."""
    shutil.copytree(shared / "metadata" / "code-test-827", tmp_path / "data")
    with h5py.File(tmp_path / "data" / "ecg_tracings.hdf5", "w") as file:
        file["tracings"] = np.ones((827, 8, 12), np.float32)
    spec = CohortSpec.load("code_test")
    tables = spec.load_tables(tmp_path / "data")
    found = [spec.describe(tables, item) for item in spec.sources(tmp_path / "data")]
    assert len(found) == 827
    counts = {"st": 37, "rbbb": 34, "lbbb": 30, "avb1": 28, "sb": 16, "af": 13}
    assert {name: positives(found, name) for name in counts} == counts
    assert sum(not any(d.labels[name] for name in counts) for d in found) == 681
    assert (min(d.age_years for d in found), max(d.age_years for d in found)) == (17, 90)
    assert round(100 * sum(d.sex == "female" for d in found) / 827) == 61
    assert not patients(found)
    assert all(
        math.isfinite(value) for d in found for value in d.labels.values()
    )  # every grader graded every recording
