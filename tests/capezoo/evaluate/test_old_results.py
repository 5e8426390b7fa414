"""results.json of format 1, written before questions were plug-ins, still says what it said.

tests/golden/results-1 was written by `ood_study` of commit af9f596 for a store of two simulated hospitals.
"""

import json
import shutil
from pathlib import Path

import pytest

from capezoo.evaluate.page.report import build_report
from capezoo.evaluate.results import Study
from ecgcohorts.errors import SpecError

OLD = Path(__file__).parents[2] / "golden" / "results-1"


@pytest.fixture(scope="module")
def raw():
    return json.loads((OLD / "results.json").read_text())


def test_everything_in_it_is_read(raw):
    study = Study.read(OLD)
    source = raw["ood"]["provenance"]
    assert (study.seed, study.store_fingerprint) == (source["seed"], source["store_fingerprint"])
    assert list(study.answers) == ["map", "ood", "separability"]
    for answer in study.answers.values():
        assert answer.provenance.model_dump() == {key: source[key] for key in ("command", "commit", "versions")}
    ood = study.answers["ood"]
    assert {**ood.config.model_dump(mode="json"), "seed": study.seed} == raw["ood"]["config"] | {"split": ""}
    # What an old file does not say is left out: it has a default.
    found = ood.result.model_dump(mode="json", exclude_unset=True)
    for key in ("tests", "train_records", "comparisons"):
        assert found[key] == raw["ood"][key]
    assert found["train_cohort"] == raw["ood"]["config"]["train_cohort"]
    identity = [one.model_dump(exclude_unset=True) for one in study.weights]
    assert [{**one, **who} for one, who in zip(found["weights"], identity, strict=True)] == raw["ood"]["weights"]
    measured = study.answers["separability"].result.model_dump(mode="json")
    for name, one in raw["separability"].items():
        assert {**measured, "metrics": measured["weights"][name]} == {**one, "weights": measured["weights"]}
    drawn = study.answers["map"].result.model_dump(mode="json")
    for one in drawn["maps"]:
        old = json.loads((OLD / "maps" / f"{one['name']}.json").read_text())
        assert {**one, "seed": study.seed, **{key: drawn[key] for key in ("cohorts", "cohort", "rows")}} == old


def test_it_is_reported_on_and_written_anew_as_format_2(tmp_path, raw):
    study = Study.read(OLD)
    study.write(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["format_version"] == 2
    assert Study.read(tmp_path) == study
    text = build_report(tmp_path / "r.html", [OLD]).read_text()
    assert all(heading in text for heading in ("Maps", "Out of distribution", "Do cohorts separate"))
    assert study.headline()["tiny_x"]["kNN purity"] == raw["separability"]["tiny_x"]["metrics"][0]["value"]
    assert len(study.card_metrics(study.weights[0].weights)) == 2 * 4 + 4  # over heads too; and those of random


def test_without_maps_and_separability_it_is_read_as_well(tmp_path, raw):
    (tmp_path / "results.json").write_text(json.dumps(raw | {"separability": {}}))
    assert list(Study.read(tmp_path).answers) == ["ood"]


@pytest.mark.parametrize("damage", ["no ood", "no seed", "other json", "no json", "other format"])
def test_what_is_neither_format_is_refused_in_one_line(tmp_path, raw, damage):
    shutil.copy(OLD / "results.json", tmp_path)
    ood = raw["ood"]
    config = {key: value for key, value in ood["config"].items() if key != "seed"}
    text = {
        "no ood": json.dumps(raw | {"ood": None}),
        "no seed": json.dumps(raw | {"ood": ood | {"config": config}}),
        "other json": "[1]",
        "no json": "{",
        "other format": json.dumps(raw | {"format_version": 3}),
    }[damage]
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SpecError, match=r"results.json: ") as error:
        Study.read(tmp_path)
    assert "\n" not in str(error.value)
