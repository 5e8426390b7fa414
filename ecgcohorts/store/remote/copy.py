"""Copy a store between folders and buckets, in any direction."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.io.place import Folder, Place, place_at
from ecgcohorts.store.commit import refuse_interrupted, refuse_nested
from ecgcohorts.store.manifests import manifest_bytes
from ecgcohorts.store.remote.destination import Destination, Progress
from ecgcohorts.store.schema import CURRENT, Manifest, Segment


@dataclass(frozen=True)
class CopyReport:
    """What was copied. `written` is False if the target had this very snapshot."""

    files: int  # sent; the others were there
    bytes: int
    of_files: int
    fingerprint: str
    written: bool


def copy_store(source: str | Path, target: str | Path, *, progress: Progress | None = None) -> CopyReport:
    """Copy the snapshot in force from a folder or URL to another, every file checked against its SHA-256.

    A target that holds an earlier snapshot of the same store gets what is new. The same call finishes an interrupted
    copy. progress(done, total) is called per file. Raises StoreError for a damaged source, or a target that holds anything
    else; LockHeld; ObjectStoreError.
    """
    origin = place_at(source)
    there = Destination(target)
    _refuse_same(origin, there.place)
    manifest, data = manifest_bytes(origin)
    manifest.check_files(origin)  # before the target is touched: a source with a hole is not half copied
    with there.lock():
        if isinstance(there.place, Folder):
            refuse_interrupted(there.folder)
        before = manifest_bytes(there.place) if there.place.sizes([CURRENT]) else None
        fingerprint = hashlib.sha256(data).hexdigest()
        if before is not None and hashlib.sha256(before[1]).hexdigest() == fingerprint:
            there.clear(before[0])  # what a copy left that was killed after its last step but one
            return CopyReport(0, 0, len(manifest.files), fingerprint, written=False)
        if before is not None:
            _refuse_another(there.place, before[0], manifest)
        try:
            sent = there.send(origin, before[0] if before else None, manifest, progress)
        except FileNotFoundError:
            raise StoreError(f"{origin}: changed while it was copied. Run the same command again.") from None
        there.put_in_force(manifest, data)
    size = sum(manifest.files[name].size for name in sent)
    return CopyReport(len(sent), size, len(manifest.files), fingerprint, written=True)


def _refuse_same(source: Place, target: Place) -> None:
    if isinstance(source, Folder) and isinstance(target, Folder):
        refuse_nested(source.path, target.path)
    elif source.path == target.path:
        raise SpecError(f"{source}: source and target are one place. Name another target.")


def _refuse_another(place: Place, before: Manifest, manifest: Manifest) -> None:
    """Raise StoreError unless `before` can be an earlier snapshot of the same store: nothing that it has may be lost."""
    # A store has no identity of its own, so it is known by what only grows: segments, columns, splits, removed patients.
    kept = (
        before.generation < manifest.generation
        and before.recipe == manifest.recipe
        and before.key_fingerprint == manifest.key_fingerprint
        and [_origin(one) for one in before.segments] == [_origin(one) for one in _first(manifest, before)]
        and set(before.index_columns) <= set(manifest.index_columns)
        and _splits(before) <= _splits(manifest)
        and set(before.removed) <= set(manifest.removed)
    )
    if not kept:
        raise StoreError(
            f"{place}: found another store, or a later snapshot of this one. Name a new place, or remove what is there."
        )


def _first(manifest: Manifest, before: Manifest) -> Sequence[Segment]:
    return manifest.segments[: len(before.segments)]


def _origin(segment: Segment) -> tuple[object, ...]:
    """Return what never changes of a segment: removing a patient gives it another name and other counts."""
    return segment.cohort, segment.first_row, segment.rows, segment.shard_records, segment.spec_sha256


def _splits(manifest: Manifest) -> set[str]:
    return {name.split("/")[1] for name in manifest.files if name.startswith("splits/") and name.count("/") > 1}
