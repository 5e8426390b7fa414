"""What every evaluation question keeps to, collected from the registry, on the embeddings of a small store."""

import contextlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from capezoo import encoders
from capezoo.cli.program import main
from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.folder import EmbeddingInfo, Embeddings
from capezoo.evaluate import questions
from capezoo.evaluate.page.report import build_report
from capezoo.evaluate.questions import KIND, Context, Subject, about
from capezoo.evaluate.results import Answer, EvaluatedWeights, Provenance, Study
from capezoo.evaluate.study import study
from capezoo.specs import EncoderSpec, HeldOutSpec, InputSpec, RunConfig
from capezoo.specs.card import CohortUse, Training
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import BYTE_COLUMNS, COLUMNS, CohortIndex
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe
from ecgcohorts.report.page import table

NAMES = plugins.names(KIND)
EVIL = "<script>&'\""  # in names of weights and cohorts
COHORTS = (f"a{EVIL}", f"b{EVIL}")
QUICK = {"train_cohort": COHORTS[0], "max_epochs": 3, "resamples": 20, "runs": 2, "allow_seen": True, "max_records": 30}
QUICK |= {"train_records": 40, "validation_records": 20, "test_records": 40, "min_patients": 5}
QUICK |= {"head_epochs": 3, "epochs": 2}
UNITS, LENGTH = 6, 256


@dataclass(frozen=True, eq=False)
class Strips:
    """A store in memory: noise, louder in the old."""

    index: CohortIndex
    signals: Any
    recipe: Recipe = CAPE_V1
    path: str = "memory"

    def read(self, rows: Any) -> Any:
        return self.signals[rows]

    def refuse_removed(self) -> None:
        """Nobody is removed from memory."""


def network(seed: int) -> Any:
    """An encoder that takes a moment to train."""
    model = encoders.build(EncoderSpec(config={"widths": [2], "embedding_dim": UNITS, "stem_stride": 16}), seed)
    model.spec = InputSpec(length=LENGTH)
    return model.eval()


def quick(module: ModuleType) -> Any:
    """The question's settings, made small where it has such a setting."""
    return module.Config(**{key: value for key, value in QUICK.items() if key in module.Config.model_fields})


def subject(name: str, index: CohortIndex, seed: int) -> Subject:
    x = np.random.default_rng(seed).normal(size=(len(index), UNITS))
    x[:, 0] += index["age"] / 10 + index["cohort"]
    info = EmbeddingInfo(
        name=name,
        weights=f"{seed:064x}",
        card=None,
        input=InputSpec(),
        adaptation=Adaptation.of_recipe(InputSpec(), CAPE_V1, "store"),
        store_fingerprint="f" * 64,
        records=len(index),
        width=UNITS,
        columns=tuple(index.columns),
        cohorts=index.cohorts,
        sites=(),
        devices=(),
        data="0" * 64,
    )
    return Subject(Embeddings(Path(name), info, index, x.astype(np.float32)), models=(network(seed),))


