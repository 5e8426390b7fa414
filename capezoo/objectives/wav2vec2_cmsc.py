"""The sum of wav2vec 2.0 and CMSC on one pass of the encoder: what ECG-FM is pretrained with.

Source: Oh et al., arXiv 2203.06889, and ECG-FM, arXiv 2408.05178, read from its public code. Both windows of a pair have
tokens hidden, and codes to find, as in `wav2vec2`; the mean over the encoder's outputs, hidden places among them, must find
the neighbouring window as in `cmsc`. The sum weighs both alike. The method is made for the view `lead_mask`, which is how
random lead masking is done here.

There are two versions of the public code: one takes the means from the pass with hidden tokens, as here by default, the other
from a second pass of the transformer without (`second_pass`). Masks, thinning, gradients and what several processes share are
as in `wav2vec2` and `cmsc`.
"""

from math import log

from pydantic import Field
from torch import nn

from capezoo.distributed import world_size
from capezoo.objectives._cmsc import CmscConfig, across_views
from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._wav2vec2 import TERMS, HiddenCodesConfig, HiddenCodesObjective


class Config(HiddenCodesConfig, CmscConfig):
    """Masks, codes, negatives, weights, contrast across windows."""

    cmsc_weight: float = Field(default=1.0, ge=0, description="of the contrast across windows; ECG-FM")
    second_pass: bool = Field(
        default=False, description="compare windows with nothing hidden; one version of the public code"
    )


class Objective(HiddenCodesObjective):
    """Terms: those of `wav2vec2`, and `cmsc`."""

    needs = Needs(views=2, pairing=("adjacent", "patient"), tokens=True, one_each=True)
    terms = (*TERMS, "cmsc")

    def __init__(self, config: Config, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.config = config

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        signal = batch.signal.flatten(0, 1)
        parts = self.parts(encoder, signal, batch)
        seen = encoder.contextualise(parts.tokens)[-1] if self.config.second_pass else parts.context  # type: ignore[operator]
        # Over hidden places too: an embedding is the mean of all.
        first, second = seen.mean(1).unflatten(0, (-1, 2)).unbind(1)
        cmsc = across_views(first, second, batch.group, self.config)
        return Losses(self.weighed(parts) + self.config.cmsc_weight * cmsc, parts.terms() | {"cmsc": cmsc.detach()})

    def untrained(self, groups: int, tokens: int) -> float:
        """Return ln(1 + negatives) + ln N."""
        return log(1 + self.config.negatives) + self.config.cmsc_weight * log(groups / world_size())
