"""Killed at any moment and called again, a run ends with the weights of an undisturbed one."""

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from capezoo.errors import CheckpointDamaged
from capezoo.specs import HeldOutSpec, SamplerSpec
from capezoo.training import checkpoint
from capezoo.training.loop import pretrain

STEPS = 12  # of the tiny run
HELPERS = Path(__file__).with_name("conftest.py")


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert different == []


class Killed(BaseException):
    """Stands for SIGKILL inside one process: no handler of the package may catch it."""


def kill_after(step):
    def tell(report):
        if report.step == step:
            raise Killed

    return tell


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_killed_after_any_step_and_resumed_ends_with_the_same_weights(
    step, store, undisturbed, tmp_path, config, weights, rows_of
):
    with pytest.raises(Killed):
        pretrain(store, config(), tmp_path / "run", progress=kill_after(step))
    pretrain(store, config(), tmp_path / "run")
    assert_same(weights(tmp_path / "run"), weights(undisturbed))
    steady = ("step", "epoch", "lr", "loss", "grad_norm", "cohort", "val_loss", "loss_cohort_a", "effective_rank")
    for found, expected in zip(rows_of(tmp_path / "run"), rows_of(undisturbed), strict=True):
        assert {key: found[key] for key in steady} == {key: expected[key] for key in steady}


def test_mixed_batches_first_and_then_one_cohort_each_also_over_a_kill(store, tmp_path, config, weights, rows_of):
    ramp = config(sampler=SamplerSpec(groups=8, in_distribution_share=((0, 0), (1, 0), (1, 1))))
    whole = pretrain(store, ramp, tmp_path / "whole")
    cohorts = {row["epoch"]: set() for row in rows_of(whole)}
    for row in rows_of(whole):
        cohorts[row["epoch"]].add(row["cohort"])
    assert cohorts == {"0": {""}, "1": {"cohort_a", "cohort_b"}}
    with pytest.raises(Killed):
        pretrain(store, ramp, tmp_path / "run", progress=kill_after(7))
    pretrain(store, ramp, tmp_path / "run")
    assert_same(weights(tmp_path / "run"), weights(whole))


@pytest.mark.parametrize("changes", [{"name": "patient_pairs"}, {"cohort_temperature": 0.5}])
def test_a_ramp_that_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match="in_distribution_share needs name=in_distribution"):
        SamplerSpec(in_distribution_share=((0, 1),), **changes)


LONG = 50
HELD_OUT = HeldOutSpec(fraction=0.2, every_steps=LONG)


def test_the_folder_as_a_kill_after_any_of_fifty_steps_leaves_it_goes_on_with_the_same_bits(store, tmp_path, config):
    """From each of 50 folders on, the next checkpoint is that of the undisturbed run; so by induction is the last."""
    changes = {"max_steps": LONG, "checkpoint_every": 1, "keep_checkpoints": 2, "log_every": 10, "held_out": HELD_OUT}
    short = config(**changes)
    whole = tmp_path / "whole"
    digests = {}

    def copy(report):  # the callback comes after all that a step writes
        newest = whole / "checkpoints" / f"step-{report.step:08d}.pt"
        digests[report.step] = contents(newest)
        if report.step < LONG:
            shutil.copytree(whole, tmp_path / f"killed{report.step}")

    pretrain(store, short, whole, progress=copy)
    assert len(digests) == LONG
    for step in range(1, LONG):
        killed = tmp_path / f"killed{step}"
        with contextlib.suppress(Killed):
            pretrain(store, short, killed, progress=kill_after(step + 1))
        assert checkpoint.steps(killed / "checkpoints") == [step, step + 1]
        assert contents(killed / "checkpoints" / f"step-{step + 1:08d}.pt") == digests[step + 1], step


def contents(path: Path) -> dict[str, object]:
    """All of a checkpoint, tensors as bytes."""
    return plain(checkpoint.read(path))


def plain(value):
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("save", [1, 2])
def test_killed_in_the_middle_of_saving(call, save, store, undisturbed, tmp_path, monkeypatch, config, weights):
    """At two of the places that test_checkpoint.py visits one by one, within a whole run."""
    run, real = tmp_path / "run", checkpoint.save
    saves = []

    def killed(*args):
        raise Killed

    def saving(*args):
        saves.append(args)
        with monkeypatch.context() as patch:
            if len(saves) == save:
                patch.setattr(os, call, killed)
            return real(*args)

    monkeypatch.setattr(checkpoint, "save", saving)
    with pytest.raises(Killed):
        pretrain(store, config(), run)
    assert checkpoint.steps(run / "checkpoints") == [5, 10][: save - 1]
    pretrain(store, config(), run)
    assert_same(weights(run), weights(undisturbed))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "no digest", "foreign"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_used(
    damage, store, undisturbed, tmp_path, caplog, config, weights
):
    run = tmp_path / "run"
    with pytest.raises(Killed):
        pretrain(store, config(), run, progress=kill_after(11))
    newest = run / "checkpoints" / "step-00000010.pt"
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "no digest":
        newest.with_name(f"{newest.name}.sha256").unlink()
    else:
        checkpoint.save(newest.parent, 10, checkpoint.read(newest) | {"config_fingerprint": "0"}, 2)
    with caplog.at_level(logging.WARNING):
        pretrain(store, config(), run)
    if damage != "no digest":  # without a digest it was never finished: nothing to warn of
        found = "another run's config_fingerprint" if damage == "foreign" else "sha256"
        assert f"step-00000010.pt: found {found}" in caplog.text
    assert_same(weights(run), weights(undisturbed))


def test_a_killed_process_resumes(undisturbed, store, tmp_path, config, weights):
    """The same with a real SIGKILL at a moment that nobody chose."""
    code = (
        "import importlib.util, os, signal, sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"spec = importlib.util.spec_from_file_location('train_test', {str(HELPERS)!r})\n"
        "test = importlib.util.module_from_spec(spec); sys.modules['train_test'] = test; spec.loader.exec_module(test)\n"
        "def tell(report):\n"
        "    if report.step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"test.pretrain(test.make_store(), test.make_config(), test.Path({str(tmp_path / 'run')!r}), progress=tell)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [5]
    pretrain(store, config(), tmp_path / "run")
    assert_same(weights(tmp_path / "run"), weights(undisturbed))


def test_the_same_run_twice_is_the_same_and_leaves_global_generators_alone(
    store, undisturbed, tmp_path, config, weights
):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    pretrain(store, config(), tmp_path / "run")
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    assert_same(weights(tmp_path / "run"), weights(undisturbed))
    other = pretrain(store, config(seed=6), tmp_path / "other")
    assert not torch.equal(weights(other)["encoder.stem.weight"], weights(undisturbed)["encoder.stem.weight"])


def test_all_checkpoints_damaged_is_an_error_not_a_fresh_start(store, tmp_path, config):
    run = pretrain(store, config(max_steps=2), tmp_path / "run")
    (run / "checkpoints" / "step-00000002.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointDamaged, match="Delete it"):
        pretrain(store, config(max_steps=2), run)
