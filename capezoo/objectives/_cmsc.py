"""Contrast across two views: a row of one view is to find its patient among the rows of the other."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from capezoo.specs.base import Spec

_SHORTEST = 1e-8  # length that an embedding is divided by at least; the public code


class CmscConfig(Spec):
    """Temperature and gradient of the contrast."""

    temperature: float = Field(default=0.1, gt=0, description="divides cosine similarity of windows; CLOCS, ECG-FM")
    normalise_gradient: bool = Field(
        default=False,
        description="the gradient passes through the lengths that cosines are divided by; ECG-FM's public code detaches "
        "them, so that embeddings are also pulled along their own direction",
    )


def across_views(first: Tensor, second: Tensor, group: Tensor, config: CmscConfig) -> Tensor:
    """Mean of both directions of -log softmax at the rows of the same group: ln N at collapse.

    first, second: (row, dim), the two views. group: int64 (row,); where several rows are of one, the mean over them. Rows of
    this process alone, and none of the own view. Computed in float32 or better.
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = (_on_the_sphere(view, config.normalise_gradient) for view in (first, second))
        score = first @ second.T / config.temperature
        # A patient may be there twice: his windows share the weight, as in the public code.
        same = (group[:, None] == group).to(score.dtype)
        wanted = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(score, wanted) + F.cross_entropy(score.T, wanted)) / 2


def _on_the_sphere(view: Tensor, normalise_gradient: bool) -> Tensor:
    # Autocast would leave cosines in bfloat16, where all above 0.998 are 1.
    exact = view.to(torch.promote_types(view.dtype, torch.float32))
    length = exact.norm(dim=1, keepdim=True).clamp(min=_SHORTEST)
    return exact / (length if normalise_gradient else length.detach())
