"""A whole store to make hostile, and a way to seal it again: every checksum is right, only the content is not."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ecgcohorts.io.buckets as objects

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-2"


class Hostile:
    """A copy of a store, and its manifest as JSON values to change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads(self._path().read_bytes())

    def _path(self) -> Path:
        return self.folder / json.loads((self.folder / "CURRENT").read_bytes())["manifest"]

    def seal(self) -> Path:
        """Write the manifest, and the SHA-256 of it into CURRENT."""
        path = self._path()
        path.write_text(json.dumps(self.manifest))
        current = {"manifest": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        (self.folder / "CURRENT").write_text(json.dumps(current))
        return self.folder

    def put(self, name: str, content: bytes) -> None:
        """Make or replace a file, and name it in the manifest."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    folder = tmp_path / "a" / "s.zarr"
    shutil.copytree(GOLDEN, folder)
    return Hostile(folder)


@pytest.fixture
def as_bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Copy a folder as it stands into an object store in memory; return the URL."""
    store = pytest.importorskip("obstore.store", reason="obstore is not installed")
    places: dict[str, object] = {}
    monkeypatch.setattr(objects, "_connect", lambda url: places.setdefault(url, store.MemoryStore()))

    def copy(folder: Path) -> str:
        url = "s3://memory/s.zarr"
        for path in folder.rglob("*"):
            if path.is_file():
                objects.Bucket(url).put(path.relative_to(folder).as_posix(), path)
        return url

    return copy
