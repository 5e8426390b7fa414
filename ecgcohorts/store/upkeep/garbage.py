"""Delete the snapshots before the one in force, on command only."""

from pathlib import Path

from ecgcohorts.io.place import Folder, Place
from ecgcohorts.store.commit import refuse_interrupted
from ecgcohorts.store.manifests import manifest_bytes
from ecgcohorts.store.remote.destination import Destination


def collect_garbage(store: str | Path) -> tuple[int, int]:
    """Delete all snapshots but the one in force, in a folder or below a URL. Return how many files and bytes went.

    Earlier snapshots stay readable until this is called. A file that has names in several generations counts once, and
    its bytes only if the last name goes. Raises LockHeld, and StoreError if there is no store.
    """
    target = Destination(store)
    manifest_bytes(target.place)  # is there a store? Locking would make its folder
    with target.lock():
        if isinstance(target.place, Folder):
            refuse_interrupted(target.folder)
        manifest, _ = manifest_bytes(target.place)
        # Measured, not added up from manifests: signals are shared between snapshots, and links between generations.
        before = _space(target.place)
        target.clear(manifest.model_copy(update={"earlier": ()}))
        after = _space(target.place)
    return len(before) - len(after), sum(before.values()) - sum(after.values())


def _space(place: Place) -> dict[str, int]:
    """Return bytes by file; in a folder by inode, since a file may have several names."""
    if isinstance(place, Folder):
        found = [path.lstat() for path in place.path.rglob("*") if path.is_file()]
        return {str(one.st_ino): one.st_size for one in found}
    return place.sizes()
