"""Check the files of a snapshot against its manifest: are they there, of the right size, with the right content?"""

import hashlib
from pathlib import Path

from ecgcohorts.errors import StoreError, is_of_machine
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.io.place import Folder, Place, place_at
from ecgcohorts.store.schema import FileEntry, Manifest


def read_file(place: Place, manifest: Manifest, name: str) -> bytes:
    """Read a whole file of a snapshot, its size and SHA-256 checked. Raises StoreError for any other content."""
    # Only what the manifest names is read, so that nothing reaches a parser before its SHA-256 was checked.
    entry = manifest.files.get(name)
    if entry is None:
        raise StoreError(f"{place}: the manifest names no {name}. Restore the store from a copy.")
    try:
        data = place.get(name, entry.size)
    except OSError as error:
        if is_of_machine(error):  # a full table of open files is no damage of the store
            raise
        what = error.strerror or "no such object"
        raise StoreError(f"{place}/{name}: found no readable file ({what}). Restore it from a copy.") from None
    if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise StoreError(f"{place}/{name}: content does not match its checksum. Restore it from a copy.")
    return data


def check_files(place: Place, manifest: Manifest) -> None:
    """Raise StoreError if a file of the snapshot is missing or has another size: absence must not read as data.

    A bucket is pinned to the objects that are found: signals read later come from these or not at all.
    """
    sizes = place.pin(manifest.files)
    for name, entry in manifest.files.items():
        size = sizes.get(name)
        if size != entry.size:
            found = "no file" if size is None else f"{size} bytes"
            raise StoreError(
                f"{place}/{name}: found {found}, expected {entry.size} bytes. Restore the file, or ingest again."
            )


def refuse_damaged(path: Path, entry: FileEntry) -> None:
    """Raise StoreError for a file that is not what was committed: copied, its damage would pass for the original."""
    if sha256_of(path) != entry.sha256:
        raise StoreError(f"{path}: content does not match its SHA-256. Restore the file from a copy first.")


def describe_files(store: Path, relative: list[str]) -> dict[str, FileEntry]:
    """Return sizes and SHA-256 sums of files as they stand."""
    return {
        name: FileEntry(size=(store / name).stat().st_size, sha256=sha256_of(store / name)) for name in sorted(relative)
    }


def folder_of(store: str | Path) -> Path:
    """Return the folder of a store that is to be changed where it stands. Raises StoreError for one in a bucket."""
    place = place_at(store)
    if isinstance(place, Folder):
        return place.path
    raise StoreError(
        f"{place}: a store in an object store cannot be changed there. Copy it down, change the copy, copy that back: "
        f"ecgcohorts copy {place} FOLDER; ecgcohorts copy FOLDER {place}"
    )
