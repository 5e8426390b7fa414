"""A whole study as one file: encoders to train or to take, questions to ask of them, seeds to repeat it with.

The plan is YAML; paths in it are relative to its folder. Everything that can be refused is refused before anything is
trained, and a plan that was stopped goes on where it was.

OUT/seed-<n>/runs/<encoder>       run folder of an encoder that the plan trains
OUT/seed-<n>/weights/<encoder>    the same, published
OUT/seed-<n>/<study>/             results.json and figures, as `capezoo evaluate` leaves them
OUT/results.json                  commands behind all numbers, with seconds, and the numbers that matter of each study
OUT/report.html                   all tables and figures on one page
"""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, JsonValue, StringConstraints

from capezoo import runs
from capezoo.evaluate.artefact.outcome import in_words
from capezoo.evaluate.costs import Costs
from capezoo.evaluate.families import EncoderPlan, members, named
from capezoo.evaluate.page.report import build_report
from capezoo.evaluate.questions import KIND
from capezoo.evaluate.results import RESULTS, Study
from capezoo.evaluate.rows import NEVER_TRAINED, Planned
from capezoo.evaluate.study import Progress, _require_testable, study
from capezoo.specs.base import MAX_YAML_BYTES, Spec, parse
from capezoo.specs.card import CohortUse, Training
from capezoo.specs.run import RunConfig
from capezoo.specs.settings import changed
from capezoo.training.data import TrainingData, fitted
from capezoo.training.loop import pretrain
from capezoo.zoo.digests import trained_on
from capezoo.zoo.files import CARD, CONFIG, read_card
from capezoo.zoo.listing import locate
from capezoo.zoo.publish import About, licences_of, publish
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError, did_you_mean
from ecgcohorts.io.durable import make_folder, sha256_of, write_file
from ecgcohorts.io.yaml_text import read_yaml
from ecgcohorts.store.union import open_named

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
_FORMAT = "capezoo-plan-results"
_TAKEN = ("runs", "weights")  # folders beside those of studies


class _StudyPlan(Spec):
    """Questions to ask of some of the encoders on one store."""

    encoders: tuple[str, ...] = Field((), description="in the order of the tables; default: all of the plan")
    store: tuple[str, ...] = Field((), description="default: the store of the plan")
    questions: dict[str, dict[str, JsonValue]] = Field(min_length=1, description="name -> settings that differ")


class Plan(Spec):
    """The file: which store, which encoders, which questions."""

    title: str = "A study of encoders"
    store: tuple[str, ...] = Field(min_length=1, description="one store, or several read as one")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1)
    split: str = Field("", description="split kept in the store: runs train on its part train, questions test on test")
    train_cohort: str = Field("", description="home of every question that has one and names no other")
    encoders: dict[_Name, EncoderPlan | None] = Field(min_length=1, description="`random:` and the like need no value")
    studies: dict[_Name, _StudyPlan] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a plan. Raises SourceError for a file that is missing, SpecError naming the first thing wrong in it."""
        plan = parse(cls, read_yaml(path, MAX_YAML_BYTES, "plan"), str(path))
        for name, one in plan.studies.items():
            if name in _TAKEN:
                raise SpecError(
                    f"{path}: found a study named {name}, which is a folder of the plan's own. Name it otherwise."
                )
            for encoder in one.encoders:
                if encoder not in plan.encoders:
                    raise SpecError(
                        f"{path}: study {name}: found no encoder {encoder!r}, expected one of {', '.join(plan.encoders)}."
                        + did_you_mean(encoder, plan.encoders)
                    )
        return plan


@dataclass(frozen=True)
class _Step:
    """One command of a plan. folder: what it makes; run: does what `command` does, from Python; trains: if it trains."""

    command: str
    folder: Path
    is_done: Callable[[], bool] = field(repr=False)
    run: Callable[[Progress], object] = field(repr=False)
    trains: RunConfig | None = field(default=None, repr=False)


def carry_out(
    plan_file: Path,
    out: Path,
    tell: Progress = lambda what, done, total: None,
    budget_s: float = inf,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Take all steps of a plan that are not done, write the report, and return what OUT/results.json then holds.

    budget_s: stop before a training that would not end within it, and before anything once it is used up; what the trainings
    will take is told first. Raises EcgError with the remedy for whatever does not fit together, before anything is trained.
    """
    plan = Plan.read(plan_file)
    steps = list(steps_of(plan, plan_file.parent, out))
    made = _earlier(out / RESULTS, plan)
    # Projected only for who asks: it takes three short trainings.
    store = open_named(_paths(plan.store, plan_file.parent))
    costs = _projected(store, steps, say) if budget_s < inf else None
    all_begun = time.perf_counter()
    for place, step in enumerate(steps):
        tell("all steps", place, len(steps))
        if step.is_done():
            continue
        begun = time.perf_counter()
        next_s = costs.of(step.trains) if costs and step.trains else 0.0
        if begun - all_begun + next_s >= budget_s:
            break
        make_folder(step.folder.parent)
        step.run(_numbered(tell, f"{place + 1} of {len(steps)}: "))
        made["seconds"][step.command] = round(time.perf_counter() - begun, 1)
        _write(out / RESULTS, plan, steps, made)
    else:
        tell("all steps", len(steps), len(steps))
    if not out.is_dir():
        return _values(plan, steps, made)
    return _reported(plan, store, out, steps, made)


