"""ResNets of a stem, a maximum over three samples, and stages of blocks of which each but the first halves the length."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from capezoo.encoders._conv import channels_last, from_tokens, halve_by_maximum, to_tokens
from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows


def stages_of(widths: Sequence[int]) -> list[Stage]:
    """What stages of these widths give: stem and maximum leave a quarter of the samples."""
    return [Stage(width, 4 * 2**i, f"stages.{i}") for i, width in enumerate(widths)]


class StagedEncoder(TokenEncoder):
    """Has `stem` and `stages`, lists of blocks."""

    stem: nn.Module
    stages: nn.ModuleList

    def tokens(self, x: Tensor) -> Tensor:
        """Stem and maximum: a token every four samples."""
        return to_tokens(halve_by_maximum(self.stem(channels_last(as_rows(x)))))

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first stages, each after its ReLU."""
        x, found = from_tokens(tokens), []
        for stage in self.stages[:n_stages]:
            for block in stage:  # type: ignore[attr-defined]
                x = self.run_block(block, x)
            found.append(to_tokens(x))
        return found

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}