@pytest.fixture(scope="module")
def context() -> Context:
    """Two cohorts of 40 patients with two records each, under two sets of weights."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(80), 2)
    n = len(patient)
    columns = {name: np.zeros(n, dtype) for name, dtype in COLUMNS.items()}
    columns |= {name: rng.integers(0, 256, (n, 16)).astype("u1") for name in BYTE_COLUMNS}
    columns |= {"row": np.arange(n), "patient": patient, "cohort": (patient // 40).astype("i4")}
    columns["valid_stop"] = np.full(n, LENGTH + 20, "i4")
    columns |= {
        "age": rng.uniform(20, 85, 80)[patient].astype("f4"),
        "sex": rng.integers(0, 2, 80)[patient].astype("i1"),
        "patient_known": np.ones(n, bool),
        "days": np.tile([0, 30], 80).astype("f4"),
    }
    index = CohortIndex(columns, COHORTS)
    noise = rng.normal(size=(n, len(CAPE_V1.leads), LENGTH + 20)) * columns["age"][:, None, None] * 10
    store = Strips(index, np.rint(noise).astype("i2"))
    return Context((subject(f"x{EVIL}", index, 1), subject(f"y{EVIL}", index, 2)), seed=3, store=store)


def asked(context: Context, name: str) -> Context:
    """The context with what the cards of its weights say: the second was pretrained on less, in the way a question is about."""
    index = context.index
    half = index["patient"] % 2 == 0
    run = RunConfig(name="tiny", seed=0)
    less = {
        "scaling": (run.model_copy(update={"held_out": HeldOutSpec(train_percent=50)}), half),
        "lodo": (run.model_copy(update={"cohorts": COHORTS[:1]}), index["cohort"] == 0),
    }.get(name, (run, half))
    subjects = []
    for one, (trained, entries) in zip(context.subjects, ((run, half | ~half), less), strict=True):
        uses = [CohortUse(name=c, patients=1, records=int((entries & (index["cohort"] == k)).sum()))
                for k, c in enumerate(COHORTS)]  # fmt: skip
        training = Training(run=trained, cohorts=tuple(uses), store_fingerprint="f" * 64, steps=2)
        subjects.append(replace(one, trained_on=index["waveform_digest"][entries], training=training))
    return replace(context, subjects=tuple(subjects))


@pytest.fixture(scope="module")
def results(context: Context) -> dict[str, Any]:
    """The answer to every question."""
    modules = {name: plugins.load(KIND, name) for name in NAMES}
    return {name: module.run(asked(context, name), quick(module)) for name, module in modules.items()}


def study_of(context: Context, answers: dict[str, Answer]) -> Study:
    """results.json of answers to questions about the subjects of a context."""
    weights = [EvaluatedWeights(name=s.name, weights=s.embeddings.info.weights, card=None) for s in context.subjects]
    return Study(seed=context.seed, store_fingerprint="f" * 64, weights=tuple(weights), answers=answers)


def test_there_are_questions() -> None:
    assert {"grid", "identity", "map", "ood", "separability"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_settings_go_to_json_and_back_and_say_what_they_are(name: str) -> None:
    module = plugins.load(KIND, name)
    config = quick(module)
    assert module.Config.model_validate_json(config.model_dump_json()) == config
    for kind in (module.Config, module.Result):
        assert kind.model_config["frozen"] is True
        assert kind.model_config["extra"] == "forbid"
    for key, field in module.Config.model_fields.items():
        assert field.description, f"{name}.Config.{key} has no description"
        assert key == "train_cohort" or not field.is_required(), f"{name}.Config.{key} has no default"


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused_by_name_before_anything_is_read(name: str, tmp_path: Path) -> None:
    required = {key: "x" for key in plugins.load(KIND, name).Config.model_fields if key == "train_cohort"}
    with pytest.raises(SpecError, match=f"question {name}: found unknown key 'nonsense', expected one of") as error:
        study([], None, tmp_path / "out", 0, {name: required | {"nonsense": 1}})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", NAMES)
def test_help_has_a_title_a_sentence_and_two_examples(name: str) -> None:
    title, sentence = about(name)
    assert title[0].isupper()
    assert sentence.endswith(".")
    examples = plugins.load(KIND, name).EXAMPLES
    assert len(examples) >= 2
    assert all(example.startswith(f"capezoo evaluate {name} ") for example in examples)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_goes_to_json_and_back(name: str, results: dict[str, Any]) -> None:
    kind = plugins.load(KIND, name).Result
    assert type(results[name]) is kind
    assert kind.model_validate_json(results[name].model_dump_json()) == results[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_numbers(name: str, context: Context, results: dict[str, Any]) -> None:
    module = plugins.load(KIND, name)
    steps: list[tuple[int, int]] = []
    told = asked(context, name)
    again = module.run(replace(told, progress=lambda *step: steps.append(step)), quick(module))
    assert again == results[name]
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    other = module.run(replace(told, seed=context.seed + 1), quick(module))
    assert other != results[name]


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_figures_are_not_empty_and_their_text_stays_text(name: str, results: dict[str, Any]) -> None:
    module = plugins.load(KIND, name)
    tables, figures = module.tables(results[name]), module.figures(results[name])
    assert tables
    assert figures
    for one in tables:
        assert one.title
        assert one.rows.size
        assert "<script" not in table(one.rows, one.caption)
    for one in figures:
        assert "<script" not in one.svg
        ElementTree.fromstring(one.svg)
    assert len({one.title for one in figures}) == len(figures)  # their file names


@pytest.mark.parametrize("name", NAMES)
def test_numbers_in_short_are_those_of_the_weights(name: str, context: Context, results: dict[str, Any]) -> None:
    module = plugins.load(KIND, name)
    for function in ("headline", "paired"):
        if collect := getattr(module, function, None):
            rows = collect(results[name])
            assert list(rows) == [one.name for one in context.subjects]
            assert len({tuple(row) for row in rows.values()}) == 1
    if collect := getattr(module, "card_metrics", None):
        assert collect(results[name], context.subjects[1].name)


def test_a_study_of_all_questions_comes_back_and_its_report_escapes_markup(
    context: Context, results: dict[str, Any], tmp_path: Path
) -> None:
    answers = {name: Answer(config=quick(plugins.load(KIND, name)), result=result, provenance=Provenance.now(EVIL))
               for name, result in results.items()}  # fmt: skip
    made = study_of(context, answers)
    made.write(tmp_path)
    assert Study.read(tmp_path) == made
    text = build_report(tmp_path / "r.html", [tmp_path, tmp_path]).read_text()
    assert "<script" not in text
    for name in NAMES:
        assert about(name)[0] in text
        for one in plugins.load(KIND, name).tables(results[name]):
            assert one.title in text
    assert set(made.headline()) == {one.name for one in context.subjects}


def test_asking_for_help_loads_no_heavy_library() -> None:
    script = (
        "import sys\nfrom ecgcohorts import plugins\n"
        f"for name in plugins.names({KIND!r}): plugins.load({KIND!r}, name)\n"
        "print([name for name in ('torch', 'sklearn', 'scipy.stats', 'openTSNE', 'matplotlib') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> str:
    """One more file in the folder of questions, as far as Python can see."""
    monkeypatch.setattr(questions, "__path__", [*questions.__path__, str(Path(__file__).parent / "added")])
    plugins.names.cache_clear()
    yield "ages"
    plugins.names.cache_clear()
    plugins.load.cache_clear()
    sys.modules.pop(f"{KIND}.ages", None)


def test_a_file_added_appears_in_evaluate_json_and_report(added: str, context: Context, tmp_path: Path) -> None:
    assert added in plugins.names(KIND)
    module = plugins.load(KIND, added)
    answer = Answer(config=module.Config(), result=module.run(context, module.Config()), provenance=Provenance.now(""))
    study_of(context, {added: answer}).write(tmp_path)
    assert '"ages": {' in (tmp_path / "results.json").read_text()
    assert Study.read(tmp_path).answers[added] == answer
    text = build_report(tmp_path / "r.html", [tmp_path]).read_text()
    assert "<h3>Mean ages</h3>" in text
    assert "The mean age of the patients of each cohort" in text


def test_answers_to_a_question_that_is_not_installed_are_refused(added: str, context: Context, tmp_path: Path) -> None:
    module = plugins.load(KIND, added)
    answer = Answer(config=module.Config(), result=module.run(context, module.Config()), provenance=Provenance.now(""))
    study_of(context, {added: answer}).write(tmp_path)
    text = (tmp_path / "results.json").read_text().replace('"ages": {\n   "config"', '"sages": {\n   "config"')
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(SpecError, match=r"question 'sages', expected one of (.*, )?ages, .*map"):
        Study.read(tmp_path)


def test_a_file_added_is_a_command_with_options(added: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["evaluate", "--help"], ["ages", "The mean age of the patients of each cohort"]),
        (["evaluate", added, "--help"], ["--oldest", "older patients are left out", "--weights", "--seed"]),
    ):
        with contextlib.suppress(SystemExit):
            main(arguments)
        out = " ".join(capsys.readouterr().out.split())
        assert all(word in out for word in words), out
