"""What of the snapshot before goes on in the next one: all of it, or in an update all but the cohorts laid out anew."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index.cohort_index import LABEL, UNKNOWN, CohortIndex
from ecgcohorts.index.splits import Split
from ecgcohorts.ingest._ids import _places_of, as_keys
from ecgcohorts.ingest.plan import PlanHeader, Refusal
from ecgcohorts.store.reader import Store
from ecgcohorts.store.schema import FileEntry, Segment, index_folder
from ecgcohorts.store.splits import load_split, split_names, write_split
from ecgcohorts.store.upkeep.lookup import REMOVED


@dataclass(frozen=True, eq=False)
class _Ground:
    """The snapshot before, and where in the rows of the next one the segments of a plan come to stand."""

    before: Store | None
    header: PlanHeader
    replaced: frozenset[str]  # cohorts whose earlier segments go
    segments: tuple[Segment, ...]  # those that stay, where they will stand
    first_rows: Mapping[str, int]  # of the new segments, by cohort
    order: tuple[str, ...]  # of an update: all cohorts by place
    index: CohortIndex | None  # of what stays, rows as they will be

    @classmethod
    def of(cls, before: Store | None, header: PlanHeader) -> "_Ground":
        planned = {cohort.name: cohort.rows for cohort in header.cohorts}
        replaced = frozenset(planned if header.update else ())
        segments: list[Segment] = []
        first_rows: dict[str, int] = {}
        order: dict[str, None] = {}
        at = 0
        for segment in before.segments if before else ():
            order[segment.cohort] = None
            if segment.cohort not in replaced:
                segments.append(segment.model_copy(update={"first_row": at}))
                at += segment.rows
            elif segment.cohort not in first_rows:
                first_rows[segment.cohort] = at
                at += planned[segment.cohort]
        for name, rows in planned.items():
            order[name] = None
            if name not in first_rows:
                first_rows[name] = at
                at += rows
        index = before.index if before else None
        if before is not None and replaced:
            index = _moved(before, segments, replaced)
        return cls(before, header, replaced, tuple(segments), first_rows, tuple(order), index)

    @property
    def n_rows(self) -> int:
        return sum(one.rows for one in self.segments) + self.header.n_rows

    @property
    def another(self) -> bool:
        """Whether a cohort had another description before."""
        mine = self.header.spec.sha256
        return any(one.spec_sha256 != mine for one in self._gone)

    @property
    def _gone(self) -> tuple[Segment, ...]:
        return tuple(one for one in self.before.segments if one.cohort in self.replaced) if self.before else ()

    @property
    def removed(self) -> tuple[str, ...]:
        before = self.before.manifest.removed if self.before else ()
        return tuple(sorted({*before, *self.header.removed})) if self.replaced else before

    def rejects(self) -> pd.DataFrame | None:
        table = self.before.rejects() if self.before else None
        return table if table is None or not self.replaced else table[~table["cohort"].isin(self.replaced)]

    def files(self) -> dict[str, FileEntry]:
        """Return the files that stay. Every generation writes index and rejects anew; an update gives splits other rows."""
        if self.before is None:
            return {}
        gone = [
            f"{index_folder(self.before.manifest.generation)}/",
            "rejects-",
            *(f"{one.folder}/" for one in self._gone),
        ]
        if self.replaced:
            gone.append("splits/")
        return {name: one for name, one in self.before.manifest.files.items() if not name.startswith(tuple(gone))}

    def pieces(self, anew: Callable[[str], dict[str, NDArray]], names: Sequence[list[str]]) -> list[dict[str, NDArray]]:
        """Return the columns of all cohorts in the order of an update. Names of those that stay are added to `names`.

        anew: returns the columns of a cohort that is laid out anew, and adds its names.
        """
        index, pieces = self.index, []
        assert index is not None
        for cohort in self.order:
            if cohort in self.replaced:
                columns = anew(cohort)
                pieces.append(columns | self._own_labels(columns))
                continue
            mine = index.take(index["cohort"] == index.cohort_code(cohort))
            names[0].append(cohort)
            columns = dict(mine.columns) | {"cohort": np.full(len(mine), len(names[0]) - 1, np.int32)}
            for column, own, known in (("site", index.sites, names[1]), ("device", index.devices, names[2])):
                columns[column] = _recoded(columns[column], own, known)
            del columns["patient"]
            pieces.append(columns)
        labels = {
            name for piece in pieces for name in piece if name.startswith(LABEL) and np.isfinite(piece[name]).any()
        }
        for piece in pieces:  # a label of which no value is left would stay for good
            for name in [name for name in piece if name.startswith(LABEL)]:
                if name not in labels and name.removeprefix(LABEL) not in self.header.labels:
                    del piece[name]
        return pieces

    def _own_labels(self, columns: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Return the labels that a person added to recordings of a cohort laid out anew, by their ids.

        By another description there are none: they cannot be told from labels that the one before described.
        """
        if self.before is None or self.another or not len(self.before.index):
            return {}
        index = self.before.index
        place = _places_of(columns["recording_id"], index["recording_id"])
        # Of equal recordings another one may be kept now; what was said of one holds for all.
        same = _places_of(columns["waveform_digest"], index["waveform_digest"])
        place = np.where(place < 0, same, place)
        labels = [
            name
            for name in index.columns
            if name.startswith(LABEL) and name.removeprefix(LABEL) not in self.header.labels
        ]
        return {
            name: np.where(place >= 0, index[name][place], np.float32(np.nan)).astype(np.float32) for name in labels
        }

    def check_found(self, ids: Sequence[NDArray[np.uint8]], digests: NDArray[np.uint8]) -> None:
        """Raise StoreError for a stored recording that another description does not show, by id or by its samples.

        ids: of all inputs of the plan. digests: of the waveforms that the next snapshot has.
        """
        if self.before is None or not self.another:
            return
        index = self.before.index
        mine = np.isin(index["cohort"], [code for code, name in enumerate(index.cohorts) if name in self.replaced])
        unseen = mine & ~np.isin(
            as_keys(index["recording_id"]), as_keys(np.concatenate([*ids, np.zeros((0, 16), np.uint8)]))
        )
        lost = int((~np.isin(as_keys(index["waveform_digest"][unseen]), as_keys(digests))).sum())
        if lost:
            raise StoreError(
                f"{self.before.path}: {lost:,} recordings of the store are not in this source, neither by their ids nor by "
                "their samples; nothing was changed. Name the source of the whole cohort, or ingest into a new store."
            )

    def must_forget(self, refused: Sequence[Refusal]) -> bool:
        """Tell whether a recording that is stored now is to stay out from now on, also of earlier snapshots."""
        if self.before is None or not self.replaced:
            return False
        names = b"".join(one.recording_id for one in refused if one.reason == REMOVED)
        gone = as_keys(np.frombuffer(names, np.uint8))
        return bool(np.isin(as_keys(self.before.index["recording_id"]), gone).any())

    def write_splits(self, index: CohortIndex) -> tuple[list[str], list[str]]:
        """Write the splits that are kept for other rows. Return the files, and the names of splits that hold no longer.

        A split that now has a patient on two sides is left out: whoever trusts it would test on training patients.
        """
        written, lost = [], []
        for name in split_names(self.before) if self.before is not None and self.replaced else ():
            assert self.before is not None
            split = load_split(self.before, name)
            if not _is_disjoint(split, index) and _is_disjoint(split, self.before.index):
                lost.append(name)
                continue
            folder, generation = self.header.folder, self.header.generation
            written += write_split(folder, generation, split.definition, split.column(index), index, self.n_rows)
        return list(dict.fromkeys(written)), lost


