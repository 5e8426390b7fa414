"""The checkpoint of ECG-CPC: a stem of convolutions and causal S4 layers, trained at 10 s of 240 Hz.

The layer is written out as the public one computes it: poles, a low-rank correction, and a kernel made in the frequency
domain at the length of training.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMETERS, ENTRIES, FEATURES = 2_932_736, 76 + 2, 512
PARAMETERS += 512 * 512  # the head, of CPC
BUFFERS = r".*(running_mean|running_var|num_batches_tracked|log_dt|\.B|\.P|\.Q|\.w|\.omega|\.z)|ts_encoder\.head_mask"
LENGTH = 1200  # tokens of 10 s
AT = "ts_encoder.predictor.predictor."


def published(narrow: bool) -> dict[str, Tensor]:
    width, depth = (16, 2) if narrow else (512, 4)
    made: dict[str, Tensor] = {}
    for i, (of, taps) in enumerate([(12, 3), (width, 1), (width, 1), (width, 1)]):
        at = f"ts_encoder.encoder.layers.{i}."
        made[f"{at}0.weight"] = torch.randn(width, of, taps) * (2 / (of * taps)) ** 0.5
        made |= {f"{at}1.{key}": torch.rand(width) + 0.5 for key in ("weight", "bias", "running_mean", "running_var")}
        made[f"{at}1.num_batches_tracked"] = torch.tensor(5)
    for i in range(depth):
        made |= layer(f"{AT}s4_layers.{i}.", width)
        made |= {f"{AT}norms.{i}.{key}": torch.randn(width) for key in ("weight", "bias")}
    made["ts_encoder.head_ssl.linear.weight"], made["ts_encoder.head_mask"] = torch.randn(512, 512), torch.randn(3)
    return made


def layer(at: str, width: int) -> dict[str, Tensor]:
    place = torch.arange(8.0, dtype=torch.float64)
    root, low = (2 * place + 1).sqrt(), (place + 0.5).sqrt()
    matrix = -torch.tril(torch.outer(root, root), -1) - torch.diag(place + 1)
    poles, vectors = torch.linalg.eig(matrix + torch.outer(low, low))
    # One of each pair, in an order and with phases of its own.
    chosen = torch.tensor([int(i) for i in range(8) if poles[i].imag > 0][::-1])
    poles, back = (
        poles[chosen],
        (vectors[:, chosen] * torch.polar(torch.ones(4), torch.rand(4) * 6).to(vectors)).conj().T,
    )
    log_dt = torch.rand(width) * math.log(100) + math.log(0.001)
    half, one = log_dt.double().exp()[:, None, None] / 2 * matrix, torch.eye(8, dtype=torch.float64)
    power = torch.linalg.matrix_power(torch.linalg.solve(one - half, one + half), LENGTH)
    # From states of the real system to these: the pairs of both together are all eight.
    both = torch.cat([back, back.conj()])
    power = both @ power.to(both) @ torch.linalg.inv(both)
    readout = torch.randn(1, width, 4, dtype=torch.complex128)
    trained = torch.cat([readout, readout.conj()], -1)
    trained = (trained - torch.einsum("chn,hnm->chm", trained, power))[..., :4]
    angle = -2 * torch.pi / LENGTH * torch.arange(LENGTH // 2 + 1, dtype=torch.float64)
    omega = torch.polar(torch.ones_like(angle), angle)
    complexes = {
        "C": trained,
        "B": (back @ root.to(back)).expand(1, width, 4),
        "P": (back @ low.to(back)).expand(1, width, 4),
        "Q": (back @ low.to(back)).conj().resolve_conj().expand(1, width, 4),
        "w": poles.expand(width, 4),
        "omega": omega,
        "z": 2 * (1 - omega) / (1 + omega),
    }
    made = {f"{at}kernel.kernel.{key}": torch.view_as_real(t.contiguous()).float() for key, t in complexes.items()}
    made |= {f"{at}D": torch.randn(1, width), f"{at}kernel.kernel.log_dt": log_dt}
    made[f"{at}output_linear.0.weight"] = torch.randn(2 * width, width) / width**0.5
    return made | {f"{at}output_linear.0.bias": torch.randn(2 * width, 1)}


def kernel(tensors: dict[str, Tensor], at: str, n: int) -> Tensor:
    """(channel, n): resolvent at the nodes, Woodbury's correction, back to time."""
    named = {
        key: tensors[f"{at}kernel.kernel.{key}"].double().contiguous() for key in ("C", "B", "P", "Q", "w", "omega")
    }
    c, b, p, q, w, omega = (torch.view_as_complex(t) for t in named.values())
    step = tensors[f"{at}kernel.kernel.log_dt"].double().exp()[:, None]
    nodes = (2 * (1 - omega) / (1 + omega))[None]

    def resolved(left: Tensor, right: Tensor) -> Tensor:
        parts = [(left * right)[..., None] / (nodes[:, None] - (w * step)[..., None])]
        parts += [(left * right).conj()[..., None] / (nodes[:, None] - (w * step).conj()[..., None])]
        return sum(parts).sum(-2) * step

    corrected = resolved(c[0], b[0]) - resolved(c[0], p[0]) * resolved(q[0], b[0]) / (1 + resolved(q[0], p[0]))
    return torch.fft.irfft(corrected * 2 / (1 + omega), LENGTH)[:, :n]


def features(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    for i in range(4):
        at = f"ts_encoder.encoder.layers.{i}."
        weight = tensors[f"{at}0.weight"]
        x = F.conv1d(x, weight, stride=1 if i else 2, padding=weight.shape[2] // 2)
        statistics = (tensors[f"{at}1.running_mean"], tensors[f"{at}1.running_var"])
        x = F.relu(F.batch_norm(x, *statistics, tensors[f"{at}1.weight"], tensors[f"{at}1.bias"]))
    n = x.shape[-1]
    for i in range(4):
        at = f"{AT}s4_layers.{i}."
        if f"{at}D" not in tensors:
            continue
        responses = kernel(tensors, at, n)
        y = torch.fft.irfft(torch.fft.rfft(x, 2 * n) * torch.fft.rfft(responses, 2 * n), 2 * n)[..., :n]
        y = F.gelu(y + tensors[f"{at}D"][0][:, None] * x)
        y = (
            torch.einsum("bcn,dc->bdn", y, tensors[f"{at}output_linear.0.weight"])
            + tensors[f"{at}output_linear.0.bias"]
        )
        x = (F.glu(y, dim=1) + x).transpose(1, 2)
        norm = (tensors[f"{AT}norms.{i}.weight"], tensors[f"{AT}norms.{i}.bias"])
        x = F.layer_norm(x, x.shape[-1:], *norm).transpose(1, 2)
    return x.mean(-1)
