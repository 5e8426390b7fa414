"""docs/privacy.md says what holds: each of its promises beside the test that holds it to."""

import ast
import hashlib
import json
import os
import re
import stat
from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.ingest import ingest, plan_to_file
from ecgcohorts.preprocess.flags import QUALITY_COLUMNS
from ecgcohorts.privacy.pseudonyms import load_key

ROOT = Path(__file__).resolve().parents[3]
PAGE = " ".join((ROOT / "docs" / "privacy.md").read_text("utf-8").split())
HERE = "ecgcohorts/privacy/test_privacy_page.py"
# Words of the page: file below tests/ and the test that holds them.
PROMISES = {
    "the ECG": (HERE, "test_a_store_holds_these_columns_and_no_more"),
    "HMAC-SHA256 of the id under your secret key": ("ecgcohorts/privacy/test_pseudonyms.py", "test_it_is_the_documented_hmac"),
    "The store holds the key's fingerprint, and never the key": (HERE, "test_a_store_names_neither_place_nor_person_nor_key"),
    "**age** in years, at most 90": ("ecgcohorts/test_privacy.py", "test_nothing_planted_comes_out"),
    "It holds no date": ("ecgcohorts/test_privacy.py", "test_nothing_planted_comes_out"),
    "**site and device**, in the words of the source": ("ecgcohorts/cohorts/test_devices.py", "test_a_serial_number_in_the_headers"),
    "It holds no name, no id": ("ecgcohorts/test_privacy.py", "test_nothing_planted_comes_out"),
    "no path, file name, host name or user name": (HERE, "test_a_store_names_neither_place_nor_person_nor_key"),
    "lies in it as a digest only": (HERE, "test_a_store_names_neither_place_nor_person_nor_key"),
    "Of a refused recording it holds a pseudonym and the code of a reason": (HERE, "test_of_a_refused_recording_a_pseudonym_and_a_code"),
    "keeps only makers and models that are known here": ("ecgcohorts/cohorts/test_devices.py", "test_maker_and_model_are_kept"),
    "counts as unknown": ("ecgcohorts/cohorts/test_devices.py", "test_what_is_not_known_is_left_out"),
    "list all such names": (HERE, "test_the_index_lists_sites_and_devices"),
    "mode 0600; a key that others can read is told": ("ecgcohorts/privacy/test_pseudonyms.py", "test_the_default_key_is_made_once_and_for_its_owner_only"),
    "is told when a store is made with it": ("ecgcohorts/privacy/test_pseudonyms.py", "test_a_key_that_others_can_read_is_told_where_a_store_is_made_and_not_after"),
    "unfinished plans that a kill left are deleted": ("ecgcohorts/ingest/test_plan.py", "test_what_a_killed_plan_left_is_cleared_and_what_another_writes_is_not"),
    "paths of refused recordings | mode 0600": ("ecgcohorts/ingest/test_refused.py", "test_it_is_written_only_where_it_may_stand"),
    "the rights of your umask": (HERE, "test_a_store_has_the_rights_of_the_umask_and_a_plan_those_of_its_owner"),
    "counts; no path of the input, no id, no message": ("ecgcohorts/cli/test_job_log.py", "test_no_id_and_no_path_of_the_input_is_logged"),
    "read ids from a file or standard input": ("ecgcohorts/cli/test_cli_keyed.py", "test_many_ids_come_from_a_file_or_standard_input"),
    "overwrites the recordings, removes the rows and deletes all earlier snapshots": ("ecgcohorts/store/test_remove.py", "test_nothing_of_the_patient_stays_and_all_else_does"),
    "so that the next ingest does not bring them back": ("ecgcohorts/store/test_remove.py", "test_the_next_ingest_does_not_bring_the_patient_back"),
    "They do not tell it from a forged one": (HERE, "test_a_forged_store_verifies_and_its_fingerprint_tells"),
    "this command notices any change at all, by anyone": (HERE, "test_a_forged_store_verifies_and_its_fingerprint_tells"),
    "you choose, and there is no default": ("capezoo/zoo/test_publish_run.py", "test_the_choice_of_digests_has_no_default"),
    "whoever has the recording and the key": ("capezoo/zoo/test_overlap.py", "test_keyed_digests_tell_the_holder_of_the_key_and_nobody_else"),
    "| `none` | nobody": ("capezoo/zoo/test_overlap.py", "test_weights_may_be_published_without_digests"),
}  # fmt: skip


@pytest.mark.parametrize("words", PROMISES)
def test_every_promise_has_its_test(words):
    file, name = PROMISES[words]
    assert words in PAGE
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.fixture
def raw(make_cohort):
    """Recordings of three patients, with a site and a device each, one recording without its samples."""
    made = make_cohort(patients=3)
    text = made.spec.read_text()
    made.spec.write_text(f"{text}    device: {{header: Device}}\n    site: {{header: Ward}}\n")
    for number, path in enumerate(sorted(made.folder.glob("*.hea"))):
        path.write_text(f"{path.read_text()}# Device: MAC 5500\n# Ward: ward {number}\n# Remark: CANARYREMARK\n")
    (made.folder / "CANARYREC002v0.dat").write_bytes(b"")
    return made


@pytest.fixture
def store(raw, tmp_path) -> Path:
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    return tmp_path / "s.zarr"


