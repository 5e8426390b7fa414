"""Five real cohorts into one store: every input accounted for, copies found, odd files treated as their source says."""

import pytest

import ecgcohorts as ec
from ecgcohorts.ingest import ingest

COHORTS = ("ptb_xl", "code15", "cinc2021", "sami_trop", "mimic_iv_ecg")


@pytest.fixture(scope="module")
def ingested(shared, tmp_path_factory):
    home = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home))
        patch.setattr("os.fsync", lambda handle: None)
        reports = {name: ingest(shared / name, home / "real.zarr", name) for name in COHORTS}
    return reports, ec.open(home / "real.zarr")


@pytest.mark.shared
def test_every_input_is_stored_a_copy_or_refused(ingested):
    reports, store = ingested
    assert {name: report.total.inputs for name, report in reports.items()} == {
        "ptb_xl": 500,
        "code15": 310,
        "cinc2021": 327,
        "sami_trop": 5,
        "mimic_iv_ecg": 8,
    }
    assert all(part.balanced() for report in reports.values() for part in report.accounting.values())
    assert len(store.index) == sum(report.total.stored for report in reports.values())
    assert ec.verify(store.path).ok


@pytest.mark.shared
def test_code_recordings_too_short_empty_or_saturated_are_refused_as_such(ingested):
    reports, _ = ingested
    assert reports["code15"].total.rejected == {"empty_signal": 1, "implausible_amplitude": 1, "too_short": 6}


@pytest.mark.shared
def test_the_record_with_an_altered_rate_is_found_to_be_a_copy(ingested):
    """`9190_low_sample_rate` has the samples of `9190`: no one can see the wrong rate, but the digest sees the copy."""
    reports, _ = ingested
    assert reports["code15"].total.duplicates == 2


@pytest.mark.shared
def test_ptb_xl_records_that_come_again_in_the_challenge_are_found(ingested):
    reports, store = ingested
    assert reports["cinc2021"].accounting["cinc2021_ptb_xl"].duplicates == 10
    rejects = store.rejects()
    again = rejects[(rejects["cohort"] == "cinc2021_ptb_xl") & (rejects["reason"] == "duplicate")]
    frame = store.index.to_pandas().set_index("recording_id")
    assert set(frame.loc[again["duplicate_of"], "cohort"]) == {"ptb_xl"}


@pytest.mark.shared
def test_headers_the_wfdb_package_refuses_are_read_and_wrong_gains_quarantined(ingested):
    reports, _ = ingested
    georgia = reports["cinc2021"].accounting["georgia"]
    assert (georgia.inputs, georgia.stored, georgia.duplicates) == (74, 70, 1)
    assert georgia.rejected == {"unexpected_gain": 3}


@pytest.mark.shared
def test_patients_are_who_the_sources_say(ingested):
    _, store = ingested
    known = {name: store.index.where(cohort=name) for name in ("ptb_xl", "code15", "mimic_iv_ecg")}
    assert known["mimic_iv_ecg"].n_patients == 3
    assert sorted(known["mimic_iv_ecg"]["patient"].tolist().count(patient) for patient in range(3)) == [1, 2, 5]
    assert known["ptb_xl"].n_patients == 465  # one of 466 had copies only
    assert known["ptb_xl"]["patient_known"].all()
    assert not store.index.where(cohort="cpsc2018")["patient_known"].any()