def _projected(store: "AnyStore", steps: Sequence[_Step], say: Callable[[str], None]) -> Costs:
    """Say what the trainings that are left will take."""
    costs, left = Costs(store), [step.trains for step in steps if step.trains is not None and not step.is_done()]
    total = sum(map(costs.of, left))
    say(f"{len(left)} trainings are left: about {in_words(total)}; publishing, embedding and probes come on top")
    return costs


def _reported(plan: Plan, store: "AnyStore", out: Path, steps: Sequence[_Step], made: dict[str, Any]) -> dict[str, Any]:
    asked = list(dict.fromkeys(step.folder for step in steps if (step.folder / RESULTS).is_file()))
    trained = [step.folder for step in steps if step.trains is not None]
    build_report(out / "report.html", asked, [run for run in trained if run.is_dir()], store, plan.title)
    made["headline"] = {folder.relative_to(out).as_posix(): Study.read(folder).headline() for folder in asked}
    return _write(out / RESULTS, plan, steps, made)


def steps_of(plan: Plan, base: Path, out: Path) -> Iterator[_Step]:
    """Yield the commands of a plan in their order, after a check of every one. base: what paths are relative to."""
    store = open_named(_paths(plan.store, base))
    plan = _expanded(plan, store, base)
    configs = {
        (seed, name): fitted(_run(plan, one, seed, base), store.recipe)
        for seed in plan.seeds for name, one in plan.encoders.items() if one is not None and one.run is not None
    }  # fmt: skip
    _require_possible(plan, base, store, configs)
    stores = _paths(plan.store, base)
    for seed in plan.seeds:
        folder = out / f"seed-{seed}"
        for name, one in plan.encoders.items():
            if one is not None and one.run is not None:
                config = configs[seed, name]
                yield _training(config, _command_of(plan, name, one, config, folder, base), folder, name, stores)
                yield _publishing(config, folder, name, stores)
        for name, one_study in plan.studies.items():
            yield from _asking(plan, name, one_study, seed, folder, base)


def _expanded(plan: Plan, store: "AnyStore", base: Path) -> Plan:
    """Return the plan with the members of each family in its place."""

    def made(one: EncoderPlan) -> RunConfig:
        return fitted(_run(plan, one, plan.seeds[0], base), store.recipe)

    encoders: dict[str, EncoderPlan | None] = {}
    families: dict[str, tuple[str, ...]] = {}
    for name, one in plan.encoders.items():
        mine = members(name, one, store, made) if one is not None and one.is_family else {name: one}
        if again := sorted(set(mine) & set(encoders)):
            raise SpecError(f"encoder {name}: found {again[0]} twice, expected different names. Rename one of the two.")
        families[name] = tuple(mine)
        encoders |= mine
    studies = {
        name: one.model_copy(update={"encoders": named(one.encoders, families)}) for name, one in plan.studies.items()
    }
    return plan.model_copy(update={"encoders": encoders, "studies": studies})


def _run(plan: Plan, one: EncoderPlan, seed: int, base: Path) -> RunConfig:
    named = _run_named(one, base)
    config = runs.load(Path(named), seed) if _is_file(named) else runs.get(named, seed, one.cohort)
    return changed(config, _settings(plan, one))


def _run_named(one: EncoderPlan, base: Path) -> str:
    """Return what `capezoo pretrain --run` is given: a name, or where the file is."""
    assert one.run is not None
    return str(base / one.run) if _is_file(one.run) else one.run


def _is_file(run: str) -> bool:
    return run.endswith((".yaml", ".yml"))


