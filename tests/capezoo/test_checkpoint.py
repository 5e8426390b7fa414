"""Checkpoint files: whole or refused, and never unpickled."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from capezoo import checkpoint
from capezoo.errors import CheckpointDamaged
from ecgcohorts.errors import StateMismatch

STATE: dict[str, Any] = {"weights": {"w": torch.arange(6.0).reshape(2, 3)}, "running": {"ptb_xl": 1.5}, "note": "text"}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, STATE, keep=2)
    assert path.name == "step-00000007.pt"
    state, refused = checkpoint.latest(tmp_path)
    assert state is not None
    assert refused == []
    assert (state["step"], state["running"], state["note"]) == (7, {"ptb_xl": 1.5}, "text")
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])


def test_only_the_newest_are_kept_and_unfinished_ones_go_with_the_old(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.pt").write_bytes(b"unfinished")
    (tmp_path / "step-00000001.pt.part").write_bytes(b"unfinished")
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, step, STATE, keep=2)
    assert checkpoint.steps(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000003.pt", "step-00000003.pt.sha256", "step-00000004.pt", "step-00000004.pt.sha256",
    ]  # fmt: skip


def test_an_empty_folder_and_a_missing_one_have_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) == (None, [])
    assert checkpoint.latest(tmp_path / "missing") == (None, [])


def test_every_flip_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    good = path.read_bytes()
    places = np.random.default_rng(0).integers(0, len(good) * 8, 200)
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bad)
        with pytest.raises(CheckpointDamaged, match="found sha256"):
            checkpoint.read(path)
    for length in range(0, len(good), len(good) // 20):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointDamaged, match="found sha256"):
            checkpoint.read(path)
    path.write_bytes(good)
    assert checkpoint.read(path)["step"] == 1


def test_a_pickle_with_the_right_digest_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    path = tmp_path / "step-00000001.pt"
    torch.save({"format": 1, "evil": Evil()}, path)
    path.with_name(f"{path.name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        checkpoint.read(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{"format": 99}, [1, 2]])
def test_another_format_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.pt"
    torch.save(content, path)
    path.with_name(f"{path.name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(StateMismatch, match="another checkpoint format"):
        checkpoint.read(path)


def test_the_one_before_is_used_and_the_refusal_told(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, STATE, keep=2)
    (tmp_path / "step-00000002.pt").write_bytes(b"")
    state, refused = checkpoint.latest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert len(refused) == 1
    assert refused[0].startswith("step-00000002.pt: found sha256")


def test_an_empty_digest_file_is_damage(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    path.with_name(f"{path.name}.sha256").write_text("")
    with pytest.raises(CheckpointDamaged, match="no readable file and digest"):
        checkpoint.latest(tmp_path)
