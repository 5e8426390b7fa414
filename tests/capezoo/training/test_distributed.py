"""Two processes, as torchrun starts them, train as one does."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from capezoo import encoders
from capezoo.specs import ComputeSpec, EncoderSpec
from capezoo.training import device
from capezoo.training.checkpoint import trained
from ecgcohorts.errors import SpecError

SCRIPT = Path(__file__).with_name("ranks.py")
STEPS = 12  # of the tiny run


@pytest.fixture(scope="module")
def ranks():
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder that two processes have written, and what each of them says."""
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(out)], env=os.environ, capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return out, [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_they_share_the_batches_and_one_run_folder(two, undisturbed, rows_of):
    out, said = two
    assert said[0]["told"] == said[1]["told"]  # both report the loss of the whole batch
    together, alone = rows_of(out / "norm"), rows_of(undisturbed)
    for column in ("step", "cohort", "lr"):  # at each step both have the cohort that one process has
        assert [row[column] for row in together] == [row[column] for row in alone]
    assert [bool(row["val_loss"]) for row in together] == [bool(row["val_loss"]) for row in alone]
    assert trained(out / "norm")[2]["step"] == STEPS


def test_loss_and_gradient_are_those_of_one_process(two, ranks):
    alone = ranks.gradient(ranks.load_helpers())
    for rank in two[1]:
        assert rank["loss"].item() == pytest.approx(alone["loss"].item(), rel=1e-6)
        for name, expected in alone["gradient"].items():
            assert expected.abs().max() > 1e-4, name  # a gradient of nothing would prove nothing
            torch.testing.assert_close(rank["gradient"][name], expected, rtol=1e-5, atol=1e-5 * expected.abs().max())


def test_weights_after_all_steps_are_those_of_one_process(two, ranks, tmp_path, weights, rows_of):
    ranks.run_plain(tmp_path / "alone", ranks.load_helpers())
    together, alone = weights(two[0] / "plain"), weights(tmp_path / "alone")
    assert together.keys() == alone.keys()
    start = ranks.Plain(0).conv.weight
    assert (alone["encoder.conv.weight"] - start).abs().max() > 0.01  # they did move
    for name, expected in alone.items():
        # Weights and what Adam keeps of gradients, its counter of steps apart.
        assert expected.dtype == (torch.float32 if name.endswith(".step") else torch.float64), name
        torch.testing.assert_close(together[name], expected, rtol=1e-9, atol=1e-9)
    for found, expected in zip(rows_of(two[0] / "plain"), rows_of(tmp_path / "alone"), strict=True):
        assert float(found["loss"]) == pytest.approx(float(expected["loss"]), abs=1e-5)
        assert float(found["grad_norm"]) == pytest.approx(float(expected["grad_norm"]), rel=1e-4)


def test_batch_norm_across_processes_is_never_left_out_in_silence():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def encoder() -> nn.Module:
        return nn.Sequential(encoders.build(EncoderSpec(config={"widths": [4], "embedding_dim": 4}), 0))

    def kinds(model: nn.Module) -> set[type]:
        return {type(module) for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}

    with pytest.raises(
        SpecError, match=r"'sync' with 2 processes on a cpu, expected GPUs. Set compute.batch_norm=local"
    ):
        device._share_norms(encoder(), ComputeSpec(), cpu, 2)
    for spec, on, processes, expected in (
        (ComputeSpec(), gpu, 2, nn.SyncBatchNorm),
        (ComputeSpec(batch_norm="local"), gpu, 2, nn.BatchNorm2d),
        (ComputeSpec(batch_norm="local"), cpu, 2, nn.BatchNorm2d),
        (ComputeSpec(), cpu, 1, nn.BatchNorm2d),
    ):
        model = encoder()
        names = list(model.state_dict())
        device._share_norms(model, spec, on, processes)
        assert kinds(model) == {expected}
        assert list(model.state_dict()) == names
    device._share_norms(nn.Linear(2, 2), ComputeSpec(), cpu, 2)  # nothing to share
