"""What an objective is given and gives back, and what it may ask of sampler, encoder and window."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from capezoo.encoders import TokenEncoder
from capezoo.specs.run import Pairing
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from capezoo.specs.run import RunConfig


@dataclass(frozen=True)
class Needs:
    """What a method asks of a run; `check` compares it with sampler and encoder once, at the start.

    pairing: what may make two views positive; nothing is asked where there is one view. causal: None if either will do.
    one_each: a context for every token, so an encoder that does not shorten the signal after its tokens.
    """

    views: int
    pairing: tuple[Pairing, ...] = ("patient", "record", "adjacent")
    tokens: bool = False
    drops_tokens: bool = False
    causal: bool | None = None
    one_each: bool = False


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """One rank's views, perturbed, on the device.

    signal: float32 (batch, view, lead, time), scaled as InputSpec says. valid: (batch, view), samples present from the
    first on. group: int64 (batch,); rows of one group never repel each other. cohort: None in a mixed batch. generator:
    on the CPU, keyed by seed, step and rank, for whatever the method draws. Call networks with all views of a row in
    succession, as `signal.flatten(0, 1)` has them, or with one view of each row: statistics per cohort rely on the order.
    """

    signal: Tensor
    valid: Tensor
    group: Tensor
    cohort: str | None
    step: int
    total_steps: int
    generator: torch.Generator


@dataclass(frozen=True, eq=False)
class Losses:
    """What is minimised, and further numbers for metrics.csv, whose names are fixed in `Objective.terms`."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """The base of all methods. A module of `capezoo.objectives` has `Config` (a spec) and `Objective(config, encoder)`.

    The constructor sees the encoder with its initial weights, so that a teacher can be a copy of it. Whatever changes
    with training belongs in parameters or buffers: they are what a checkpoint holds.
    """

    needs: ClassVar[Needs]
    terms: ClassVar[tuple[str, ...]] = ()
    ranks_as_one: ClassVar[bool] = False  # two ranks give loss and gradient of one rank with the whole batch

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        raise NotImplementedError

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        """Move teachers and prototypes, after the optimiser's step number `step`, counted from 0."""

    def untrained(self, groups: int, tokens: int) -> float | None:
        """Return the loss of a network that knows nothing, or None if there is no such number.

        groups: in the batch of all ranks. tokens: of a window; 0 if the encoder has none.
        """
        return None

    def least_tokens(self) -> int:
        """Return how many tokens in context a window must give."""
        return 1


def check(objective: Objective, encoder: nn.Module, config: "RunConfig") -> int:
    """Raise SpecError, naming both sides, unless the run gives its objective what it needs. Returns tokens of a window.

    0 tokens: the encoder has none.
    """
    needs, sampler = objective.needs, config.sampler
    who, its = f"objective {config.objective.name}", f"encoder {config.encoder.name}"
    if sampler.views != needs.views:
        raise SpecError(f"{who} needs {needs.views} views, sampler {sampler.name} gives {sampler.views}. "
                        f"Set sampler.views={needs.views}.")  # fmt: skip
    if needs.views > 1 and sampler.pairing not in needs.pairing:
        allowed = " or ".join(needs.pairing)
        raise SpecError(f"{who} needs views paired by {allowed}, sampler {sampler.name} pairs by {sampler.pairing}. "
                        f"Set sampler.pairing={needs.pairing[0]}.")  # fmt: skip
    if not isinstance(encoder, TokenEncoder):
        if needs.tokens:
            raise SpecError(f"{who} needs tokens, {its} has none. Use an encoder that has.")
        return 0
    if needs.drops_tokens and not encoder.can_drop:
        raise SpecError(f"{who} needs an encoder that can drop tokens, {its} cannot. Use one that can, such as vit1d.")
    if needs.causal is not None and encoder.causal != needs.causal:
        kinds = {True: "causal", False: "not causal"}
        raise SpecError(f"{who} needs an encoder that is {kinds[needs.causal]}, {its} is {kinds[encoder.causal]}.")
    before, tokens = _tokens_in_context(encoder, len(config.input.leads), config.input.length)
    if needs.one_each and before != tokens:
        raise SpecError(
            f"{who} needs a context for every token, {its} makes {tokens} of {before}. Use one that keeps them all, such as "
            "wav2vec2 or s4."
        )
    if needs.tokens and tokens < objective.least_tokens():
        raise SpecError(
            f"{who} needs {objective.least_tokens()} tokens or more in a window, {its} makes {tokens} of "
            f"{config.input.length} samples. Use a longer window, shorter tokens, or other settings of the objective."
        )
    return tokens


def _tokens_in_context(encoder: TokenEncoder, leads: int, length: int) -> tuple[int, int]:
    """How many tokens one window gives before and after the stages, by trying: nothing but the network itself knows."""
    # In evaluation mode: a batch of zeros would move the running statistics of batch norms.
    training = encoder.training
    with torch.no_grad():
        try:
            tokens = encoder.eval().tokens(torch.zeros(1, leads, length))
            return tokens.shape[1], encoder.contextualise(tokens)[-1].shape[1]
        finally:
            encoder.train(training)
