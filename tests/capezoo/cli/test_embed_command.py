"""`embed`, `probe`, `predict`: from raw files to a table, to a tested answer, to answers for new files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capezoo.cli import program as cli
from capezoo.zoo.publish import publish
from ecgcohorts.store import open_store


@pytest.fixture(scope="module")
def weights_folder(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(run_folder, tmp_path_factory.mktemp("weights") / "w", digests="plain")


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run("x", "-o", ...) -> (exit code, stdout, stderr) of `capezoo embed` or another command, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, command: str = "embed") -> tuple[int, str, str]:
        try:
            cli.main([command, *(str(argument) for argument in arguments)])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_raw_files_to_a_table(run, simulated, weights_folder, tmp_path):
    """One bad file among good ones is told, and too many end with code 3 after everything good was written."""
    raw = tmp_path / "recordings"
    raw.mkdir()
    for file in sorted((simulated / "raw" / "river").rglob("*.*"))[:4]:
        (raw / file.name).write_bytes(file.read_bytes())
    (raw / "broken.scp").write_bytes(b"\x00\x01not an ECG" * 9)
    code, out, err = run(weights_folder, raw, "-o", "x.parquet", "--max-reject-frac", "0.5")
    assert (code, err) == (0, "")
    assert "x.parquet: 4 embeddings of 12 features by " in out
    assert "refused: 1 (1 unknown_format); each with its reason in x.refused.csv" in out
    assert len(pd.read_parquet("x.parquet")) == 4
    code, _, err = run(weights_folder, raw, "-o", "y.csv", "--max-reject-frac", "0.1")
    assert code == 3
    assert "20% of the recordings were refused, more than --max-reject-frac 0.1. See why: y.refused.csv." in err
    assert len(pd.read_csv("y.csv")) == 4


def test_a_store_to_a_table(run, simulated, weights_folder):
    store = simulated / "store.zarr"
    assert run(weights_folder, store, "-o", "x.parquet")[0] == 0
    table, index = pd.read_parquet("x.parquet"), open_store(store).index
    assert len(table) == len(index)
    assert {"patient", "feature_0", "feature_11"} <= set(table)
    assert not Path(".x.parquet.embeddings").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{store}", "-o", "x.csv", "--mains", "50", "-j", "2"], "found --mains, --workers with stores, expected none"),
        (["{raw}", "-o", "x.csv", "--force-recipe"], "found --force-recipe with raw files, expected none"),
        (["{raw}", "{store}", "-o", "x.csv"], "found stores and raw files, expected one or the other"),
        (["{raw}", "-o", "x.csv", "--rate-hz", "500"], "found arrays without --leads, --unit"),
        (["{raw}", "-o", "x"], "found suffix '', expected one of .parquet, .csv, .npz, .zarr"),
        (["gone.zarr", "-o", "x.csv"], "gone.zarr: found no"),
    ],
)
def test_what_cannot_be_embedded(run, simulated, weights_folder, arguments, message):
    places = {"store": simulated / "store.zarr", "raw": simulated / "raw" / "river"}
    code, _, err = run(weights_folder, *(one.format(**places) for one in arguments))
    assert code == 2
    assert err.count("\n") == 1
    assert message in err


def test_from_labels_to_answers_for_new_files(run, simulated, weights_folder, tmp_path):
    files = sorted((simulated / "raw" / "river").rglob("*.xml"))
    assert run(weights_folder, *files[:60], "-o", "x.parquet", "-j", "2")[0] == 0
    rng = np.random.default_rng(0)
    rows = {"file": [file.name for file in files[:60]], "patient": [file.name[:-5] for file in files[:60]]}
    pd.DataFrame({**rows, "ill": rng.permutation([0, 1] * 30), "age": rng.uniform(20, 90, 60)}).to_csv(
        "l.csv", index=False
    )
    how = ["x.parquet", "--labels", "l.csv", "--target", "ill", "--folds", 3, "--with", "age"]
    publish = ["--publish", "m", "--weights", weights_folder]
    code, out, err = run(*how, *publish, "-o", "answers.csv", command="probe")
    assert (code, err) == (0, "")
    assert "ill (binary): 60 recordings, each taken for a person of its own: 30 0, 30 1" in out
    assert "of these recordings trained its encoder" in out
    assert "x - covariates alone" in out
    assert len(pd.read_csv("answers.csv")) == 60
    code, out, err = run("m", *files[60:64], "-o", "new.csv", "--covariates", "l.csv", command="predict")
    assert (code, err) == (0, "")
    assert "without age in l.csv, answered with the median: 4" in " ".join(out.split())
    new = pd.read_csv("new.csv")
    assert new["file"].tolist() == [str(file) for file in files[60:64]]
    assert new["ill: 1"].between(0, 1).all()
    assert set(new["ill"]) <= {0, 1}
    assert "feature_0" not in new
    for made_of, said in (
        (f'{{"weights": "{"0" * 64}"}}', "found features of other weights"),
        (None, "x.json: found "),
    ):
        Path("x.json").unlink() if made_of is None else Path("x.json").write_text(made_of)
        code, _, err = run(*how, *publish[:1], "n", *publish[2:], command="probe")
        assert (code, said in err, Path(".n.part").exists()) == (2, True, False)
    code, _, err = run(*how, "--publish", "m", command="probe")
    assert (code, "expected one table of features, the method linear, and --weights" in err) == (2, True)
    code, _, err = run("m", files[0], "-o", "y.csv", command="predict")
    assert (code, "found no table of covariates, expected age" in err) == (2, True)
    assert run("m/encoder", command="verify")[0] == 0
