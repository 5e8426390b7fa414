"""What the training formats hold of a recording, and how strips are read for them: some at a time, in index order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index.cohort_index import LABEL, SEX_CODES, CohortIndex, number_ids
from ecgcohorts.recording import MISSING
from ecgcohorts.store.reader import AnyStore

READ_AT_ONCE = 256  # strips; 16 MB
WHOLE = "recordings"  # name of the one part of what is not split
SIGNALS = "signals.json"  # what all strips of an export have in common

Progress = Callable[[int, int], None]
Parts = Mapping[str, CohortIndex]
_SEXES = np.array([*SEX_CODES, None], object)  # -1, unknown, is the last


@dataclass(frozen=True, eq=False)
class Samples:
    """Some recordings: strips int16 [recording, lead, time], and by name one value each, None where it is unknown."""

    strips: NDArray[np.int16]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.strips)


def signal_facts(store: AnyStore) -> dict[str, Any]:
    """What says how to read the integers."""
    recipe = store.recipe
    facts = {"lsb_uv": store.lsb_uv, "missing": MISSING, "rate_hz": recipe.rate_hz, "leads": list(recipe.leads)}
    return facts | {"samples": recipe.strip_samples, "recipe": recipe.name, "store": store.fingerprint}


def read_samples(store: AnyStore, index: CohortIndex) -> Iterator[Samples]:
    """All recordings of an index, READ_AT_ONCE at a time."""
    for first in range(0, len(index), READ_AT_ONCE):
        part = slice(first, min(first + READ_AT_ONCE, len(index)))
        yield Samples(store.read(index["row"][part]), _columns(index, part))


def counted(parts: Parts, progress: Progress | None) -> Callable[[int], None]:
    """Turn numbers of recordings written into (done, total) of all parts."""
    total = sum(len(index) for index in parts.values())
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return tell


def refuse_empty(parts: Parts) -> None:
    """Raise SpecError for a part without recordings: neither format can say so."""
    empty = [name for name, index in parts.items() if not len(index)]
    if empty:
        raise SpecError(
            f"found no recordings in {', '.join(empty)}, expected some in every part. Choose another split or cohort."
        )


def refuse_twins(index: CohortIndex) -> None:
    """Raise StoreError where a cohort has two recordings of one id, which are the names of what is written."""
    number = number_ids(index["recording_id"]) * len(index.cohorts) + index["cohort"]
    if len(np.unique(number)) < len(number):
        raise StoreError(
            "found two recordings of one id in a cohort. Ingest the cohort again, with a rule that tells them apart."
        )


def _columns(index: CohortIndex, part: slice) -> dict[str, list[Any]]:
    """Nothing else about a recording leaves the store."""
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
    """NaN, which JSON does not have, as None."""
    return [None if value != value else value for value in values.tolist()]
