"""A study as one file: checked before anything is trained, gone on with where it stopped, a command behind each number."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

import ecgcohorts as ec
from capezoo.cli.program import main
from capezoo.evaluate import costs
from capezoo.evaluate import plan as plans
from capezoo.evaluate.results import Study
from capezoo.training.data import TrainingData
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
        ({"studies": {"a": {"questions": {"lodo": {"allow_seen": True}}}}}, ["no two weights", "leave_out: each"]),
        ({"studies": {"a": {"questions": {"scaling": {"allow_seen": True}}}}}, ["no two weights", "percent: [10"]),
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


FAMILY = {"run": "tiny.yaml", "set": {"sampler.singles": "self", "sampler.groups": 2}}


def commands_of(path, out):
    return [step.command for step in plans.steps_of(plans.Plan.read(path), path.parent, out)]


def test_a_family_is_the_run_without_each_cohort_and_on_growing_shares(write, tmp_path):
    encoders = {"x": FAMILY | {"leave_out": "each"}, "s": FAMILY | {"percent": [25, 100]}, "random": None}
    studies = {"a": {"encoders": ["x"], "questions": {"separability": {}}}, "b": {"questions": {"separability": {}}}}
    commands = commands_of(write(encoders=encoders, studies=studies), tmp_path / "out")
    trained = [command for command in commands if command.startswith("capezoo pretrain")]
    names = ["x", "x-without-north", "x-without-river", "s-25pct", "s-100pct"]
    assert [Path(shlex.split(one)[shlex.split(one).index("--out") + 1]).name for one in trained] == names
    # Two steps of the whole run, whoever is left; typed alone, each command says who is trained on.
    assert all("'max_steps=2'" in one or "max_steps=2" in one for one in trained)
    assert "'cohorts=[\"river\"]'" in trained[1]
    assert "held_out.train_percent=25" in trained[3]
    asked = [command for command in commands if command.startswith("capezoo evaluate")]
    assert [one.count("--weights ") for one in asked] == [3, 6]


def test_members_of_a_family_have_equal_steps_or_equal_epochs(write, tmp_path, simulated):
    """The named run goes 6 times through all patients; a share does so in fewer steps, or takes more epochs for as many."""
    settings = FAMILY["set"] | {"max_steps": None, "epochs": 6}
    for equal in ("steps", "epochs"):
        path = write(
            encoders={"s": {"run": "tiny.yaml", "set": settings, "percent": [25, 100], "equal": equal}}, studies={
                "a": {"questions": {"separability": {}}}}
        )  # fmt: skip
        steps = [step.trains for step in plans.steps_of(plans.Plan.read(path), path.parent, tmp_path) if step.trains]
        data = [TrainingData.prepare(ec.open(simulated / "store.zarr"), config) for config in steps]
        small, whole = (one.total_steps for one in data)
        assert whole == 6 * data[1].steps_per_epoch
        assert small == (whole if equal == "steps" else 6 * data[0].steps_per_epoch)
        assert data[0].steps_per_epoch < data[1].steps_per_epoch


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({"run": "tiny.yaml", "leave_out": ["nroth"]}, ["encoder x: found no cohort 'nroth'", "Did you mean 'north'"]),
        ({"run": "tiny.yaml", "leave_out": "every"}, ["leave_out"]),
        ({"run": "tiny.yaml", "leave_out": "each", "percent": [10]}, ["either leave_out or percent"]),
        ({"run": "tiny.yaml", "percent": [50, 10]}, ["ascending"]),
        ({"run": "tiny.yaml", "percent": [0]}, ["percent"]),
        ({"weights": "w", "percent": [10]}, ["belong to a run"]),
        (
            {"run": "tiny.yaml", "set": {"cohorts": ["north"]}, "leave_out": "each"},
            ["found 1 cohort to train on (north)"],
        ),
        ({"run": "tiny.yaml", "percent": [1, 100]}, ["encoder x-1pct:", "sampler.groups"]),
    ],
)
def test_a_family_that_cannot_be_trained_is_refused_first(write, tmp_path, one, words):
    with pytest.raises(EcgError) as refused:
        plans.carry_out(write(encoders={"x": one}, studies=ONE), tmp_path / "out")
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "out").exists()
    two = {"x": {"run": "tiny.yaml", "leave_out": "each"}, "x-without-north": {"run": "tiny.yaml"}}
    with pytest.raises(SpecError, match="found x-without-north twice"):
        plans.carry_out(write(encoders=two, studies=ONE), tmp_path / "out")


def test_a_budget_stops_before_a_training_and_the_next_call_goes_on(write, tmp_path, monkeypatch, capsys):
    """The cost is told first; nothing is written where nothing fits; a study that is not whole is not asked."""
    path, out = write(studies=ONE | {"b": {"questions": {"separability": {"resamples": 20}}}}), tmp_path / "out"
    takes = {"patient_pairs": 100.0, "in_distribution": 5000.0}
    monkeypatch.setattr(costs.Costs, "of", lambda self, config: takes[config.sampler.name])
    main(["evaluate", "study", "--plan", str(path), "-o", str(out), "--budget-minutes", "0"])
    told = capsys.readouterr()
    assert "2 trainings are left: about 85 min" in told.err
    assert "nothing was run" in told.out
    assert not out.exists()
    # The first training fits, the second would end too late.
    main(["evaluate", "study", "--plan", str(path), "-o", str(out), "--budget-minutes", "60", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert len(made["left"]) == 4
    assert made["headline"] == {}
    monkeypatch.undo()
    assert plans.carry_out(path, out)["left"] == []


def test_what_a_training_takes_is_timed_once_a_kind(write, tmp_path, simulated, monkeypatch):
    seconds = iter([9.0, 3.0, 18.0])
    monkeypatch.setattr(costs.Costs, "_short_s", lambda self, config, steps: next(seconds))
    store, path = ec.open(simulated / "store.zarr"), write()
    config = next(step.trains for step in plans.steps_of(plans.Plan.read(path), path.parent, tmp_path) if step.trains)
    found = costs.Costs(store)
    # Half a second a step and 2 beside; held-out patients are looked at every second step.
    assert found.of(config) == pytest.approx(2 * 0.5 + 2 * (1 + 1))
    assert found.of(config.model_copy(update={"max_steps": 10, "seed": 5})) == pytest.approx(10 * 0.5 + 2 * (1 + 5))
