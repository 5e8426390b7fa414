"""A study as one file: checked before anything is trained, gone on with where it stopped, a command behind each number."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from capezoo.cli.program import main
from capezoo.evaluate import plan as plans
from capezoo.evaluate.results import Study
from ecgcohorts.errors import EcgError, SourceError, SpecError

RUN = {
    "name": "tiny",
    "seed": 0,
    "encoder": {"name": "cape_resnet", "config": {"widths": [8], "embedding_dim": 8, "stem_stride": 4, "kernel": 8}},
    "sampler": {"name": "patient_pairs", "groups": 4},
    "held_out": {"fraction": 0.2, "every_steps": 2, "batches_per_cohort": 1},
    "probes": {"patients": 0},
    "max_steps": 2,
}
ONE = {"a": {"encoders": ["x"], "questions": {"separability": {"resamples": 20}}}}
OOD = {"runs": 1, "max_epochs": 1, "resamples": 20, "allow_seen": True}


@pytest.fixture
def write(tmp_path, simulated):
    """write(changes) -> a plan of two encoders, one of them trained, and the untrained one."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RUN))
    values = {
        "store": [str(simulated / "store.zarr")],
        "seeds": [3],
        "train_cohort": "north",
        "encoders": {"x": {"run": "tiny.yaml"}, "z": {"run": "tiny.yaml", "set": {"sampler.name": "in_distribution"}},
                     "random": None},
        "studies": {"transfer": {"questions": {"ood": OOD, "separability": {"resamples": 20}}},
                    "apart": {"encoders": ["z"], "questions": {"separability": {"resamples": 20}}}},
    }  # fmt: skip

    def made(**changes):
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
        return path

    return made


def test_a_plan_is_carried_out_and_gone_on_with(write, tmp_path, monkeypatch):
    """Stopped in the middle of its second run, it does not train the first one again."""
    path, out = write(), tmp_path / "out"
    trained, real = [], plans.pretrain

    def dying(store, config, folder, **how):
        trained.append(folder.name)
        if trained == ["x", "z"]:
            raise KeyboardInterrupt
        return real(store, config, folder, **how)

    monkeypatch.setattr(plans, "pretrain", dying)
    with pytest.raises(KeyboardInterrupt):
        plans.carry_out(path, out)
    told = []
    made = plans.carry_out(path, out, lambda *now: told.append(now))
    assert trained == ["x", "z", "z"]
    assert ("3 of 7: pretrain z", 2, 2) in told
    assert told[-1] == ("all steps", 7, 7)
    assert made == json.loads((out / "results.json").read_text())
    assert set(made["seconds"]) == set(made["commands"])
    study = Study.read(out / "seed-3" / "transfer")
    assert [one.name for one in study.weights] == ["x", "z", "random"]
    assert study.seed == 3
    assert made["headline"]["seed-3/transfer"] == study.headline()
    page = (out / "report.html").read_text()
    assert "A study of encoders" in page
    assert made["commands"][4] in page.replace("&#39;", "'").replace("&#34;", '"')
    # Nothing is left to do, and nothing changes.
    before = (out / "seed-3" / "transfer" / "results.json").stat().st_mtime_ns
    assert plans.carry_out(path, out)["seconds"] == made["seconds"]
    assert (out / "seed-3" / "transfer" / "results.json").stat().st_mtime_ns == before
    assert trained == ["x", "z", "z"]