def contents(folder: Path) -> bytes:
    """Names and bytes of all files, and all tables without their compression."""
    parts = [
        path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in folder.rglob("*") if path.is_file()
    ]
    opened = ec.open(folder)
    tables = [opened.index.to_pandas().to_csv(), opened.rejects().to_csv(), opened.manifest.model_dump_json()]
    return b"".join([*parts, *(text.encode() for text in tables)]).lower()


def test_a_store_holds_these_columns_and_no_more(store):
    index = ec.open(store).index
    facts = {"age", "sex", "days", "site", "device", "label_af", "recording_id", "patient_id", "waveform_digest"}
    places = {"row", "cohort", "patient", "patient_known", "valid_start", "valid_stop", "quality"}
    assert set(index.columns) == facts | places | {f"q_{name}" for name in QUALITY_COLUMNS}
    # Since the patient's first recording, so that no date can be made of it: all are of 2010 to 2012.
    assert (index["days"].min(), index["days"].max() < 3 * 366) == (0, True)
    assert {path.relative_to(store).parts[0] for path in store.rglob("*") if path.is_file()} <= {
        "CURRENT", "index", "lock", "manifest-000001.json", "rejects-000001.parquet", "signals", "zarr.json"
    } | {path.name for path in store.iterdir() if path.name.startswith("inputs")}  # fmt: skip


def test_a_store_names_neither_place_nor_person_nor_key(raw, tmp_path, monkeypatch):
    for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(name, "CANARYUSER")
    monkeypatch.setenv("HOME", str(tmp_path / "CANARYHOME"))
    monkeypatch.setattr("socket.gethostname", lambda: "CANARYHOST")
    monkeypatch.setattr("platform.node", lambda: "CANARYHOST")
    key = Path(os.environ["XDG_CONFIG_HOME"]) / "ecgcohorts" / "pseudonym.key"
    secret = key.read_text().strip()
    ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    found = contents(tmp_path / "s.zarr")
    assert load_key().fingerprint.encode() in found
    # "header: ..." is a rule of the description.
    for word in (
        "CANARY",
        raw.folder.name,
        str(tmp_path),
        raw.spec.name,
        secret,
        "header: Patient ID",
        "Made for a test",
    ):
        assert word.lower().encode() not in found, word
    files = [path for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()]
    assert bytes.fromhex(secret) not in b"".join(path.read_bytes() for path in files)


def test_of_a_refused_recording_a_pseudonym_and_a_code(store):
    [refused] = ec.open(store).rejects().to_dict("records")
    assert set(refused) == {"cohort", "recording_id", "stage", "reason", "error", "duplicate_of"}
    assert (refused["cohort"], refused["reason"], refused["error"]) == ("north", "truncated", "UnreadableRecording")
    assert len(refused["recording_id"]) in (16, 32)


def test_the_index_lists_sites_and_devices(store):
    index = ec.open(store).index
    assert set(index.devices) == {"MAC 5500"}
    assert set(index.sites) == {f"ward {number}" for number in (0, 1, 2, 4, 5)}  # that of the refused one is not kept


@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_store_has_the_rights_of_the_umask_and_a_plan_those_of_its_owner(raw, tmp_path, umask, expected):
    before = os.umask(umask)
    try:
        plan_to_file(raw.folder, tmp_path / "s.zarr", str(raw.spec), tmp_path / "run.plan")
        ingest(raw.folder, tmp_path / "s.zarr", str(raw.spec))
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "s.zarr").rglob("*") if path.is_file()
    }
    assert set(modes.values()) == {expected}, modes
    assert stat.S_IMODE((tmp_path / "run.plan").stat().st_mode) == 0o600


def forge(store: Path, replaced: dict[bytes, bytes]) -> None:
    """Change the manifest and give `CURRENT` its new sum, as anyone can who may write to the store."""
    [manifest] = store.glob("manifest-*.json")
    before = manifest.read_bytes()
    after = before
    for old, new in replaced.items():
        assert old in after
        after = after.replace(old, new)
    manifest.write_bytes(after)
    sums = [hashlib.sha256(data).hexdigest().encode() for data in (before, after)]
    current = store / "CURRENT"
    assert sums[0] in current.read_bytes()
    current.write_bytes(current.read_bytes().replace(*sums))


def test_a_forged_store_verifies_and_its_fingerprint_tells(store, capsys):
    noted = ec.open(store).fingerprint
    main(["verify", str(store), "--fingerprint", noted])
    assert "all as committed" in capsys.readouterr().out
    path = store / "index" / "000001" / "zarr.json"
    text = path.read_bytes()
    assert b"ward 0" in text
    path.write_bytes(text.replace(b"ward 0", b"ward 9"))
    sums = [hashlib.sha256(data).hexdigest().encode() for data in (text, path.read_bytes())]
    forge(store, {sums[0]: sums[1], b"ward 0": b"ward 9"})
    assert ec.verify(store).ok
    with pytest.raises(SystemExit) as end:
        main(["verify", str(store), "--fingerprint", noted])
    assert end.value.code == 4
    assert f"expected {noted}: another snapshot, or a changed one" in capsys.readouterr().err


def test_the_manifest_holds_a_sum_of_every_other_file(store):
    manifest = json.loads(next(store.glob("manifest-*.json")).read_text())
    others = {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}
    others -= {"CURRENT", "lock", next(store.glob("manifest-*.json")).name}
    assert set(manifest["files"]) == others
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in manifest["files"].values())
