"""Where an ingest writes to: the folder of the store itself, or a work folder whose files are sent to an object store."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path

from ecgcohorts.errors import SpecError
from ecgcohorts.store.commit import (
    after_those_before,
    publish,
    refuse_foreign_folder,
    remove_unlisted,
    writer_lock,
)
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.remote.files import BucketFiles, StoreFiles, files_at
from ecgcohorts.store.remote.targets import BucketTarget, send
from ecgcohorts.store.schema import CURRENT, Manifest


class Destination(ABC):
    """A store to add to. New files are made in `folder`; what is there already is read through `files`."""

    files: StoreFiles
    folder: Path

    def open_before(self) -> Store | None:
        """The snapshot in force; None where no store is yet."""
        return open_store(self.files.path) if self.files.sizes([CURRENT]) else None

    @abstractmethod
    def lock(self) -> AbstractContextManager[None]:
        """Hold the one write lock."""

    @abstractmethod
    def publish(self, before: Manifest | None, manifest: Manifest) -> str:
        """Make a snapshot the one in force; return its fingerprint."""

    @abstractmethod
    def clear(self, before: Manifest | None, keep_folders: tuple[str, ...]) -> None:
        """Remove what is not of the snapshot in force."""


class FolderDestination(Destination):
    """The store is a folder."""

    def __init__(self, folder: Path) -> None:
        refuse_foreign_folder(folder)
        self.files, self.folder = files_at(folder), folder

    def lock(self) -> AbstractContextManager[None]:
        return writer_lock(self.folder)

    def publish(self, before: Manifest | None, manifest: Manifest) -> str:
        return publish(self.folder, manifest)

    def clear(self, before: Manifest | None, keep_folders: tuple[str, ...]) -> None:
        remove_unlisted(self.folder, before, keep_folders=keep_folders)


class BucketDestination(Destination):
    """The store is in an object store. Its files are not fetched, except for what opening it needs."""

    def __init__(self, files: BucketFiles, work: Path | None) -> None:
        self._target = BucketTarget(files.bucket, work)
        self.files, self.folder = files, self._target.folder
        refuse_foreign_folder(self.folder)

    def lock(self) -> AbstractContextManager[None]:
        return self._target.lock()

    def publish(self, before: Manifest | None, manifest: Manifest) -> str:
        following = after_those_before(self.files, manifest)
        return send(files_at(self.folder), self._target, before, following, following.to_bytes()).fingerprint

    def clear(self, before: Manifest | None, keep_folders: tuple[str, ...]) -> None:
        self._target.clear(before)


def destination(store: str | Path, work: Path | None) -> Destination:
    """Where `store` names. work: folder for the work folder of a store in an object store."""
    files = files_at(store)
    if isinstance(files, BucketFiles):
        return BucketDestination(files, work)
    if work is not None:
        raise SpecError(f"found a work folder for the store {store}, expected one for a URL only. Leave it out.")
    return FolderDestination(Path(store))
