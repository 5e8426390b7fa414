"""The next generation of a store where most stays as it is: files get a second name, none is read or copied."""

import os
from pathlib import Path

from ecgcohorts.errors import StoreError
from ecgcohorts.io.durable import make_folder, sha256_of, sync_folder, write_file
from ecgcohorts.store.schema import STAGING, FileEntry, Manifest, index_folder, rejects_name


def is_staged(folder: Path) -> bool:
    """Are there shards of an ingest that was planned or interrupted?"""
    return any(path.is_file() for path in (folder / STAGING).rglob("*"))


def refuse_interrupted(folder: Path) -> None:
    """Raise StoreError where shards are staged: a new generation would clear away what an ingest can still use."""
    if is_staged(folder):
        raise StoreError(
            f"{folder}: found an ingest that was planned or interrupted. Finish it by running it again; or give it up "
            f"by deleting {folder / STAGING}."
        )


def refuse_damaged(path: Path, entry: FileEntry) -> None:
    """Raise StoreError for a file that is not what was committed: copied, its damage would pass for the original."""
    if sha256_of(path) != entry.sha256:
        raise StoreError(f"{path}: content does not match its SHA-256. Restore the file from a copy first.")


def carry_over(
    folder: Path, manifest: Manifest, generation: int, without: tuple[str, ...] = ()
) -> dict[str, FileEntry]:
    """The files of a snapshot as a later one names them: all but those whose path begins with one of `without`.

    Files whose names hold the number of the generation get a second name.
    """
    before = manifest.generation
    renamed = {
        f"{index_folder(before)}/": f"{index_folder(generation)}/",
        rejects_name(before): rejects_name(generation),
    }
    files = {}
    for name, entry in manifest.files.items():
        if name.startswith(without):
            continue
        start = next((start for start in renamed if name.startswith(start)), "")
        new = renamed[start] + name.removeprefix(start) if start else name
        if new != name:
            link_file(folder / name, folder / new)
        files[new] = entry
    return files


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or where the disk knows no links, copy it; durable when this returns."""
    make_folder(target.parent)
    try:
        os.link(source, target)
    except OSError:
        write_file(target, source.read_bytes())
    else:
        sync_folder(target.parent)
