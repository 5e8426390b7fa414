"""What one process and two of torchrun must agree in. `torchrun --nproc-per-node 2 ranks.py OUT` runs all of it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from capezoo import encoders
from capezoo.specs import ComputeSpec, RunConfig
from capezoo.training import device
from capezoo.training import loop as train
from capezoo.training.data import TrainingData


def load_helpers() -> ModuleType:
    """conftest.py beside this file: pytest's importlib mode has no import by name for it."""
    spec = importlib.util.spec_from_file_location("tiny_runs", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_runs"] = module
    spec.loader.exec_module(module)
    return module


class Plain(nn.Module):
    """An encoder without BatchNorm: nothing in it looks at the other ECGs of a batch."""

    num_features = 8

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.conv = nn.Conv1d(8, self.num_features, 16, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.to(self.conv.weight.dtype)).relu().mean(-1)


class InDouble(train._Trainee):
    """The same parameters in float64, optimiser and losses with them: what is left of rounding is 1e-16."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.double()


def run_with_batch_norm(out: Path, helpers: ModuleType) -> dict[str, Any]:
    """12 steps of the tiny run, statistics of each process's share. Returns what the callback was told."""
    seen: list[train.Report] = []
    config = helpers.make_config(compute=ComputeSpec(batch_norm="local"))
    train.pretrain(helpers.make_store(), config, out, progress=seen.append)
    return {"losses": [report.loss for report in seen], "held_out": seen[-1].held_out.loss}  # type: ignore[union-attr]


def run_plain(out: Path, helpers: ModuleType) -> None:
    """The same in float64 without BatchNorm and dropout, so that the number of processes must not matter.

    Adam divides by |gradient| + eps: in float32 the sign of a gradient that is 0 but for rounding would decide its step.
    """
    real = encoders.build, train._Trainee
    encoders.build, train._Trainee = (lambda spec, seed, num_classes=0: Plain(seed)), InDouble
    try:
        train.pretrain(helpers.make_store(), helpers.make_config(), out, progress=lambda report: None)
    finally:
        encoders.build, train._Trainee = real


def gradient(helpers: ModuleType) -> dict[str, Any]:
    """Loss and gradient of one batch through a network whose BatchNorm layers are in evaluation mode."""
    config = helpers.make_config(compute=ComputeSpec(batch_norm="local"))
    fabric = device.start(config.compute)
    data = TrainingData.prepare(helpers.make_store(), config, fabric.global_rank, fabric.world_size)
    trainee = train._Trainee(config).eval()
    model = fabric.setup(trainee)
    with torch.no_grad():
        for norm in (module for module in trainee.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_var.fill_(0.01)  # of the size of the signals
    loaded = device.Feed(data.batches(), device.Courier(data, fabric), data.sampler.state_dict).take(0)
    loss, _ = model(**loaded.fields(total_steps=1))
    fabric.backward(loss)
    mean = fabric.all_reduce(loss.detach(), reduce_op="mean")
    return {"loss": mean, "gradient": {name: p.grad for name, p in trainee.named_parameters()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, tiny = Path(sys.argv[1]), load_helpers()
    found = {"told": run_with_batch_norm(folder / "norm", tiny), **gradient(tiny)}
    run_plain(folder / "plain", tiny)
    torch.save(found, folder / f"rank{torch.distributed.get_rank()}.pt")
    torch.distributed.destroy_process_group()
