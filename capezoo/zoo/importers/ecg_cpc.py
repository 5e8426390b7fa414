"""ECG-CPC and the S4 models of the scaling study, all of one network; they differ in what they were trained to predict."""

import re
from typing import Any

import torch
from torch import Tensor

from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.importers._contract import PublicModel, Tensors

_LAYER = "ts_encoder.predictor.predictor.s4_layers."
_KERNEL = ".kernel.kernel."
# What stands in for a layer's trained numbers in another basis and at another length; each is used by `_readout`.
_STATE = ("C", "B", "w", "omega")


def _describe(tensors: Tensors) -> tuple[EncoderSpec, InputSpec]:
    # In the order of the file, which is that of the layers.
    stem = [tensors[name] for name in tensors if re.fullmatch(r"ts_encoder\.encoder\.layers\.\d+\.0\.weight", name)]
    if not stem:
        raise KeyError("ts_encoder.encoder.layers.0.0.weight")
    directions, width, pairs, _ = tensors[f"{_LAYER}0{_KERNEL}C"].shape
    config: dict[str, Any] = {
        "in_leads": stem[0].shape[1],
        "width": width,
        "state": 2 * pairs,
        "depth": sum(name.endswith(f"{_KERNEL}C") for name in tensors),
        "kernels": [convolution.shape[2] for convolution in stem],
        "strides": [2] + [1] * (len(stem) - 1),  # in no shape; the public configuration
        "causal": directions == 1,
    }
    return EncoderSpec(name="s4", config=config), InputSpec(recipe="plain-240", length=600)


def _convert(tensors: Tensors) -> Tensors:
    """Turn what the public layer trains into what ours reads out, and drop axes of one."""
    found = {name: t for name, t in tensors.items() if not name.endswith(tuple(f".state.{key}" for key in _STATE))}
    for name in [name for name in tensors if name.endswith(".state.C")]:
        at = name.removesuffix("state.C")
        trained, entry, poles, omega = (tensors[f"{at}state.{key}"] for key in _STATE)
        found[f"{at}readout"] = _readout(trained, entry, poles, 2 * (len(omega) - 1), found[f"{at}log_step"])
    return {name: t.reshape(-1) if name.endswith((".skip", ".mix.bias")) else t for name, t in found.items()}


def _readout(trained: Tensor, entry: Tensor, poles: Tensor, length: int, log_step: Tensor) -> Tensor:
    """Return (direction, channel, state): weights of our impulse responses that give the public layer's kernel.

    trained: C (I - A^L), complex, one of each conjugate pair, in a basis where the state matrix is a diagonal less an outer
    product. entry, poles: the input matrix there, and that diagonal. length: L, tokens in training.
    """
    trained, entry, poles = (torch.view_as_complex(t.double().contiguous()) for t in (trained, entry, poles))
    place = torch.arange(2 * poles.shape[-1], dtype=torch.float64)
    root = (2 * place + 1).sqrt()
    # HiPPO-LegS, and below it the outer product that makes it normal: its eigenvectors are orthogonal, so their inverse is known.
    matrix = -torch.tril(torch.outer(root, root), -1) - torch.diag(place + 1)
    values, vectors = torch.linalg.eig(matrix + torch.outer((place + 0.5).sqrt(), (place + 0.5).sqrt()))
    nearest = (poles.reshape(-1, poles.shape[-1])[0][:, None] - values).abs()
    if nearest.min(1).values.max() > 1e-3 * values.abs().max():
        raise ValueError("state matrices other than HiPPO-LegS")
    chosen = vectors[:, nearest.argmin(1)].conj().T  # (pair, state): from our states to theirs
    # An eigenvector has no phase of its own: theirs is told by the input matrix.
    chosen = chosen * (entry.reshape(-1, entry.shape[-1])[0] / (chosen @ root.to(chosen)))[:, None]
    there = 2 * (trained @ chosen).real
    one, half = torch.eye(len(place), dtype=torch.float64), log_step.double().exp()[:, None, None] / 2 * matrix
    # The length of training, not of a window: the stored numbers hold the state of the one at its end.
    power = torch.linalg.matrix_power(torch.linalg.solve(one - half, one + half), length)
    return torch.linalg.solve((one - power).transpose(1, 2), there.unsqueeze(-1)).squeeze(-1)


MODEL = PublicModel(
    title="ECG-CPC or another S4 model of the scaling study",
    source="AI4HealthUOL/ecg-fm-benchmarking, AI4HealthUOL/ecg-pretraining-strategies, arXiv 2605.12241",
    where=(
        "ECG-CPC: on figshare, item 30192604. The five objectives of the scaling study: linked from the page of the repository "
        "AI4HealthUOL/ecg-pretraining-strategies. A checkpoint of Lightning, ending in .ckpt."
    ),
    licence="unknown",
    inside=("state_dict",),
    # All but stem and layers: heads, mask tokens, teachers, losses; in a layer what follows from its poles and length.
    dropped=(
        r"(?!ts_encoder\.(encoder\.layers|predictor\.predictor\.(s4_layers|norms))\.).*",
        r".*\.kernel\.kernel\.(P|Q|z)",
    ),
    renamed=(
        (r"^ts_encoder\.encoder\.layers\.(\d+)\.0\.", r"stem.\1.conv."),
        (r"^ts_encoder\.encoder\.layers\.(\d+)\.1\.", r"stem.\1.norm."),
        (r"^ts_encoder\.predictor\.predictor\.norms\.(\d+)\.", r"layers.\1.norm."),
        (r"^ts_encoder\.predictor\.predictor\.s4_layers\.(\d+)\.", r"layers.\1."),
        (r"\.output_linear\.0\.", ".mix."),
        (r"\.kernel\.kernel\.log_dt$", ".convolution.log_step"),
        (r"\.kernel\.kernel\.", ".convolution.state."),
        (r"^(layers\.\d+)\.D$", r"\1.convolution.skip"),
    ),
    describe=_describe,
    convert=_convert,
    known_failures=(
        "Kernels are those of the length of training, as the file's frequencies tell it. The public code, given a shorter "
        "window, keeps the frequencies of the window, and its kernels are then wrong by up to 1.7 %.",
        "Windows are scaled by nothing, as in the configuration of CPC. The others scale by constants of their first data set, "
        "which the file does not hold.",
        "No licence is stated for code or weights: ask the authors before you pass them on.",
        "Made for 2.5 s; a longer recording has its middle embedded.",
    ),
)
