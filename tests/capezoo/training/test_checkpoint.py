"""Checkpoint files: whole or refused, and never unpickled."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pytest
import torch

from capezoo.errors import CheckpointDamaged
from capezoo.training import checkpoint
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


def test_every_flip_in_the_digest_file_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    digest = path.with_name(f"{path.name}.sha256")
    good = digest.read_bytes()
    for place in range(len(good) * 8):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << (place % 8)
        digest.write_bytes(bad)
        with pytest.raises(CheckpointDamaged):
            checkpoint.read(path)
    digest.write_bytes(good)
    assert checkpoint.read(path)["step"] == 1


def test_a_checkpoint_under_another_name_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    other = tmp_path / "step-00000009.pt"
    path.rename(other)
    path.with_name(f"{path.name}.sha256").rename(other.with_name(f"{other.name}.sha256"))
    with pytest.raises(
        CheckpointDamaged, match=r"found '  step-00000001\.pt.n' after the digest, expected step-00000009\.pt"
    ):
        checkpoint.read(other)


def test_a_pickle_with_the_right_digest_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    path = tmp_path / "step-00000001.pt"
    torch.save({"format": 1, "evil": Evil()}, path)
    path.with_name(f"{path.name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(CheckpointDamaged, match="found UnpicklingError in a file with the right digest"):
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


def test_one_of_another_run_is_refused_and_the_one_before_used(tmp_path: Path) -> None:
    mine, theirs = {"config_fingerprint": "mine"}, {"config_fingerprint": "theirs"}
    checkpoint.save(tmp_path / "here", 1, STATE | mine, keep=2)
    stranger = checkpoint.save(tmp_path / "there", 2, STATE | theirs, keep=2)
    for path in (stranger, stranger.with_name(f"{stranger.name}.sha256")):
        path.rename(tmp_path / "here" / path.name)
    state, refused = checkpoint.latest(tmp_path / "here", mine)
    assert state is not None
    assert state["step"] == 1
    assert refused == ["step-00000002.pt: found another run's config_fingerprint. Move it back to where it is from."]
    with pytest.raises(CheckpointDamaged, match=r"step-00000002\.pt: .* step-00000001\.pt: "):
        checkpoint.latest(tmp_path / "here", {"config_fingerprint": "nobody's"})


def test_an_older_format_is_not_used_in_place_of_ours(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, STATE, keep=2)
    path = checkpoint.save(tmp_path, 2, STATE | {"format": 99}, keep=2)
    state, refused = checkpoint.latest(tmp_path)
    assert state is not None
    assert state["step"] == 1
    assert refused[0].startswith(f"{path.name}: found another checkpoint format")


# Every call by which a save changes or flushes the disk, in order, when an older checkpoint is dropped.
EVENTS = [
    *("unlink", "open", "write", "fsync", "replace", "fsync"),  # an older digest; the state; its folder
    *("open", "write", "fsync", "replace", "fsync"),  # the digest; its folder
    *("unlink", "unlink"),  # the oldest state and its digest
]


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the package may catch it."""


@pytest.mark.parametrize("event", range(len(EVENTS)), ids=[f"{n} {name}" for n, name in enumerate(EVENTS)])
def test_killed_at_any_write_flush_or_rename_a_whole_checkpoint_is_in_force(event: int, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, STATE, keep=2)
    with pytest.MonkeyPatch.context() as patch:
        seen = kill_at(patch, event)
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, 3, STATE, keep=2)
    assert seen == EVENTS[: event + 1]
    state, refused = checkpoint.latest(tmp_path)
    assert state is not None
    assert state["step"] == (3 if event > EVENTS.index("replace", 5) else 2)
    assert refused == []
    assert torch.equal(state["weights"]["w"], STATE["weights"]["w"])
    for step in (3, 4, 5):  # what a resumed run does: nothing left over is in its way, and it goes with the old ones
        checkpoint.save(tmp_path, step, STATE, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"step-{step:08d}.pt{suffix}" for step in (4, 5) for suffix in ("", ".sha256")
    )


def kill_at(patch: pytest.MonkeyPatch, event: int) -> list[str]:
    """Raise Killed in place of call number `event` of EVENTS; a write is cut in half first. Returns the calls seen."""
    seen: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            if len(seen) > event:
                raise Killed
            return real(*args, **kwargs)

        return call

    class Half:
        """A file whose write is killed half-way, if it is its turn."""

        def __init__(self, file: IO[bytes]) -> None:
            self.file, self.flush, self.fileno = file, file.flush, file.fileno

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            seen.append("write")
            if len(seen) > event:
                self.file.write(data[: len(data) // 2])
                raise Killed
            return self.file.write(data)

    def opened(path: Path, mode: str = "r", **kwargs: Any) -> Any:
        return (
            Half(watched("open", real_open)(path, mode, **kwargs)) if "w" in mode else real_open(path, mode, **kwargs)
        )

    real_open = Path.open
    patch.setattr(Path, "open", opened)
    patch.setattr(Path, "unlink", watched("unlink", Path.unlink))
    patch.setattr(os, "fsync", watched("fsync", os.fsync))
    patch.setattr(os, "replace", watched("replace", os.replace))
    return seen


def test_an_empty_digest_file_is_damage(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, STATE, keep=1)
    path.with_name(f"{path.name}.sha256").write_text("")
    with pytest.raises(CheckpointDamaged, match="no readable file and digest"):
        checkpoint.latest(tmp_path)
