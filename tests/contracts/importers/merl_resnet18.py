"""The file of MERL's ResNet-18: names as torchvision has them, but for `shortcut`, and a head that is never called."""

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS, ENTRIES, FEATURES = 3_853_962, 122, 512
BUFFERS = r".*\.(running_mean|running_var|num_batches_tracked)"


def published(narrow: bool) -> dict[str, Tensor]:
    width = 4 if narrow else 64
    made = layer("conv1", "bn1", 12, width, 7)
    before = width
    for stage in range(1, 5):
        for place in range(2):
            at = f"layer{stage}.{place}."
            made |= layer(f"{at}conv1", f"{at}bn1", before, width, 3) | layer(f"{at}conv2", f"{at}bn2", width, width, 3)
            if before != width:
                made |= layer(f"{at}shortcut.0", f"{at}shortcut.1", before, width, 1)
            before = width
        width *= 2
    return made | {"linear.weight": torch.randn(10, before), "linear.bias": torch.randn(10)}


def layer(conv: str, norm: str, of: int, width: int, taps: int) -> dict[str, Tensor]:
    made = {f"{conv}.weight": torch.randn(width, of, taps) * (2 / (of * taps)) ** 0.5}
    made |= {f"{norm}.{key}": torch.rand(width) + 0.5 for key in ("weight", "bias", "running_mean", "running_var")}
    return made | {f"{norm}.num_batches_tracked": torch.tensor(9)}


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def normed(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{conv}.weight"]
        x = F.conv1d(x, weight, stride=stride, padding=(weight.shape[2] - 1) // 2)
        mean, variance = tensors[f"{norm}.running_mean"][:, None], tensors[f"{norm}.running_var"][:, None]
        scale, shift = tensors[f"{norm}.weight"][:, None], tensors[f"{norm}.bias"][:, None]
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = normed(x, "conv1", "bn1", 2).relu()
    for stage in range(1, 5):
        for place in range(2):
            at, stride = f"layer{stage}.{place}.", 2 if stage > 1 and place == 0 else 1
            y = normed(normed(x, f"{at}conv1", f"{at}bn1", stride).relu(), f"{at}conv2", f"{at}bn2")
            x = normed(x, f"{at}shortcut.0", f"{at}shortcut.1", stride) if f"{at}shortcut.0.weight" in tensors else x
            x = (y + x).relu()
    return x.mean(-1)
