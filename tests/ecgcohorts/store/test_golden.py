"""Stores of every format version open for ever: the golden store, plain zarr, and versions nobody here can read.

If the golden store stops opening, readers of published stores are cut off: raise the format version, keep reading the
old one through `store/upgrade.py`, and commit a golden store of the new version beside the old one.
"""

import hashlib
import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.preprocess.recipes import load_recipe
from ecgcohorts.store import upgrade
from ecgcohorts.store.upgrade import FORMAT_VERSION

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "golden" / "store-1"
GOLDEN_2 = ROOT / "tests" / "golden" / "store-2"
PLAIN_ZARR = re.compile(r"^## Without this package\n.+?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SIGNALS = "80dd5c59d9a566701624031d1b845efc"
COLUMNS = {
    "age": "03835646d5f457d2b51901682982191b",
    "cohort": "bd060144145f3faa873fbeab3badfdaa",
    "days": "293c5234579f36c70059cb00d353f0c9",
    "device": "392e16cd403521e6e0a4487d51265f62",
    "label_avb1": "889badb0316d7bf8290016fc308d3242",
    "label_sb": "889badb0316d7bf8290016fc308d3242",
    "label_st": "889badb0316d7bf8290016fc308d3242",
    "patient": "09ade454e0f91c5deb79088f60fce93d",
    "patient_id": "b44d1fff5f19eded4563c326c95030a5",
    "patient_known": "224eea4df41e11c9415e4c96182cbe27",
    "q_bandlimit_hz": "4f29743448983e9515c81f0fbd7a86f5",
    "q_baseline_power_mv2": "8c3e5f8f2ad6d63a25892773cd08c926",
    "q_edge_slack_s": "5eef7238a975fa6ccb3f69aaa80157b3",
    "q_einthoven_rms_mv": "bbcafb75dd5992787baa607624d6256e",
    "q_flat_fraction": "cdd6f2087d2ccc0a2d06828dc5d8e3a0",
    "q_hf_power_mv2": "96dbb24b341689e9b40435011f7154ea",
    "q_mains_50_after_db": "87384e3d7334c461849332a20c1bd415",
    "q_mains_50_before_db": "d348fe71474adacb9e214c8abe39aec5",
    "q_mains_60_after_db": "8eaef09ef37e987dfb11bbf994100e6b",
    "q_mains_60_before_db": "b3b065c37120ed9d9c4d44a4760e300f",
    "q_max_abs_mv": "7795fd97f54be54af5fccbeb0dfd52d5",
    "q_n_clip": "d3524517ca53296372685f9652968a7b",
    "q_n_clip_stored": "d3524517ca53296372685f9652968a7b",
    "q_n_interp": "d3524517ca53296372685f9652968a7b",
    "q_notch_hz": "e3abc8fb7e7d4b417357934b414afb1b",
    "q_p99_mv": "367b3fe8278c2a30eb0ffc910b681b84",
    "quality": "1857db98c341e7a837cff45d8ae0dabd",
    "recording_id": "199bab47f913b1c3acfda41a12e75c36",
    "row": "719216e11bf1cff1b60aeb0839a15ec2",
    "sex": "cad3bb03834ddc2278ceb4146ff2450f",
    "site": "bd060144145f3faa873fbeab3badfdaa",
    "valid_start": "d3524517ca53296372685f9652968a7b",
    "valid_stop": "647cdbd19a0dfa7b762bb0d097fd8a55",
    "waveform_digest": "87b3f0e5d64a7994e3dd847fb7128b1b",
}


def digest(values: np.ndarray) -> str:
    """Of shape, type and values, on machines of either byte order."""
    plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return hashlib.sha256(f"{plain.dtype.str} {plain.shape} ".encode() + plain.tobytes()).hexdigest()[:32]


def test_there_is_a_golden_store_of_the_version_in_force():
    assert (ROOT / "tests" / "golden" / f"store-{FORMAT_VERSION}" / "CURRENT").is_file()


def test_the_golden_store_reads_what_it_always_read():
    store = ec.open(GOLDEN)
    assert store.fingerprint == "f317a4b5f76633202fc23b9f3ebc6a8d10bae74fbd21ae80e7aa70866d941be0"
    assert digest(store.read(store.index["row"])) == SIGNALS
    assert {name: digest(column) for name, column in store.index.columns.items()} == COLUMNS


def test_the_golden_store_says_what_it_always_said():
    store = ec.open(GOLDEN)
    index = store.index
    assert (index.cohorts, index.sites, index.devices) == (("north", "coast"), ("north", "coast"), ("North Cart 500",))
    np.testing.assert_array_equal(index["age"], np.float32([45, np.nan, 77, 42, 42]))
    assert index["sex"].tolist() == [0, -1, 1, 1, 1]
    assert index["patient"].tolist() == [0, 0, 1, 2, 2]
    assert index["row"].tolist() == [0, 2, 4, 5, 6]
    assert index["valid_stop"].tolist() == [4000, 4000, 4000, 4000, 2934]
    assert index["quality"].tolist() == [16, 16, 0, 32, 1056]
    assert (store.recipe.name, store.lsb_uv, store.n_rows) == ("cape-v1", 1.0, 7)
    assert store.rejects()[["cohort", "stage", "reason"]].to_numpy().tolist() == [
        ["north", "read", "truncated"],
        ["north", "commit", "duplicate"],
    ]
    assert [sum(one.accounting.rejected.values()) for one in store.segments] == [1, 0, 0]


def test_every_byte_of_the_golden_store_is_as_committed():
    assert ec.verify(GOLDEN).problems == ()
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 300_000


def test_a_recipe_of_ones_own_opens_without_its_file_and_is_made_again():
    """Format 2: the store carries its steps. Made by golden-2.yaml, whose recipe nobody has installed."""
    store = ec.open(GOLDEN_2)
    assert store.fingerprint == "a9a16312086ad0c53455a07e4c0be0a60636199032263931621fcc1c779f76f5"
    assert (store.recipe.name, store.recipe.rate_hz, store.lsb_uv, store.n_rows) == ("golden-2", 100.0, 2.0, 7)
    assert store.recipe == load_recipe(GOLDEN_2.with_name("golden-2.yaml"))
    assert digest(store.read(store.index["row"])) == "89565c8ceb4de1038d22cf25b283b9bd"
    statistics = [name for name in store.index.columns if name.startswith(("mean_", "deviation_"))]
    assert len(statistics) == 8
    assert digest(np.stack([store.index[name] for name in statistics])) == "43505a13141cf41e832429f7342ce54f"
    assert ec.verify(GOLDEN_2).problems == ()


def test_both_golden_stores_are_made_again_as_they_were(tmp_path):
    """The simulated recordings of store-1 have changed since, so of it the recipe, the patients and the rows are compared."""
    make = runpy.run_path(str(ROOT / "tests" / "golden" / "make_store.py"))
    for golden in (GOLDEN, GOLDEN_2):
        made = tmp_path / golden.name
        make["make"](made, make["RECIPES"][golden.name])
        again, kept = ec.open(made), ec.open(golden)
        assert again.recipe == kept.recipe
        assert (made / "zarr.json").read_bytes() == (golden / "zarr.json").read_bytes()
        for name in ("row", "patient_id", "recording_id", "valid_stop"):
            np.testing.assert_array_equal(again.index[name], kept.index[name])
        formats = [json.loads(next(folder.glob("manifest-000003.json")).read_bytes()) for folder in (made, golden)]
        assert formats[0]["format_version"] == formats[1]["format_version"] == int(golden.name[-1])
        assert formats[0]["recipe"] == formats[1]["recipe"]
    np.testing.assert_array_equal(again.read(again.index["row"]), kept.read(kept.index["row"]))


def test_ten_lines_of_plain_zarr_read_what_this_package_reads(tmp_path, monkeypatch):
    """The block that the docs show, for every recording of the golden store."""
    code = PLAIN_ZARR.search((ROOT / "docs" / "store.md").read_text("utf-8"))[1]
    assert "ecgcohorts" not in code
    assert len([line for line in code.splitlines() if line]) == 10
    shutil.copytree(GOLDEN, tmp_path / "store.zarr")
    monkeypatch.chdir(tmp_path)
    store = ec.open("store.zarr")
    for entry, row in enumerate(store.index["row"]):
        Path("script.py").write_text(code.replace('Path("store.zarr"), 0', f'Path("store.zarr"), {entry}'), "utf-8")
        found = runpy.run_path("script.py")
        assert found["row"] == row
        np.testing.assert_array_equal(found["age"], store.index["age"][entry])
        np.testing.assert_array_equal(found["strip"], store.read(row)[0])
        about = found["signals"].attrs
        signal_mv = np.where(found["strip"] == about["missing_value"], np.nan, found["strip"] * about["scale_factor"])
        np.testing.assert_allclose(signal_mv, store.read_mv(row)[0], rtol=1e-6)
        assert (tuple(about["leads"]), about["rate_hz"]) == (store.recipe.leads, store.recipe.rate_hz)


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change fields of the manifest in force (None: take the field out), and CURRENT with it."""
    current = json.loads((folder / "CURRENT").read_bytes())
    path = folder / current["manifest"]
    fields = json.loads(path.read_bytes()) | changes
    data = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    path.write_bytes(data)
    current["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "CURRENT").write_text(json.dumps(current))


@pytest.fixture
def copy(tmp_path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / "store")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 3, "compression": "new"}, "found store format 3, expected 2. .*pip install --upgrade"),
        ({"format_version": 0}, "found store format 0, expected 2. Ingest"),
        ({"format_version": -1}, "found store format -1, expected 2. Ingest"),
        ({"format_version": "1"}, "found store format '1', expected 2"),
        ({"format_version": None}, "found store format None, expected 2"),
        ({"segments": "gone"}, "manifest is damaged at segments"),
        ({"recipe": {"name": "cape-v1"}}, "manifest is damaged at recipe"),
    ],
)
def test_a_version_that_cannot_be_read_says_what_to_do(copy, changes, message):
    """Also where the rest of the manifest is unlike ours: a newer store is not called damaged."""
    rewrite_manifest(copy, **changes)
    with pytest.raises(ec.StoreError, match=message):
        ec.open(copy)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"1", b'{"format_version":', b"[" * 100_000])
def test_what_is_no_manifest_is_left_to_the_schema(data, tmp_path):
    assert upgrade.upgraded(tmp_path, data) is data


def test_an_older_manifest_is_upgraded_when_it_is_read_and_the_folder_stays(copy, monkeypatch):
    def from_zero(fields: dict) -> dict:
        return fields | {"format_version": 1, "generation": fields["generation"] - 1}

    rewrite_manifest(copy, format_version=0, generation=4)
    before = (copy / "CURRENT").read_bytes()
    monkeypatch.setitem(upgrade.UPGRADES, 0, from_zero)
    assert ec.open(copy).manifest.generation == 3
    assert (copy / "CURRENT").read_bytes() == before
