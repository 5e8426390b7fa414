"""The file of ECGFounder with 12 leads: Net1D with batch norms that it never calls, and a head of 150 diagnoses."""

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS, ENTRIES, FEATURES = 30_819_014, 509, 1024
BUFFERS = r".*\.(running_mean|running_var|num_batches_tracked)"
PUBLISHED = (64, (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4), 16)
NARROW = (4, (4, 8, 12), (1, 2, 1), 4)  # filters of the stem, of each stage, blocks, channels of a group


def published(narrow: bool) -> dict[str, Tensor]:
    stem, widths, blocks, group = NARROW if narrow else PUBLISHED
    made = {"first_conv.conv.weight": torch.randn(stem, 12, 16) / 14, "first_conv.conv.bias": torch.randn(stem)}
    made |= norm("first_bn", stem)
    before = stem
    for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for j in range(count):
            at = f"stage_list.{i}.block_list.{j}."
            for number, channels in ((1, before), (2, width), (3, width)):
                made |= norm(f"{at}bn{number}", channels)
                of, taps = {1: (before, 1), 2: (group, 16), 3: (width, 1)}[number]
                made[f"{at}conv{number}.conv.weight"] = torch.randn(width, of, taps) / (of * taps) ** 0.5
                made[f"{at}conv{number}.conv.bias"] = torch.randn(width)
            for number, (units, of) in ((1, (width // 2, width)), (2, (width, width // 2))):
                made[f"{at}se_fc{number}.weight"] = torch.randn(units, of) / of**0.5
                made[f"{at}se_fc{number}.bias"] = torch.randn(units)
            before = width
    made["dense.weight"], made["dense.bias"] = torch.randn(150, before), torch.randn(150)
    return made


def norm(at: str, width: int) -> dict[str, Tensor]:
    """Numbers that would be seen in the features if they were used."""
    made = {f"{at}.{name}": torch.rand(width) + 5 for name in ("weight", "bias", "running_mean", "running_var")}
    return made | {f"{at}.num_batches_tracked": torch.tensor(3)}


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def conv(x: Tensor, at: str, stride: int = 1) -> Tensor:
        weight = tensors[f"{at}.conv.weight"]
        total = max(0, (-(-x.shape[-1] // stride) - 1) * stride + weight.shape[2] - x.shape[-1])
        x = F.pad(x, (total // 2, total - total // 2))
        return F.conv1d(x, weight, tensors[f"{at}.conv.bias"], stride, groups=x.shape[1] // weight.shape[1])

    x = F.silu(conv(x, "first_conv", 2))
    for i in range(7):
        for j in range(4):
            at = f"stage_list.{i}.block_list.{j}."
            if f"{at}conv1.conv.weight" not in tensors:
                continue
            y = F.silu(conv(x if i == j == 0 else F.silu(x), f"{at}conv1"))
            y = conv(F.silu(conv(y, f"{at}conv2", 1 if j else 2)), f"{at}conv3")
            narrow = F.silu(F.linear(y.mean(-1), tensors[f"{at}se_fc1.weight"], tensors[f"{at}se_fc1.bias"]))
            scale = F.linear(narrow, tensors[f"{at}se_fc2.weight"], tensors[f"{at}se_fc2.bias"]).sigmoid()
            x = x if j else F.max_pool1d(F.pad(x, (0, 1)), 2)
            more = y.shape[1] - x.shape[1]
            x = y * scale[..., None] + F.pad(x.transpose(1, 2), (more // 2, more - more // 2)).transpose(1, 2)
    return x.mean(-1)
