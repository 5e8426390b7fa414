"""What a run leaves on disk besides checkpoints.

OUT/config.yaml            the RunConfig
OUT/data.json              store fingerprint; patients and records per cohort, trained on and held out
OUT/env.json               versions of Python and libraries, nothing of the machine
OUT/training_digests.bin   16-byte waveform digests of all training records, sorted
OUT/metrics.csv            one row every few steps
OUT/status.json            where the run stands
OUT/checkpoints/           checkpoint.py
"""

import csv
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from capezoo.specs import RunConfig, parse
from ecgcohorts.errors import SourceError, StateMismatch
from ecgcohorts.store.durable import make_folder, write_file

LIBRARIES = ("ecgcohorts", "lightning-fabric", "numpy", "pandas", "pydantic", "scipy", "torch", "zarr")


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

    def config(self) -> RunConfig:
        """Raises SourceError if this is not the folder of a run."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise SourceError(
                f"{self.path}: found no config.yaml, expected the folder of a run. Give the --out of a run."
            )
        return parse(RunConfig, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))

    def data(self) -> dict[str, Any]:
        """Contents of data.json."""
        values: dict[str, Any] = json.loads((self.path / "data.json").read_text(encoding="utf-8"))
        return values

    def begin(self, config: RunConfig, data: Mapping[str, Any], digests: NDArray[np.uint8], resume: bool) -> None:
        """Write what is fixed for the run. digests: (record, 16).

        Raises StateMismatch if the folder holds another run, or the same one and `resume` is off.
        """
        if (self.path / "config.yaml").is_file():
            if not resume:
                raise StateMismatch(
                    f"{self.path}: found a run, expected an empty folder. Resume it, or give another folder."
                )
            self._require_same(config, data)
        else:
            ordered = np.unique(digests, axis=0)
            write_file(self.path / "training_digests.bin", np.ascontiguousarray(ordered).tobytes())
            write_file(self.path / "data.json", _json(data))
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
            write_file(self.path / "config.yaml", text.encode())  # last: from here on it is a run
        make_folder(self.checkpoints)
        libraries = {name: version(name) for name in LIBRARIES if _installed(name)}
        write_file(self.path / "env.json", _json({"python": platform.python_version(), **libraries}))

    def status(self, values: Mapping[str, Any]) -> None:
        write_file(self.path / "status.json", _json(values))

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


class MetricsFile:
    """metrics.csv: appended while running, cut back to the checkpoint on resume. Unknown values are empty."""

    def __init__(self, path: Path, columns: Sequence[str], after_step: int) -> None:
        self._path, self._columns = path, list(columns)
        kept: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if _step(row) is not None]
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in kept if (_step(row) or 0) <= after_step)
        write_file(path, text.getvalue().encode())

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row. Raises ValueError for a column that was not announced."""
        with self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def _step(row: Mapping[str, str]) -> int | None:
    """None for a line that a kill cut short."""
    step = row.get("step") or ""
    return int(step) if step.isdigit() and None not in row.values() else None


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
