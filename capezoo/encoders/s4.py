"""Structured state spaces after a stem of convolutions: S4 without the algebra of its kernels.

Source: Gu et al., arXiv 2111.00396, in the form of the scaling study (arXiv 2605.12241) and of ECG-CPC, whose state
matrices and step sizes are fixed: then a kernel is a fixed set of impulse responses, read out by trained numbers, and
nothing has to be derived to compute it. The studies take 12 leads at 240 Hz, 2.5 s.
"""

from contextlib import nullcontext
from math import log, prod
from typing import Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._conv import stem_of, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels, Share, Taps


class Config(Spec):
    """Shape of the network. With 12 leads it has 2,949,120 parameters, 2,932,736 if causal."""

    in_leads: Channels = Field(default=8, description="CAPE's leads: our default; the scaling study 12")
    width: Channels = Field(default=512, description="channels of stem and layers; the scaling study")
    state: int = Field(default=8, gt=0, le=256, description="impulse responses a channel; the scaling study")
    depth: int = Field(default=4, gt=0, le=MAX_LAYERS, description="the scaling study")
    kernels: tuple[Taps, ...] = Field(
        default=(3, 1, 1, 1), min_length=1, max_length=MAX_LAYERS, description="of the stem; the scaling study"
    )
    strides: tuple[Taps, ...] = Field(
        default=(2, 1, 1, 1), min_length=1, max_length=MAX_LAYERS, description="of the stem; the scaling study"
    )
    causal: bool = Field(
        default=False, description="no token sees a later one; the scaling study for CPC, both directions for all else"
    )
    dropout: Share = Field(
        default=0.2, lt=1, description="of whole channels, before and after the mixing layer; the scaling study"
    )
    steps: tuple[float, float] = Field(
        default=(0.001, 0.1),
        description="range of the channels' step sizes, drawn evenly on a log scale; the scaling study",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"as many kernels as strides, found {len(self.kernels)} and {len(self.strides)}")
        if not 0 < self.steps[0] <= self.steps[1] <= 1:
            raise ValueError(f"steps from small to large between 0 and 1, found {self.steps}")
        return self


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, 512): tokens of 8.3 ms at 240 Hz, the mean over them."""

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        channels = (config.in_leads, *(config.width for _ in config.kernels))
        self.stem = stem_of(channels, config.kernels, config.strides)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.token_dim, self.causal = config.width, config.causal
        stride = prod(config.strides)
        self.complete([Stage(config.width, stride, f"layers.{i}") for i in range(config.depth)], num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Stem."""
        return to_tokens(self.stem(as_rows(x)))

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first layers; kernels know where a token is, so there are no positions."""
        found = []
        for layer in self.layers[:n_stages]:
            tokens = self.run_block(layer, tokens)
            found.append(tokens)
        return found

    def inner_outputs(self, tokens: Tensor) -> list[Tensor]:
        """Return what each layer adds, before its dropout, residual sum and norm."""
        found = []
        for layer in self.layers:
            added, tokens = layer(tokens, with_inner=True)
            found.append(added)
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^layers\.(\d+)"}


class _Layer(nn.Module):
    """Convolution over all of time, GELU, a gated mixture of channels, residual sum, LayerNorm: (batch, token, channel)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.convolution = StateSpace(config.width, config.state, config.causal, config.steps)
        self.mix = nn.Linear(config.width, 2 * config.width)
        # A channel is dropped for the whole sequence: neighbouring tokens would give away what single ones lost.
        self.dropout = nn.Dropout1d(config.dropout)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, with_inner: bool = False) -> Any:
        """with_inner: return also, and first, what is added to the tokens, before dropout."""
        seen = self._drop(F.gelu(self.convolution(tokens)))
        added = F.glu(self.mix(seen), dim=-1)
        normed = self.norm(tokens + self._drop(added))
        return (added, normed) if with_inner else normed

    def _drop(self, tokens: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(tokens.transpose(1, 2))
        return dropped.transpose(1, 2)


class StateSpace(nn.Module):
    """A linear system for each channel, run from both ends or from the first token on: (batch, token, channel) -> the same.

    The system is HiPPO-LegS with `state` dimensions, made discrete by the bilinear rule with the channel's own step. Its
    impulse responses are fixed; `readout` weighs them, `skip` adds the input itself.
    """

    def __init__(self, width: int, state: int, causal: bool, steps: tuple[float, float]) -> None:
        super().__init__()
        # A buffer: the kernels of published weights are made with the steps that were drawn, so they belong to the weights.
        self.register_buffer("log_step", torch.empty(width).uniform_(log(steps[0]), log(steps[1])))
        # One readout for now and before; a second for what comes after.
        self.readout = nn.Parameter(torch.randn(1 if causal else 2, width, state))
        self.skip = nn.Parameter(torch.randn(width))
        self._made: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        n, x = tokens.shape[1], tokens.transpose(1, 2)
        # No transform in half precision on a CPU, and too little of it on a GPU. Shapes alone have no autocast.
        with nullcontext() if tokens.is_meta else torch.autocast(tokens.device.type, enabled=False):
            exact = x.to(torch.promote_types(x.dtype, torch.float32))
            kernel = self.kernel(n).to(exact.dtype)
            # Twice as long, so that what leaves one end does not come in at the other.
            y = torch.fft.irfft(torch.fft.rfft(exact, 2 * n) * torch.fft.rfft(kernel, 2 * n), 2 * n)[..., :n]
        return (y.to(x.dtype) + self.skip[:, None] * x).transpose(1, 2)

    def kernel(self, n: int) -> Tensor:
        """(channel, 2 n): lags 0 to n - 1, then from n to 1 before; the second half is 0 in a causal one."""
        halves = torch.einsum("dcs,csn->dcn", self.readout, self._responses(n))
        later = halves[1].flip(-1) if len(halves) > 1 else torch.zeros_like(halves[0])
        return torch.cat([halves[0], later], dim=-1)

    def _responses(self, n: int) -> Tensor:
        """Impulse responses (channel, state, n), kept: they depend on step sizes and length alone."""
        if self._made is None or self._made.shape[-1] < n:
            # Kept for later calls, some of which train: autograd takes no tensor that was made in inference mode.
            with torch.inference_mode(False):
                steps = self.get_buffer("log_step").double().exp()
                self._made = _impulse_responses(steps, self.readout.shape[-1], n).to(self.readout.dtype)
        return self._made[..., :n]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._made = None  # on another device, or of another type
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._made = None  # other steps
        super()._load_from_state_dict(*args, **kwargs)


def _impulse_responses(steps: Tensor, state: int, n: int) -> Tensor:
    """Return the first `n` states after an impulse, of HiPPO-LegS at each step size: (channel, state, n), float64."""
    place = torch.arange(state, dtype=torch.float64, device=steps.device)
    root = (2 * place + 1).sqrt()
    matrix = -torch.tril(torch.outer(root, root), -1) - torch.diag(place + 1)
    half, one = steps[:, None, None] / 2 * matrix, torch.eye(state, dtype=torch.float64, device=steps.device)
    power = torch.linalg.solve(one - half, one + half)
    found = torch.linalg.solve(one - half, steps[:, None, None] * root[:, None])
    while found.shape[-1] < n:
        # Twice as many each time: one after another they would be n small products.
        found, power = torch.cat([found, power @ found], dim=-1), power @ power
    return found[..., :n]
