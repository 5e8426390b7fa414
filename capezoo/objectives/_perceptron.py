"""Linear layers on top of an embedding, thrown away after training, and a bound on their size.

Apart from `_heads`, because `capezoo.objectives` offers it, and heads of state spaces need an encoder's parts.
"""

from itertools import pairwise

from torch import nn

from ecgcohorts.errors import SpecError

_MOST_WEIGHTS = 1 << 30  # as many as an encoder may have; each width may be harmless where a product is not


def _affordable(*widths: int) -> None:
    """Raise SpecError, before anything is allocated, for linear layers of these widths that have too many weights."""
    count = sum(before * after for before, after in pairwise(widths))
    if count > _MOST_WEIGHTS:
        raise SpecError(
            f"found layers of {' x '.join(map(str, widths))}, which are {count:,} weights, expected at most "
            f"{_MOST_WEIGHTS:,}. Make the objective's layers, or the encoder's embedding, narrower."
        )


def perceptron(*widths: int, norm: bool = False, keras: bool = False) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them, after a BatchNorm if `norm`.

    keras: initial weights as Keras's Dense has them, uniform by inputs and outputs; else torch's. Raises SpecError for
    more than 2**30 weights.
    """
    _affordable(*widths)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers += [nn.BatchNorm1d(before), nn.ReLU()] if norm else [nn.ReLU()]
        # With a bias before a norm too, which takes it away again: BYOL's projector has 9,449,728 parameters with it.
        layers.append(nn.Linear(before, after))
    if keras:
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
