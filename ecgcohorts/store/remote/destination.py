"""Where a store is written: its folder, or a bucket that is filled from a work folder of this machine.

A snapshot arrives whole or not at all: files first, each known by its SHA-256; then the manifest; `CURRENT` last.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ecgcohorts.errors import LockHeld, SpecError, StoreError
from ecgcohorts.io.durable import make_folder, sha256_of
from ecgcohorts.io.place import Folder, Place, place_at
from ecgcohorts.store.commit import (
    after_those_before,
    put_in_force,
    refuse_foreign,
    remove_unlisted,
    writer_lock,
)
from ecgcohorts.store.manifests import files_named, manifest_bytes
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.remote.bucket_lock import bucket_lock, held
from ecgcohorts.store.schema import CURRENT, Manifest

# Signals and the lock's token lie in the work folder until all is sent.
_OWNER_ONLY = 0o700
Progress = Callable[[int, int], None]  # files done, of how many


class Destination:
    """A store to write to, at `place`. New files are made in `folder`: the store's own, or a bucket's work folder.

    A work folder's name follows from the URL, so that the next run after a kill finds it again, and in it the token of
    the lock that was left. It goes when all is done. All but `lock` and `open_before` is for the holder of the lock.
    """

    def __init__(self, store: str | Path, work: Path | None = None) -> None:
        """work: folder for the work folder of a bucket; None: one of ours in the user's cache."""
        self.place: Place = place_at(store)
        if isinstance(self.place, Folder):
            if work is not None:
                raise SpecError(f"{store}: only a store at a URL needs a work folder. Leave it out.")
            self.folder = self.place.path
        else:
            digest = hashlib.sha256(self.place.path.encode()).hexdigest()[:32]
            self._work = (work or _default_work()) / f"store-{digest}"
            self.folder = self._work / "store.zarr"

    @property
    def memory(self) -> Path | None:
        """File beside the store that tells from which files its recordings were read. A bucket has none."""
        # In a bucket, every machine that ingests would have to lock it; a work folder is left empty.
        return self.folder.with_name(f"{self.folder.name}.seen") if isinstance(self.place, Folder) else None

    def open_before(self) -> Store | None:
        """Open the snapshot in force; None where no store is yet."""
        return open_store(self.place.path) if self.place.sizes([CURRENT]) else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one write lock. Raises LockHeld at once, and StoreError where anything but a store is."""
        refuse_foreign(Folder(self.folder))
        if isinstance(self.place, Folder):
            with writer_lock(self.folder):
                yield
            return
        make_folder(self._work.parent)
        self._work.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        with contextlib.ExitStack() as locks:
            try:
                # Two runs on one machine share the token, so the bucket's lock alone would let both in.
                locks.enter_context(writer_lock(self.folder))
            except LockHeld:
                raise LockHeld(held(self.place)) from None
            with bucket_lock(self.place, self._work / "token") as self._lock:
                # Before anything is read: what is committed later than this tag makes our own commit fail.
                self._before = self.place.tag(CURRENT)
                refuse_foreign(self.place)
                self._clear_manifests()
                yield
            shutil.rmtree(self._work)

    def _clear_manifests(self) -> None:
        """Remove those of runs that died between manifest and CURRENT: from here on, one that is there is a rival's."""
        known = files_named(self.place, manifest_bytes(self.place)[0]) if self._before else {}
        names = (name for name in self.place.everything() if name.startswith("manifest-"))
        self.place.delete(name for name in names if name not in known)

    def publish(self, before: Manifest | None, manifest: Manifest, *, forget: bool = False) -> str:
        """Put the snapshot in force whose new files are in `folder`; return its fingerprint.

        Earlier ones stay, unless they are to be forgotten, because they hold what has to go.
        """
        following = manifest if forget else after_those_before(self.place, manifest)
        data = following.to_bytes()
        if not isinstance(self.place, Folder):
            self.send(Folder(self.folder), before, following)
        return self.put_in_force(following, data)

    def send(
        self, source: Place, before: Manifest | None, manifest: Manifest, progress: Progress | None = None
    ) -> list[str]:
        """Bring the files of a snapshot here, where `before` is in force; return the names of those that were not here.

        Raises StoreError for a file that is not what the manifest says, or that would take the place of one in force.
        """
        # A name never gets other content while a snapshot in force has it: its readers would find damage.
        has = before.files if before else {}
        for name, entry in manifest.files.items():
            if name in has and has[name] != entry:
                raise StoreError(
                    f"{self.place}: another {name} is in force there: it belongs to another store, or another version wrote "
                    "it. Name a new place."
                )
        # A name and a size are not enough: a killed run of another source may have left a shard of the same name.
        left = self.place.sizes(name for name in manifest.files if name not in has)  # by an interrupted run
        sent = []
        for done, (name, entry) in enumerate(manifest.files.items()):
            is_left = left.get(name) == entry.size and self.place.noted_sha256(name) == entry.sha256
            if name not in has and not is_left:
                # Hashed before it is sent: damage of the source must not arrive as a whole file.
                with source.on_disk(name) as path:
                    if sha256_of(path) != entry.sha256:
                        raise StoreError(
                            f"{source}/{name}: content does not match its SHA-256. Restore it from a copy."
                        )
                    self._check_lock()
                    self.place.put(name, path, entry.sha256)
                sent.append(name)
            if progress:
                progress(done + 1, len(manifest.files))
        return sent

    def put_in_force(self, manifest: Manifest, data: bytes) -> str:
        """Make a snapshot the one that readers see, once all its files are there. data: its manifest's bytes."""
        return put_in_force(self.place, manifest, data, self._put_last)

    def _put_last(self, name: str, content: bytes) -> None:
        # A folder's lock is the kernel's. A bucket's can be removed by command while its holder lives, so that a
        # condition has to decide between two writers: a new manifest, and CURRENT as it was when the lock was taken.
        if isinstance(self.place, Folder):
            self.place.put(name, content)
            return
        self._check_lock()
        is_current = name == CURRENT
        granted = self.place.replace(name, content, self._before) if is_current else self.place.put_new(name, content)
        # An answer may get lost and the request be sent again: then it is refused, although it has been granted.
        if not granted and self.place.get(name) != content:
            raise LockHeld(held(self.place))

    def _check_lock(self) -> None:
        if not isinstance(self.place, Folder):
            self._lock.check()

    def clear(self, manifest: Manifest | None, keep_folders: tuple[str, ...] = ()) -> None:
        """Remove files of our layout that the snapshot in force does not name. keep_folders: as of `remove_unlisted`."""
        remove_unlisted(self.place, manifest, keep_folders=keep_folders)


def _default_work() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ecgcohorts"
