"""A slow copy of a network, whose outputs are targets."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A copy of `student`, made now, that takes no gradient and moves only when told to follow.

    It stays in evaluation mode whatever `train()` says: dropout and batch statistics would make targets depend on the
    batch. batch_norms: "as_student" lets it change mode with the student, as the originals of BYOL do.
    """

    def __init__(self, student: nn.Module, batch_norms: str = "running") -> None:
        super().__init__()
        self.as_student = batch_norms == "as_student"
        # In the constructor, so that a resumed run has the same entries to load; made in the first step, they would lack.
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and self.as_student)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Move every parameter to momentum * mine + (1 - momentum) * the student's; copy the buffers.

        Buffers too, because in evaluation mode a BatchNorm is its running statistics: lightly's update_momentum moves
        parameters alone, which suits teachers in training mode only.
        """
        for slow, fast in zip(self.network.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)
        for mine, theirs in zip(self.network.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
