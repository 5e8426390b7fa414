"""From a loaded batch to what the encoder sees: millivolts, then perturbations, all on the device.

The crop is already made: the loader cuts the window that the batch plan keys by patient. Crop first, mask second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from capezoo.specs import ViewsSpec
from ecgcohorts.recording import MISSING


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One draw of the random part for a batch, made on the CPU: the same whatever the device."""

    start: Tensor  # int64 (batch, view), first zeroed sample
    stop: Tensor  # int64 (batch, view), one past the last; equal to start: nothing is zeroed
    gain: Tensor | None  # float32 (batch, view); None: as they are

    def part(self, rank: int, world_size: int) -> "Perturbation":
        """The share of one rank: its contiguous slice of the batch. Raises ValueError unless it divides."""
        size, rest = divmod(len(self.start), world_size)
        if rest:
            raise ValueError(f"{len(self.start)} pairs cannot be shared by {world_size} ranks")
        mine = slice(rank * size, (rank + 1) * size)
        return self.mapped(lambda whole: whole[mine])

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Perturbation":
        """The same with a function applied to every tensor."""
        gain = None if self.gain is None else function(self.gain)
        return Perturbation(function(self.start), function(self.stop), gain)


def draw(spec: ViewsSpec, shape: tuple[int, int], length: int, generator: torch.Generator) -> Perturbation:
    """Draw for a whole batch of `shape` (batch, view) and windows of `length` samples.

    Span lengths are uniform over mask_samples with both ends, starts uniform over all that fit.
    """
    shortest, longest = spec.mask_samples
    masked = torch.rand(shape, generator=generator) < spec.mask_probability
    span = torch.randint(shortest, longest + 1, shape, generator=generator)
    # float64: with float32 the last start of a long window would come up less often than the others
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    start = (uniform * (length - span + 1)).long()
    low, high = (log(factor) for factor in spec.gain_range)
    gain = (low + (high - low) * torch.rand(shape, generator=generator)).exp() if (low, high) != (0, 0) else None
    return Perturbation(start, torch.where(masked, start + span, start), gain)


def apply(signal_mv: Tensor, perturbation: Perturbation) -> Tensor:
    """(batch, view, lead, time) in mV -> the same with gains applied and spans set to 0 on all leads.

    Both arguments are on one device; nothing here waits for it.
    """
    start, stop = (edge[..., None, None] for edge in (perturbation.start, perturbation.stop))
    time = torch.arange(signal_mv.shape[-1], device=signal_mv.device)
    masked = (time >= start) & (time < stop)  # (batch, view, 1, time)
    if perturbation.gain is not None:
        signal_mv = signal_mv * perturbation.gain[..., None, None]
    return signal_mv.masked_fill(masked, 0.0)


def to_mv(signal: Tensor, lsb_uv: float) -> Tensor:
    """int16 (..., lead, time) in steps of `lsb_uv` microvolts -> float32 mV; missing samples become 0 mV."""
    return (signal.float() * (lsb_uv / 1000)).masked_fill_(signal == MISSING, 0.0)
