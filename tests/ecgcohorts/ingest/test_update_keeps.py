"""What `--update` keeps: removed patients out, other cohorts, splits and labels in, and what the source does not show."""

import numpy as np
import pandas as pd
import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest._update import _copies_of_removed
from ecgcohorts.store import load_split, open_store, save_split
from ecgcohorts.store.upkeep.labels import add_labels
from ecgcohorts.store.upkeep.remove import remove_patient

OPTIONS = IngestOptions(shard_records=4)
UPDATE = IngestOptions(shard_records=4, update=True)


@pytest.mark.parametrize("change", ["table", "description"])
def test_removed_stays_removed(source, tmp_path, change):
    """By the patient's id, and by the recording's where the patient is another now; copies and later recordings too."""
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    original = ec.open(store).load_key(None).pseudonym("case", "recording", "CANARYe0")
    is_original = (ec.open(store).index["recording_id"] == np.frombuffer(original, np.uint8)).all(axis=1).any()
    remove_patient(
        store, "case", "CANARYP0" if is_original else "CANARYP9"
    )  # of CANARYe0 and CANARYcopy, the one stored
    remove_patient(store, "case", "CANARYP2")  # CANARYe3, e4, e5
    gone = set(ec.open(store).rejects().query("reason == 'removed'")["recording_id"])
    assert len(gone) == 4
    # All were filed under wrong people; now CANARYe6, who is stored, is one with CANARYe4, who is not.
    for name, person in (("CANARYe3", "X"), ("CANARYe4", "Y"), ("CANARYe6", "Y")):
        source.rows[name] |= {"person": person, "age": "50", "sex": "M"}
    source.add("CANARYlate", 50, person="Y", age="50", date="2021-01-01 00:00:00")
    if change == "description":
        spec = source.spec(mains=60)
        source.rows.pop("CANARYlate")
        (source.folder / "CANARYlate.h5").unlink()
        source.save()
    ingest(source.folder, store, str(spec), UPDATE)
    opened = ec.open(store)
    key = opened.load_key(None)
    out = {key.pseudonym("case", "recording", f"CANARYe{number}").hex() for number in (0, 3, 4, 5, 6)}
    out |= {key.pseudonym("case", "recording", name).hex() for name in ("CANARYcopy", "CANARYlate")}
    assert gone < out
    stored = {one.tobytes().hex() for one in opened.index["recording_id"]}
    assert len(stored) == 4
    assert not out & stored
    assert opened.manifest.earlier == ()  # CANARYe6 must not stay readable in an earlier snapshot
    assert ec.verify(store).ok
    assert not ingest(source.folder, store, str(spec), UPDATE).written
    assert not ingest(source.folder, store, str(spec), OPTIONS).written


def test_a_copy_of_a_removed_recording_in_another_cohort_stays_out(make_cohort, tmp_path):
    north, south, store = make_cohort("north", 3), make_cohort("south", 3, seed=1), tmp_path / "s.zarr"
    south.add("CANARYcopy", north.signals["CANARYREC000v0"])
    ingest(north.folder, store, str(north.spec), OPTIONS)
    ingest(south.folder, store, str(south.spec), OPTIONS)
    remove_patient(store, "north", "CANARYPAT0000")
    stored = len(ec.open(store).index)
    south.add("CANARYnew", north.signals["CANARYREC001v0"] + np.int16(1))
    ingest(south.folder, store, str(south.spec), UPDATE)
    opened = ec.open(store)
    copy = np.frombuffer(opened.load_key(None).pseudonym("south", "recording", "CANARYcopy"), np.uint8)
    assert len(opened.index) == stored + 1
    assert not (opened.index["recording_id"] == copy).all(axis=1).any()
    # By another description, from a source that does not show the copy: it is not forgotten.
    (south.folder / "CANARYcopy.hea").rename(tmp_path / "CANARYcopy.hea")
    south.spec.write_text(south.spec.read_text().replace("mains_hz: 50", "mains_hz: 60"))
    ingest(south.folder, store, str(south.spec), UPDATE)
    (tmp_path / "CANARYcopy.hea").rename(south.folder / "CANARYcopy.hea")
    ingest(south.folder, store, str(south.spec), OPTIONS)
    opened = ec.open(store)
    assert len(opened.index) == stored + 1
    assert not (opened.index["recording_id"] == copy).all(axis=1).any()


