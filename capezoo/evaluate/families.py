"""Several encoders from one entry of a plan: the run without each cohort, or on growing shares of its patients.

`leave_out: each` gives NAME, trained on all cohorts, and NAME-without-COHORT for each; `percent: [10, 100]` gives NAME-10pct
and NAME-100pct. Members differ in nothing else, and train for as many steps, or as often through their patients.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from capezoo.specs.base import Spec
from capezoo.specs.run import RunConfig
from capezoo.training.data import TrainingData
from ecgcohorts.errors import EcgError, SpecError, did_you_mean

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore


class EncoderPlan(Spec):
    """An encoder of a plan: published weights, a run to train, or a family of runs."""

    weights: str | None = Field(None, description="name or folder of published weights")
    run: str | None = Field(None, description="named run to train, or a file of one's own in YAML")
    cohort: str | None = Field(None, description="of a run of one cohort")
    settings: dict[str, JsonValue] = Field(default_factory=dict, alias="set", description="changes to the run, by key")
    leave_out: Literal["each"] | tuple[str, ...] = Field(
        (), description="train once more without each of these cohorts"
    )
    percent: tuple[Annotated[float, Field(gt=0, le=100)], ...] = Field(
        (),
        description="train once on each of these shares of the patients, ascending; a larger one contains the smaller",
    )
    equal: Literal["steps", "epochs"] = Field(
        "steps",
        description="what members of a family have in common: updates of the weights, or passes through their patients",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.weights is None) == (self.run is None):
            raise ValueError("give either weights or run")
        if self.weights is not None and (self.cohort or self.settings or self.leave_out or self.percent):
            raise ValueError("cohort, set, leave_out and percent belong to a run")
        if self.leave_out and self.percent:
            raise ValueError("give either leave_out or percent")
        if self.leave_out and self.cohort:
            raise ValueError("leave_out needs a run of several cohorts, and cohort names one")
        if list(self.percent) != sorted(set(self.percent)):
            raise ValueError("give percent in ascending order, each once")
        return self

    @property
    def is_family(self) -> bool:
        """Whether it stands for several encoders."""
        return bool(self.leave_out or self.percent)


def members(
    name: str, one: EncoderPlan, store: "AnyStore", fitted: Callable[[EncoderPlan], RunConfig]
) -> dict[str, EncoderPlan]:
    """Return the encoders that a family stands for, by name, each with the settings that make it.

    fitted: the run of an entry, as it is trained. Raises SpecError for a cohort that the run does not train on, or if it has
    but one, and whatever a member's patients are too few for, under its name.
    """
    alone = one.model_copy(update={"leave_out": (), "percent": ()})
    whole = _prepared(name, store, fitted(alone))
    found = {}
    for member, settings in _changes(name, one, whole):
        changed = _with(alone, settings)
        mine = _prepared(member, store, fitted(changed))
        found[member] = _with(changed, _length(whole, mine, one.equal))
    return found


def _prepared(name: str, store: "AnyStore", config: RunConfig) -> TrainingData:
    try:
        return TrainingData.prepare(store, config)
    except EcgError as error:
        # Of a dozen encoders: which of them cannot be trained?
        raise type(error)(f"encoder {name}: {error}") from None


def _changes(name: str, one: EncoderPlan, whole: TrainingData) -> Iterator[tuple[str, Mapping[str, JsonValue]]]:
    """Yield name and settings of each member: who is trained on."""
    for percent in one.percent:
        yield f"{name}-{percent:g}pct", {"held_out.train_percent": percent}
    if not one.leave_out:
        return
    # Cohorts too small for a batch are in no pretraining anyway: nothing would be left out with them.
    known = [cohort for cohort in whole.cohorts if cohort not in whole.sampler.left_out]
    if len(known) < 2:
        raise SpecError(
            f"encoder {name}: found {len(known)} cohort to train on ({', '.join(known)}), expected two or more to leave one "
            "out of. Name further stores under `store`."
        )
    yield name, {"cohorts": list(known)}
    for cohort in known if one.leave_out == "each" else one.leave_out:
        if cohort not in known:
            raise SpecError(
                f"encoder {name}: found no cohort {cohort!r} to leave out, expected one of {', '.join(known)}."
                + did_you_mean(cohort, known)
            )
        yield f"{name}-without-{cohort}", {"cohorts": [other for other in known if other != cohort]}


def _length(whole: TrainingData, mine: TrainingData, equal: str) -> dict[str, JsonValue]:
    """Return the settings that end a member's run: after as many steps as the whole run, or as many epochs."""
    passes = whole.total_steps / whole.steps_per_epoch
    steps = whole.total_steps if equal == "steps" else max(1, round(passes * mine.steps_per_epoch))
    return {"max_steps": steps, "epochs": max(mine.config.epochs, ceil(steps / mine.steps_per_epoch))}


def _with(one: EncoderPlan, settings: Mapping[str, JsonValue]) -> EncoderPlan:
    return one.model_copy(update={"settings": {**one.settings, **settings}})


def named(encoders: Sequence[str], families: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return names of encoders with those of families replaced by their members."""
    return tuple(member for name in encoders for member in families.get(name, (name,)))
