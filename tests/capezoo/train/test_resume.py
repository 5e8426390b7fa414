"""Killed at any moment and called again, a run ends with the weights of an undisturbed one."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from capezoo import checkpoint
from capezoo.errors import CheckpointDamaged
from capezoo.train import pretrain

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


# What a save does to the file system, in order; a kill before each must leave the checkpoint before it in force.
SAVE_CALLS = [
    "unlink digest",
    "fsync file",
    "replace file",
    "fsync folder",
    "fsync digest",
    "replace digest",
    "fsync folder 2",
]


@pytest.mark.parametrize("call", range(len(SAVE_CALLS)), ids=SAVE_CALLS)
@pytest.mark.parametrize("save", [1, 2])
def test_killed_in_the_middle_of_saving(call, save, store, undisturbed, tmp_path, monkeypatch, config, weights):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_in_save(patch, save, call)
        with pytest.raises(Killed):
            pretrain(store, config(), run)
    finished = checkpoint.steps(run / "checkpoints")
    # Once the digest is in place the checkpoint counts, whether or not the folder was flushed.
    assert finished == [5, 10][: save if SAVE_CALLS[call] == "fsync folder 2" else save - 1]
    pretrain(store, config(), run)
    assert_same(weights(run), weights(undisturbed))


def kill_in_save(patch: pytest.MonkeyPatch, save: int, call: int) -> None:
    """Raise Killed in place of file system call number `call` of the `save`-th checkpoint."""
    real_save = checkpoint.save
    state = {"saves": 0, "calls": 0, "inside": False}

    def counted(real):
        def call_or_die(*args, **kwargs):
            if state["inside"] and state["saves"] == save:
                state["calls"] += 1
                if state["calls"] > call:
                    raise Killed
            return real(*args, **kwargs)

        return call_or_die

    def watched(*args: object, **kwargs: object) -> object:
        state.update(saves=state["saves"] + 1, calls=0, inside=True)
        try:
            return real_save(*args, **kwargs)  # type: ignore[arg-type]
        finally:
            state["inside"] = False

    patch.setattr(checkpoint, "save", watched)
    patch.setattr(Path, "unlink", counted(Path.unlink))
    patch.setattr(os, "fsync", counted(os.fsync))
    patch.setattr(os, "replace", counted(os.replace))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "no digest"])
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
    else:
        newest.with_name(f"{newest.name}.sha256").unlink()
    with caplog.at_level(logging.WARNING):
        pretrain(store, config(), run)
    if damage != "no digest":  # without a digest it was never finished: nothing to warn of
        assert "step-00000010.pt: found sha256" in caplog.text
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