def _is_disjoint(split: Split, index: CohortIndex) -> bool:
    try:
        split.assert_disjoint(index)
    except SpecError:
        return False
    return True


def _moved(before: Store, segments: Sequence[Segment], replaced: frozenset[str]) -> CohortIndex:
    """Return the index of what stays, with the rows that `segments` give it."""
    index = before.index
    rows = index["row"].copy()
    stays = ~np.isin(index["cohort"], [code for code, name in enumerate(index.cohorts) if name in replaced])
    now = {one.folder: one.first_row for one in segments}
    for segment in before.segments:
        if segment.folder in now:
            inside = (index["row"] >= segment.first_row) & (index["row"] < segment.first_row + segment.rows)
            rows[inside] += now[segment.folder] - segment.first_row
    return replace(index, columns={**index.columns, "row": rows}).take(stays)


def _recoded(codes: NDArray[np.int32], own: Sequence[str], names: list[str]) -> NDArray[np.int32]:
    """Translate codes into `own` to codes into `names`; names not there yet are appended in order of appearance."""
    used, first = np.unique(codes, return_index=True)
    known = {name: number for number, name in enumerate(names)}
    new = np.full(len(own) + 1, UNKNOWN, np.int32)  # the last is for the code -1
    for code in used[np.argsort(first)].tolist():
        if code != UNKNOWN:
            if own[code] not in known:
                known[own[code]] = len(names)
                names.append(own[code])
            new[code] = known[own[code]]
    return new[codes]
