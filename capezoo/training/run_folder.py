"""What a run leaves on disk besides checkpoints.

OUT/config.yaml            the RunConfig
OUT/data.json              store fingerprint; patients and records per cohort, trained on and held out
OUT/env.json               versions of Python and libraries, kind of device; nothing that names the machine
OUT/training_digests.bin   16-byte waveform digests of all training records, sorted
OUT/metrics.csv            one row every few steps: metrics.py
OUT/curves.png             the same as pictures: curves.py
OUT/tensorboard/           the same for TensorBoard, if asked for
OUT/status.json            where the run stands, how fast it is, how long it will take, and which process works on it
OUT/ranks/                 of several processes, where each is: watch.py
OUT/lock                   held by the one process that writes: a flock
OUT/checkpoints/           checkpoint.py
"""

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from capezoo.specs import RunConfig, parse
from capezoo.specs.base import MAX_YAML_BYTES
from ecgcohorts.errors import SourceError, SpecError, StateMismatch
from ecgcohorts.io.durable import make_folder, write_file
from ecgcohorts.io.yaml_text import read_yaml
from ecgcohorts.store.commit import writer_lock
from ecgcohorts.store.schema import LOCK

LIBRARIES = ("ecgcohorts", "lightning-fabric", "numpy", "pandas", "pydantic", "scipy", "torch", "zarr")

_BESIDE = {".err", ".log", ".out", ".part", ".txt"}  # logs, and what a killed writer leaves
_SILENT_S = 600  # without a word from a machine whose locks cannot be seen here, a run counts as dead; our default


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and the few ways they are written."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def ranks(self) -> Path:
        return self.path / "ranks"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    def config(self) -> RunConfig:
        """Raises SourceError if this is not the folder of a run."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise SourceError(
                f"{self.path}: found no config.yaml, expected the folder of a run. Give the --out of a run."
            )
        try:
            values = read_yaml(path, MAX_YAML_BYTES, "run")
        except SpecError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise SourceError(
                f"{path}: cannot be read ({reason}). Restore it from a copy, or give another folder."
            ) from None
        return parse(RunConfig, values, str(path))

    def data(self) -> dict[str, Any]:
        """Contents of data.json."""
        values: dict[str, Any] = _read(self.path / "data.json", json.loads)
        return values

    @contextmanager
    def writing(
        self, config: RunConfig, data: Mapping[str, Any], digests: NDArray[np.uint8], resume: bool
    ) -> Iterator[None]:
        """Be the one process that writes here. Begins with what is fixed for the run, unless it is there.

        digests: (record, 16). Raises StateMismatch if the folder holds another run, or the same one and `resume` is off,
        LockHeld if another process is writing.
        """
        self._admit(config, data, resume)  # before the lock, which would leave a file in a stranger's folder
        with ExitStack() as held:
            held.enter_context(writer_lock(self.path, "run"))
            try:
                self._begin(config, data, digests, resume)
                yield
            finally:
                # Without the error that ends the run: the lock would take an OSError of training for one of its own.
                held.close()

    def _admit(self, config: RunConfig, data: Mapping[str, Any], resume: bool) -> bool:
        """Tell whether the run is there already. Raises StateMismatch if it may not be written here."""
        if not (self.path / "config.yaml").is_file():
            self._require_free()
            return False
        if not resume:
            raise StateMismatch(
                f"{self.path}: found a run, expected an empty folder. Resume it, or give another folder."
            )
        self._require_same(config, data)
        return True

    def _begin(self, config: RunConfig, data: Mapping[str, Any], digests: NDArray[np.uint8], resume: bool) -> None:
        # Asked again under the lock: another process may have begun a run meanwhile.
        if not self._admit(config, data, resume):
            ordered = np.unique(digests, axis=0)
            write_file(self.path / "training_digests.bin", np.ascontiguousarray(ordered).tobytes())
            write_file(self.path / "data.json", _json(data))
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_file(self.path / "config.yaml", text.encode())  # last: from here on it is a run
        make_folder(self.checkpoints)

    def _require_free(self) -> None:
        """Raise StateMismatch if the folder holds anything that is neither the beginning of a run nor a log."""
        # A run that was killed before config.yaml leaves the first two. A scheduler's log stands there before the run.
        begun = {"training_digests.bin", "data.json"} if (self.path / "training_digests.bin").is_file() else set()
        begun |= {LOCK}
        foreign = sorted(
            path.name
            for path in (self.path.iterdir() if self.path.is_dir() else ())
            if path.name not in begun and path.suffix not in _BESIDE and not path.name.startswith(".")
        )
        if foreign:
            raise StateMismatch(
                f"{self.path}: found {foreign[0]} and no config.yaml, expected a run or an empty folder. "
                "Give another folder."
            )

    def environment(self, device: Mapping[str, Any]) -> None:
        """Write env.json: what runs here now."""
        libraries = {name: version(name) for name in LIBRARIES if _installed(name)}
        write_file(self.path / "env.json", _json({"python": platform.python_version(), **libraries, **device}))

    def status(self, values: Mapping[str, Any]) -> None:
        """Replace status.json, with the time and the process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        process = {"machine": _machine(), "process": os.getpid()}
        write_file(self.path / "status.json", _json({**values, "written": now, **process}))

    def stalled(self, reason: str) -> None:
        """Write that a process of several stands still. Any of them may: the one that writes otherwise may be that one."""
        before = self.last_status() if self.has_status else {}
        self.status({**before, "state": "stalled", "reason": reason})

    @property
    def has_status(self) -> bool:
        """Whether the run has begun to train."""
        return (self.path / "status.json").is_file()

    def last_status(self) -> dict[str, Any]:
        """Contents of status.json. A run that is "running", but whose process has ended, has the state "died".

        Raises SourceError if there is no run, or it has not begun to train.
        """
        self.config()
        if not self.has_status:
            raise SourceError(f"{self.path}: found no status.json, expected one. The run has not begun to train.")
        values: dict[str, Any] = _read(self.path / "status.json", json.loads)
        if values.get("state") == "running" and not self._lives(values):
            values["state"] = "died"
        return values

    def _lives(self, status: Mapping[str, Any]) -> bool:
        """Whether a process still writes here: it holds the lock, or is elsewhere and spoke a moment ago."""
        try:
            with (self.path / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # none there: a run from before there were locks
            pass
        # Locks do not reach every machine on every file system, and a copied folder has none.
        age = datetime.now(UTC) - datetime.fromisoformat(status["written"])
        return status.get("machine") != _machine() and age.total_seconds() < _SILENT_S

    def _require_same(self, config: RunConfig, data: Mapping[str, Any]) -> None:
        before, now = (_flat(spec.model_dump(mode="json")) for spec in (self.config(), config))
        changed = [
            f"{key} {before.get(key)!r} (now {now.get(key)!r})"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ]
        if self.data()["store_fingerprint"] != data["store_fingerprint"]:
            changed.append("another store, or one changed since")
        if changed:
            raise StateMismatch(
                f"{self.path}: found a run with {'; '.join(changed)}. Give another folder, or go back to it."
            )


def _machine() -> str:
    """Tell machines apart without naming one: run folders are handed on."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:12]


def _read(path: Path, parser: Callable[[str], Any]) -> Any:
    """Raises SourceError for a file that is edited or damaged: a run writes each of them whole."""
    try:
        return parser(path.read_text(encoding="utf-8"))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"{path}: cannot be read ({reason}). Restore it from a copy, or give another folder."
        ) from None


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:  # PackageNotFoundError is one: run from a checkout that was never installed
        return False
