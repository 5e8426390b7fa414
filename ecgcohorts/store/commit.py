"""Publishing a snapshot: one writer at a time, and CURRENT replaced last.

Until CURRENT is replaced, nothing that a reader sees has changed; from then on, everything has.
Earlier snapshots stay until `collect_garbage`; what no manifest names is garbage and goes at the next write.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ecgcohorts.errors import LockHeld, StoreError
from ecgcohorts.io.durable import machine_errors, make_folder, sha256_of, write_file
from ecgcohorts.store.generations import is_staged
from ecgcohorts.store.reader import check_files, files_named, manifest_bytes
from ecgcohorts.store.remote.files import FolderFiles, StoreFiles
from ecgcohorts.store.schema import CURRENT, LOCK, OUR_PATHS, Current, FileEntry, Manifest, manifest_name


@contextlib.contextmanager
def writer_lock(store: Path) -> Iterator[None]:
    """Hold the store's one write lock. The kernel drops it when the process ends, however it ends.

    Raises LockHeld at once if another process holds it, and MachineError for calls that fail while it is held.
    """
    with machine_errors(store):
        make_folder(store)
        with (store / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockHeld(f"{store}: another process is writing to this store. Wait for it, or stop it.") from None
            yield


def publish(store: Path, manifest: Manifest, *, forget: bool = False) -> str:
    """Make `manifest` the snapshot in force and return its fingerprint. Earlier ones stay, unless they are to be forgotten.

    Raises StoreError, and changes nothing a reader sees, if a file that the manifest names is not there whole.
    """
    alone = manifest.model_copy(update={"earlier": ()})
    following = alone if forget else after_those_before(FolderFiles(store), manifest)
    return put_in_force(store, following, following.to_bytes())


def put_in_force(store: Path, manifest: Manifest, data: bytes) -> str:
    """As `publish`, of a manifest whose bytes are given."""
    check_files(FolderFiles(store), manifest)
    path = store / manifest_name(manifest.generation)
    write_file(path, data)
    current = current_of(manifest, data)
    write_file(store / CURRENT, current.model_dump_json().encode())
    remove_unlisted(store, manifest)
    return current.sha256


def after_those_before(files: StoreFiles, manifest: Manifest) -> Manifest:
    """A manifest that names the snapshot in force there, and those before it that are still there."""
    if not files.sizes([CURRENT]):
        return manifest.model_copy(update={"earlier": ()})
    before, data = manifest_bytes(files)
    there = files.sizes([one.manifest for one in before.earlier])
    earlier = (current_of(before, data), *(one for one in before.earlier if one.manifest in there))
    return manifest.model_copy(update={"earlier": earlier})


def current_of(manifest: Manifest, data: bytes) -> Current:
    """What CURRENT says when this manifest is in force."""
    return Current(manifest=manifest_name(manifest.generation), sha256=hashlib.sha256(data).hexdigest())


def remove_unlisted(
    store: Path, manifest: Manifest | None, keep: frozenset[str] = frozenset(), keep_folders: tuple[str, ...] = ()
) -> None:
    """Delete files of our own layout that are neither the snapshot's nor an earlier one's, and folders left empty.

    `keep`: paths under way; `keep_folders`: folders, each with a slash at its end, that others are writing to.

    Symbolic links are neither followed nor removed, and files of other names never touched: `refuse_foreign_folder`
    stops a run before it meets any.
    """
    listed = {LOCK, *keep}
    if manifest is not None:
        listed |= {CURRENT, *files_named(FolderFiles(store), manifest)}
    for base, folders, files in os.walk(store, topdown=False):
        for name in files:
            path = Path(base) / name
            relative = path.relative_to(store).as_posix()
            if relative.startswith(keep_folders):
                continue
            if relative not in listed and is_ours(relative) and not path.is_symlink():
                path.unlink()
        for name in folders:
            folder = Path(base) / name
            ours = is_ours(folder.relative_to(store).as_posix() + "/")
            if ours and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()


def clear_leftovers(store: Path, manifest: Manifest) -> None:
    """Delete what a killed command left, unless an ingest is staged, which can still use it."""
    if not is_staged(store):
        remove_unlisted(store, manifest)


def is_ours(relative: str) -> bool:
    """Is this the path of a file, or with a slash at its end of a folder, that a store may hold?"""
    return OUR_PATHS.fullmatch(relative) is not None


def describe_files(store: Path, relative: list[str]) -> dict[str, FileEntry]:
    """Sizes and SHA-256 sums of files as they stand."""
    return {
        name: FileEntry(size=(store / name).stat().st_size, sha256=sha256_of(store / name)) for name in sorted(relative)
    }


def refuse_foreign_folder(store: Path) -> None:
    """Raise StoreError rather than write into a folder that holds anything but a store, whole or under way."""
    if not store.exists():
        return
    if not store.is_dir():
        raise StoreError(f"{store}: found a file, expected a store or an empty folder. Name a new folder.")
    for base, folders, files in os.walk(store):
        names = [*files, *(f"{name}/" for name in folders)]
        for name in names:
            relative = (Path(base) / name).relative_to(store).as_posix() + ("/" if name.endswith("/") else "")
            if not is_ours(relative):
                raise StoreError(
                    f"{store}: found {relative!r}, expected a store or an empty folder. Move it away, or name a new folder."
                )


def refuse_nested(source: Path, store: Path) -> None:
    """Raise StoreError if the store would lie in its own input, or the input in the store."""
    inner, outer = source.resolve(), store.resolve()
    if inner == outer or inner in outer.parents or outer in inner.parents:
        raise StoreError(f"{store}: found the input {source} inside it or around it, expected two folders apart.")
