"""A checkpoint of Weimann and Conrad's ECG-JEPA, ViT-S, made smaller by its script: the teacher alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS, ENTRIES, FEATURES = 14_277_888, 51, 384
BUFFERS = "none"
AT = "target_encoder."


def published(narrow: bool) -> dict[str, Tensor]:
    width, depth = (192, 2) if narrow else (384, 8)
    shapes = {"registers": (1, 1, width), "patch_embed.proj.weight": (width, 12, 25)}
    for i in range(depth):
        shapes |= {f"blocks.{i}.norm1.weight": (width,), f"blocks.{i}.attn.qkv.weight": (3 * width, width)}
        shapes |= {f"blocks.{i}.attn.proj.weight": (width, width), f"blocks.{i}.norm2.weight": (width,)}
        shapes |= {f"blocks.{i}.mlp.fc1.weight": (4 * width, width), f"blocks.{i}.mlp.fc2.weight": (width, 4 * width)}
    shapes["norm.weight"] = (width,)
    return {
        AT + name: torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 1) for name, shape in shapes.items()
    }


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def normed(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * tensors[f"{AT}{name}.weight"]

    x = F.conv1d(x, tensors[f"{AT}patch_embed.proj.weight"], stride=25).transpose(1, 2)
    n, width = x.shape[1:]
    place = torch.arange(n, dtype=torch.float64)[:, None]
    angle = place * 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    positions = torch.zeros(n, width, dtype=torch.float64)
    positions[:, 0::2], positions[:, 1::2] = angle.sin(), angle.cos()
    x = torch.cat([tensors[f"{AT}registers"].expand(len(x), -1, -1), x + positions], dim=1)
    for i in range(8):
        at = f"blocks.{i}."
        if f"{AT}{at}norm1.weight" not in tensors:
            continue
        heads = {192: 4, 384: 6}[width]
        parts = normed(x, f"{at}norm1") @ tensors[f"{AT}{at}attn.qkv.weight"].T
        q, k, v = parts.reshape(len(x), -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        seen = ((q @ k.transpose(-2, -1)) * (heads / width) ** 0.5).softmax(-1) @ v
        x = x + seen.transpose(1, 2).reshape(x.shape) @ tensors[f"{AT}{at}attn.proj.weight"].T
        hidden = F.gelu(normed(x, f"{at}norm2") @ tensors[f"{AT}{at}mlp.fc1.weight"].T)
        x = x + hidden @ tensors[f"{AT}{at}mlp.fc2.weight"].T
    return normed(x, "norm")[:, 1:].mean(1)
