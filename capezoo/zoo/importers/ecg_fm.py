"""ECG-FM: wav2vec 2.0 with contrastive pairs of segments and leads left out, trained on MIMIC-IV-ECG and PhysioNet's sets."""

from typing import Any

import torch

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.importers._contract import PublicModel, Tensors

_HEAD = 64  # features of a head: 12 in 768; in no shape
_FIRST = "feature_extractor.conv_layers.0.0.weight"


def _describe(tensors: Tensors) -> tuple[EncoderSpec, InputSpec]:
    stem = sorted(name for name in tensors if name.startswith("feature_extractor.") and name.endswith(".0.weight"))
    dim, of_group, places = tensors["conv_pos.pos_conv.0.weight_v"].shape
    config: dict[str, Any] = {
        "in_leads": tensors[_FIRST].shape[1],
        "stem_width": tensors[_FIRST].shape[0],
        "kernels": [tensors[name].shape[2] for name in stem],
        "strides": [2] * len(stem),  # in no shape; the public configuration
        "embedding_dim": dim,
        "depth": sum(name.endswith(".fc1.weight") for name in tensors),
        "head_dim": _HEAD,
        "mlp_ratio": tensors["encoder.layers.0.fc1.weight"].shape[0] / dim,
        "position_kernel": places,
        "position_groups": dim // of_group,
    }
    return EncoderSpec(name="wav2vec2", config=config), InputSpec(
        recipe="plain-500", length=2500, normalisation="record_lead_z"
    )


def _convert(tensors: Tensors) -> Tensors:
    """Put query, key and value of each layer into one matrix."""
    found = {name: tensor for name, tensor in tensors.items() if "_proj." not in name}
    for name in tensors:
        if ".q_proj." in name:
            # In the order in which the encoder takes them apart again.
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            found[name.replace(".q_proj.", ".qkv.")] = torch.cat(parts)
    return found


MODEL = PublicModel(
    title="ECG-FM",
    source="bowang-lab/ECG-FM, Jwoo5/fairseq-signals, arXiv 2408.05178",
    where=(
        "On the Hugging Face Hub, repository wanglab/ecg-fm, tab Files: the pretrained checkpoint (1.09 GB with the state of its "
        "optimiser), not a fine-tuned one."
    ),
    licence="MIT",
    inside=("model",),
    # Of pretraining alone: the mask token, the quantiser of targets and two projections.
    dropped=(r"mask_emb", r"quantizer\..*", r"project_q\..*", r"final_proj\..*"),
    renamed=(
        (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"stem.\1.0."),
        (r"^feature_extractor\.conv_layers\.0\.2\.", "stem.0.1."),
        (r"^layer_norm\.", "feature_norm."),
        (r"^post_extract_proj\.", "project."),
        (r"^conv_pos\.pos_conv\.0\.weight_g$", "positions.gain"),
        (r"^conv_pos\.pos_conv\.0\.weight_v$", "positions.direction"),
        (r"^conv_pos\.pos_conv\.0\.bias$", "positions.bias"),
        (r"^encoder\.layer_norm\.", "norm."),
        (r"^encoder\.layers\.(\d+)\.", r"layers.\1."),
        (r"\.self_attn\.out_proj\.", ".out."),
        (r"\.self_attn\.", "."),
        (r"\.self_attn_layer_norm\.", ".attention_norm."),
        (r"\.fc1\.", ".widen."),
        (r"\.fc2\.", ".narrow."),
        (r"\.final_layer_norm\.", ".norm."),
    ),
    describe=_describe,
    convert=_convert,
    known_failures=(
        "The public loader may leave random weights in spite of a checkpoint (fairseq-signals, issue 34). Here every tensor must "
        "have its place.",
        "The public chain resamples linearly; recipe plain-500 has a filter against aliases. At 500 Hz they are the same.",
        "Each lead is scaled by mean and deviation of the whole recording, so a store needs the statistics that plain-500 keeps.",
        "The file's page says that these weights are not those of the paper.",
    ),
)
