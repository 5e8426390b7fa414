"""Codes that a network chooses itself, one of each group, by scores that learn: Gumbel softmax."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.objectives._perceptron import _affordable

_LEAST = 1e-7  # added to a share before its logarithm; fairseq


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a vector became, and how many codes are in use, as if all of a group were used alike, summed over groups."""

    vectors: Tensor  # (..., group * width), the codes side by side
    places: Tensor  # int64 (..., group)
    code_perplexity: Tensor  # of the codes with the best scores
    perplexity: Tensor  # of the softmax of the scores, which has a gradient


class GumbelCodes(nn.Module):
    """Groups of `count` codes, `width` wide, and a linear layer that scores them.

    Source: wav2vec 2.0, arXiv 2006.11477, and fairseq: scores start at a deviation of the square root of `dim` for normed
    input, codes uniform between 0 and 1.
    """

    def __init__(self, dim: int, groups: int, count: int, width: int) -> None:
        super().__init__()
        _affordable(dim, groups * count, width)
        self.scores = nn.Linear(dim, groups * count)
        nn.init.normal_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)
        self.codes = nn.Parameter(torch.rand(groups, count, width))

    @property
    def number(self) -> int:
        """Codes of all groups."""
        return self.codes.shape[0] * self.codes.shape[1]

    def forward(self, vectors: Tensor, present: Tensor, temperature: float, generator: torch.Generator) -> Chosen:
        """Choose codes for vectors (..., dim), in training by scores with noise, otherwise the best.

        present: bool (...), which count for the perplexities. The choice is hard, its gradient that of the softmax at the
        temperature. generator: on the CPU. Computed in float32 or better.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            exact = vectors.to(torch.promote_types(self.codes.dtype, torch.float32))
            scores = self.scores(exact).unflatten(-1, self.codes.shape[:2])  # (..., group, code)
            noisy = scores
            if self.training:
                # On the device: 640 numbers a token are slow to make on the CPU and to send.
                there = torch.Generator(scores.device)
                there.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
                noisy = scores - torch.empty_like(scores).exponential_(generator=there).log()
            places = noisy.argmax(-1)
            choice = F.one_hot(places, scores.shape[-1]).to(scores.dtype)
            if self.training:
                soft = F.softmax(noisy / temperature, dim=-1)
                # The difference is exactly 0: `choice - soft + soft`, as usual, would round codes apart that are equal.
                choice = choice + (soft - soft.detach())
            # Not a look-up: the gradient of a choice is that of a mixture of all codes.
            chosen = torch.einsum("...gc,gcw->...gw", choice, self.codes).flatten(-2)
            # Without the noise, which would make any scores look diverse.
            best = F.one_hot(scores.detach().argmax(-1), scores.shape[-1]).to(scores.dtype)
            used, likely = (_perplexity(share, present) for share in (best, F.softmax(scores, dim=-1)))
        return Chosen(chosen, places, used, likely)


def _perplexity(share: Tensor, present: Tensor) -> Tensor:
    """exp of the entropy of the mean over tokens that count, (..., group, code), summed over groups."""
    # Of all tokens together: one alone has a single code of each group, however many are in use.
    among = present[..., None, None]
    mean = (share * among).flatten(0, -3).sum(0) / present.sum().clamp(min=1)
    return (-(mean * (mean + _LEAST).log()).sum(-1)).exp().sum()
