"""Deleting the snapshots before the one in force: on command only."""

from pathlib import Path

from ecgcohorts.store.reader import manifest_bytes
from ecgcohorts.store.remote.files import FolderFiles, StoreFiles
from ecgcohorts.store.remote.targets import target_at


def collect_garbage(store: str | Path) -> tuple[int, int]:
    """Delete all snapshots but the one in force, in a folder or below a URL. Return how many files and bytes went.

    What a store held before stays readable until this is called. Names that a file has in several generations count
    once, and their bytes only if the last of them goes. Raises LockHeld, and StoreError if there is no store.
    """
    target = target_at(store)
    manifest_bytes(target.files)  # is there a store? Locking would make its folder
    with target.lock():
        manifest, _ = manifest_bytes(target.files)
        before = _space(target.files)
        target.clear(manifest.model_copy(update={"earlier": ()}))
        after = _space(target.files)
    return len(before) - len(after), sum(before.values()) - sum(after.values())


def _space(files: StoreFiles) -> dict[str, int]:
    """Bytes by file; in a folder by inode, since a file may have several names."""
    if isinstance(files, FolderFiles):
        found = [path.lstat() for path in files.path.rglob("*") if path.is_file()]
        return {str(one.st_ino): one.st_size for one in found}
    return files.sizes(files.names())
