"""What a file in this folder says of one public encoder: `MODEL`, a `PublicModel`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec

Tensors = Mapping[str, Tensor]


def _as_they_are(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class PublicModel:
    """A public encoder: where its file is to be had, how the file becomes one of our encoders, and what to know of it.

    Names are those of the file. A tensor that `dropped` does not name must have its place in the encoder, and every place
    its tensor: nothing is left random.
    """

    title: str
    source: str  # who made it: repository, paper
    where: str  # how a person gets the file
    licence: str  # of the weights, as an SPDX name; unknown: none is stated
    describe: Callable[
        [Tensors], tuple[EncoderSpec, InputSpec]
    ]  # from names and shapes; raises KeyError for one that lacks
    renamed: tuple[tuple[str, str], ...]  # pattern and replacement, applied in this order
    dropped: tuple[str, ...] = ()  # patterns of whole names: heads, decoders, layers that are never called
    inside: tuple[str, ...] = ()  # keys that lead to the tensors
    convert: Callable[[Tensors], Tensors] = _as_they_are  # tensors by our names, where numbers change too
    known_failures: tuple[str, ...] = ()  # faults of the public code, and what is done here instead

    # Whole names, so that a pattern for `linear.weight` leaves `stages.linear.weight` alone.
    def keeps(self, name: str) -> bool:
        """Whether a tensor of the file belongs to the encoder."""
        return not any(re.fullmatch(pattern, name) for pattern in self.dropped)

    def ours(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return tensors by our names. Raises ValueError if two become one."""
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            new = name
            for pattern, replacement in self.renamed:
                new = re.sub(pattern, replacement, new)
            # Silently, the later one would win.
            if new in found:
                raise ValueError(f"two tensors for {new!r:.80}")
            found[new] = tensor
        return dict(self.convert(found))