def _settings(plan: Plan, one: EncoderPlan) -> list[str]:
    given = dict(one.settings)
    if plan.split:
        given.setdefault("held_out.split", plan.split)
    return [f"{key}={json.dumps(value)}" for key, value in given.items()]


def _require_possible(plan: Plan, base: Path, store: "AnyStore", configs: Mapping[tuple[int, str], RunConfig]) -> None:
    """Raise what a step would raise, before the first one. store: that of the plan."""
    planned = {key: _planned(key[1], store, config) for key, config in configs.items()}
    for name, one in plan.encoders.items():
        if one is None and name not in NEVER_TRAINED:
            known = ", ".join(NEVER_TRAINED)
            raise SpecError(f"encoder {name}: found neither run nor weights, expected one of them, or the name {known}."
                            + did_you_mean(name, NEVER_TRAINED))  # fmt: skip
        if one is not None and one.weights is not None:
            locate(_weights(one.weights, base))
    for name, one_study in plan.studies.items():
        asked = open_named(_paths(one_study.store, base)) if one_study.store else store
        for question, values in _questions(plan, name, one_study).items():
            module: Any = plugins.load(KIND, question)
            config = parse(module.Config, values, f"study {name}, question {question}")
            for seed in plan.seeds:
                # What a finished run would be refused for: found out before it, this costs no training.
                rows = [
                    _row(plan, encoder, seed, planned, base, asked) for encoder in one_study.encoders or plan.encoders
                ]
                _require_testable({question: config}, [row for row in rows if row], asked, seed)


def _planned(name: str, store: "AnyStore", config: RunConfig) -> Planned:
    """What the card of a run will say, and the digests that will lie beside it."""
    data = TrainingData.prepare(store, config)
    cohorts = tuple(CohortUse(**one) for one in data.summary()["cohorts"])
    training = Training(run=config, cohorts=cohorts, store_fingerprint=store.fingerprint, steps=data.total_steps)
    return Planned(name, data.digests(), training)


def _row(
    plan: Plan, name: str, seed: int, planned: Mapping[tuple[int, str], Planned], base: Path, store: "AnyStore"
) -> Planned | None:
    """What is known of an encoder of the plan; None if it is never trained."""
    one = plan.encoders[name]
    if one is None or one.weights is None:
        return planned.get((seed, name))
    folder = locate(_weights(one.weights, base))
    return Planned(name, trained_on(folder, store.index), read_card(folder).training)


def _questions(plan: Plan, name: str, one: _StudyPlan) -> dict[str, dict[str, Any]]:
    """Return the settings of each question, with what the plan says for all."""
    known = plugins.names(KIND)
    asked = {}
    for question, values in one.questions.items():
        if question not in known:
            raise SpecError(f"study {name}: found no question {question!r}, expected one of {', '.join(known)}."
                            + did_you_mean(question, known))  # fmt: skip
        fields = plugins.load(KIND, question).Config.model_fields
        shared = {key: getattr(plan, key) for key in ("train_cohort", "split") if key in fields and getattr(plan, key)}
        asked[question] = shared | dict(values)
    return asked


def _training(config: RunConfig, command: str, folder: Path, name: str, stores: tuple[str, ...]) -> _Step:
    run = folder / "runs" / name

    def train(tell: Progress) -> None:
        pretrain(
            open_named(stores), config, run, progress=lambda now: tell(f"pretrain {name}", now.step, now.total_steps)
        )

    # Published weights are the end of a run: its folder may be cleared away.
    return _Step(command, run, lambda: _published(folder / "weights" / name, config), train, config)


def _publishing(config: RunConfig, folder: Path, name: str, stores: tuple[str, ...]) -> _Step:
    run, weights = folder / "runs" / name, folder / "weights" / name

    def put(tell: Progress) -> None:
        publish(run, weights, About(data_licences=licences_of(open_named(stores), run)), name, digests="plain")

    command = shlex.join(
        [
            "capezoo",
            "publish",
            str(run),
            str(weights),
            "--digests",
            "plain",
            "--name",
            name,
            *_repeated("--store", stores),
        ]
    )
    return _Step(command, weights, lambda: _published(weights, config), put)


def _published(weights: Path, config: RunConfig) -> bool:
    """Progress whether a run is there as weights. Raises SpecError if those of another run are."""
    if not (weights / CONFIG).is_file():
        return False
    training = read_card(weights).training
    if training is None or training.run != config:
        raise SpecError(
            f"{weights}: found weights of another run, expected those of this plan. Name another folder: -o."
        )
    return True


