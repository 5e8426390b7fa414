"""What all encoders share: timm's method protocol around a list of stage outputs.

With it timm's optimisers, layer decay, schedulers, averaging and feature extraction work unchanged.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ecgcohorts.errors import SpecError


@dataclass(frozen=True)
class Stage:
    """One entry of `feature_info`, in timm's words: channels, samples per output sample, and the submodule."""

    num_chs: int
    reduction: int
    module: str


class _SignalEncoder(nn.Module, ABC):
    """(batch, lead, time) in mV -> (batch, num_features), or logits if `num_classes` is not 0.

    (batch, lead, 1, time), the form of timm's data tools, is taken too. A subclass builds its layers, calls
    `complete`, and gives `outputs` and `group_matcher`. `config` is its spec; `config.in_leads` says what it takes.
    """

    config: Any

    def __init__(self) -> None:
        super().__init__()
        self.grad_checkpointing = False

    def complete(self, stages: Sequence[Stage], num_classes: int) -> None:
        """Last call when built: the classifier comes after all else, so that no other weight depends on it."""
        self.feature_info: list[dict[str, Any]] = [asdict(stage) for stage in stages]
        self.num_features = self.head_hidden_size = stages[-1].num_chs
        self.reset_classifier(num_classes)

    @abstractmethod
    def outputs(self, x: Tensor, n_stages: int) -> list[Tensor]:
        """(batch, lead, 1, time) -> outputs of the first stages, each (batch, channel, time')."""

    @abstractmethod
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups from input to output, for layer-wise learning rates."""

    def final_norm(self, x: Tensor) -> Tensor:
        """(batch, num_features, time'): what stands between the last stage and the pooling; here nothing."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(batch, lead, time) -> (batch, num_features, time')."""
        return self.final_norm(self.outputs(as_rows(x), len(self.feature_info))[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(batch, num_features, time') -> its mean over time, then the classifier unless `pre_logits`."""
        pooled = x.mean(dim=-1)
        return pooled if pre_logits else self.classifier(pooled)

    def forward_intermediates(
        self, x: Tensor, indices: int | Sequence[int] | None = None, norm: bool = False, stop_early: bool = False,
        output_fmt: Literal["NCL", "NLC"] = "NCL", intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Outputs of chosen stages, counted from 0: all, the last `indices`, or those listed. timm's signature.

        norm: put each through `final_norm`. Returns them alone, or after the final features; with `stop_early` these
        are those of the last stage that ran. Raises ValueError for another order of axes, IndexError for no such stage.
        """
        if output_fmt not in ("NCL", "NLC"):
            raise ValueError(f"found output_fmt={str(output_fmt)!r}, expected 'NCL' or 'NLC'. A signal has one axis.")
        n = len(self.feature_info)
        places = _places(indices, n)
        outputs = self.outputs(as_rows(x), max(places) + 1 if stop_early else n)
        chosen = [self.final_norm(outputs[i]) if norm else outputs[i] for i in places]
        chosen = [y if output_fmt == "NCL" else y.transpose(1, 2) for y in chosen]
        return chosen if intermediates_only else (self.final_norm(outputs[-1]), chosen)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by nothing (0). Only average pooling is built."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"found global_pool={global_pool!r}, expected 'avg'.")
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Parameters to leave out beyond norms and biases, which timm leaves out by itself: they have one axis."""
        return set()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass: less memory, a third more time."""
        self.grad_checkpointing = enable

    def run_block(self, block: nn.Module, *tensors: Tensor, **options: Any) -> Any:
        """Call a block, or have it recomputed in the backward pass if so set."""
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return block(*tensors, **options)
        return checkpoint(
            block,
            *tensors,
            # torch's older form gives no gradient where no input asks for one, and a raw signal does not.
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _without_counting(block)),
            **options,
        )


class TokenEncoder(_SignalEncoder):
    """An encoder that cuts the signal into tokens first and gives them context afterwards.

    Methods that hide, drop or predict tokens work between the two. A subclass gives `tokens` and `context`; pooling,
    timm's protocol, ONNX and embedding see the same network as before.

    token_dim: channels of a token. causal: no output depends on later tokens. can_drop: `contextualise` takes `keep`.
    """

    token_dim: int
    causal: bool = False
    can_drop: bool = False

    @property
    def feature_dim(self) -> int:
        """Channels of a token's features, see `features_and_tokens`."""
        return self.token_dim

    def features_and_tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return features before their norm, after it, and the tokens made of them, for methods that predict features.

        Each is (batch, token, channel). An encoder without a norm between stem and tokens gives None, its tokens as a
        LayerNorm without weights leaves them, and its tokens.
        """
        tokens = self.tokens(x)
        return None, F.layer_norm(tokens, tokens.shape[-1:]), tokens

    @abstractmethod
    def tokens(self, x: Tensor) -> Tensor:
        """(batch, lead, time) -> (batch, token, token_dim): nothing hidden, no positions yet."""

    @abstractmethod
    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first stages, each (batch, token, channel), before any final norm."""

    def contextualise(self, tokens: Tensor, keep: Tensor | None = None) -> list[Tensor]:
        """Add positions and run all stages, each (batch, token, channel), the last after the final norm.

        keep: int64 (batch, kept), places of the tokens to go on with; the others are dropped. Raises SpecError if the
        encoder cannot drop tokens: a convolution has no output without its neighbours.
        """
        if keep is not None and not self.can_drop:
            name = type(self).__module__.rpartition(".")[2]
            raise SpecError(f"encoder {name} cannot drop tokens. Use one that can, such as vit1d.")
        *inner, last = self.context(tokens, len(self.feature_info), keep)
        return [*inner, self.final_norm(last.transpose(1, 2)).transpose(1, 2)]

    def inner_outputs(self, tokens: Tensor) -> list[Tensor]:
        """Return what each stage adds to its input, each (batch, token, channel), for methods that predict that.

        An encoder whose stages do more than add gives its stage outputs, as here.
        """
        return self.contextualise(tokens)

    def outputs(self, x: Tensor, n_stages: int) -> list[Tensor]:
        return [stage.transpose(1, 2) for stage in self.context(self.tokens(x), n_stages)]


@contextmanager
def _without_counting(block: nn.Module) -> Iterator[None]:
    """A recomputed block must not move the running statistics of its batch norms a second time."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the share of the new batch
        norm.num_batches_tracked = None  # so that it is not counted
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def as_rows(x: Tensor) -> Tensor:
    """As an image one pixel high."""
    return x if x.ndim == 4 else x.unsqueeze(2)


def _places(indices: int | Sequence[int] | None, n: int) -> list[int]:
    """Stages asked for as places from 0; `indices` as timm has them."""
    last = n if indices is None else indices
    wanted = range(-last, 0) if isinstance(last, int) else last
    if not len(wanted) or not all(-n <= i < n for i in wanted):
        raise IndexError(f"found indices={indices}, expected up to {n} stages, or places from {-n} to {n - 1}.")
    return [i % n for i in wanted]
