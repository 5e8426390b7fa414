"""The same recordings by another recipe are another store; what people worked out about them comes along by id."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.errors import KeyMismatch, RecipeMismatch, SpecError
from ecgcohorts.index import splits
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.ingest.against import verify_against
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.steps import BandPass, Cut
from ecgcohorts.store import load_split, save_split, split_like
from ecgcohorts.store.upkeep.labels import add_labels

NARROW = CAPE_V1.changed(
    "narrow-1",
    CAPE_V1.required(BandPass).model_copy(update={"low_hz": 1.0, "high_hz": 40.0}),
    Cut(strip_s=10.0, window_s=9.0),
)


@pytest.fixture
def narrow(tmp_path) -> IngestOptions:
    """A recipe of one's own, from a file."""
    file = tmp_path / "narrow.yaml"
    file.write_text(yaml.safe_dump(NARROW.model_dump(mode="json")))
    return IngestOptions(recipe=file)


@pytest.fixture
def raw(make_cohort):
    """Six patients, one with a recording of 8 s, which the second recipe refuses."""
    cohort = make_cohort("north", 6)
    samples = next(iter(cohort.signals.values()))
    cohort.add("CANARYBRIEF", np.roll(samples, 99, axis=1)[:, :4000], **{"Patient ID": "CANARYPAT0001"})
    return cohort


@pytest.fixture
def old(raw, tmp_path) -> Path:
    folder = tmp_path / "old.zarr"
    ingest(raw.folder, folder, str(raw.spec))
    index = ec.open(folder).index
    save_split(folder, splits.by_patient(index, {"train": 0.6, "test": 0.4}, "study"))
    save_split(folder, splits.nested(index, "curve"))
    return folder


@pytest.fixture
def new(raw, old, narrow, tmp_path) -> Path:
    folder = tmp_path / "new.zarr"
    ingest(raw.folder, folder, str(raw.spec), narrow)
    return folder


def names_by_id(store: ec.Store, split: ec.Split) -> dict[str, str]:
    return dict(zip(store.index.to_pandas()["recording_id"], split.names(store.index), strict=True))


def test_the_same_recordings_under_the_same_pseudonyms(old, new, raw):
    a, b = ec.open(old), ec.open(new)
    assert (a.recipe.name, b.recipe.name) == ("cape-v1", "narrow-1")
    mine, theirs = (set(store.index.to_pandas()["recording_id"]) for store in (a, b))
    assert theirs < mine
    assert len(mine - theirs) == 1
    assert {one.tobytes() for one in a.index.patient_ids} == {one.tobytes() for one in b.index.patient_ids}
    rows = [store.index["row"][store.index["recording_id"][:, 0].argsort()[0]] for store in (a, b)]
    assert not np.array_equal(a.read(rows[0]), b.read(rows[1]))
    assert verify_against(new, raw.folder, str(raw.spec)).ok
    assert verify_against(old, raw.folder, str(raw.spec)).ok


def test_recipes_never_mix(old, new, raw, narrow):
    with pytest.raises(RecipeMismatch, match=r"found a store of recipe cape-v1, expected narrow-1"):
        ingest(raw.folder, old, str(raw.spec), narrow)
    with pytest.raises(RecipeMismatch, match="found recipe narrow-1, expected cape-v1"):
        ec.open([old, new])


@pytest.mark.parametrize("name", ["study", "curve"])
def test_a_split_comes_along_by_id(old, new, name):
    a, b = ec.open(old), ec.open(new)
    kept = load_split(a, name)
    carried = split_like(b, a, name)
    assert carried.definition == kept.definition
    expected, found = names_by_id(a, kept), names_by_id(b, carried)
    assert found == {one: expected[one] for one in found}
    assert len(carried.codes) == len(b.index) == len(a.index) - 1
    save_split(new, carried)
    again = ec.open(new)
    np.testing.assert_array_equal(load_split(again, name).column(again.index), carried.column(b.index))
    assert ec.verify(new).ok
    anew = splits.make_split(b.index, name, kept.definition.rule)  # or by its salt: everybody stays where they were
    np.testing.assert_array_equal(anew.column(b.index), carried.column(b.index))