def _asking(plan: Plan, name: str, one: _StudyPlan, seed: int, folder: Path, base: Path) -> Iterator[_Step]:
    stores, out = _paths(one.store or plan.store, base), folder / name
    weights = [_place(plan, encoder, folder, base) for encoder in one.encoders or plan.encoders]
    for question, values in _questions(plan, name, one).items():
        words = ["capezoo", "evaluate", question, *_repeated("--weights", weights), *_repeated("--store", stores)]
        words += ["--seed", str(seed), "-o", str(out)]
        command = shlex.join(words + [word for key, value in values.items() for word in _option(key, value)])

        def ask(tell: Progress, command: str = command, asked: Mapping[str, Any] = {question: values}) -> None:
            study(weights, open_named(stores), out, seed, asked, command=command, progress=tell)

        yield _Step(command, out, partial(_answered, out, question, values, weights, stores), ask)


def _option(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list | tuple):
        # Words are an option given several times, numbers one option of several values.
        numbers = [json.dumps(one) for one in value if not isinstance(one, str)]
        return [flag, *numbers] if numbers else _repeated(flag, value)
    return [flag, value if isinstance(value, str) else json.dumps(value)]


def _answered(
    out: Path, question: str, values: Mapping[str, Any], weights: Sequence[str], stores: tuple[str, ...]
) -> bool:
    """Tell whether a question has its answer. What `study` refuses to add to the folder is no answer: it is asked again."""
    if not (out / RESULTS).is_file():
        return False
    module: Any = plugins.load(KIND, question)
    made = Study.read(out)
    answer = made.answers.get(question)
    if answer is None or answer.config != parse(module.Config, values, question):
        return False
    rows = [(None, one.name) if one.card is None else (one.card, "") for one in made.weights]
    return rows == list(map(_known_as, weights)) and made.store_fingerprint == open_named(stores).fingerprint


def _known_as(weights: str) -> tuple[str | None, str]:
    """Return the digest of a card, or the name of what was never trained."""
    if weights in NEVER_TRAINED:
        return None, weights
    try:
        return sha256_of(locate(weights) / CARD), ""
    except SpecError:
        # Weights that the plan has still to make, or that were cleared away.
        return None, ""


def _place(plan: Plan, name: str, folder: Path, base: Path) -> str:
    """Return what `capezoo evaluate --weights` is given for an encoder."""
    one = plan.encoders[name]
    if one is None:
        return name
    return str(folder / "weights" / name) if one.weights is None else _weights(one.weights, base)


def _weights(weights: str, base: Path) -> str:
    # A name of bundled weights and a Hub address stay as they are; a folder is one beside the plan.
    return str(base / weights) if (base / weights).is_dir() else weights


def _command_of(plan: Plan, name: str, one: EncoderPlan, config: RunConfig, folder: Path, base: Path) -> str:
    stores = _paths(plan.store, base)
    words = ["capezoo", "pretrain", *_repeated("--store", stores), "--out", str(folder / "runs" / name)]
    words += [
        "--seed",
        str(config.seed),
        "--run",
        _run_named(one, base),
        *(("--cohort", one.cohort) if one.cohort else ()),
    ]
    return shlex.join([*words, *_repeated("--set", _settings(plan, one))])


def _repeated(option: str, values: Any) -> list[str]:
    return [word for value in values for word in (option, str(value))]


def _paths(stores: tuple[str, ...], base: Path) -> tuple[str, ...]:
    # Stores in a bucket are addresses, not paths.
    return tuple(store if "://" in store else str(base / store) for store in stores)


def _numbered(tell: Progress, prefix: str) -> Progress:
    return lambda what, done, total: tell(prefix + what, done, total)


def _earlier(path: Path, plan: Plan) -> dict[str, Any]:
    """Return the seconds that earlier calls wrote down."""
    if not path.is_file():
        return {"seconds": {}}
    try:
        values = json.loads(path.read_text("utf-8"))
        assert values["format"] == _FORMAT
        return {"seconds": dict(values["seconds"])}
    except (ValueError, KeyError, TypeError, AssertionError):
        raise SpecError(f"{path}: found something else than the results of a plan. Name another folder: -o.") from None


def _values(plan: Plan, steps: Sequence[_Step], made: Mapping[str, Any]) -> dict[str, Any]:
    left = [step.command for step in steps if not step.is_done()]
    return {"format": _FORMAT, "plan": plan.model_dump(mode="json", by_alias=True), "left": left,
            "commands": [step.command for step in steps], **made}  # fmt: skip


def _write(path: Path, plan: Plan, steps: Sequence[_Step], made: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(plan, steps, made)
    write_file(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
    return values
