"""What exports share: a folder that appears whole, strips read some at a time, and the facts that may leave a store."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SourceError, SpecError, StoreError
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, CohortIndex, number_ids
from ecgcohorts.io.durable import make_folder, name_aside, sync_folder
from ecgcohorts.recording import MISSING
from ecgcohorts.store.reader import AnyStore

READ_AT_ONCE = 256  # strips; 16 MB
WHOLE = "recordings"  # name of the only part of an export that is not split
SIGNALS = "signals.json"  # facts that all strips of an export share

Progress = Callable[[int, int], None]
Parts = Mapping[str, CohortIndex]
_SEXES = np.array([*SEX_CODES, None], object)  # -1, unknown, is the last


@dataclass(frozen=True, eq=False)
class Samples:
    """Some recordings: strips int16 [recording, lead, time], and columns of one value for each, None if unknown."""

    strips: NDArray[np.int16]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.strips)

    @classmethod
    def read(cls, store: AnyStore, index: CohortIndex) -> Iterator[Self]:
        """Yield all recordings of an index, READ_AT_ONCE at a time."""
        for first in range(0, len(index), READ_AT_ONCE):
            part = slice(first, min(first + READ_AT_ONCE, len(index)))
            yield cls(store.read(index["row"][part]), _columns(index, part))


@contextmanager
def whole_folder(store: AnyStore, out: Path) -> Iterator[Path]:
    """Yield a folder to fill. It becomes OUT in one step, unless an error is raised."""
    refuse(store, out)
    make_folder(out.parent)
    aside = name_aside(out)
    aside.mkdir()
    try:
        yield aside
        # All files at once: syncing them one by one takes longer than writing them.
        os.sync()
        # Again, because another process may have made it meanwhile.
        refuse(store, out)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(out.parent)


def refuse(store: AnyStore, out: Path) -> None:
    """Raise SourceError if OUT exists or lies in the store."""
    if out.exists() or out.is_symlink():
        raise SourceError(f"{out}: exists already, and an export replaces nothing. Name a new one, or remove it first.")
    store.refuse_inside(out)


def signal_facts(store: AnyStore) -> dict[str, Any]:
    """Return the facts that are needed to read the integers."""
    recipe = store.recipe
    step: dict[str, Any] = {"lsb_uv": recipe.lsb_uv}
    if recipe.unit == "none":
        step = {"unit": recipe.unit, "scale_factor": recipe.lsb_uv / 1000}
    facts = step | {"missing": MISSING, "rate_hz": recipe.rate_hz, "leads": list(recipe.leads)}
    return facts | {"samples": recipe.strip_samples, "recipe": recipe.name, "store": store.fingerprint}


def choose_parts(
    store: AnyStore, parts: Parts | None, progress: Progress | None
) -> tuple[Parts, Callable[[int], None]]:
    """Return the parts to export, and a function that adds up recordings written and calls progress(done, total).

    Without parts, the whole index is one. Raises SpecError for a part without recordings, which no format of shards can
    express.
    """
    parts = {WHOLE: store.index} if parts is None else parts
    empty = [name for name, index in parts.items() if not len(index)]
    if empty:
        raise SpecError(
            f"found no recordings in {', '.join(empty)}, expected some in every part. Choose another split or cohort."
        )
    _refuse_paths(parts)
    total = sum(len(index) for index in parts.values())
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return parts, tell


def refuse_twins(index: CohortIndex) -> None:
    """Raise StoreError if two recordings of a cohort have one id, because cohorts and ids become the names of files."""
    _refuse_paths(index.cohorts)
    number = number_ids(index["recording_id"]) * len(index.cohorts) + index["cohort"]
    if len(np.unique(number)) < len(number):
        raise StoreError(
            "found two recordings of one id in a cohort. Ingest the cohort again, with a rule that tells them apart."
        )


def _refuse_paths(names: Iterable[str]) -> None:
    # A store's own names are checked when it is opened; an index or parts may also come from a caller.
    for name in names:
        if not name or name.startswith(".") or set(name) & {"/", "\\", "\0"}:
            raise StoreError(
                f"found a cohort or part named {name[:80]!r}, whose file would lie elsewhere. Give it a plain name."
            )


def _columns(index: CohortIndex, part: slice) -> dict[str, list[Any]]:
    # All that leaves a store about a recording. Dates, devices and sites stay behind.
    columns: dict[str, list[Any]] = {
        name: [bytes(value).hex() for value in index[name][part]] for name in ("recording_id", "patient_id")
    }
    columns["cohort"] = [index.cohorts[code] for code in index["cohort"][part].tolist()]
    columns["age"] = _known(index["age"][part])
    columns["sex"] = _SEXES[index["sex"][part]].tolist()
    for name in ("valid_start", "valid_stop", "quality"):
        columns[name] = index[name][part].tolist()
    for name in index.labels:
        columns[f"{LABEL}{name}"] = _known(index[f"{LABEL}{name}"][part])
    return columns


def _known(values: NDArray[np.floating]) -> list[float | None]:
    """Replace NaN, which JSON does not have, by None."""
    return [None if value != value else value for value in values.tolist()]
