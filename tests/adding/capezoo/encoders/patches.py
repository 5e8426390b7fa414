"""A linear map of each patch and one layer above: the least encoder of tokens. Made up for tests/test_adding_things.py."""

from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.specs.base import Spec


class Config(Spec):
    """Shape of the network."""

    in_leads: int = Field(default=8, gt=0, description="CAPE's leads: our default")
    patch: int = Field(default=25, gt=0, description="samples of a token: our default")
    embedding_dim: int = Field(default=16, gt=0, description="features: our default")


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, num_features). Causal, since no token looks at another."""

    causal = True

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        self.token_dim = config.embedding_dim
        self.embed = nn.Conv1d(config.in_leads, config.embedding_dim, config.patch, config.patch)
        self.layer = nn.Sequential(nn.Linear(config.embedding_dim, config.embedding_dim), nn.GELU())
        self.complete([Stage(config.embedding_dim, config.patch, "layer")], num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Cut into patches, the last one filled up with zeros."""
        signal = as_rows(x).squeeze(2)
        filled = F.pad(signal, (0, -signal.shape[-1] % self.config.patch))
        return self.embed(filled).transpose(1, 2)

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the one layer."""
        return [self.run_block(self.layer, tokens)]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^embed", "blocks": r"^layer"}
