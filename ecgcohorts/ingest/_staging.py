"""What an interrupted run or another process left in a store's staging folder, and whether a plan still fits the store."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ecgcohorts.errors import StoreError
from ecgcohorts.ingest.encode import EncodeTask, Staged
from ecgcohorts.ingest.plan import Partition, PlanHeader
from ecgcohorts.ingest.runners import WorkerDied
from ecgcohorts.io.place import Folder
from ecgcohorts.store.commit import remove_unlisted
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import CURRENT, Current


def _is_done(header: PlanHeader, partition: Partition) -> bool:
    return Staged(header.staging, partition).is_done(partition.rows, header.shard_path(partition))


def _clear(header: PlanHeader, before: Store | None, done: Iterable[Partition], under_way: tuple[str, ...]) -> None:
    """Remove what an interrupted run left, except finished and begun shards of this very plan and those of plan files."""
    keep = set()
    numbers = {partition.number for partition in done}
    for partition in header.partitions:
        staged, moved = Staged(header.staging, partition), header.shard_path(partition)
        mine = (staged.shard, staged.result, moved) if partition.number in numbers else (staged.begun, staged.rows)
        keep |= {path.relative_to(header.folder).as_posix() for path in mine}
    remove_unlisted(Folder(header.folder), before.manifest if before else None, frozenset(keep), under_way)


def _partition_of(header: PlanHeader, task: EncodeTask | int) -> Partition:
    return task.partition if isinstance(task, EncodeTask) else header.partition(task)


def _cause_of_death(header: PlanHeader, death: WorkerDied) -> str:
    partition = _partition_of(header, death.task)
    stopped = Staged(header.staging, partition).stopped_at()
    where = f", at recording {stopped}" if stopped else ""
    return (
        f"partition {partition.number}{where}: its process {death.how}. Run again, with fewer processes if memory is "
        "short: what is encoded is kept."
    )


def _fingerprint_of(folder: Path) -> str:
    """Return the SHA-256 of the manifest in force, or "" where there is no store. This is cheap: it reads no index."""
    try:
        return Current.model_validate_json((folder / CURRENT).read_bytes()).sha256
    except FileNotFoundError:
        return ""
    except ValidationError:
        raise StoreError(f"{folder}: CURRENT is damaged. Restore the store from a copy.") from None


def _refuse_stale(header: PlanHeader) -> None:
    if _fingerprint_of(header.folder) != header.base:
        raise StoreError(
            f"{header.folder}: the store has another snapshot than this plan was made for: the plan is committed already, "
            "or another writer was faster. Plan again: ecgcohorts plan."
        )


def _beside(store: Path) -> Literal["", "others", "store"]:
    """Say what the folder around a store holds: another machine sees the same, or it has not mounted it."""
    if store.is_dir():
        return "store"
    return "others" if store.parent.is_dir() and any(store.parent.iterdir()) else ""


def _refuse_unmounted(header: PlanHeader) -> None:
    """Raise StoreError where a store would be made below the point at which a disk should be mounted."""
    store, rank = header.folder, ("", "others", "store")
    if not store.parent.is_dir() or rank.index(_beside(store)) < rank.index(header.beside):
        raise StoreError(
            f"{store}: this machine does not see the folder around it as the one that made the plan did. Mount that disk, or "
            "plan again."
        )
