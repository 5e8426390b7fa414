"""results.json: the answers to all questions asked of some weights and a store, and what it takes to get them again."""

import json
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator

from capezoo.embedding.from_store import BatchNorm
from capezoo.evaluate.questions import KIND
from capezoo.specs.base import SHA256, Spec, parse
from capezoo.specs.card import Metric
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import write_file

RESULTS = "results.json"
_LIBRARIES = ("ecgcohorts", "numpy", "scikit-learn", "scipy", "torch")
# Bytes; three weights and ten cohorts make about 1 MB, most of it the points of the maps.
_LIMIT = 64 << 20


class Provenance(Spec):
    """How an answer was made. Holds nothing of the machine."""

    command: str  # empty: called from Python
    commit: str | None  # of a git checkout this package runs from; None for an installed one
    versions: dict[str, str]

    @classmethod
    def now(cls, command: str) -> Self:
        """Describe what is running now."""
        versions = {}
        for name in _LIBRARIES:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # run from a checkout that was never installed
                continue
        return cls(command=command, commit=_commit(), versions=versions)


class EvaluatedWeights(Spec):
    """One set of weights: name in tables, digest of all tensors, and SHA-256 of card.json if there is one."""

    name: str
    weights: SHA256
    card: str | None
    batch_norm: BatchNorm = "running"


class Answer(Spec):
    """What one question found, with its settings: `Config` and `Result` of its module."""

    config: SerializeAsAny[Spec]
    result: SerializeAsAny[Spec]
    provenance: Provenance


class Study(Spec):
    """results.json: questions asked of the same weights, store and seed."""

    format: Literal["capezoo-results"] = "capezoo-results"
    format_version: Literal[2] = 2
    seed: int
    store_fingerprint: str
    weights: tuple[EvaluatedWeights, ...]
    answers: dict[str, Answer] = Field(default_factory=dict)  # name of a question -> its answer
    left_out: dict[str, str] = Field(default_factory=dict)  # name of a question -> why this store cannot answer it

    @field_validator("answers", mode="before")
    @classmethod
    def _of_their_questions(cls, answers: Any) -> Any:
        """Read each answer as its question writes it. Raises SpecError for a question that is not installed."""
        # The fields are declared as Spec: only a question knows the kinds of its own settings and results.
        # Left for pydantic to refuse, in its own words and with the place.
        if not isinstance(answers, Mapping):
            return answers
        return {
            name: _typed(name, values) if isinstance(values, Mapping) else values for name, values in answers.items()
        }

    def write(self, folder: Path) -> None:
        """Write results.json whole, as JSON that a person can read."""
        # No NaN: JSON has none, and other readers would refuse the file.
        text = json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)
        write_file(folder / RESULTS, (text + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read results.json of a folder; one of format 1, from before questions were plug-ins, is brought up to date.

        Raises SourceError if it is missing or too large, SpecError if it is something else.
        """
        path = folder / RESULTS
        if not path.is_file() or path.stat().st_size > _LIMIT:
            raise SourceError(f"{path}: found no result, expected a file written by `capezoo evaluate`.")
        text = path.read_text(encoding="utf-8")
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SpecError(
                f"{path}: found no JSON ({error}), expected a file written by `capezoo evaluate`."
            ) from None
        if isinstance(values, dict) and values.get("format_version") == 1:
            values = _from_format_1(values, folder)
        return parse(cls, values if isinstance(values, dict) else text, str(path))

    def headline(self, over_studies: bool = False) -> dict[str, dict[str, float | None]]:
        """Collect the numbers that matter from all answers: weights -> measure -> number.

        over_studies: the measures that are compared where there are several studies; a question may name more of them.
        """
        found: dict[str, dict[str, float | None]] = {one.name: {} for one in self.weights}
        for name, answer in self.answers.items():
            module: Any = plugins.load(KIND, name)
            collect = getattr(module, "paired", None) if over_studies else None
            collect = collect or getattr(module, "headline", None)
            for weights, numbers in collect(answer.result).items() if collect else ():
                found[weights] |= numbers
        return found

    def card_metrics(self, weights: str) -> tuple[Metric, ...]:
        """Collect what the card of the weights with this tensor digest should say. Raises SpecError if they are not here."""
        # By digest, not by name: a card must not carry the numbers of other weights that were called the same.
        rows = [one for one in self.weights if one.batch_norm == "running"]
        name = next((one.name for one in rows if one.weights == weights), None)
        if name is None:
            names = ", ".join(f"{one.name} {one.weights[:12]}" for one in self.weights)
            raise SpecError(
                f"found evaluations of {names}, expected one of {weights[:12]}. Evaluate these weights first."
            )
        metrics: list[Metric] = []
        for question, answer in self.answers.items():
            collect = getattr(plugins.load(KIND, question), "card_metrics", None)
            source = f"{answer.provenance.command or 'called from Python'}; commit {answer.provenance.commit or 'unknown'}; " \
                     f"store {self.store_fingerprint[:16]}"  # fmt: skip
            for metric in collect(answer.result, name) if collect else ():
                metrics.append(metric.model_copy(update={"method": f"{metric.method}; {source}"}))
        return tuple(metrics)


def file_name(name: str) -> str:
    """Return a name of weights as a file name: letters, digits and `_.-`, never hidden and never in another folder."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "weights"


def _typed(name: str, values: Mapping[str, Any]) -> Answer:
    module: Any = plugins.load(KIND, name)
    kinds = {"config": module.Config, "result": module.Result}
    parsed = {key: parse(kind, values.get(key, {}), f"{name}.{key}") for key, kind in kinds.items()}
    return parse(Answer, {**values, **parsed}, f"answer {name!r}")


def _from_format_1(old: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Bring results of format 1 up to date: one question with `separability` beside it, maps in files of their own."""
    try:
        ood, config = dict(old["ood"]), dict(old["ood"]["config"])
        source, seed = ood.pop("provenance"), config.pop("seed")
        weights = [{key: one[key] for key in ("name", "weights", "card")} for one in ood["weights"]]
        ood["weights"] = [{k: v for k, v in one.items() if k not in ("weights", "card")} for one in ood["weights"]]
        del ood["config"]
        results = {"ood": {**ood, "train_cohort": config["train_cohort"]}}
        if measured := old["separability"]:
            shared = {key: next(iter(measured.values()))[key] for key in ("cohorts", "left_out", "patients_per_cohort")}
            results["separability"] = {**shared, "weights": {name: one["metrics"] for name, one in measured.items()}}
        paths = [folder / "maps" / f"{file_name(one['name'])}.json" for one in weights]
        if maps := [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]:
            drawn = [{key: one[key] for key in ("name", "method", "perplexity", "points")} for one in maps]
            results["map"] = {**{key: maps[0][key] for key in ("cohorts", "cohort", "rows")}, "maps": drawn}
        # Format 1 asked the other two with their defaults, which are those of today.
        configs = {"ood": config, "separability": {}, "map": {}}
        origin = {key: source[key] for key in ("command", "commit", "versions")}
        return {
            "seed": seed,
            "store_fingerprint": source["store_fingerprint"],
            "weights": weights,
            "answers": {
                name: {"config": configs[name], "result": results[name], "provenance": origin}
                for name in sorted(results)
            },
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpecError(f"{folder / RESULTS}: damaged, format 1 lacks {error}. Evaluate again.") from None


@cache
def _commit() -> str | None:
    """Commit of the checkout this file lies in, with `-dirty` if it was changed."""
    # An installed package may lie inside a checkout of something else: look only where this one has its root.
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            # --exclude: a tag would stand for the commit, and tags move.
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
