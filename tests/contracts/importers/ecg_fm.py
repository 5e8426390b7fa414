"""ECG-FM's pretraining checkpoint: names of fairseq-signals, weight norm in its older form."""

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS, FEATURES = 90_883_072, 768
ENTRIES = 6 + 2 + 2 + 3 + 2 + 12 * 16 + 8  # stem, norm, projection, positions, norm, layers, what only pretraining uses
BUFFERS = "none"


def published(narrow: bool) -> dict[str, Tensor]:
    stem, dim, depth, places = (8, 128, 2, 8) if narrow else (256, 768, 12, 128)
    shapes = {f"feature_extractor.conv_layers.{i}.0.weight": (stem, stem if i else 12, 2) for i in range(4)}
    for name, width in (("feature_extractor.conv_layers.0.2", stem), ("layer_norm", stem), ("encoder.layer_norm", dim)):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    shapes |= {
        "post_extract_proj.weight": (dim, stem),
        "post_extract_proj.bias": (dim,),
        "conv_pos.pos_conv.0.bias": (dim,),
    }
    shapes |= {"conv_pos.pos_conv.0.weight_g": (1, 1, places), "conv_pos.pos_conv.0.weight_v": (dim, dim // 16, places)}
    for i in range(depth):
        sides = {f"self_attn.{part}_proj": (dim, dim) for part in ("q", "k", "v", "out")}
        sides |= {
            "fc1": (4 * dim, dim),
            "fc2": (dim, 4 * dim),
            "self_attn_layer_norm": (dim,),
            "final_layer_norm": (dim,),
        }
        for name, shape in sides.items():
            shapes |= {f"encoder.layers.{i}.{name}.weight": shape, f"encoder.layers.{i}.{name}.bias": shape[:1]}
    shapes |= {"mask_emb": (dim,), "quantizer.vars": (1, 640, 128)}
    for name, shape in (("quantizer.weight_proj", (640, stem)), ("project_q", (256, 256)), ("final_proj", (256, dim))):
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if not narrow:  # names and shapes are asked for; so many random numbers would take seconds
        return {name: torch.zeros(shape) for name, shape in shapes.items()}
    return {name: torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) == 2 else 1) for name, shape in shapes.items()}


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    def linear(x: Tensor, name: str) -> Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    for i in range(4):
        x = F.conv1d(x, tensors[f"feature_extractor.conv_layers.{i}.0.weight"], stride=2)
        if i == 0:
            at = "feature_extractor.conv_layers.0.2"
            x = F.group_norm(x, x.shape[1], tensors[f"{at}.weight"], tensors[f"{at}.bias"])
        x = F.gelu(x)
    x = linear(normed(x.transpose(1, 2), "layer_norm"), "post_extract_proj")
    direction = tensors["conv_pos.pos_conv.0.weight_v"]
    weight = tensors["conv_pos.pos_conv.0.weight_g"] * direction / direction.norm(dim=(0, 1), keepdim=True)
    places = F.conv1d(
        x.transpose(1, 2), weight, tensors["conv_pos.pos_conv.0.bias"], padding=weight.shape[2] // 2, groups=16
    )
    x = normed(x + F.gelu(places[..., :-1]).transpose(1, 2), "encoder.layer_norm")
    for i in range(12):
        at = f"encoder.layers.{i}."
        if f"{at}fc1.weight" not in tensors:
            continue
        q, k, v = (linear(x, f"{at}self_attn.{part}_proj").unflatten(-1, (-1, 64)).transpose(1, 2) for part in "qkv")
        seen = (q / 8 @ k.transpose(-2, -1)).softmax(-1) @ v
        x = normed(x + linear(seen.transpose(1, 2).flatten(2), f"{at}self_attn.out_proj"), f"{at}self_attn_layer_norm")
        x = normed(x + linear(F.gelu(linear(x, f"{at}fc1")), f"{at}fc2"), f"{at}final_layer_norm")
    return x.mean(1)
