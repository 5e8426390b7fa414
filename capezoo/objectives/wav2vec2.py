"""Find the code of each hidden token among codes of other hidden tokens of the recording: wav2vec 2.0.

Source: Baevski et al., arXiv 2006.11477, with the numbers of ECG-FM (arXiv 2408.05178), read from its public code. Spans of
ten tokens are replaced by a learned one. A quantiser chooses two codes for what the stem made of each hidden place, and the
transformer's output there must be nearer to the projected codes than to those of 100 other hidden places of the same row.
A tenth of the share of codes not in use is added, and ten times the mean square of the stem's output.

As in the public code rows are thinned to as many hidden tokens as the row with fewest (`thin`), choices are hard with a
gradient through the softmax (Gumbel, 2 down to 0.5), and each process has its own masks, codes in use and negatives.
Differences: equal codes are told by their numbers, where the public code compares rounded values; noise is drawn on the
device. Encoders other than wav2vec2 have no norm between stem and tokens: their targets are their tokens, LayerNorm-ed
without weights, and there is no penalty; that is ours.
"""

from torch import nn

from capezoo.objectives._contract import Losses, Needs, ViewBatch
from capezoo.objectives._wav2vec2 import TERMS, HiddenCodesConfig, HiddenCodesObjective


class Config(HiddenCodesConfig):
    """Masks, codes, negatives, weights."""


class Objective(HiddenCodesObjective):
    """Terms: the contrast alone, how often the right code is nearest, codes in use, mean square of the stem's output."""

    needs = Needs(views=1, pairing=("record",), tokens=True, one_each=True)
    terms = TERMS

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        parts = self.parts(encoder, batch.signal[:, 0], batch)
        return Losses(self.weighed(parts), parts.terms())
