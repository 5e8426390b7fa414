"""What weights have seen of a store: counted by waveform, by hand as well, and refused in evaluations."""

import hmac
import json
import shutil
from hashlib import sha256

import numpy as np
import pytest

from capezoo.evaluate.measure.parts import Parts
from capezoo.evaluate.study import _require_unseen, study
from capezoo.zoo import load, overlap, publish, verify, write_weights
from capezoo.zoo.digests import seen, training_digests
from capezoo.zoo.files import CARD, DIGESTS, read_card
from ecgcohorts.errors import KeyMismatch, SourceError, SpecError
from ecgcohorts.index import splits
from ecgcohorts.store import open_store
from ecgcohorts.store.splits import save_split


@pytest.fixture(scope="module")
def weights(run_folder, tmp_path_factory):
    return publish(run_folder, tmp_path_factory.mktemp("w") / "weights", digests="plain")


@pytest.fixture(scope="module")
def store(simulated):
    return open_store(simulated / "store.zarr")


def test_a_store_that_was_trained_on_is_counted_as_the_run_counted(weights, store, run_folder):
    found = overlap(weights, store)
    run = {part["name"]: part for part in json.loads((run_folder / "data.json").read_text())["cohorts"]}
    assert [group.cohort for group in found.groups] == ["north", "river"]
    for group in found.groups:
        assert (group.seen_records, group.seen_patients) == (
            run[group.cohort]["records"],
            run[group.cohort]["patients"],
        )
        assert 0 < group.seen_patients < group.patients == 36
    assert found.training_records == len(training_digests(weights)) == found.seen_records
    assert (found.name, found.split, found.store_fingerprint) == ("tiny_x", None, store.fingerprint)


def test_seen_equals_a_comparison_one_by_one(store):
    rng = np.random.default_rng(0)
    digests = store.index["waveform_digest"]
    trained = np.concatenate([digests[rng.permutation(len(digests))[:20]], rng.integers(0, 256, (30, 16)).astype("u1")])
    known = {bytes(row) for row in trained}
    record, patient = seen(store.index, trained)
    assert record.tolist() == [bytes(row) in known for row in digests]
    touched = {p for p, hit in zip(store.index["patient"], record, strict=True) if hit}
    assert patient.tolist() == [p in touched for p in store.index["patient"]]
    assert 20 == record.sum() < patient.sum()
    assert not seen(store.index, trained[:0])[0].any()


def test_parts_of_a_split_are_counted_apart(weights, simulated, tmp_path):
    """The part that training held out is clean, by the same rule that held it out."""
    shutil.copytree(simulated / "store.zarr", tmp_path / "store.zarr")
    held_out = read_card(weights).training.run.held_out
    shares = {"held_out": held_out.fraction, "train": 1 - held_out.fraction}
    whole = open_store(tmp_path / "store.zarr")
    parts = whole.index.split_by_patient(shares, held_out.salt)
    kept = splits.by_patient(whole.index, {"a": 0.5, "b": 0.5}, "halves")
    save_split(tmp_path / "store.zarr", kept)
    store = open_store(tmp_path / "store.zarr")
    found = overlap(weights, store, "halves")
    assert {(group.cohort, group.part) for group in found.groups} == {(c, p) for c in ("north", "river") for p in "ab"}
    assert sum(group.seen_records for group in found.groups) == overlap(weights, store).seen_records
    code = kept.column(store.index)
    record, _ = seen(store.index, training_digests(weights))
    for group in found.groups:
        here = (code == "ab".index(group.part)) & (store.index["cohort"] == store.index.cohorts.index(group.cohort))
        assert (group.records, group.seen_records) == (here.sum(), (here & record).sum())
    assert not seen(parts["held_out"], training_digests(weights))[1].any()
    with pytest.raises(SpecError, match="found no split 'thirds'"):
        overlap(weights, store, "thirds")


def test_recordings_in_no_part_are_named_so(weights, simulated, tmp_path):
    shutil.copytree(simulated / "store.zarr", tmp_path / "store.zarr")
    index = open_store(tmp_path / "store.zarr").index
    save_split(tmp_path / "store.zarr", splits.by_patient(index.where(cohort="north"), {"a": 1.0}, "north"))
    found = overlap(weights, open_store(tmp_path / "store.zarr"), "north")
    assert [(group.cohort, group.part) for group in found.groups] == [("north", "a"), ("river", "in no part")]