def test_copies_of_copies_of_removed_recordings_are_known():
    rows = [("a", "removed", ""), ("b", "duplicate", "a"), ("c", "duplicate", "b"), ("d", "duplicate", "e"),
            ("e", "duplicate", "d"), ("f", "duplicate", "stored"), ("g", "too_short", "")]  # fmt: skip
    rejects = pd.DataFrame(rows, columns=["recording_id", "reason", "duplicate_of"])
    assert _copies_of_removed(rejects) == {"b": "a", "c": "b"}


def test_a_label_goes_with_the_samples_to_the_copy_that_is_kept_now(make_cohort, tmp_path):
    raw, store = make_cohort(patients=4), tmp_path / "s.zarr"
    for name, samples in list(raw.signals.items()):
        raw.add(f"again-{name}", samples)
    firsts = list(raw.folder.glob("CANARY*.hea"))
    kept = {path: path.read_text() for path in firsts}
    for path, text in kept.items():  # nobody has a patient: which copy is kept is chance
        path.write_text(text.replace("Patient ID", "Nothing"))
    ingest(raw.folder, store, str(raw.spec), OPTIONS)
    lines = [f"{name},{number}\n" for number, name in enumerate(raw.signals)]
    (tmp_path / "labels.csv").write_text("id,x\n" + "".join(lines))
    add_labels(store, tmp_path / "labels.csv", "north", id_column="id", columns=["x"])
    before = said_of(store)
    for path, text in kept.items():
        path.write_text(text)
    ingest(raw.folder, store, str(raw.spec), UPDATE)
    assert ec.open(store).index["patient_known"].all()
    assert said_of(store) == before


def said_of(store):
    index = ec.open(store).index
    names = [one.tobytes() for one in index["waveform_digest"]]
    return dict(zip(names, index["label_x"].tolist(), strict=True))


def test_removed_recordings_do_not_come_back_under_other_ids(source, tmp_path):
    store = tmp_path / "s.zarr"
    ingest(source.folder, store, str(source.spec()), OPTIONS)
    remove_patient(store, "case", "CANARYP2")
    other = source.spec(recording="recording: {column: row}", patient="ward")
    with pytest.raises(ec.SpecError, match=r"removed patients cannot be told from 11 that the store never met"):
        ingest(source.folder, store, str(other), UPDATE)


def test_other_ids_for_all_recordings(source, tmp_path):
    store, other = tmp_path / "s.zarr", source.spec(recording="recording: {column: row}")
    ingest(source.folder, store, str(source.spec()), OPTIONS)
    ingest(source.folder, store, str(other), UPDATE)
    source.assert_is_fresh(store, other)


def test_other_ids_of_other_recordings_change_nothing(source, tmp_path):
    """Another hospital's files under the name of the first: what is stored cannot be found in them."""
    store, other = tmp_path / "s.zarr", source.spec(recording="recording: {column: row}")
    ingest(source.folder, store, str(source.spec()), OPTIONS)
    before = source.essence(store)
    source.record("CANARYe0", 60)
    source.record("CANARYe1", 61)
    with pytest.raises(ec.StoreError, match=r"1 recordings of the store are not in this source, neither"):
        ingest(source.folder, store, str(other), UPDATE)  # CANARYe1; of CANARYe0 there is a copy
    assert source.essence(store) == before
    (source.folder / "CANARYe2.h5").unlink()
    (source.folder / "CANARYshort.h5").unlink()
    with pytest.raises(ec.SpecError, match=r"1 recordings of the store cannot be found in this source"):
        ingest(source.folder, store, str(source.spec(mains=60)), UPDATE)
    assert source.essence(store) == before


