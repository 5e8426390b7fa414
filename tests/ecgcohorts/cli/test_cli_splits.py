"""`ecgcohorts split` as a user meets it: every rule, what `info` tells of it, and one line when something is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.cli import program as cli
from ecgcohorts.index import splits
from ecgcohorts.ingest import ingest
from ecgcohorts.store import load_split

FOLDS = "AF}}\n      strat_fold: {find: {header: Fold}}"


@pytest.fixture
def workplace(make_cohort, tmp_path) -> Path:
    """a.zarr with cohorts north and south, b.zarr with west. Patient p of north is in fold p + 1."""
    north, south, west = make_cohort("north", 10), make_cohort("south", 5, seed=1), make_cohort("west", 5, seed=2)
    north.spec.write_text(north.spec.read_text().replace("AF}}", FOLDS))
    for name in north.signals:
        header = north.folder / f"{name}.hea"
        header.write_text(header.read_text() + f"# Fold: {int(name[9:12]) + 1}\n")
    for raw, store in ((north, "a"), (south, "a"), (west, "b")):
        ingest(raw.folder, tmp_path / f"{store}.zarr", str(raw.spec))
    return tmp_path


@pytest.fixture
def run(workplace, monkeypatch, capsys):
    """run("x --by nested") is `ecgcohorts split a.zarr x --by nested`: (exit code, output, last line of errors)."""
    monkeypatch.chdir(workplace)

    def call(text: str, command: str = "split a.zarr") -> tuple[int, str, str]:
        try:
            cli.main([*command.split(), *text.split()])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        told = capsys.readouterr()
        return code, told.out, (told.err.splitlines() or [""])[-1]

    return call


RULES = {
    "--by patient --part train=0.7 --part test=0.3": (splits.by_patient, {"train": 0.7, "test": 0.3}),
    "--by time --part train=100 --part test=end": (splits.by_time, {"train": 100, "test": None}),
    "--by label --label strat_fold --part train=1-6,8 --part test=7,9": (
        lambda index, name: splits.by_label(
            index, "strat_fold", {"train": [1, 2, 3, 4, 5, 6, 8], "test": [7, 9]}, name
        ),
    ),
    "--by ptb-xl-folds": (splits.ptb_xl_folds,),
    "--by leave-cohort-out --cohort south": (splits.leave_cohort_out, "south"),
    "--by leave-cohort-out --cohort north --part a=0.5 --part b=0.5": (
        lambda index, name: splits.leave_cohort_out(index, "north", name, {"a": 0.5, "b": 0.5}),
    ),
    "--by nested": (splits.nested,),
    "--by nested --percent 25 --percent 100": (lambda index, name: splits.nested(index, name, (25, 100)),),
}


def test_every_rule_is_that_of_the_library(run):
    index = ec.open("a.zarr").index
    for number, (text, (make, *arguments)) in enumerate(RULES.items()):
        expected = make(index, *arguments, f"x{number}")
        code, out, told = run(f"x{number} {text}")
        assert code == 0, (text, told)
        store = ec.open("a.zarr")
        kept = load_split(store, f"x{number}")
        assert kept.definition == expected.definition
        np.testing.assert_array_equal(kept.column(store.index), expected.column(index))
        assert (kept.column(store.index) >= 0).any(), text
        for part in kept.parts:
            assert f" {part} " in out
    listed = run("")[1]
    assert all(f" x{number} " in listed for number in range(len(RULES)))
    assert ec.verify("a.zarr").ok


def test_info_counts_the_parts(run):
    assert run("study --by patient --part train=0.7 --part test=0.3")[0] == 0
    assert run("curve --by nested --percent 30 --percent 100 --within study=train")[0] == 0
    store = ec.open("a.zarr")
    facts = json.loads(run("", "info a.zarr --json")[1])
    assert [split["name"] for split in facts["splits"]] == ["curve", "study"]
    curve, study = facts["splits"]
    assert study["rule"] == {"kind": "patient", "fractions": {"train": 0.7, "test": 0.3}, "seed": "study"}
    parts = load_split(store, "study").of(store.index)
    assert study["parts"] == [
        {"name": name, "recordings": len(part), "patients": part.n_patients} for name, part in parts.items()
    ]
    assert sum(part["recordings"] for part in study["parts"]) == len(store.index)
    assert study["in_no_part"] == 0
    assert curve["parts"][1] == {"name": "100%"} | {k: v for k, v in study["parts"][0].items() if k != "name"}
    assert curve["parts"][0]["patients"] < curve["parts"][1]["patients"]
    assert curve["in_no_part"] == study["parts"][1]["recordings"]
    shown = run("", "info a.zarr")[1]
    assert "patients at random: train 0.7, test 0.3" in " ".join(shown.split())
    assert str(curve["in_no_part"]) in shown
    assert json.loads(run("", "info b.zarr --json")[1])["splits"] == []


def test_several_stores_are_split_together(run):
    assert run("x --by patient --part train=0.6 --part test=0.4 --also b.zarr")[0] == 0
    both = ec.open(["a.zarr", "b.zarr"])
    expected = splits.by_patient(both.index, {"train": 0.6, "test": 0.4}, "x")
    for path in ("a.zarr", "b.zarr"):
        store = ec.open(path)
        np.testing.assert_array_equal(load_split(store, "x").column(store.index), expected.column(store.index))
    kept = load_split(both, "x")
    np.testing.assert_array_equal(kept.column(both.index), expected.column(both.index))
    parts = json.loads(run("", "info a.zarr b.zarr --json")[1])["splits"][0]["parts"]
    assert sum(part["recordings"] for part in parts) == len(both.index)
    assert run("y --by nested", "split b.zarr")[0] == 0
    both = ec.open(["a.zarr", "b.zarr"])
    code = load_split(both, "y").column(both.index)  # only b has it
    assert (code >= 0).any()
    assert (code[both.index["row"] < ec.open("a.zarr").n_rows] < 0).all()
    assert run("y --by ptb-xl-folds")[0] == 0
    with pytest.raises(ec.StoreError, match="keep different splits 'y'"):
        load_split(ec.open(["a.zarr", "b.zarr"]), "y")
    x, y = json.loads(run("", "info a.zarr b.zarr --json")[1])["splits"]
    assert (x["name"], "problem" in x, y["name"]) == ("x", False, "y")
    assert "keep different splits 'y'" in y["problem"]
    assert "keep different splits 'y'" in " ".join(run("", "info a.zarr b.zarr")[1].split())


def test_an_identity_map_keeps_a_person_on_one_side(run):
    index = ec.open("a.zarr").index
    split = splits.by_patient(index, {"train": 0.5, "test": 0.5}, "x")
    train, test = (part.patient_ids[0].tobytes().hex() for part in split.of(index).values())
    Path("same.csv").write_text(f"{train},{test}\n")
    assert run("x --by patient --part train=0.5 --part test=0.5 --same same.csv")[0] == 0
    store = ec.open("a.zarr")
    names = load_split(store, "x").names(store.index)
    sides = {
        names[(store.index["patient_id"] == np.frombuffer(bytes.fromhex(one), np.uint8)).all(axis=1)][0]
        for one in (train, test)
    }
    assert len(sides) == 1
    Path("same.csv").write_text("CANARY,CANARY\n")
    code, _, told = run("y --by nested --same same.csv")
    assert (code, "CANARY" in told) == (2, False)


def test_a_patient_in_two_folds_is_refused(run, workplace):
    """Recordings of one patient are made to be in two folds: the check of the library is not passed over."""
    for header in (workplace / "raw_north").glob("*v1.hea"):
        header.write_text(header.read_text().replace("# Fold: ", "# Fold: 1"))
    assert run("", "ingest raw_north c.zarr --cohort north.yaml")[0] == 0
    code, _, told = run("x --by label --label strat_fold --part train=1-9 --part test=10-99", "split c.zarr")
    assert (code, "patients in more than one of train, test" in told) == (2, True)
    assert json.loads(run("", "info c.zarr --json")[1])["splits"] == []


WRONG = (
    ("x", "found no rule for split 'x'"),
    ("x --by patient", "found no --part with --by patient"),
    ("x --by patient --part train=0.8", "summing to 0.8"),
    ("x --by patient --part train=0.8 --part train=0.2", "each name once"),
    ("x --by patient --part train", "expected NAME=VALUE"),
    ("x --by patient --part train=most", "expected a number"),
    ("x --by patient --part train=1 --label af", "found --label with --by patient, expected only --part"),
    ("x --by time --part a=20 --part b=10", "expected each later"),
    ("x --by label --part a=1", "found no --label"),
    ("x --by label --label af --part a=3-1", "expected a number"),
    ("x --by label --label af --part a=1-999999999", "expected a number"),
    ("x --by label --label nothing --part a=1", "label_nothing"),
    ("x --by leave-cohort-out --cohort mars", "found no cohort 'mars'"),
    ("x --by nested --percent 50 --percent 20", "ascending"),
    ("x --by nested --within study=train", "found no split 'study'"),
    ("x --by nested --same nothing.csv", "nothing.csv: found no readable file"),
    ("../x --by nested", "split '../x'"),
    ("--by nested", "--by needs the name of a split"),
)


def test_wrong_input_gives_one_line(run):
    before = ec.open("a.zarr").fingerprint
    for text, words in WRONG:
        code, _, told = run(text)
        assert (code, words in told) == (2, True), (text, told)
    assert ec.open("a.zarr").fingerprint == before


def test_a_name_is_taken_once(run):
    assert run("x --by nested")[0] == 0
    assert run("x --by nested")[0] == 0
    code, _, told = run("x --by ptb-xl-folds")
    assert (code, "another split is called 'x'" in told) == (2, True)
    assert run("x --by ptb-xl-folds --replace")[0] == 0
