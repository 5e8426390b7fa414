"""A campaign: order, cost, budget, resuming, and what it writes, on a store of 36 simulated people."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import capezoo.cli.program
from capezoo.evaluate.artefact import campaign as module
from capezoo.evaluate.artefact.campaign import TRIALS, Campaign, plan
from capezoo.evaluate.artefact.outcome import Outcome
from capezoo.evaluate.artefact.page import write
from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.run import run
from capezoo.evaluate.artefact.trial import Settings, Trial
from capezoo.evaluate.page.report import build_report
from ecgcohorts.errors import RecipeMismatch, SourceError, SpecError

ARMS = ("mixed", "in_distribution")
TINY = Settings(steps=2, pairs=4)
CELLS = plan("tone", (0, 200), ARMS, "hard", (2, 3))  # seeds that give every device two men and two women


@pytest.fixture(scope="module")
def material(artefact_materials: dict[str, Material]) -> Material:
    """36 people, of both sexes and known age on every device."""
    return replace(artefact_materials["filtered"], sex=np.arange(36) % 2.0, age=20.0 + np.arange(36))


@pytest.fixture(scope="module")
def made(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A campaign that ran through."""
    campaign = Campaign(material, CELLS, tmp_path_factory.mktemp("made"), TINY)
    campaign.run()
    return campaign


