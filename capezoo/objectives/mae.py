"""Draw the patches of a signal that were dropped from those that were kept: masked autoencoding.

Source: He et al., arXiv 2111.06377, and its public code; OpenECG, arXiv 2503.00711, uses it on ECGs and states none of its
numbers, so they are the original's. Three quarters of the tokens are dropped before the encoder, which therefore costs a
quarter. A narrow transformer, thrown away after training, draws each dropped patch as it was, all leads over its stretch
of time, up to level and size. Ours: no class token, and initial weights as timm's but in the decoder.
"""

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.encoders import TokenEncoder
from capezoo.objectives import _contract
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._heads import GapPredictor
from capezoo.objectives._masks import at, mean_where, scattered
from capezoo.specs.base import MAX_LAYERS, Channels, Share, Spec
from ecgcohorts.errors import SpecError


class Config(Spec):
    """Dropping, decoder, target."""

    dropped_share: Share = Field(default=0.75, gt=0, lt=1, description="of the tokens of a window; MAE")
    width: Channels = Field(default=512, description="of the decoder; MAE")
    depth: int = Field(default=8, gt=0, le=MAX_LAYERS, description="blocks of the decoder; MAE")
    heads: Channels = Field(default=16, description="attention heads of the decoder; MAE")
    normalise: bool = Field(
        default=True, description="the target is a patch less its mean, over its deviation; MAE's better variant"
    )
    eps: float = Field(default=1e-6, gt=0, description="added to a patch's variance, in squared mV; MAE")


class Objective(_contract.Objective):
    """Mean squared error over all samples of dropped patches. Kept ones are drawn by nobody and cost nothing.

    A patch is the stretch that one token of the encoder stands for; what a window has too little at its end is zero.
    Patches beyond the end of a short recording do not count.
    """

    needs = Needs(views=1, pairing=("record",), tokens=True, drops_tokens=True)

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__()
        self.config = config
        student = cast("TokenEncoder", encoder)
        self.samples = int(student.feature_info[-1]["reduction"])
        out = student.config.in_leads * self.samples
        # One number less its mean is 0, and has no deviation to divide by.
        if config.normalise and out == 1:
            raise SpecError(
                "objective mae: found patches of one sample of one lead, expected several numbers to normalise. Use longer "
                "patches, or set the objective's normalise=false."
            )
        self.decoder = GapPredictor(student.num_features, out, config.width, config.depth, config.heads)
        # As in the public code: with timm's smaller weights a narrow decoder hardly sees its context at first. Not those of
        # the last layer, so that it begins by drawing nothing.
        for layer in (self.decoder.embed, *self.decoder.blocks.modules()):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal, student = batch.signal[:, 0], cast("TokenEncoder", encoder)
        tokens = student.tokens(signal)
        rows, n = tokens.shape[:2]
        # Rounded down as in the public code, but for windows of three tokens and less, which keep one.
        drawn = scattered(rows, n, max(1, int(n * (1 - self.config.dropped_share))), batch.generator)
        kept, dropped = (places.to(signal.device, non_blocking=True) for places in drawn)
        predicted = self.decoder(student.contextualise(tokens, kept)[-1], kept, dropped)
        wanted = self._wanted(signal, n, dropped)
        error = (predicted.to(wanted.dtype) - wanted).square().mean(-1)
        return Losses(mean_where(error, dropped * self.samples < batch.valid[:, :1]))

    def _wanted(self, signal: Tensor, n: int, dropped: Tensor) -> Tensor:
        """(batch, dropped, lead * sample), in float32 or better."""
        # Negative where an encoder without padding leaves the last samples out.
        filled = F.pad(signal, (0, n * self.samples - signal.shape[-1]))
        patches = at(dropped, filled.unflatten(-1, (n, -1)).transpose(1, 2).flatten(2))
        # A squared error in bfloat16 would have two digits.
        patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
        if not self.config.normalise:
            return patches
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / (variance + self.config.eps).sqrt()

    def untrained(self, groups: int, tokens: int) -> float | None:
        """1, the mean square of normalised patches: the loss of a decoder that draws nothing."""
        return 1.0 if self.config.normalise else None

    def least_tokens(self) -> int:
        return 2
