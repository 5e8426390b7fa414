"""Small networks on top of an embedding. They are thrown away after training."""

from itertools import pairwise

from torch import nn


def perceptron(*widths: int, norm: bool = False, keras: bool = False) -> nn.Sequential:
    """Return linear layers of these widths with ReLU between them, after a BatchNorm if `norm`.

    keras: initial weights as Keras's Dense has them, uniform by inputs and outputs; else torch's.
    """
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
