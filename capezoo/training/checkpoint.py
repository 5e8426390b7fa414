"""Training checkpoints: saved whole or not at all, read only if their digest matches, never unpickled.

A state holds encoder, objective, optimiser, sampler, step, and fingerprints of config and store. The learning rate is
a function of the step, and every draw of a seed and the step: no scheduler and no generator has a state to save.

FOLDER/step-00001500.pt          torch.save of plain values and tensors, read with weights_only=True
FOLDER/step-00001500.pt.sha256   its SHA-256, written second: a file without it was never finished and does not count
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from capezoo import encoders
from capezoo.errors import CheckpointDamaged
from capezoo.specs.base import fingerprint, parse
from capezoo.specs.run import RunConfig
from capezoo.training.run_folder import RunFolder
from ecgcohorts.errors import SourceError, StateMismatch
from ecgcohorts.io.durable import write_file

FORMAT = 1
_NAME = re.compile(r"step-(\d{8})\.pt")


def save(folder: Path, step: int, state: Mapping[str, Any], keep: int) -> Path:
    """Write the state after `step` steps and drop all but the newest `keep` checkpoints. Returns the file."""
    path = _file(folder, step)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "step": step, **state}, buffer)
    # Through memory: the digest is of exactly the bytes that are written.
    data = buffer.getvalue()
    _digest_file(path).unlink(missing_ok=True)  # an older digest must not speak for the new file
    write_file(path, data)
    write_file(_digest_file(path), f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode())
    # Only finished ones count, so that a kill while saving never costs the last good one.
    kept = steps(folder)[-keep:]
    for other in folder.glob("step-*"):
        match = _NAME.match(other.name)
        # By prefix, so that a digest or a temporary file without its checkpoint goes too.
        if match and int(match[1]) < kept[0]:
            other.unlink(missing_ok=True)
    return path


def steps(folder: Path) -> list[int]:
    """Steps of all finished checkpoints in a folder, in order; damaged ones are among them."""
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("step-*.pt") if _digest_file(path).exists())
    return sorted(int(match[1]) for match in matches if match)


def read(path: Path) -> dict[str, Any]:
    """Return a saved state, on the CPU.

    Raises CheckpointDamaged unless the file is exactly what was saved, StateMismatch if another version saved it.
    """
    try:
        line = _digest_file(path).read_bytes().decode("ascii")
        wanted = line.split()[0]
        data = path.read_bytes()
    except (OSError, ValueError, IndexError):
        raise CheckpointDamaged(
            f"{path.name}: found no readable file and digest, expected both. Delete it to go on from the one before."
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise CheckpointDamaged(
            f"{path.name}: found sha256 {found[:12]}, expected {wanted[:12]}. Delete it to go on from the one before."
        )
    if line not in (wanted, f"{wanted}  {path.name}\n"):
        raise CheckpointDamaged(
            f"{_digest_file(path).name}: found {line[len(wanted) :]!r:.60} after the digest, expected {path.name}. "
            "Delete both files to go on from the one before."
        )
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever it is, nobody's checkpoint: torch has no error of its own for it
        raise CheckpointDamaged(
            f"{path.name}: found {type(error).__name__} in a file with the right digest, expected tensors and plain "
            "values. Delete it: no version of this program wrote it."
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise StateMismatch(
            f"{path.name}: found another checkpoint format, expected {FORMAT}. Use the version that made it."
        )
    if "config" in state:
        state["config_fingerprint"] = _fingerprint_now(state["config"], state["config_fingerprint"])
    return state


def latest(folder: Path, belongs: Mapping[str, str] | None = None) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest state that reads well, or None if there are no checkpoints, and what was refused on the way.

    belongs: entries a state must have, such as the config's fingerprint; those of another run are refused.
    Raises CheckpointDamaged if there are checkpoints and none will do: to start anew is for the user to decide.
    """
    refused: list[str] = []
    for step in reversed(steps(folder)):
        path = _file(folder, step)
        try:
            state = read(path)
        except (CheckpointDamaged, StateMismatch) as error:
            refused.append(str(error))
            continue
        # A folder copied from another run would otherwise continue with its weights in silence.
        foreign = [name for name, value in (belongs or {}).items() if state.get(name) != value]
        if not foreign:
            return state, refused
        refused.append(f"{path.name}: found another run's {' and '.join(foreign)}. Move it back to where it is from.")
    if refused:
        raise CheckpointDamaged(" ".join(refused))
    return None, refused


def _fingerprint_now(config: str, then: str) -> str:
    """The fingerprint of a saved config in today's fields: a field that came since must not make it another run's.

    One that is not of its own config stays as it is, and will be refused.
    """
    return parse(RunConfig, config, "checkpoint").fingerprint if fingerprint(json.loads(config)) == then else then


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def trained(folder: Path) -> tuple[nn.Module, RunConfig, dict[str, Any]]:
    """Return the encoder of a run's newest checkpoint in evaluation mode, its config, and the checkpoint.

    Raises SourceError if `folder` is no run, or has no checkpoint yet.
    """
    config = RunFolder(Path(folder)).config()
    state, _ = latest(RunFolder(Path(folder)).checkpoints)
    if state is None:
        raise SourceError(f"{folder}: found no checkpoint, expected one. Let the run reach its first, or resume it.")
    # Any seed: every weight is replaced in the next line, strictly.
    encoder = encoders.build(config.encoder, seed=0)
    encoder.load_state_dict(state["encoder"])
    return encoder.eval(), config, state
