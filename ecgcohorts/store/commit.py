"""Publishing a snapshot: one writer at a time, and CURRENT replaced last.

Until CURRENT is replaced, nothing that a reader sees has changed; from then on, everything has.
What no manifest names is garbage and goes at the next write.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.store.durable import sha256_of, write_file
from ecgcohorts.store.schema import CURRENT, LOCK, STAGING, Current, FileEntry, Manifest, manifest_name


@contextlib.contextmanager
def writer_lock(store: Path) -> Iterator[None]:
    """Hold the store's one write lock. The kernel drops it when the process ends, however it ends.

    Raises LockHeld at once if another process holds it.
    """
    store.mkdir(parents=True, exist_ok=True)
    with (store / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockHeld(f"{store}: another process is writing to this store. Wait for it, or stop it.") from None
        yield


def publish(store: Path, manifest: Manifest) -> None:
    """Make `manifest` the snapshot in force, then remove what it no longer names."""
    data = manifest.to_bytes()
    path = store / manifest_name(manifest.generation)
    write_file(path, data)
    current = Current(manifest=path.name, sha256=sha256_of(path))
    write_file(store / CURRENT, current.model_dump_json().encode())
    remove_unlisted(store, manifest)


def remove_unlisted(store: Path, manifest: Manifest | None, keep: frozenset[str] = frozenset()) -> None:
    """Delete every file that is not the snapshot's, and folders left empty. `keep`: relative paths under way."""
    listed = {LOCK, *keep}
    if manifest is not None:
        listed |= {CURRENT, manifest_name(manifest.generation), *manifest.files}
    for base, folders, files in os.walk(store, topdown=False):
        for name in files:
            path = Path(base) / name
            if path.relative_to(store).as_posix() not in listed:
                path.unlink()
        for name in folders:
            folder = Path(base) / name
            if folder.is_symlink():
                folder.unlink()
            elif not any(folder.iterdir()):
                folder.rmdir()


def describe_files(store: Path, relative: list[str]) -> dict[str, FileEntry]:
    """Sizes and SHA-256 sums of files as they stand."""
    return {
        name: FileEntry(size=(store / name).stat().st_size, sha256=sha256_of(store / name)) for name in sorted(relative)
    }


def refuse_foreign_folder(store: Path) -> None:
    """Raise StoreError rather than clear a folder that is no store of ours."""
    if not store.exists() or (store / CURRENT).exists() or (store / STAGING).exists():
        return
    strangers = sorted(path.name for path in store.iterdir() if path.name != LOCK) if store.is_dir() else ["a file"]
    if strangers:
        raise StoreError(f"{store}: found {strangers[0]!r}, expected a store or an empty folder. Name a new folder.")
