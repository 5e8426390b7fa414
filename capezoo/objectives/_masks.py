"""Which tokens are hidden: pure functions of sizes and a generator, drawn on the CPU, so that every device hides the same."""

import torch
import torch.nn.functional as F
from torch import Tensor

_FEWEST_SPANS = 2  # of a row; wav2vec 2.0's public code


def spans(rows: int, n: int, share: float, length: int, generator: torch.Generator) -> Tensor:
    """Hide spans of `length` tokens: bool (rows, n). Each token is the middle of one with probability share / length.

    Of 10 tokens a span reaches 4 before its middle and 5 after. Some rows have none. As in the public code of the scaling
    study, the last token is hidden only where it is a middle itself.
    """
    middle = torch.rand(rows, n, generator=generator) < share / length
    before = (length - 1) // 2
    # A token is hidden by middles from `length - 1 - before` places before it to `before` after it.
    near = F.pad(middle.float(), (length - 1 - before, before)).unfold(-1, length, 1)
    hidden = near.amax(-1) > 0
    hidden[:, -1] = middle[:, -1]
    return hidden


def equal_spans(
    rows: int, n: int, share: float, length: int, generator: torch.Generator, *, thin: bool = True
) -> Tensor:
    """Hide as many spans of `length` tokens in every row: bool (rows, n). Source: wav2vec 2.0's public code, fairseq.

    Their number is share * n / length, rounded up or down at random, once for the batch, and 2 at least. Starts differ
    within a row, spans may overlap; the last token is never hidden. thin: rows lose random tokens until all have as many as
    the one with fewest, so that the share falls with the number of rows. n: `length` + 2 or more.
    """
    number = max(_FEWEST_SPANS, int(share * n / length + torch.rand((), generator=generator).item()))
    starts = torch.rand(rows, n - length, generator=generator).topk(min(number, n - length)).indices
    begun = torch.zeros(rows, n, dtype=torch.long).scatter_(1, starts, 1).cumsum(1)
    # Spans that have begun by now but not by `length` tokens ago.
    hidden = begun > F.pad(begun, (length, 0))[:, :n]
    if thin:
        order = torch.rand(rows, n, generator=generator).masked_fill(~hidden, 2.0).argsort(1)
        hidden = torch.zeros_like(hidden).scatter_(1, order[:, : int(hidden.sum(1).min())], True)
    return hidden


def blocks(
    rows: int,
    n: int,
    generator: torch.Generator,
    *,
    targets: int,
    shares: tuple[tuple[float, float], ...],
    shortest: int,
) -> tuple[Tensor, Tensor]:
    """Draw blocks to predict and the context to predict them from: int64 (rows, n) and bool (rows, n).

    The first counts the blocks that hold a token. shares: of `n`, from and to, of a target and of the context; one length
    each for all rows. The context loses what targets hold; where fewer than `shortest` tokens are left of it, `shortest`
    random ones take its place, those of targets among them. n: more than `shortest`.
    """
    draws = torch.rand(2, generator=generator).tolist()
    size, extent = (int(n * (low + (high - low) * u)) for (low, high), u in zip(shares, draws, strict=True))
    size, place = min(max(size, shortest), n - 1), torch.arange(n)
    # The last start is never drawn, as in the public code: the last token is no target.
    start = torch.randint(n - size, (rows, targets, 1), generator=generator)
    counts = ((place >= start) & (place < start + size)).sum(1)
    begin = torch.randint(n - extent + 1, (rows, 1), generator=generator)
    context = (place >= begin) & (place < begin + extent) & (counts == 0)
    anywhere = torch.rand(rows, n, generator=generator).argsort(1).argsort(1) < shortest
    return counts, torch.where(context.sum(1, keepdim=True) < shortest, anywhere, context)


def scattered(rows: int, n: int, keep: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep `keep` of `n` tokens of each row, any with the same chance: places kept and dropped, int64, ascending."""
    order = torch.rand(rows, n, generator=generator).argsort(1)
    return order[:, :keep].sort(1).values, order[:, keep:].sort(1).values


def gaps(rows: int, n: int, keep: int, shortest: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keep `keep` of `n` tokens of each row and drop the rest in blocks: places kept and dropped, int64, ascending.

    A block has `shortest` tokens up to all that remain to be dropped, and falls into a stretch of kept ones in proportion
    to its length. What remains and is shorter joins a block; a stretch that is shorter than its block goes whole. As
    Weimann and Conrad do, of all rows at once.
    """
    place, whole = torch.arange(n), torch.ones(rows, n, dtype=torch.bool)
    left = torch.full((rows, 1), n - keep)
    # Only rows that are not done: most have two or three blocks, one of thousands has ten.
    while len(row := left[:, 0].nonzero()[:, 0]):
        kept, more = whole[row], left[row]
        # The stretch around a kept token drawn evenly: a longer one is met more often.
        met = torch.rand(kept.shape, generator=generator).masked_fill(~kept, -1).argmax(1, keepdim=True)
        size_draw, place_draw, side_draw = torch.rand(3, len(row), 1, generator=generator)
        start = torch.where(~kept & (place < met), place + 1, 0).amax(1, keepdim=True)
        stop = torch.where(~kept & (place > met), place, n).amin(1, keepdim=True)
        size = torch.where(more >= shortest, shortest + (size_draw * (more - shortest + 1)).long(), more)
        size = torch.minimum(size, stop - start)
        free = start + (place_draw * (stop - start - size + 1)).long()
        # A remainder goes to an end of its stretch where a block is, not to an end of the recording.
        at_start = (start > 0) & ((stop == n) | (side_draw < 0.5))
        joined = torch.where(at_start, start, torch.where(stop < n, stop - size, free))
        begin = torch.where(more >= shortest, free, joined)
        whole[row] = kept & ((place < begin) | (place >= begin + size))
        left[row] = more - size
    order = (~whole).int().argsort(dim=1, stable=True)
    return order[:, :keep], order[:, keep:]


def at(places: Tensor, tokens: Tensor) -> Tensor:
    """(batch, token, channel) -> those at `places`, (batch, chosen), of each row."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def mean_where(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of `values` weighed by `weight`, of the same shape; 0 with a gradient of 0 if all weights are 0."""
    # Weighed and not picked: the number of hidden tokens would have to be read back from a GPU.
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def others(counts: Tensor, most: int, number: int, generator: torch.Generator) -> Tensor:
    """Draw, for each of `most` places in a row, `number` others among the first counts[row]: int64 (rows, most, number).

    With replacement. counts: int64 (rows,), 2 or more.
    """
    uniform = torch.rand(len(counts), most, number, generator=generator)
    drawn = (uniform * (counts[:, None, None] - 1)).long()
    # Of one place fewer, moved up from the place itself on: uniform over the others, and no draw is rejected.
    return drawn + (drawn >= torch.arange(most)[:, None])
