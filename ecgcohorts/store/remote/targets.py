"""Where a store is written to from elsewhere: a folder, or an object store. A snapshot arrives whole or not at all.

Files first, each known by its SHA-256; then the manifest; `CURRENT` last, and what no manifest names is removed.
"""

import contextlib
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.io.durable import copy_file, make_folder, sha256_of
from ecgcohorts.store import commit
from ecgcohorts.store.generations import refuse_interrupted
from ecgcohorts.store.reader import check_files, files_named, manifest_bytes
from ecgcohorts.store.remote.bucket_lock import bucket_lock, held
from ecgcohorts.store.remote.files import BucketFiles, FolderFiles, StoreFiles, files_at
from ecgcohorts.store.schema import CURRENT, LOCK, FileEntry, Manifest, manifest_name

_OWNER_ONLY = 0o700
Progress = Callable[[int, int], None]  # files done, of how many


@dataclass(frozen=True)
class Sent:
    """A snapshot that was sent, and the names of those files that were not there already."""

    fingerprint: str
    names: tuple[str, ...]


class Target(ABC):
    """A place for a snapshot. All but `lock` is for the holder of the lock."""

    files: StoreFiles

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Hold the one write lock. Raises LockHeld at once, and StoreError where anything but a store is."""

    @abstractmethod
    def holds(self, name: str, entry: FileEntry) -> bool:
        """Is this file there already, left by an interrupted run, with this content?"""

    @abstractmethod
    def put(self, name: str, path: Path, entry: FileEntry) -> None:
        """Put a file, whose content is the entry's, in its place."""

    @abstractmethod
    def put_in_force(self, manifest: Manifest, data: bytes) -> str:
        """Make a snapshot the one that readers see, once all its files are there. data: its manifest's bytes."""

    @abstractmethod
    def clear(self, manifest: Manifest | None) -> None:
        """Remove files of our layout that a snapshot, the one in force, does not name."""


class FolderTarget(Target):
    """A folder, made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, FolderFiles(folder)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        commit.refuse_foreign_folder(self.folder)
        with commit.writer_lock(self.folder):
            refuse_interrupted(self.folder)
            yield

    def holds(self, name: str, entry: FileEntry) -> bool:
        path = self.folder / name
        return path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256

    def put(self, name: str, path: Path, entry: FileEntry) -> None:
        copy_file(path, self.folder / name)

    def put_in_force(self, manifest: Manifest, data: bytes) -> str:
        return commit.put_in_force(self.folder, manifest, data)

    def clear(self, manifest: Manifest | None) -> None:
        commit.remove_unlisted(self.folder, manifest)


class BucketTarget(Target):
    """Below a URL. `folder` is on this machine, for files to be made in; it goes when all is done.

    Its name follows from the URL, so that the same run finds it again after a kill, and the lock it left.
    """

    def __init__(self, bucket: Bucket, work: Path | None = None) -> None:
        """work: folder for the work folder; None: one of ours in the user's cache."""
        self.bucket, self.files = bucket, BucketFiles(bucket)
        self._work = (work or _default_work()) / f"store-{hashlib.sha256(bucket.url.encode()).hexdigest()[:32]}"
        self.folder = self._work / "store.zarr"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        make_folder(self._work.parent)
        self._work.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        with contextlib.ExitStack() as locks:
            try:
                locks.enter_context(commit.writer_lock(self.folder))
            except LockHeld:
                raise LockHeld(held(self.bucket)) from None
            with bucket_lock(self.bucket, self._work / "token") as self._lock:
                self._before = self.bucket.tag(CURRENT)
                self._left = self.bucket.sizes()
                self._refuse_foreign()
                self._clear_manifests()
                yield
            shutil.rmtree(self._work)

    def _refuse_foreign(self) -> None:
        for name in self._left:
            if not commit.is_ours(name):
                raise StoreError(
                    f"{self.bucket}: found {name!r}, expected a store or nothing. Move it away, or name another URL."
                )

    def _clear_manifests(self) -> None:
        """Remove those of runs that died between manifest and CURRENT: from here on, one that is there is a rival's."""
        known = files_named(self.files, manifest_bytes(self.files)[0]) if self._before else {}
        self.bucket.delete(name for name in self._left if name.startswith("manifest-") and name not in known)

    def holds(self, name: str, entry: FileEntry) -> bool:
        return self._left.get(name) == entry.size and self.bucket.noted_sha256(name) == entry.sha256

    def put(self, name: str, path: Path, entry: FileEntry) -> None:
        self._lock.check()
        self.bucket.put(name, path, entry.sha256)

    def put_in_force(self, manifest: Manifest, data: bytes) -> str:
        check_files(self.files, manifest)
        name, current = manifest_name(manifest.generation), commit.current_of(manifest, data)
        self._lock.check()
        content = current.model_dump_json().encode()
        # An answer may get lost and the request be sent again: then it is refused, although it has been granted.
        if not self.bucket.put_new(name, data) and self.bucket.get(name) != data:
            raise LockHeld(held(self.bucket))
        self._lock.check()
        if not self.bucket.replace(CURRENT, content, self._before) and self.bucket.get(CURRENT) != content:
            raise LockHeld(held(self.bucket))
        self.clear(manifest)
        return current.sha256

    def clear(self, manifest: Manifest | None) -> None:
        listed = {LOCK}
        if manifest is not None:
            listed |= {CURRENT, *files_named(self.files, manifest)}
        self.bucket.delete(name for name in self.bucket.sizes() if commit.is_ours(name) and name not in listed)


def target_at(place: str | Path) -> Target:
    """The folder or URL as a target."""
    files = files_at(place)
    return BucketTarget(files.bucket) if isinstance(files, BucketFiles) else FolderTarget(Path(files.path))


def send(
    source: StoreFiles,
    target: Target,
    before: Manifest | None,
    manifest: Manifest,
    data: bytes,
    *,
    progress: Progress | None = None,
) -> Sent:
    """Bring a snapshot from one place to another, where `before` is in force.

    Raises StoreError for a file that is not what the manifest says, or that would take the place of one in force.
    """
    has = before.files if before else {}
    sent = []
    for name, entry in manifest.files.items():
        if name in has and has[name] != entry:
            raise StoreError(
                f"{target.files.path}: found another {name} in force, expected the same: it belongs to another store, or "
                "another version wrote it. Name a new place."
            )
    for done, (name, entry) in enumerate(manifest.files.items()):
        if name not in has and not target.holds(name, entry):
            with source.on_disk(name) as path:
                if sha256_of(path) != entry.sha256:
                    raise StoreError(
                        f"{source.path}/{name}: content does not match its SHA-256. Restore it from a copy."
                    )
                target.put(name, path, entry)
            sent.append(name)
        if progress:
            progress(done + 1, len(manifest.files))
    return Sent(target.put_in_force(manifest, data), tuple(sent))


def _default_work() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ecgcohorts"