def test_what_the_source_does_not_show_stays(source, tmp_path):
    """One cohort from several folders: an update from one of them keeps the recordings of the others."""
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    before = ec.open(store)
    wanted = {"age": "77"}
    source.rows["CANARYe3"] |= wanted
    source.save()
    gone = ("CANARYe2", "CANARYe6", "CANARYshort", "CANARYcopy")
    for name in gone:  # e2 has a neighbour that stays, e6 is alone
        (source.folder / f"{name}.h5").unlink()
    report = ingest(source.folder, store, str(spec), UPDATE)
    assert report.total.stored == 9
    after = ec.open(store)
    assert set(before.rejects()["recording_id"]) == set(after.rejects()["recording_id"])

    def facts(opened):
        index, found = opened.index, {}
        for entry in range(len(index)):
            one = {
                name: index[name][entry].tolist()
                for name in index.columns
                if name not in ("row", "patient", "site", "device")
            }
            strip = opened.read(index["row"][entry]).tobytes()
            names = [
                names[code] if code >= 0 else ""
                for names, code in ((index.sites, index["site"][entry]), (index.devices, index["device"][entry]))
            ]
            found[index["recording_id"][entry].tobytes()] = (str(one), strip, names)
        return found

    was, now = facts(before), facts(after)
    assert was.keys() == now.keys()
    assert len([name for name in was if was[name] != now[name]]) == 1
    assert ec.verify(store).ok


def test_other_cohorts_splits_and_own_labels_stay(source, make_cohort, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    north = make_cohort("north", 3)
    ingest(source.folder, store, str(spec), OPTIONS)
    ingest(north.folder, store, str(north.spec), OPTIONS)
    split = splits.by_patient(ec.open(store).index, {"train": 0.5, "test": 0.5}, "kept")
    save_split(store, split)
    table = tmp_path / "mine.csv"
    table.write_text("id,ef\nCANARYe1,55\nCANARYe2,60\n")
    add_labels(store, table, "case", id_column="id", columns=["ef"])
    before = ec.open(store)
    codes = dict(zip(map(bytes, split.recording_id), split.codes.tolist(), strict=True))
    source.record("CANARYshort", 99)
    report = ingest(source.folder, store, str(spec), UPDATE)
    assert not report.lost
    after = ec.open(store)
    assert [one.cohort for one in after.segments] == ["case", "north"]
    assert ec.verify(store).ok
    kept = load_split(after, "kept")
    assert dict(zip(map(bytes, kept.recording_id), kept.codes.tolist(), strict=True)) == codes
    assert np.nansum(after.index["label_ef"]) == 115
    for name in before.index.columns:
        if name not in ("row", "patient"):
            one, two = (opened.index.where(cohort="north") for opened in (before, after))
            np.testing.assert_array_equal(one[name], two[name])
    rows = [opened.index.where(cohort="north")["row"] for opened in (before, after)]
    np.testing.assert_array_equal(before.read(rows[0]), after.read(rows[1]))


def test_a_split_through_a_patient_is_taken_out_and_told(source, tmp_path, capsys):
    store, wrong, right = tmp_path / "s.zarr", source.spec(patient="row"), source.spec()
    ingest(source.folder, store, str(wrong), OPTIONS)
    opened = ec.open(store)
    key = opened.load_key(None)
    one_person = {key.pseudonym("case", "recording", f"CANARYe{number}") for number in (3, 4, 5)}
    for number in range(99):  # the key decides which side a recording is on
        split = splits.by_patient(opened.index, {"train": 0.5, "test": 0.5}, f"leaky{number}")
        pairs = zip(map(bytes, split.recording_id), split.codes.tolist(), strict=True)
        if len({code for name, code in pairs if name in one_person}) == 2:
            break
    save_split(store, split)
    main(["ingest", str(source.folder), str(store), "--cohort", str(right), "--update"])
    assert f"split {split.name!r} had a patient on two sides" in capsys.readouterr().out
    assert "leaky" not in str(sorted(ec.open(store).manifest.files))


def test_the_snapshot_before_stays_readable(source, tmp_path):
    store, spec = tmp_path / "s.zarr", source.spec()
    ingest(source.folder, store, str(spec), OPTIONS)
    before = ec.open(store)
    strips = before.read(before.index["row"])
    source.rows["CANARYe3"] |= {"age": "77"}
    source.save()
    ingest(source.folder, store, str(spec), UPDATE)
    again = open_store(store, generation=1)
    assert again.fingerprint == before.fingerprint
    np.testing.assert_array_equal(again.read(again.index["row"]), strips)
    np.testing.assert_array_equal(before.read(before.index["row"]), strips)