def test_weights_that_say_nothing_are_not_taken_for_clean(weights, store, tmp_path):
    card = read_card(weights)
    silent = write_weights(
        tmp_path / "silent",
        load(weights),
        card.model_copy(update={"training": card.training.model_copy(update={"record_digests": None})}),
    )
    with pytest.raises(SourceError, match=r"found no training_digests.bin.*Nobody can say what"):
        overlap(silent, store)
    with pytest.raises(SpecError, match=r"tiny_x: found no list of its training recordings.*--allow-seen"):
        study([str(silent)], store, tmp_path / "out", 1, {"ood": {"train_cohort": "north"}})


@pytest.mark.parametrize("damage", ["gone", "shorter", "other"])
def test_digests_that_are_not_the_cards_are_refused(weights, store, tmp_path, damage):
    copy = shutil.copytree(weights, tmp_path / "copy")
    data = (copy / DIGESTS).read_bytes()
    (copy / DIGESTS).unlink()
    if damage != "gone":
        (copy / DIGESTS).write_bytes(data[:-16] if damage == "shorter" else data[16:] + data[:16])
    with pytest.raises(SourceError, match=r"training_digests.bin: found .*Fetch the folder again"):
        overlap(copy, store)


def test_an_evaluation_on_what_was_trained_on_is_refused_before_the_long_part(weights, store, tmp_path):
    with pytest.raises(
        SpecError, match=r"tiny_x: found test patients it was pretrained on \(\d+ of north, \d+ of river; "
    ):
        study(["random", str(weights)], store, tmp_path / "out", 1, {"ood": {"train_cohort": "north"}})
    assert not (tmp_path / "out").exists()


def test_patients_count_where_none_of_their_test_records_was_seen(store):
    """One seen recording spoils the whole patient."""
    patient = next(p for p in range(store.index.n_patients) if len(store.index.rows_of(p)) > 1)
    mine = np.flatnonzero(store.index["patient"] == patient)
    trained = store.index["waveform_digest"][mine[:1]]
    tested = Parts(mine[:0], mine[:0], {"north": mine[1:]})
    assert tested.tests_seen(store.index, trained) == ({"north": 0}, {"north": 1})
    with pytest.raises(
        SpecError, match=r"w: found test patients it was pretrained on \(1 of north; 0 of the test records"
    ):
        _require_unseen("w", store.index, tested, trained)
    others = Parts(mine[:0], mine[:0], {"north": np.flatnonzero(store.index["patient"] != patient)})
    _require_unseen("w", store.index, others, trained)
    assert tested.tests_seen(store.index, None) is None


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "digests.key"
    path.write_text("ab" * 32)
    return path


@pytest.fixture(scope="module")
def locked(run_folder, key, tmp_path_factory):
    return publish(run_folder, tmp_path_factory.mktemp("locked") / "weights", digests=key)


def test_keyed_digests_tell_the_holder_of_the_key_and_nobody_else(weights, locked, store, key, tmp_path):
    assert verify(locked).ok
    plain, hidden = ({bytes(row) for row in training_digests(folder)} for folder in (weights, locked))
    assert len(plain) == len(hidden)
    assert not plain & hidden
    assert not {bytes(row) for row in store.index["waveform_digest"]} & hidden
    one = next(iter(plain))
    mine = hmac.new(bytes.fromhex("ab" * 32), b"capezoo training digest\0" + one, sha256).digest()[:16]
    assert mine in hidden
    rows = [bytes(row) for row in training_digests(locked)]
    assert rows == sorted(rows)  # no order that could tell one from another
    with pytest.raises(SourceError, match=r"found keyed digests.*Ask the publisher to compare, or give.*--digest-key"):
        overlap(locked, store)
    assert overlap(locked, store, digest_key=key).groups == overlap(weights, store).groups
    (tmp_path / "other.key").write_text("cd" * 32)
    with pytest.raises(KeyMismatch, match="found digests of another key"):
        overlap(locked, store, digest_key=tmp_path / "other.key")
    text = (locked / CARD).read_text()
    assert read_card(locked).training.digest_key in text
    assert "ab" * 32 not in text


def test_an_evaluation_needs_the_key_of_keyed_digests(locked, store, key, tmp_path):
    asked = {"ood": {"train_cohort": "north"}}
    with pytest.raises(SpecError, match=r"found no list of its training recordings.*A keyed list needs its key"):
        study([str(locked)], store, tmp_path / "out", 1, asked)
    with pytest.raises(SpecError, match=r"tiny_x: found test patients it was pretrained on"):
        study([str(locked)], store, tmp_path / "out", 1, asked, digest_key=key)


def test_weights_may_be_published_without_digests(run_folder, store, tmp_path):
    silent = publish(run_folder, tmp_path / "w", digests="none")
    assert verify(silent).ok
    assert not (silent / DIGESTS).exists()
    assert read_card(silent).training.record_digests is None
    with pytest.raises(SourceError, match=r"found no training_digests.bin.*Nobody can say what"):
        overlap(silent, store)
