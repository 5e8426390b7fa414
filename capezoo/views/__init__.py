"""Views: a window as the encoder is to see it, one perturbation a file, with `Config` (a spec) and `View(config, input)`.

A view's random part is drawn on the CPU for the batch of all ranks, from a generator keyed by seed and step, so it is
the same on any device, with any number of ranks. The crop is already made: the batch plan places the windows.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from capezoo.specs.base import parse
from ecgcohorts import plugins

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from capezoo.specs.input import InputSpec
    from capezoo.specs.run import ViewSpec

Shape = tuple[int, int, int, int]  # (batch, view, lead, time)
Statistics = tuple["Tensor", "Tensor"]  # mean and deviation of each lead
Drawn = dict[str, "Tensor"]  # one draw of one view for a batch; every tensor begins with (batch, view)


class View(Protocol):
    """One perturbation. `draw` is all its randomness; `apply` leaves its input as it was and waits for no device."""

    def draw(self, shape: Shape, generator: "torch.Generator") -> Drawn: ...
    def apply(self, signal: "Tensor", drawn: Drawn) -> "Tensor": ...


def build(specs: "Sequence[ViewSpec]", of: "InputSpec") -> list[View]:
    """Return the views of a run. Raises SpecError for an unknown one, a wrong setting, or one that the window cannot have."""
    built: list[View] = []
    for spec in specs:
        module = plugins.load("capezoo.views", spec.name)
        built.append(module.View(parse(module.Config, spec.config, f"view {spec.name}"), of))
    return built


def draw(views: Sequence[View], shape: Shape, generator: "torch.Generator") -> list[Drawn]:
    """Draw for a whole batch, view after view from one generator."""
    # One generator and not one for each view: span and gain were drawn like this before there were files of views.
    return [view.draw(shape, generator) for view in views]


def apply(views: Sequence[View], signal: "Tensor", drawn: Sequence[Drawn]) -> "Tensor":
    """Perturb (batch, view, lead, time), scaled as InputSpec says. All tensors are on one device."""
    for view, one in zip(views, drawn, strict=True):
        signal = view.apply(signal, one)
    return signal


def part(drawn: Sequence[Drawn], rank: int, world_size: int) -> list[Drawn]:
    """Return the share of one rank: its contiguous slice of the batch. Raises ValueError unless it divides."""

    def share(whole: "Tensor") -> "Tensor":
        size, rest = divmod(len(whole), world_size)
        if rest:
            raise ValueError(f"{len(whole)} groups cannot be shared by {world_size} ranks")
        return whole[rank * size : (rank + 1) * size]

    return mapped(share, drawn)


def mapped(function: "Callable[[Tensor], Tensor]", drawn: Sequence[Drawn]) -> list[Drawn]:
    """Apply a function to every tensor of a draw."""
    return [{name: function(tensor) for name, tensor in one.items()} for one in drawn]
