"""The command line as a user meets it: the whole path, and one clear line when something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capezoo.cli import program as cli
from capezoo.embedding.folder import open_embeddings
from capezoo.evaluate.results import Study
from capezoo.zoo import listing
from capezoo.zoo.files import WEIGHTS
from ecgcohorts import plugins
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.store import open_store, open_stores


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run("embed", ...) -> (exit code, stdout, stderr), in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            cli.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def assert_one_line(result: tuple[int, str, str], *words: str, code: int = 2) -> None:
    found, _, err = result
    assert found == code, result
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("capezoo: ")
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def store(simulated: Path) -> Path:
    return simulated / "store.zarr"


CONFIG = """\
name: tiny
seed: 1
encoder: {name: cape_resnet, config: {widths: [8], embedding_dim: 8, stem_stride: 4, kernel: 8}}
sampler: {name: patient_pairs, groups: 4}
held_out: {fraction: 0.2, every_steps: 2, batches_per_cohort: 1}
max_steps: 3
probes: {patients: 0}
curves: false
"""


def test_the_whole_path(run, store, tmp_path):
    Path("run.yaml").write_text(CONFIG)
    code, out, err = run(
        "pretrain", "--store", store, "--out", "r", "--seed", 9, "--run", "run.yaml", "--set", "max_steps=2"
    )
    assert (code, err) == (0, "")  # no bar where there is no terminal
    assert "r: 2 of 2 steps; loss " in out
    again = run("pretrain", "--store", store, "--out", "r", "--seed", 9, "--run", "run.yaml", "--set", "max_steps=2")
    assert again[0] == 0
    assert_one_line(
        run("pretrain", "--store", store, "--out", "r", "--seed", 8, "--run", "run.yaml", "--set", "max_steps=2"),
        "seed 9",
    )
    code, out, err = run(
        "publish", "r", "w", "--digests", "plain", "--name", "tiny_z", "--summary", "A test.", "--store", store
    )
    assert (code, out.strip(), err) == (0, "w", "")
    code, out, err = run("verify", "w")
    assert (code, err) == (0, "")
    assert "w: tiny_z 1, 8 files as published, golden output within" in out
    code, out, _ = run("info", "w")
    assert "| leads, in order | I II V1 V2 V3 V4 V5 V6 |" in out
    assert json.loads(run("info", "w", "--json")[1])["name"] == "tiny_z"
    code, out, err = run("overlap", "w", store)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["recordings", "trained", "on", "patients", "trained", "on"]
    assert out.splitlines()[1].split()[0] == "north"
    assert json.loads(run("overlap", "w", store, "--json")[1])["name"] == "tiny_z"
    code, out, err = run("embed", "w", store, "-o", "e")
    assert (code, err) == (0, "")
    n = len(open_store(store).index)
    assert f"e: {n} embeddings of 8 features by tiny_z" in out
    assert open_embeddings("e").info.name == "tiny_z"
    weights = ("--weights", "w", "--weights", "random")
    arguments = ["evaluate", "all", *weights, "--store", store, "--train-cohort", "north", "-o", "s", "--seed", 0]
    assert_one_line(run(*arguments), "tiny_z: found test patients it was pretrained on", "--allow-seen")
    assert_one_line(run(*arguments, "--set", "odd.runs=1"), "found no question 'odd'", "Did you mean 'ood'")
    assert_one_line(run(*arguments, "--set", "runs=1"), "expected QUESTION.KEY=VALUE")
    code, out, err = run(*arguments, "--set", "ood.runs=1", "--set", "ood.max_epochs=1", "--allow-seen")
    assert (code, err) == (0, "")
    assert "tiny_z" in out
    assert "age error elsewhere" in out
    study = Study.read(Path("s"))
    assert [weights.name for weights in study.weights] == ["tiny_z", "random"]
    asked = set(study.answers) | set(study.left_out)
    assert asked == set(plugins.names("capezoo.evaluate.questions")) - {"finetune", "downstream"}
    assert study.answers["ood"].provenance.command.startswith(
        "capezoo evaluate all --weights w --weights random --store "
    )
    assert run("publish", "r", "w2", "--digests", "plain", "--study", "s")[0] == 0
    metrics = json.loads(run("info", "w2", "--json")[1])["metrics"]
    ends = ("", "_mean_of_runs", "_of_random")
    expected = {name + end for name in ("age_mae_years", "sex_auroc") for end in ends}
    expected |= {"probe_age_mae", "probe_sex_auroc", "person_found", "person_found_another_day"}
    assert {metric["name"] for metric in metrics} == expected
    assert all("capezoo evaluate all --weights w --weights random" in metric["method"] for metric in metrics)
    code, out, err = run("report", "-o", "r.html", "--study", "s", "--run-folder", "r", "--store", store)
    assert (code, out.strip(), err) == (0, "r.html", "")
    assert "tiny_z" in Path("r.html").read_text()


def test_several_stores_as_one(run, simulated, tmp_path):
    """The cohorts of one store on two disks: the same run, and the same embeddings in another order."""
    options = IngestOptions(key_file=simulated / "key")
    for name in ("north", "river"):
        source = simulated / "raw" / name
        ingest(source, f"{name}.zarr", str(source / "cohort.yaml"), options)
    both = ("--store", "north.zarr", "--store", "river.zarr")
    Path("run.yaml").write_text(CONFIG)
    assert run("pretrain", *both, "--out", "r", "--seed", 9, "--run", "run.yaml", "--set", "max_steps=2")[0] == 0
    made = json.loads(Path("r/data.json").read_text())
    assert made["store_fingerprint"] == open_stores(["north.zarr", "river.zarr"]).fingerprint
    assert {cohort["name"] for cohort in made["cohorts"]} == {"north", "river"}
    assert run("publish", "r", "w", "--digests", "plain", *both)[0] == 0
    licences = json.loads(run("info", "w", "--json")[1])["data_licences"]
    assert set(licences) == {"north", "river"}
    assert "unknown" not in licences.values()
    assert run("embed", "w", "north.zarr", "river.zarr", "-o", "two")[0] == 0
    assert run("embed", "w", simulated / "store.zarr", "-o", "one")[0] == 0
    one, two = ({row.tobytes(): value for row, value in zip(made.index["recording_id"], made.embedding, strict=True)}
                for made in map(open_embeddings, ("one", "two")))  # fmt: skip
    assert one.keys() == two.keys()
    for recording, values in one.items():
        np.testing.assert_allclose(two[recording], values, atol=1e-5)
    ood = ["evaluate", "ood", "--weights", "w", *both, "--train-cohort", "north", "-o", "s", "--seed", 0]
    assert_one_line(run(*ood, "--shares", 0.6, 0.2, 0.1), "found fractions summing to 0.9, expected 1")
    assert_one_line(run(*ood, "--shares", 0.6, "0.2", "x"), "--shares: found 'x', expected a number")
    assert run(*ood, "--runs", 1, "--max-epochs", 1, "--allow-seen", "--shares", 0.6, 0.2, 0.2)[0] == 0
    assert Study.read(Path("s")).answers["ood"].config.shares == (0.6, 0.2, 0.2)
    tested = Study.read(Path("s")).answers["ood"].result.tests
    assert {test.cohort for test in tested} == {"north", "river"}
    assert run("report", "-o", "r.html", "--study", "s", *both)[0] == 0
    text = Path("r.html").read_text()
    assert all(f"{name}, row" in text for name in ("north", "river"))
    assert_one_line(run("embed", "w", "north.zarr", "none.zarr", "-o", "x"), "none.zarr: found no such folder")


def test_list_shows_weights_by_name(run, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "none")
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    assert run("publish", run_folder, "cache/cape_resnet.tiny", "--digests", "plain", "--summary", "Small.")[0] == 0
    code, out, _ = run("list")
    assert code == 0
    assert "encoder" in out
    assert "cape_resnet.tiny" in out
    assert "Small." in out
    assert "cape_resnet" not in run("list", "vit*")[1]
    assert run("verify", "cape_resnet.tiny")[0] == 0


def test_wrong_input_gives_one_line(run, store, run_folder, tmp_path):
    assert_one_line(run("pretrain", "--store", "no.zarr", "--out", "r", "--seed", 1), "no.zarr", "expected a store")
    assert_one_line(
        run("pretrain", "--store", store, "--out", "r"),
        "found no --seed, expected --seed N. See capezoo pretrain --help.",
    )
    assert_one_line(
        run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--run", "cape_q"), "'cape_q'", "cape_x, cape_z"
    )
    assert_one_line(
        run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--set", "sampler.groups=500"), "500", "patients"
    )
    assert_one_line(
        run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--set", "sampler.groups=x"),
        "--set: found 'x' for 'sampler.groups'",
    )
    Path("bad.yaml").write_text(CONFIG + "colour: red\n")
    bad = run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--run", "bad.yaml")
    assert_one_line(bad, "bad.yaml: found unknown key 'colour'")
    Path("bad.yaml").write_text("name: [unclosed")
    bad = run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--run", "bad.yaml")
    assert_one_line(bad, "bad.yaml: cannot be read")
    Path("bad.yaml").write_text("- name: x")
    bad = run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--run", "bad.yaml")
    assert_one_line(bad, "bad.yaml: found [{'name': 'x'}], expected fields with values")
    bad = run("pretrain", "--store", store, "--out", "r", "--seed", 1, "--run", "none.yaml")
    assert_one_line(bad, "none.yaml: cannot be read")
    pretrain = ("pretrain", "--store", store, "--out", "r", "--seed", 1)
    assert_one_line(
        run(*pretrain, "--run", "bad.yaml", "--cohort", "north"), "--cohort does not go with a run from a file"
    )
    assert_one_line(run(*pretrain, "--run", "cape_single"), "trains on one cohort. Name it: --cohort NAME")
    assert_one_line(run(*pretrain, "--run", "cape_single", "--cohort", "nowhere"), "no cohort 'nowhere'")
    known = "--set: found unknown key 'optimiser.rate', expected one of lr, betas, eps"
    assert_one_line(run(*pretrain, "--set", "max_steps=1", "--set", "optimiser.rate=1"), known)
    assert_one_line(run(*pretrain, "--set", "encoder.config.kernels=1"), "cape_resnet: found unknown key 'kernels'")
    assert not Path("r").exists()
    assert_one_line(run("embed", "nobody", store, "-o", "e"), "found no weights 'nobody'")
    assert_one_line(run("embed", "nobody", store), "found no --out, expected --out FILE")
    assert_one_line(run("publish", tmp_path, "w", "--digests", "plain"), "found no config.yaml")
    assert run("publish", run_folder, "w", "--digests", "plain")[0] == 0
    assert_one_line(run("publish", run_folder, "w", "--digests", "plain"), "found something there")
    assert_one_line(run("publish", run_folder, "w3", "--digests", "plain", "--study", "w"), "found no result")
    assert_one_line(run("embed", "w", "no.zarr", "-o", "e"), "expected a store")
    bad = run("embed", "w", store, "-o", "e", "--device", "gpu")
    assert_one_line(bad, "found device 'gpu', expected auto, cpu, cuda or cuda:N")
    assert_one_line(run("verify", "w", "--device", "tpu"), "found device 'tpu', expected auto, cpu, cuda or cuda:N")
    assert not Path("e").exists()
    assert_one_line(run("info", tmp_path), "found a folder without config.json")
    assert_one_line(run("report", "-o", "r.html", "--study", "w"), "found no result")
    assert_one_line(
        run("evaluate", "ood", "--weights", "w", "--store", store, "--train-cohort", "mars", "-o", "s", "--seed", 0),
        "found no cohort 'mars', expected one of north, river",
    )


def test_answers_in_json(run, store, run_folder, monkeypatch, tmp_path):
    """One document on standard output, nothing else there."""

    def ask(*arguments: object, code: int = 0):
        result = run(*arguments, "--json")
        assert (result[0], len(result[2].splitlines())) == (code, 1 if code else 0), result
        return json.loads(result[1], parse_constant=pytest.fail)

    monkeypatch.setattr(listing, "BUNDLED", tmp_path / "none")
    monkeypatch.setenv("CAPEZOO_CACHE", str(tmp_path / "cache"))
    published = ("publish", run_folder, "cache/cape_resnet.tiny", "--digests", "plain", "--store", store)
    assert ask(*published, "--summary", "Small.")["weights"].endswith("tiny")
    listed = ask("list", "cape*")
    assert listed["encoders"] == ["cape_resnet"]
    assert [(one["name"], one["summary"]) for one in listed["weights"]] == [("cape_resnet.tiny", "Small.")]
    assert ask("list", "nothing*", code=1) == {"encoders": [], "weights": [], "damaged": {}}
    assert ask("pull", "cape_resnet.tiny", "--to", "w") == {"folder": "w"}
    assert ask("verify", "w")["problems"] == []
    assert ask("embed", "w", store, "-o", "e")["records"] == len(open_store(store).index)
    assert ask("report", "-o", "r.html", "--run-folder", run_folder) == {"out": "r.html"}
    answered = ask("evaluate", "separability", "--weights", "w", "--store", store, "--seed", 0, "-o", "s", "--folds", 2)
    assert answered["results"] == "s/results.json"
    assert len(answered["headline"]) == 1


def test_damaged_weights_set_the_exit_code(run, run_folder):
    run("publish", run_folder, "w", "--digests", "plain")
    data = bytearray(Path("w", WEIGHTS).read_bytes())
    data[-1] ^= 1
    Path("w", WEIGHTS).write_bytes(bytes(data))
    result = run("verify", "w")
    assert "model.safetensors: sha256 differs" in result[1]
    assert_one_line(result, "1 problems", code=4)


def test_weights_of_another_recipe_are_refused(run, run_folder, store):
    """The store, not the weights, is made another one here: its manifest says so."""
    run("publish", run_folder, "w", "--digests", "plain")
    config = json.loads(Path("w/config.json").read_text())
    length = int.from_bytes(Path("w", WEIGHTS).read_bytes()[:8], "little")
    data = Path("w", WEIGHTS).read_bytes()
    other = data[8 : 8 + length].replace(b"cape-v1", b"cape-q1")
    Path("w", WEIGHTS).write_bytes(data[:8] + other + data[8 + length :])
    config["input"]["recipe"] = "cape-q1"
    Path("w/config.json").write_text(json.dumps(config))
    result = run("embed", "w", store, "-o", "e", "--unchecked")
    assert_one_line(result, "found recipe 'cape-v1' (expected 'cape-q1')", "Ingest again with recipe 'cape-q1'")
    assert not Path("e").exists()


def test_options_of_several_values_are_repeated(run, store):
    """Words after a value are no further values: a store or weights would be taken for what they are not."""
    ood = ("evaluate", "ood", "--store", store, "--train-cohort", "north", "-o", "s", "--seed", 0)
    assert_one_line(
        run(*ood, "--weights", "w", "random"), "found 'random' after the last argument", "--name A --name B"
    )
    assert_one_line(run(*ood, "--weights", "a,b"), "found no weights 'a,b'")
    assert_one_line(
        run("embed", "w", "-o", "e"), "found no SOURCE, expected: capezoo embed [OPTIONS] WEIGHTS SOURCE..."
    )


def test_as_a_program(run_folder, tmp_path):
    """Once as users start it: no traceback, help without torch's start-up time, a bar only on a terminal."""
    environment = os.environ | {"COLUMNS": "120"}

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "capezoo.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    shown = start("--help")
    assert shown.returncode == 0
    for command in ("pretrain", "embed", "evaluate", "report", "list", "info", "verify", "publish"):
        assert command in shown.stdout
    failed = start("verify", str(tmp_path / "nothing"))
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    unknown = start("fly")
    assert unknown.returncode == 2
    assert "Traceback" not in unknown.stderr
    script = "import sys; from capezoo.cli import program as cli; cli.main(['list']); print('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert listed.stdout.strip().endswith("False")
