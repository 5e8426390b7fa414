"""A store from one place to another: between folders and object stores, either way."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.store.commit import refuse_nested
from ecgcohorts.store.reader import check_files, manifest_bytes
from ecgcohorts.store.remote.files import StoreFiles, files_at
from ecgcohorts.store.remote.targets import Progress, send, target_at
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
    """Copy the snapshot in force, every file checked against its SHA-256. Each may be a folder or a URL.

    A target that holds an earlier snapshot of the same store gets what is new. An interrupted copy is finished by the
    same call. progress(done, total) is called per file. Raises StoreError for a damaged source, or a target that holds
    anything else; LockHeld; ObjectStoreError.
    """
    origin = files_at(source)
    there = target_at(target)
    _refuse_same(origin, there.files)
    manifest, data = manifest_bytes(origin)
    check_files(origin, manifest)
    with there.lock():
        before = _in_force(there.files)
        fingerprint = hashlib.sha256(data).hexdigest()
        if before is not None and hashlib.sha256(before[1]).hexdigest() == fingerprint:
            there.clear(before[0])  # of a copy that was killed when it was all but done
            return CopyReport(0, 0, len(manifest.files), fingerprint, written=False)
        if before is not None:
            _refuse_another(there.files.path, before[0], manifest)
        try:
            sent = send(origin, there, before[0] if before else None, manifest, data, progress=progress)
        except FileNotFoundError:
            raise StoreError(f"{origin.path}: changed while it was copied. Run the same command again.") from None
    size = sum(manifest.files[name].size for name in sent.names)
    return CopyReport(len(sent.names), size, len(manifest.files), sent.fingerprint, written=True)


def _refuse_same(source: StoreFiles, target: StoreFiles) -> None:
    if isinstance(source.path, Path) and isinstance(target.path, Path):
        refuse_nested(source.path, target.path)
    elif source.path == target.path:
        raise SpecError(f"{source.path}: found one place twice, expected two. Name another target.")


def _in_force(files: StoreFiles) -> tuple[Manifest, bytes] | None:
    return manifest_bytes(files) if files.sizes([CURRENT]) else None


def _refuse_another(place: Path | str, before: Manifest, manifest: Manifest) -> None:
    """Raise StoreError unless `before` can be an earlier snapshot of the same store: nothing that it has may be lost."""
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
            f"{place}: found another store, or a later snapshot of this one, expected nothing or an earlier snapshot. "
            "Name a new place, or remove what is there."
        )


def _first(manifest: Manifest, before: Manifest) -> Sequence[Segment]:
    return manifest.segments[: len(before.segments)]


def _origin(segment: Segment) -> tuple[object, ...]:
    """What stays of a segment for ever: removing a patient gives it another name and other counts."""
    return segment.cohort, segment.first_row, segment.rows, segment.shard_records, segment.spec_sha256


def _splits(manifest: Manifest) -> set[str]:
    return {name.split("/")[1] for name in manifest.files if name.startswith("splits/") and name.count("/") > 1}
