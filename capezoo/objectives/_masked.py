"""What methods share in which a student sees some tokens hidden, and a teacher sees them all."""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.encoders import TokenEncoder
from capezoo.objectives import _contract
from capezoo.objectives._contract import Needs, ViewBatch
from capezoo.objectives._masks import spans
from capezoo.objectives._teacher import Teacher
from capezoo.specs.base import Share, Spec, Taps

MASK_TOKEN_STD = 0.02  # of its initial values; unstated: our default, that of a vision transformer's tokens


class TeacherConfig(Spec):
    """The teacher."""

    teacher: Literal["moving", "frozen"] = Field(
        default="moving",
        description="follows the student, as the scaling study says; or stays what it was before the first step, as in "
        "the study's public code, whose update reaches no parameter",
    )
    momentum: Share = Field(default=0.9996, description="of a moving teacher; the scaling study")


class SpanConfig(TeacherConfig):
    """The teacher, and how tokens are hidden."""

    mask_share: Share = Field(
        default=0.065, description="of tokens, if spans did not meet: 6.3 % are hidden; the scaling study"
    )
    span: Taps = Field(default=10, description="tokens hidden together; the scaling study")


class MaskedObjective(_contract.Objective):
    """Has `teacher`, which takes no gradient, and `mask_token`, which stands where a token is hidden."""

    needs = Needs(views=1, pairing=("record",), tokens=True)

    def __init__(self, config: TeacherConfig, encoder: nn.Module) -> None:
        super().__init__()
        self.momentum, self.moves = config.momentum, config.teacher == "moving"
        # One that never moves has no running statistics of its own but those of its first step, 0 and 1, which turn
        # all signals into nearly the same tokens: it normalises by the batch, as in the public code, with dropout.
        self.teacher = Teacher(encoder, "running" if self.moves else "as_student")
        self.mask_token = nn.Parameter(MASK_TOKEN_STD * torch.randn(int(encoder.token_dim)))  # type: ignore[arg-type]

    @property
    def wise(self) -> TokenEncoder:
        """The teacher's network. What it is given asks for no gradient, and its weights take none."""
        return cast("TokenEncoder", self.teacher.network)

    def understood(self, encoder: nn.Module, signal: Tensor, hidden: Tensor) -> Tensor:
        """Return the student's context (batch, n, num_features) of a signal some of whose tokens are hidden, bool (batch, n).

        Where an encoder shortens after its tokens, all that one context covers are hidden with it: ours.
        """
        student = cast("TokenEncoder", encoder)
        tokens = student.tokens(signal)
        if hidden.shape[1] != tokens.shape[1]:
            hidden = F.interpolate(hidden[:, None].float(), tokens.shape[1])[:, 0] > 0
        tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        return student.contextualise(tokens)[-1]

    def after_step(self, encoder: nn.Module, step: int, total_steps: int) -> None:
        if self.moves:
            self.teacher.follow(encoder, self.momentum)


class SpanObjective(MaskedObjective):
    """Tokens are hidden in spans."""

    def __init__(self, config: SpanConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        self.share, self.span = config.mask_share, config.span

    def hidden(self, batch: ViewBatch, n: int) -> Tensor:
        """Draw what is hidden of each row, bool (batch, n), on the batch's device."""
        drawn = spans(len(batch.signal), n, self.share, self.span, batch.generator)
        return drawn.to(batch.signal.device, non_blocking=True)

    def least_tokens(self) -> int:
        return max(2, self.span)
