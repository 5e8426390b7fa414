"""Numbers that change from step to step: pure functions of step and total, with no state to lose."""

from math import cos, pi


def half_cosine(start: float, end: float, step: int, total: int) -> float:
    """Go from `start` at step 0 to `end` at step `total` along half a cosine."""
    return end + (start - end) / 2 * (1 + cos(pi * (step / total)))


def exponential(start: float, end: float, factor: float, step: int) -> float:
    """Multiply `start` by `factor` at every step, down to `end`."""
    return max(start * factor**step, end)


def linear(start: float, end: float, step: int, total: int) -> float:
    """Go from `start` at step 0 to `end` at step `total` along a line, and stay there."""
    return start + (end - start) * min(step / total, 1.0)
