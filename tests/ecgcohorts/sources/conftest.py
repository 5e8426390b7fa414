"""One raw cohort in every form that input may have, and a temporary folder that is watched."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgcohorts.io.buckets import Bucket


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def pack(folder: Path, to: Path, top: str = "") -> Path:
    """The files of a folder as an archive by the suffix of `to`, below a folder `top` in it."""
    names = {path: f"{top}{path.relative_to(folder).as_posix()}" for path in files_in(folder)}
    if to.suffix == ".zip":
        method = zipfile.ZIP_STORED if to.name.endswith("stored.zip") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(to, "w", method) as archive:
            for path, name in names.items():
                archive.write(path, name)
        return to
    with tarfile.open(to, {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}[to.suffix]) as archive:
        for path, name in sorted(names.items(), reverse=True):  # in no helpful order
            archive.add(path, f"./{name}")
    return to


@pytest.fixture
def packed(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """packed(folder, kind): the same files as an archive, or in a bucket. kind: a suffix, or `bucket`."""

    def make(folder: Path, kind: str, top: str = "") -> str:
        if kind != "bucket":
            return str(pack(folder, tmp_path / f"packed.{kind}", top))
        url = request.getfixturevalue("bucket_url") + "/raw"
        bucket = Bucket(url)
        for path in files_in(folder):
            bucket.put(path.relative_to(folder).as_posix(), path)
        return url

    return make


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR of this test, to see what is left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder
