"""ResNets of a stem, mostly a maximum over three samples, and stages of blocks of which each but the first halves the length."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from capezoo.encoders._conv import channels_last, from_tokens, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows


class StagedEncoder(TokenEncoder):
    """Has `stem` and `stages`, lists of blocks. pools: whether the maximum follows the stem."""

    pools: bool = True
    stem: nn.Module
    stages: nn.ModuleList

    def complete_stages(self, widths: Sequence[int], num_classes: int) -> None:
        """Call `complete` for stages that give these widths. Stem and maximum each leave half of the samples."""
        first = 4 if self.pools else 2
        stages = [Stage(width, first * 2**i, f"stages.{i}") for i, width in enumerate(widths)]
        self.complete(stages, num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Stem and maximum: a token every four samples, two without the maximum."""
        x = self.stem(channels_last(as_rows(x)))
        return to_tokens(F.max_pool2d(x, (1, 3), stride=(1, 2), padding=(0, 1)) if self.pools else x)

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first stages, each with what ends its blocks: a ReLU, in net1d a sum."""
        x, found = from_tokens(tokens), []
        for stage in self.stages[:n_stages]:
            for block in stage:  # type: ignore[attr-defined]
                x = self.run_block(block, x)
            found.append(to_tokens(x))
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}
