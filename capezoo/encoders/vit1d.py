"""A vision transformer on signals: patches of all leads over a stretch of time, timm's blocks, mean over tokens.

Source: Dosovitskiy et al., arXiv 2010.11929, in the smallest width of Touvron et al., arXiv 2012.12877; fixed positions
as in He et al., arXiv 2111.06377. Names of tensors are those of timm's VisionTransformer with `img_size=(1, time)`.
`embedding_dim` 192, 384 and 768 make ViT-Tiny, -Small and -Base; `bias=False`, one register, interleaved positions and
a depth of 8 the encoder of Weimann and Conrad's ECG-JEPA. Tokens can be dropped: attention has no neighbours to miss.
"""

from functools import partial
from math import log
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from capezoo.encoders._protocol import Stage, TokenEncoder, as_rows
from capezoo.encoders._timm import timm
from capezoo.specs import Spec
from capezoo.specs.base import MAX_LAYERS, Channels

LONGEST_PERIOD = 10_000  # tokens, of the slowest sine over 2 pi; Vaswani et al., arXiv 1706.03762
INITIAL_STD = 0.02  # of the truncated normal of linear layers; timm, arXiv 2012.12877
Positions = Literal["halves", "interleaved"]


class Config(Spec):
    """Shape of the network. The defaults have 5,415,744 parameters.

    With c leads, patches of p samples, width d and depth k it has cpd + d + k (12 d^2 + 13 d) + 2 d, and without bias and
    with r registers cpd + k (12 d^2 + 2 d) + d + r d.
    """

    in_leads: Channels = Field(default=8, description="CAPE")
    patch: Channels = Field(
        default=50,
        description="samples per token: 0.125 s at 400 Hz, about one QRS complex; OpenECG's ViT unstated: our default",
    )
    embedding_dim: Channels = Field(default=192, description="ViT-Tiny; OpenECG's width unstated: our default")
    depth: int = Field(default=12, gt=0, le=MAX_LAYERS, description="ViT-Tiny, ViT-Small and ViT-Base")
    head_dim: Channels = Field(default=64, description="features per attention head; ViT")
    mlp_ratio: float = Field(default=4.0, gt=0, le=64, description="ViT")
    norm_eps: float = Field(default=1e-6, gt=0, description="ViT")
    bias: bool = Field(default=True, description="in all layers and norms (ViT), or in none (Weimann and Conrad)")
    registers: int = Field(
        default=0, ge=0, le=MAX_LAYERS, description="learned tokens without a place, left out of the output; ViT none"
    )
    positions: Positions = Field(
        default="halves",
        description="sines in the first half of the features and cosines in the second (MAE), or by turns (Vaswani et "
        "al., Weimann and Conrad)",
    )
    causal: bool = Field(default=False, description="a token attends to no later one, as CPC asks; ViT attends to all")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.embedding_dim % self.head_dim or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim {self.embedding_dim}: give an even multiple of head_dim {self.head_dim}")
        return self


class Encoder(TokenEncoder):
    """(batch, lead, time) in mV -> (batch, num_features), the mean of the normed tokens.

    Any length: positions are sines of the token's place, and a last patch that is not full is filled up with zeros.
    """

    def __init__(self, config: Config, num_classes: int = 0) -> None:
        super().__init__()
        self.config = config
        dim = config.embedding_dim
        self.patch_embed = timm("layers").PatchEmbed(
            img_size=None,
            patch_size=(1, config.patch),
            in_chans=config.in_leads,
            embed_dim=dim,
            bias=config.bias,
            dynamic_img_pad=True,
        )
        heads = dim // config.head_dim
        self.blocks = transformer(
            dim, config.depth, heads, mlp_ratio=config.mlp_ratio, norm_eps=config.norm_eps, bias=config.bias
        )
        self.norm = nn.LayerNorm(dim, config.norm_eps, bias=config.bias)
        # One vector each, and not rows of a matrix: `decay_only_matrices` spares them, as their source does.
        self.registers = nn.ParameterList(INITIAL_STD * torch.randn(dim) for _ in range(config.registers))
        self.token_dim, self.causal, self.can_drop = dim, config.causal, True
        self.complete([Stage(dim, config.patch, f"blocks.{i}") for i in range(config.depth)], num_classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Project each patch to a token."""
        tokens: Tensor = self.patch_embed(as_rows(x))
        return tokens

    def context(self, tokens: Tensor, n_stages: int, keep: Tensor | None = None) -> list[Tensor]:
        """Run the first blocks."""
        n, dim = tokens.shape[1:]
        # Made for each length anew: a stored table would tie the weights to one window.
        tokens = tokens + positions(n, dim, tokens.device, self.config.positions).to(tokens.dtype)
        if keep is not None:  # after the positions, so that a kept token still knows where it was
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, dim))
        first = len(self.registers)
        if first:
            # Without a position and after dropping: no choice of tokens takes them away.
            # Not `len(tokens)`, an integer that would tie an ONNX file to the batch it was made with.
            registers = torch.stack([*self.registers]).to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([registers, tokens], dim=1)
        options = {}
        if self.causal:
            place = torch.arange(n, device=tokens.device) if keep is None else keep[:, None]
            place = nn.functional.pad(place, (first, 0), value=-1)  # registers come before all tokens
            later = place[..., None, :] > place[..., :, None]  # (token, token), or (batch, 1, kept, kept)
            options["attn_mask"] = torch.zeros_like(later, dtype=tokens.dtype).masked_fill(later, -torch.inf)
        found = []
        for block in self.blocks[:n_stages]:
            tokens = self.run_block(block, tokens, **options)
            found.append(tokens[:, first:])
        return found

    def final_norm(self, x: Tensor) -> Tensor:
        """Layer norm over the channels of each token."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        last = (99999,)  # timm's way to say: in one group with the classifier
        return {"stem": r"^(?:patch_embed|registers)", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", last)]}


def transformer(
    dim: int, depth: int, heads: int, *, mlp_ratio: float = 4.0, norm_eps: float = 1e-6, bias: bool = True
) -> nn.ModuleList:
    """Return timm's blocks with their norm first, initialised as in timm."""
    block = timm("models.vision_transformer").Block
    norm = partial(nn.LayerNorm, eps=norm_eps, bias=bias)
    blocks = nn.ModuleList(
        block(dim, heads, mlp_ratio, qkv_bias=bias, proj_bias=bias, norm_layer=norm) for _ in range(depth)
    )
    # Linear layers only, as in timm: the projection of patches keeps torch's initial weights.
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
            if bias:
                nn.init.zeros_(module.bias)
    return blocks


def positions(n_tokens: int, dim: int, device: torch.device, kind: Positions = "halves") -> Tensor:
    """(token, dim): sines and cosines of a token's place, of periods from 2 pi to 2 pi LONGEST_PERIOD."""
    rate = torch.exp(torch.arange(dim // 2, device=device) * (-log(LONGEST_PERIOD) / (dim // 2)))
    angle = torch.arange(n_tokens, device=device)[:, None] * rate
    if kind == "interleaved":
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
