"""Pretraining methods in the control: any registered objective, with an encoder that it can use and a core can train."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from capezoo import objectives
from capezoo.evaluate.artefact.arms import ARMS
from capezoo.evaluate.artefact.trial import Settings
from capezoo.specs.base import parse
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec, ObjectiveSpec, Pairing, RunConfig, SamplerSpec
from capezoo.specs.settings import with_values
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from capezoo.objectives import Objective

_KIND = "capezoo.objectives"


_RESNET = EncoderSpec(config=Settings().encoder)


@dataclass(frozen=True)
class _Method:
    """How a method is run: settings of its objective, its encoder, its rate."""

    objective: dict[str, JsonValue] = field(default_factory=dict)
    encoder: EncoderSpec = _RESNET
    # Other rates: the best of 1e-3, 3e-3 and 1e-2 for age and sex at home, over both arms of seeds 100 and 101 on PTB-XL.
    lr: float = 3e-3


# Tokens of 40 ms at 400 Hz, 176 a window: with the scaling study's of 8.3 ms a step would take five times as long. No
# dropout: it takes whole channels, and of 32 there are none to spare.
_STATES: dict[str, JsonValue] = {"width": 32, "depth": 2, "kernels": [32, 1], "strides": [16, 1], "dropout": 0.0}
_S4 = EncoderSpec(name="s4", config=_STATES)
# Tokens of 100 ms, 70 a window: of 40 ms, attention would cost three times as much.
_VIT = EncoderSpec(name="vit1d", config={"patch": 40, "embedding_dim": 48, "head_dim": 16, "depth": 2})
# Ours. A teacher of the published momentum would go a tenth of the way in 250 steps.
_MOMENTUM = 0.99
_METHODS = {
    "info_nce": _Method(),
    "byol": _Method({"hidden": 128, "projection": 48, "momentum": _MOMENTUM}, lr=1e-2),
    # 120 ms ahead, as the source's 14 tokens of 8.3 ms.
    "cpc": _Method(
        {"ahead": 3, "negatives": 32, "reduction": "mean"},
        EncoderSpec(name="s4", config={**_STATES, "causal": True}),
        1e-3,
    ),
    # Without a projection the embedding itself is compared, and one that is never negative has no opposite: with cape_resnet
    # the loss stayed above ln 32, or fell to it and all embeddings were alike.
    "cmsc": _Method(encoder=_S4),
    "mae": _Method({"width": 48, "depth": 1, "heads": 4}, _VIT),
    # As large a part of the window as 64 of 300 tokens.
    "jepa": _Method({"momentum": _MOMENTUM, "shortest": 37}, _S4, 1e-3),
    **{name: _Method({"momentum": _MOMENTUM}, _S4) for name in ("data2vec", "dinosr", "hubert_sinkhorn")},
}


def settings_of(method: str, changes: Sequence[str] = (), **others: Any) -> Settings:
    """Return the settings for a registered objective. changes: KEY=VALUE, as a person types them; others: fields.

    An objective that is not in the table above gets an encoder with tokens, or one that drops them, if it needs it. Raises SpecError for an
    unknown one, and for an unknown key.
    """
    needs = plugins.load(_KIND, method).Objective.needs
    fitting = _VIT if needs.drops_tokens else _S4 if needs.tokens else _RESNET
    one = _METHODS.get(method) or _Method(encoder=fitting)
    made = {
        "objective": ObjectiveSpec(name=method, config=one.objective),
        "encoder_name": one.encoder.name,
        "encoder": one.encoder.config,
        "lr": one.lr,
    }
    return with_values(parse(Settings, made | others, f"method {method}"), changes)


def require_norm(arm: str, settings: Settings) -> None:
    """Raise SpecError for an arm with GroupNorm and an encoder that has none."""
    known = plugins.load("capezoo.encoders", settings.encoder_name).Config.model_fields
    if ARMS[arm].statistics == "group_norm" and "norm" not in known:
        raise SpecError(f"arm {arm}: found encoder {settings.encoder_name}, which has no GroupNorm. Leave the arm out.")


def pairing(objective: "Objective", settings: Settings) -> Pairing:
    """Return how two windows of a patient, who has one recording, are paired. Raises SpecError for more than two views."""
    needs = objective.needs
    if needs.views > 2:
        raise SpecError(
            f"objective {settings.objective.name} needs {needs.views} views, expected one or two. Use another objective."
        )
    if needs.views == 1 or "record" in needs.pairing:
        return "record"
    # A patient has one recording here, of which neighbours are as good a pair as any two.
    return "adjacent" if "adjacent" in needs.pairing else "patient"


def check(
    objective: "Objective", encoder: "nn.Module", spec: EncoderSpec, of: InputSpec, pairs: Pairing, settings: Settings
) -> None:
    """Raise SpecError, naming both sides, for an encoder that cannot give the objective what it needs."""
    # The same check as before a pretraining run, whose words people know.
    sampler = SamplerSpec(pairing=pairs, views=objective.needs.views, groups=settings.pairs)
    run = RunConfig(name="trial", seed=0, encoder=spec, objective=settings.objective, input=of, sampler=sampler)
    objectives.check(objective, encoder, run)
