"""Simple measures of an ECG in the place of an encoder: what a table has to beat before features were worth learning."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from capezoo.specs.input import InputSpec

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
# Hz; our default. Narrow where an ECG has most of its power; 0.5 and 100 Hz are the edges of cape-v1's band-pass.
_EDGES = (0.5, 2, 4, 6, 8, 11, 15, 20, 30, 50, 100)
# mV^2; far below the noise of any recorder, so that a silent band gives a number.
_FLOOR = 1e-12
PER_LEAD = len(_PERCENTILES) + 2 + len(_EDGES) - 1  # 19: 152 of eight leads


class Measurements(nn.Module):
    """(batch, lead, time) -> (batch, 19 a lead), with the methods of an encoder and nothing to train.

    Of each lead of the window, in mV: seven percentiles of the samples (1, 5, 25, 50, 75, 95, 99), their standard
    deviation, the steepness (root mean square of the derivative, mV/s), and log10 of the power in ten bands between 0.5
    and 100 Hz (edges 0.5 2 4 6 8 11 15 20 30 50 100; mV^2, mean removed, no taper). A band above half the rate has none.
    """

    def __init__(self, spec: "InputSpec") -> None:
        super().__init__()
        self.spec = spec
        self.num_features = PER_LEAD * len(spec.leads)
        # Parameters, so that a digest of all tensors tells measures of one definition from those of another.
        self.percentiles = nn.Parameter(torch.tensor(_PERCENTILES, dtype=torch.float32), requires_grad=False)
        self.edges = nn.Parameter(torch.tensor(_EDGES, dtype=torch.float32), requires_grad=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return (batch, measure), lead by lead."""
        steepness = (x.diff(dim=-1) * self.spec.rate_hz).square().mean(dim=-1).sqrt()
        shape = torch.stack([x.std(dim=-1, correction=0), steepness], dim=-1)
        return torch.cat([self._quantiles(x), shape, self._band_powers(x)], dim=-1).flatten(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return what it is given: there is no classifier."""
        return x

    def _quantiles(self, x: Tensor) -> Tensor:
        # By hand: torch.quantile refuses more than 16 million numbers, a block of 256 windows of 12 leads and 10 s.
        ordered = x.sort(dim=-1).values
        place = self.percentiles / 100 * (x.shape[-1] - 1)
        below, above = place.floor().long(), place.ceil().long()
        return torch.lerp(ordered[..., below], ordered[..., above], place - below)

    def _band_powers(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        power = torch.fft.rfft(x - x.mean(dim=-1, keepdim=True)).abs().square() / n**2
        # Both halves of the spectrum: without the mean, the sum of all bands is the variance.
        power = 2 * power
        frequency = torch.fft.rfftfreq(n, 1 / self.spec.rate_hz, device=x.device)
        band = torch.bucketize(frequency, self.edges, right=True)  # 0: below the first edge
        bands = x.new_zeros(*x.shape[:-1], len(self.edges) + 1).index_add(-1, band, power)
        return bands[..., 1 : len(self.edges)].clamp_min(_FLOOR).log10()
