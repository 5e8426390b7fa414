"""Published weights and checkpoints with one bit flipped: who notices."""

from pathlib import Path

import damage

import capezoo
from capezoo.training import checkpoint
from capezoo.zoo.create import load
from ecgcohorts.errors import EcgError


def flip_in_weights(folder: Path, number: int) -> str:
    """One bit of one file of a weight folder, seen by `verify` and when the weights are loaded; where, if not."""
    with damage.flipped(damage.files_of(folder), number) as path:
        if capezoo.verify(folder).ok:
            return f"nobody: {path.name}, flip {number}"
        try:
            load(folder)
        except EcgError:
            return "loading"
    return f"only verify: {path.name}, flip {number}"


def flip_in_checkpoints(folder: Path, number: int) -> str:
    """One bit of a checkpoint or its digest. It must be refused, and another one that is whole be gone on from."""
    with damage.flipped(damage.files_of(folder), number) as path:
        step = int(path.name.split(".")[0].removeprefix("step-"))
        try:
            checkpoint.read(folder / f"step-{step:08d}.pt")
            return f"nobody: {path.name}, flip {number}"
        except EcgError:
            pass
        state, _ = checkpoint.latest(folder)
        left = [one for one in checkpoint.steps(folder) if one != step]
        is_right = state is not None and state["step"] == max(left)
    return "reading" if is_right else f"nobody: went on from {path.name}, flip {number}"
