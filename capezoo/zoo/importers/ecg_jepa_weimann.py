"""ECG-JEPA of Weimann and Conrad: a vision transformer without biases that predicts hidden patches of its teacher."""

from typing import Any

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.importers._contract import PublicModel, Tensors

_HEADS = {192: 4, 384: 6, 768: 12}  # by width, from the published configurations; in no shape


def _describe(tensors: Tensors) -> tuple[EncoderSpec, InputSpec]:
    width, leads, patch = tensors["target_encoder.patch_embed.proj.weight"].shape
    if width not in _HEADS:
        raise ValueError(f"{width} features")
    config: dict[str, Any] = {
        "in_leads": leads,
        "patch": patch,
        "embedding_dim": width,
        "depth": sum(name.endswith("attn.qkv.weight") for name in tensors),
        "head_dim": width // _HEADS[width],
        "mlp_ratio": tensors["target_encoder.blocks.0.mlp.fc1.weight"].shape[0] / width,
        "bias": False,
        "registers": tensors["target_encoder.registers"].shape[1],
        "positions": "interleaved",
    }
    return EncoderSpec(name="vit1d", config=config), InputSpec(
        recipe="plain-500", length=5000, normalisation="cohort_lead_z"
    )


def _convert(tensors: Tensors) -> Tensors:
    """Take registers one by one, and patches for those of an image one pixel high."""
    found = {name: tensor for name, tensor in tensors.items() if name != "registers"}
    found["patch_embed.proj.weight"] = found["patch_embed.proj.weight"].unsqueeze(2)
    return found | {f"registers.{i}": one for i, one in enumerate(tensors["registers"][0])}


MODEL = PublicModel(
    title="ECG-JEPA of Weimann and Conrad",
    source="kweimann/ECG-JEPA, arXiv 2410.13867",
    where=(
        "The page of github.com/kweimann/ECG-JEPA names no file; ask the authors, or train with its code. Both a checkpoint and the "
        "smaller file of scripts/minify_pretrained_checkpoint.py will do."
    ),
    licence="MIT",
    inside=("model",),
    # The teacher is the encoder, as in the public evaluation; student and predictor are left out.
    dropped=(r"(?!target_encoder\.).*",),
    renamed=((r"^target_encoder\.", ""),),
    describe=_describe,
    convert=_convert,
    known_failures=(
        "The public code scales each lead by mean and deviation of the training part of the data set, and cuts at 5 deviations. Here "
        "they are those of the cohort in the store, and nothing is cut. An array by itself has none, and is refused.",
        "Attention heads are counted in no shape: 4, 6 or 12 by width, as in the published configurations.",
    ),
)
