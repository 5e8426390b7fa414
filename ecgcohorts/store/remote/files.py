"""Where the files of a store are: a folder, or objects below a URL. One interface for whoever reads them."""

import contextlib
import hashlib
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ecgcohorts.errors import ObjectStoreError, SpecError, StoreError, is_of_machine
from ecgcohorts.io.buckets import SCHEMES, Bucket, Stamp, is_url
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.store.schema import Manifest
from ecgcohorts.store.signals.shard_sources import BucketShards, FolderShards, ShardSource

_FLATTENED = re.compile(rf"({'|'.join(SCHEMES)}):/", re.IGNORECASE)


class StoreFiles(ABC):
    """The files of one store, by names with slashes. Thread-safe and picklable.

    Raises FileNotFoundError for a file that is not there, StoreError for one that is not what the manifest says.
    """

    path: Path | str  # the folder, or the URL as text
    threads: int  # columns of the index are read in so many

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of the path, as a title."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Every file there, whether it belongs there or not; folders too, with a slash, where there are any."""

    @abstractmethod
    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of those of the named files that are there."""

    @abstractmethod
    def get(self, name: str, limit: int) -> bytes:
        """A whole file. Raises StoreError for more than `limit` bytes, before they are read."""

    @abstractmethod
    def sha256_of(self, name: str) -> str:
        """In bounded memory."""

    @abstractmethod
    def on_disk(self, name: str) -> AbstractContextManager[Path]:
        """The file as one of this machine, for as long as the context lasts."""

    @abstractmethod
    def shards(self, folder: str, manifest: Manifest) -> ShardSource:
        """Of the array in a folder of the store, as the manifest names them."""

    @abstractmethod
    def zarr(self) -> Any:
        """What zarr-python opens to read there."""

    def read(self, name: str, manifest: Manifest) -> bytes:
        """A whole file of a snapshot, its size and SHA-256 checked. Raises StoreError for any other."""
        entry = manifest.files.get(name)
        if entry is None:
            raise StoreError(f"{self.path}: found no {name} in the manifest. Restore the store from a copy.")
        try:
            data = self.get(name, entry.size)
        except OSError as error:
            if is_of_machine(error):
                raise
            what = error.strerror or "no such object"
            raise StoreError(f"{self.path}/{name}: found no readable file ({what}). Restore it from a copy.") from None
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StoreError(f"{self.path}/{name}: content does not match its checksum. Restore it from a copy.")
        return data


class FolderFiles(StoreFiles):
    """In a folder."""

    threads = 4

    def __init__(self, folder: Path) -> None:
        self.path: Path = folder

    @property
    def name(self) -> str:
        return self.path.name

    def names(self) -> Iterator[str]:
        for base, folders, files in os.walk(self.path):
            for name in [*sorted(files), *(f"{name}/" for name in sorted(folders))]:
                yield (Path(base) / name).relative_to(self.path).as_posix() + "/" * name.endswith("/")

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        found = {}
        for name in names:
            path = self.path / name
            if path.is_file():
                found[name] = path.stat().st_size
        return found

    def get(self, name: str, limit: int) -> bytes:
        with (self.path / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise _too_large(self.path, name, limit)
            return file.read()

    def sha256_of(self, name: str) -> str:
        return sha256_of(self.path / name)

    def on_disk(self, name: str) -> AbstractContextManager[Path]:
        return contextlib.nullcontext(self.path / name)

    def shards(self, folder: str, manifest: Manifest) -> ShardSource:
        return FolderShards(self.path / folder)

    def zarr(self) -> Any:
        return self.path


class BucketFiles(StoreFiles):
    """Below a URL of an object store. `sizes` lists them, and pins shards to what it saw."""

    threads = 16

    def __init__(self, bucket: Bucket) -> None:
        self.path: str = bucket.url
        self.bucket = bucket
        self._stamps: dict[str, Stamp] = {}

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def names(self) -> Iterator[str]:
        return iter(self.bucket.sizes())

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        self._stamps = self.bucket.stamps()
        return {name: self._stamps[name].size for name in names if name in self._stamps}

    def get(self, name: str, limit: int) -> bytes:
        try:
            return self.bucket.get(name, limit)
        except ObjectStoreError:
            if self.bucket.size(name) > limit:
                raise _too_large(self.path, name, limit) from None
            raise

    def sha256_of(self, name: str) -> str:
        digest = hashlib.sha256()
        for block in self.bucket.blocks(name):
            digest.update(block)
        return digest.hexdigest()

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="ecgcohorts-") as scratch:
            path = Path(scratch) / "object"
            self.bucket.fetch(name, path)
            yield path

    def shards(self, folder: str, manifest: Manifest) -> ShardSource:
        start = f"{folder}/c/"
        stamps = {name: self._stamps[name] for name in manifest.files if name.startswith(start)}
        return BucketShards(self.bucket, folder, self.read(f"{folder}/zarr.json", manifest), stamps)

    def zarr(self) -> Any:
        from zarr.storage import ObjectStore

        return ObjectStore(self.bucket.client, read_only=True)


def files_at(store: str | Path) -> StoreFiles:
    """The files of a store, given by a folder or a URL."""
    if isinstance(store, str) and is_url(store):
        return BucketFiles(Bucket(store))
    if _FLATTENED.match(str(store)):
        raise SpecError(f"{store}: found a URL that lost a slash as a Path, expected it as text.")
    return FolderFiles(Path(store))


def folder_of(store: str | Path) -> Path:
    """The folder of a store that is to be changed where it stands. Raises StoreError for one in an object store."""
    path = files_at(store).path
    if isinstance(path, str):
        raise StoreError(
            f"{path}: found a store in an object store, expected a folder for this. Copy it down, change the copy, copy "
            f"that back: ecgcohorts copy {path} FOLDER; ecgcohorts copy FOLDER {path}"
        )
    return path


def _too_large(path: Path | str, name: str, limit: int) -> StoreError:
    return StoreError(f"{path}/{name}: found more than {limit} bytes, expected at most those. Restore it from a copy.")