def test_recordings_that_the_old_store_has_not_are_in_no_part(old, raw, narrow, tmp_path):
    raw.add("CANARYNEW", np.roll(next(iter(raw.signals.values())), 700, axis=1), **{"Patient ID": "CANARYPAT0002"})
    ingest(raw.folder, tmp_path / "more.zarr", str(raw.spec), narrow)
    store = ec.open(tmp_path / "more.zarr")
    assert (split_like(store, ec.open(old), "study").column(store.index) < 0).sum() == 1


def test_labels_are_applied_again(old, new, raw, tmp_path):
    with (tmp_path / "ef.csv").open("w", newline="") as file:
        rows = [["id", "lvef"], *([f"CANARYPAT{patient:04d}", 40 + patient] for patient in range(6))]
        csv.writer(file).writerows(rows)
    for folder in (old, new):
        add_labels(folder, tmp_path / "ef.csv", "north", id_column="id", kind="patient", columns=["lvef"])
    values = [
        dict(ec.open(folder).index.to_pandas()[["recording_id", "label_lvef"]].to_numpy()) for folder in (old, new)
    ]
    assert {one: values[0][one] for one in values[1]} == values[1]
    assert len(set(values[1].values())) == 6


def test_what_cannot_come_along_is_refused(old, new, raw, narrow, make_cohort, tmp_path):
    key = tmp_path / "other.key"
    key.write_text("ab" * 32)
    ingest(raw.folder, tmp_path / "stranger.zarr", str(raw.spec), replace(narrow, key_file=key))
    with pytest.raises(KeyMismatch, match=r"another pseudonym key than .*old\.zarr.*Make the split anew"):
        split_like(ec.open(tmp_path / "stranger.zarr"), ec.open(old), "study")
    south = make_cohort("south", 2, seed=5)
    ingest(south.folder, tmp_path / "south.zarr", str(south.spec))
    with pytest.raises(SpecError, match=r"found no recording of split 'study' of .*old\.zarr"):
        split_like(ec.open(tmp_path / "south.zarr"), ec.open(old), "study")
    with pytest.raises(SpecError, match="found no split 'other', expected one of: curve, study"):
        split_like(ec.open(new), ec.open(old), "other")


def test_a_person_who_would_be_on_two_sides_is_refused(old, new):
    """The new store knows that two patients of the old one are one: their recordings have another patient there."""
    a, b = ec.open(old), ec.open(new)
    one, other = (part.patient_ids[0].copy() for part in load_split(a, "study").of(b.index).values())
    ids = b.index["patient_id"]
    ids[(ids == one).all(axis=1)] = other
    with pytest.raises(SpecError, match="found 1 patients in more than one of train, test"):
        split_like(b, a, "study")


def test_the_command(old, new, monkeypatch, capsys):
    monkeypatch.chdir(old.parent)
    cli.main(["split", "new.zarr", "study", "--like", "old.zarr"])
    assert " study " in capsys.readouterr().out
    store = ec.open(new)
    kept = split_like(store, ec.open(old), "study")
    np.testing.assert_array_equal(load_split(store, "study").column(store.index), kept.column(store.index))
    for text, words in (
        ("split new.zarr x --like old.zarr", "found no split 'x'"),
        ("split new.zarr study --like old.zarr --by nested", "found --by beside --like"),
        ("split new.zarr study --like nothing.zarr", "nothing.zarr: found no such folder"),
        ("split new.zarr --like old.zarr", "--like needs the name of a split"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(text.split())
        assert (stopped.value.code, words in capsys.readouterr().err) == (2, True), text
    shutil.rmtree(old)
    assert ec.verify(new).ok  # nothing of the old store is needed any more