@pytest.fixture
def instant(made: Campaign, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trials that take no time and say that they took 5 s and .1 s a step, on a clock that they move; their keys."""
    clock, ran = [0.0], list[str]()

    def run_instantly(material: Material, cell: module.Cell, settings: Settings) -> Trial:
        template = made.kept[CELLS[0].key]
        seconds = 5 + 0.1 * settings.steps
        clock[0] += seconds
        ran.append(cell.key)
        facts = template.facts.model_copy(update={"seconds": seconds})
        return replace(template, cell=cell, facts=facts, made_with=module.made_with(material, settings))

    monkeypatch.setattr(module, "run", run_instantly)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    return ran


def comparable(outcome: Outcome) -> dict:
    """All of an outcome but the time it took."""
    return outcome.model_dump(mode="json", exclude={"seconds", "cpu_seconds"})


def test_all_of_a_seed_comes_before_the_next():
    assert [(cell.seed, cell.strength_uv, cell.arm) for cell in CELLS[:5]] == [
        (2, 0, "mixed"),
        (2, 0, "in_distribution"),
        (2, 200, "mixed"),
        (2, 200, "in_distribution"),
        (3, 0, "mixed"),
    ]
    assert len({cell.key for cell in CELLS}) == len(CELLS) == 8


def test_devices_of_the_store_have_one_strength():
    cells = plan("tone", (100, 200), ("own_devices", "mixed"), "hard", [3])
    assert [(cell.arm, cell.strength_uv) for cell in cells] == [("own_devices", 0), ("mixed", 100), ("mixed", 200)]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"arms": ["mixd"]}, "'mixed'"),
        ({"kind": "tune"}, "'tone'"),
        ({"strengths": [20_000]}, "strength_uv"),
        ({"positives": "soft"}, "positives"),
    ],
)
def test_a_plan_of_unknown_things_is_refused(wrong, expected):
    right = {"kind": "tone", "strengths": [0], "arms": ARMS, "positives": "hard", "seeds": [0]}
    with pytest.raises(SpecError, match=expected):
        plan(**right | wrong)


def test_a_campaign_stopped_and_resumed_ends_equal(material, made, tmp_path, monkeypatch):
    def stopped(material, cell, settings, calls=[]):  # noqa: B006 - remembers its calls
        calls.append(cell)
        # Three short trials come before the first: two that are timed, and one to warm up.
        if len(calls) == 3 + 4:
            raise KeyboardInterrupt
        return run(material, cell, settings)

    monkeypatch.setattr(module, "run", stopped)
    first = Campaign(material, CELLS, tmp_path, TINY)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    monkeypatch.undo()
    # What a process leaves that dies while it writes.
    (tmp_path / TRIALS / f"{CELLS[3].key}.npz.0badcafe.part").write_bytes(b"PK")
    second = Campaign(material, CELLS, tmp_path, TINY)
    assert [cell.key for cell in second.left] == [cell.key for cell in CELLS[3:]]
    assert second.outcome("f").state == "incomplete"
    second.run()
    assert not second.left
    assert comparable(second.outcome("f")) == comparable(made.outcome("f"))


def test_more_seeds_are_added_and_nothing_is_run_twice(material, made, instant):
    more = Campaign(material, plan("tone", (0, 200), ARMS, "hard", (2, 3, 5)), made.folder, TINY)
    assert {cell.seed for cell in more.left} == {5}
    assert len(instant) == 0
    assert len(Campaign(material, CELLS[:1], made.folder, TINY).outcome("f").findings.trials) == 8


@pytest.mark.parametrize("other", ["settings", "people"])
def test_trials_of_something_else_are_refused(material, made, artefact_materials, other):
    settings = Settings(steps=3, pairs=4) if other == "settings" else TINY
    recordings = artefact_materials["raw"] if other == "people" else material
    with pytest.raises(SpecError, match=r"other recordings, settings or code.*-o"):
        Campaign(recordings, CELLS, made.folder, settings)


def test_the_results_of_a_study_are_not_written_over(material, tmp_path):
    study = b'{"format": "capezoo-results"}'
    (tmp_path / "results.json").write_bytes(study)
    with pytest.raises(
        SpecError, match=r"results\.json: found results of something else.* Name another folder with -o"
    ):
        Campaign(material, CELLS, tmp_path, TINY)
    assert (tmp_path / "results.json").read_bytes() == study


def test_a_trial_under_another_name_and_a_damaged_one_are_refused(material, made, tmp_path):
    whole = (made.folder / TRIALS / f"{CELLS[0].key}.npz").read_bytes()
    (tmp_path / TRIALS).mkdir()
    path = tmp_path / TRIALS / f"{CELLS[1].key}.npz"
    path.write_bytes(whole)
    with pytest.raises(SpecError, match="found a trial of other"):
        Campaign(material, CELLS, tmp_path, TINY)
    path.write_bytes(whole[:-100])
    with pytest.raises(SourceError, match="Delete the file"):
        Campaign(material, CELLS, tmp_path, TINY)


def test_signatures_that_the_store_cannot_wear_are_refused_before_anything_runs(material, tmp_path):
    with pytest.raises(RecipeMismatch, match="plain-500"):
        Campaign(material, plan("quantisation", [200], ARMS, "hard", [0]), tmp_path, TINY)


def test_cost_is_projected_from_two_short_trials(material, tmp_path, instant, monkeypatch):
    """The first trial of a process takes longer, here by 9 s, and must not pass for what a step costs."""
    real = module.run

    def first_one_slowly(*arguments):
        trial = real(*arguments)
        late = 0 if len(instant) > 1 else 9
        return replace(trial, facts=trial.facts.model_copy(update={"seconds": trial.facts.seconds + late}))

    monkeypatch.setattr(module, "run", first_one_slowly)
    arms = ("in_distribution", "mixed_more_pairs", "random_weights")
    campaign = Campaign(material, plan("tone", [200], arms, "hard", [0]), tmp_path, Settings(steps=250, pairs=4))
    # 5 s a trial and .1 s a step; batches four times as large; no step at all.
    assert campaign.projected_s() == pytest.approx((5 + 25) + (5 + 100) + 5)
    assert len(instant) == 3


def test_own_devices_are_timed_where_four_made_up_ones_would_be_too_many(material, tmp_path):
    two = replace(material, device=np.arange(36) % 2, devices=("a", "b"))
    nine = Settings(steps=2, pairs=9)
    campaign = Campaign(two, plan("tone", (200,), ("own_devices",), "hard", (2,)), tmp_path, nine)
    assert campaign.projected_s() > 0
    campaign.run()
    assert not campaign.left


def test_a_budget_is_kept_and_the_rest_is_named(material, tmp_path, instant):
    said = []
    settings = Settings(steps=50, pairs=4)  # 10 s a trial
    campaign = Campaign(material, CELLS, tmp_path, settings)
    assert campaign.projected_s() == pytest.approx(80)
    campaign.run(budget_s=35, say=said.append)
    assert len(campaign.kept) == 3
    assert said[0].startswith("1/8 tone-0uv-mixed-hard-seed2: 10 s; 70 s left")
    assert said[-1] == "stopped at the budget: 5 of 8 trials are left"
    outcome = campaign.outcome("f")
    assert (outcome.state, outcome.left) == ("incomplete", tuple(cell.key for cell in CELLS[3:]))
    campaign.run(budget_s=0)
    assert len(campaign.kept) == 3


def test_what_is_written_can_be_read_back_and_names_the_constant_answer(made, tmp_path):
    outcome = made.outcome("f" * 64, "capezoo evaluate artefact")
    page = write(outcome, tmp_path)
    assert Outcome.read(tmp_path) == outcome
    for name, rows in (("arms", 4 + 1), ("differences", 2 + 1), ("trials", 8 + 1)):
        with (tmp_path / "tables" / f"{name}.csv").open() as file:
            found = list(csv.DictReader(file))
        assert len(found) == rows
        assert "constant answer" in found[-1].values()
    pictures = sorted(path.stem for path in (tmp_path / "figures").glob("*.svg"))
    assert pictures == [f"tone-hard-{name}" for name in ("device_auc", "sex_drop_swapped", "shift_swapped")]
    for path in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(path)
    text = page.read_text()
    # A table is one for a reader only with the answer that knows nothing beside it.
    assert text.count("<th>constant answer</th>") == text.count("<table>")
    assert "What was fixed before any trial" in text
    assert not re.search(r"\bnan\b|None", text)


def test_a_report_shows_a_control(made, tmp_path):
    write(made.outcome("f"), tmp_path / "control")
    text = build_report(tmp_path / "all.html", [tmp_path / "control"]).read_text()
    for heading in ("Artefact control: in short", "What it shows, and what not"):
        assert f">{heading}</h2>" in text
    assert "No evaluation was given" not in text


def test_results_of_something_else_are_refused(tmp_path):
    with pytest.raises(SourceError, match="found no result"):
        Outcome.read(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"format": "capezoo-results"}))
    with pytest.raises(SpecError, match="evaluate artefact"):
        Outcome.read(tmp_path)


def command(store: Path, out: Path, *more: str, cohort: str = "north") -> int:
    words = ["evaluate", "artefact", "--store", str(store / "filtered.zarr"), "--cohort", cohort, "--seed", "0"]
    words += ["--seeds", "1", "--steps", "2", "--pairs", "4", "-o", str(out), *more]
    try:
        capezoo.cli.program.main(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_runs_goes_on_and_answers_in_json(artefact_stores, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert command(artefact_stores, tmp_path, "--budget-minutes", "0", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["state"] == "incomplete"
    assert told.err.startswith("4 trials, 0 of them done: about ")
    assert not (tmp_path / "results.json").exists()
    assert command(artefact_stores, tmp_path) == 0
    told = capsys.readouterr()
    assert re.search(r"^tone, hard positives, 0 uV +0\.00 / 0\.00 .*equal in 1", told.out, re.MULTILINE)
    assert told.out.endswith(f"{tmp_path / 'report.html'}\n")
    assert command(artefact_stores, tmp_path, "--json") == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert (answer["state"], answer["left"], len(answer["differences"])) == ("complete", [], 2)
    assert told.err == "4 trials, 4 of them done: about 0 s for the rest\n"


def test_ctrl_c_says_what_is_kept(artefact_stores, tmp_path, capsys, monkeypatch):
    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Campaign, "projected_s", lambda self: 60.0)
    monkeypatch.setattr(module.Campaign, "_cost_s", lambda self, cell: 1.0)
    monkeypatch.setattr(module, "run", stopped)
    assert command(artefact_stores, tmp_path) == 130
    kept = f"capezoo: stopped. 0 of 4 trials are kept in {tmp_path / TRIALS}; the same command goes on from there."
    assert capsys.readouterr().err.splitlines()[-1] == kept


def test_an_unknown_cohort_is_refused_with_those_there_are(artefact_stores, tmp_path, capsys):
    assert command(artefact_stores, tmp_path, cohort="nort") == 2
    assert "north" in capsys.readouterr().err
