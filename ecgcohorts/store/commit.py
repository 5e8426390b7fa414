"""Publish a snapshot: one writer at a time, and CURRENT replaced last.

Until CURRENT is replaced, nothing that a reader sees has changed; from then on, everything has.
Earlier snapshots stay until `collect_garbage`; what no manifest names is garbage and goes at the next write.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.io.durable import machine_errors, make_folder
from ecgcohorts.io.place import Folder, Place, place_at
from ecgcohorts.store.manifests import files_named, manifest_bytes
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.schema import (
    CURRENT,
    LOCK,
    OUR_PATHS,
    STAGING,
    Current,
    Manifest,
)

_LOCK_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


@contextlib.contextmanager
def writer_lock(store: Path, what: str = "store") -> Iterator[None]:
    """Hold the one write lock of a store, or of what else a folder holds. The kernel drops it when the process ends.

    Raises LockHeld at once if another process holds it, and MachineError for calls that fail while it is held.
    """
    with machine_errors(store):
        make_folder(store)
        # flock, not a file that is there or not: nothing is left behind by a process that is killed.
        with open(os.open(store / LOCK, _LOCK_FLAGS, 0o666), "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockHeld(
                    f"{store}: another process is writing to this {what}. Wait for it, or stop it."
                ) from None
            yield


def _refuse_links(place: Place) -> None:
    """Raise StoreError for a link anywhere in a store: what is written below it would go elsewhere."""
    for name in place.links():
        raise StoreError(f"{place}/{name}: found a link, which no store holds. Move it away, or name a new place.")


def folder_of(store: str | Path) -> Path:
    """Return the folder of a store that is to be changed where it stands. Raises StoreError for one in a bucket."""
    place = place_at(store)
    if isinstance(place, Folder):
        return place.path
    raise StoreError(
        f"{place}: a store in an object store cannot be changed there. Copy it down, change the copy, copy that back: "
        f"ecgcohorts copy {place} FOLDER; ecgcohorts copy FOLDER {place}"
    )


@contextlib.contextmanager
def changing(path: str | Path) -> Iterator[tuple[Path, Store]]:
    """Hold the write lock of a store in a folder; give the folder and the snapshot in force.

    Raises StoreError for a store in a bucket, or none at all; LockHeld.
    """
    folder = folder_of(path)
    manifest_bytes(Folder(folder))  # locking would make the folder, so first make sure that there is a store
    _refuse_links(Folder(folder))
    with writer_lock(folder):
        yield folder, open_store(folder)


def publish(store: Path, manifest: Manifest, *, forget: bool = False) -> str:
    """Make `manifest` the snapshot in force and return its fingerprint. Earlier ones stay, unless they are to be forgotten.

    Raises StoreError, and changes nothing a reader sees, if a file that the manifest names is not there whole.
    """
    place = Folder(store)
    # Forgotten ones go at once, with their files: a removed patient must not stay readable in an earlier snapshot.
    alone = manifest.model_copy(update={"earlier": ()})
    following = alone if forget else after_those_before(place, manifest)
    return put_in_force(place, following, following.to_bytes(), place.put)


def put_in_force(place: Place, manifest: Manifest, data: bytes, put: Callable[[str, bytes], None]) -> str:
    """Put a manifest, given with its bytes, and then CURRENT; remove what neither names. Return the fingerprint.

    put: replaces a small file of the place whole, or raises. The order is the commit: a kill before the last `put`
    leaves the snapshot before, a kill after it the new one.
    """
    manifest.check_files(place)  # last chance: a snapshot with a hole must not come into force
    current = _current_of(manifest, data)
    put(current.manifest, data)
    put(CURRENT, current.model_dump_json().encode())
    remove_unlisted(place, manifest)
    return current.sha256


def after_those_before(place: Place, manifest: Manifest) -> Manifest:
    """Return the manifest, naming the snapshot in force there and those before it that are still there."""
    if not place.sizes([CURRENT]):
        return manifest.model_copy(update={"earlier": ()})
    before, data = manifest_bytes(place)
    # `gc` deletes files and leaves the manifest in force as it is, so names in it may point to nothing.
    there = place.sizes([one.manifest for one in before.earlier])
    earlier = (_current_of(before, data), *(one for one in before.earlier if one.manifest in there))
    return manifest.model_copy(update={"earlier": earlier})


def _current_of(manifest: Manifest, data: bytes) -> Current:
    return Current(manifest=manifest.file_name, sha256=hashlib.sha256(data).hexdigest())


def remove_unlisted(
    place: Place, manifest: Manifest | None, keep: frozenset[str] = frozenset(), keep_folders: tuple[str, ...] = ()
) -> None:
    """Delete files of our own layout that are neither the snapshot's nor an earlier one's, and folders left empty.

    keep: paths under way. keep_folders: folders, each with a slash at its end, that others are writing to. Files of other
    names are never touched: `refuse_foreign` stops a run before it meets any.
    """
    # The lock file stays: with a second file of its name, two processes could each hold a lock.
    listed = {LOCK, *keep}
    if manifest is not None:
        listed |= {CURRENT, *files_named(place, manifest)}
    place.delete(
        name
        for name in place.everything()
        if name not in listed and OUR_PATHS.fullmatch(name) and not name.startswith(keep_folders)
    )


def refuse_foreign(place: Place) -> None:
    """Raise StoreError rather than write into a place that holds anything but a store, whole or under way."""
    if isinstance(place, Folder) and place.path.exists() and not place.path.is_dir():
        raise StoreError(f"{place}: found a file, expected a store or an empty folder. Name a new folder.")
    _refuse_links(place)
    for name in place.everything():
        if not OUR_PATHS.fullmatch(name):
            raise StoreError(f"{place}: found {name!r}, which no store holds. Move it away, or name a new place.")


def refuse_nested(source: Path, store: Path) -> None:
    """Raise StoreError if the store would lie in its own input, or the input in the store."""
    # Resolved: a link may lead from one into the other.
    inner, outer = source.resolve(), store.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise StoreError(f"{store}: {source} lies in it or around it. Name two folders apart.")


def _is_staged(folder: Path) -> bool:
    """Say whether shards of an ingest that was planned or interrupted are there."""
    return any(path.is_file() for path in (folder / STAGING).rglob("*"))


def refuse_interrupted(folder: Path) -> None:
    """Raise StoreError where shards are staged: a new generation would clear away what an ingest can still use."""
    if _is_staged(folder):
        raise StoreError(
            f"{folder}: an ingest was planned or interrupted here. Finish it by running it again; or give it up by "
            f"deleting {folder / STAGING}."
        )


def clear_leftovers(store: Path, manifest: Manifest) -> None:
    """Delete what a killed command left, unless an ingest is staged, which can still use it."""
    if not _is_staged(store):
        remove_unlisted(Folder(store), manifest)