def test_several_words_are_an_option_given_several_times(write, tmp_path, capsys):
    one = {"a": {"encoders": ["x"], "questions": {"map": {"column": ["age", "sex"], "method": "tsne"}}}}
    main(["evaluate", "study", "--plan", str(write(studies=one)), "-o", str(tmp_path / "out"), "--dry-run"])
    assert "--column age --column sex --method tsne" in capsys.readouterr().out
    one["a"]["questions"]["map"] = {"column": ["aeg"]}
    with pytest.raises(SpecError, match=r"found no column 'aeg', expected one of cohort, .*Did you mean 'age'"):
        plans.carry_out(write(studies=one), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_do_the_same(write, tmp_path, monkeypatch, capsys):
    """Each number can be had again by the command that stands behind it, typed into a terminal, also beside the plan."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plan = "../plan.yaml"
    asked = {"ood": OOD | {"shares": [0.6, 0.1, 0.3]}, "separability": {"resamples": 20}}
    path = write(studies={"transfer": {"questions": asked}})
    main(["evaluate", "study", "--plan", plan, "-o", "by_hand", "--dry-run"])
    commands = capsys.readouterr().out.splitlines()
    assert not Path("by_hand").exists()
    for command in commands:
        main(shlex.split(command)[1:])
    capsys.readouterr()
    main(["evaluate", "study", "--plan", str(path), "-o", "planned", "--json"])
    made = json.loads(capsys.readouterr().out)
    by_hand = Study.read(Path("by_hand") / "seed-3" / "transfer")
    planned = Study.read(Path("planned") / "seed-3" / "transfer")
    found = [{name: one.result for name, one in study.answers.items()} for study in (by_hand, planned)]
    assert set(found[0]) == {"ood", "separability"}
    assert found[0] == found[1]
    here = [command.replace("by_hand", "planned").replace("../", f"{tmp_path}/") for command in commands]
    assert here == made["commands"]
    # What was made by hand is what the plan would have made.
    main(["evaluate", "study", "--plan", plan, "-o", "by_hand", "--json"])
    assert json.loads(capsys.readouterr().out)["seconds"] == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"studies": {"a": {"questions": {"odd": {}}}}}, ["study a", "'odd'", "expected one of", "Did you mean 'ood'"]),
        ({"studies": {"a": {"encoders": ["y"], "questions": {"map": {}}}}}, ["no encoder 'y'", "x, z, random"]),
        ({"studies": {"a": {"questions": {"ood": {"rums": 3}}}}}, ["question ood", "unknown key 'rums'"]),
        ({"studies": {"a": {"questions": {"ood": {"train_cohort": "nowhere"}}}}}, ["nowhere"]),
        ({"studies": {"weights": {"questions": {"map": {}}}}}, ["a study named weights", "Name it otherwise"]),
        ({"split": "none-such"}, ["none-such"]),
        (
            {"studies": {"a": {"questions": {"ood": OOD | {"allow_seen": False}}}}},
            ["x: found test patients", "overlap"],
        ),
        ({"encoders": {"x": {"run": "tiny.yaml", "weights": "w"}}}, ["either weights or run"]),
        ({"encoders": {"../x": {"run": "tiny.yaml"}}}, ["encoders"]),
        ({"encoders": {"x": {"run": "tiny.yaml", "set": {"sampler.groups": 4000}}}, "studies": ONE}, ["4000"]),
        ({"encoders": {"x": {"weights": "nothing-of-this-name"}}, "studies": ONE}, ["nothing-of-this-name"]),
        ({"encoders": {"x": {"run": "tiny.yaml"}, "randm": None}, "studies": ONE}, ["randm", "Did you mean 'random'"]),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(write, tmp_path, changes, words):
    with pytest.raises(EcgError) as refused:
        plans.carry_out(write(**changes), tmp_path / "out")
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_plan_and_a_strangers_results_are_refused(write, tmp_path):
    out = tmp_path / "out"
    plans.carry_out(write(encoders={"x": {"run": "tiny.yaml"}}, studies=ONE), out)
    # An answer about x alone is none about x and the untrained network.
    both = {"a": {"questions": {"separability": {"resamples": 20}}}}
    with pytest.raises(SpecError, match="found a study of other weights"):
        plans.carry_out(write(encoders={"x": {"run": "tiny.yaml"}, "random": None}, studies=both), out)
    changed = write(encoders={"x": {"run": "tiny.yaml", "set": {"max_steps": 3}}}, studies=ONE)
    with pytest.raises(SpecError, match="weights of another run"):
        plans.carry_out(changed, out)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("{}")
    with pytest.raises(SpecError, match="something else than the results of a plan"):
        plans.carry_out(changed, tmp_path / "other")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    with pytest.raises(SpecError, match=r"list\.yaml"):
        plans.carry_out(tmp_path / "list.yaml", tmp_path / "new")
    with pytest.raises((SourceError, SpecError), match="nowhere"):
        plans.carry_out(tmp_path / "nowhere.yaml", tmp_path / "new")
