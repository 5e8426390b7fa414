"""Open several stores of one recipe as one: hospitals do not share disks.

Rows, patient numbers and which of two copies stays follow the order in which the stores are named; so does the
fingerprint. Nothing is written, and no signal is read.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcohorts.errors import RecipeMismatch, StoreError
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex, number_ids
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.store.reader import AnyStore, Member, Store, open_store
from ecgcohorts.store.schema import Segment

_KEY_DIGITS = 8  # of a key's fingerprint in a cohort's name: enough to tell hospitals apart


@dataclass(frozen=True, eq=False, repr=False)
class UnionStore(AnyStore):
    """Several stores of one recipe, read as one. Made by `ec.open([a, b])`.

    Cohorts of one name, key and description are one cohort, in which the same pseudonym is the same patient. Cohorts of one
    name but two keys stay two; their names get the first digits of their key's fingerprint. Patients of different cohorts
    are never joined.
    A recording that an earlier store has too, by waveform or by id, is left out of the index; see `duplicates`.
    `days` is unknown for records of a patient whom an earlier store has too, because each store counts from its own first.
    """

    index: CohortIndex
    fingerprint: str  # SHA-256 over the members' fingerprints, in order
    n_duplicates: int  # recordings left out of the index because an earlier store has them
    _members: tuple[Member, ...]
    _recipe: Recipe
    _segments: tuple[Segment, ...]
    _segment_folders: tuple[str, ...]
    _stores: tuple[tuple[Store, Mapping[str, str]], ...] = field(repr=False)  # each with its cohorts' names here
    _duplicates: pd.DataFrame = field(repr=False)

    @property
    def path(self) -> Path | str:
        """The members' names, for people to read: there is no such folder."""
        return self.name

    @property
    def name(self) -> str:
        return " + ".join(member.place.name for member in self.members)

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def members(self) -> tuple[Member, ...]:
        return self._members

    @property
    def _left_out(self) -> Mapping[str, int]:
        return Counter(self._duplicates["cohort"].tolist())

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of all members, with rows and cohort names as they are here."""
        return self._segments

    @property
    def _folders(self) -> tuple[str, ...]:
        return self._segment_folders

    def rejects(self) -> pd.DataFrame:
        """Return what the members refused or found twice: cohort, recording_id, stage, reason, error, duplicate_of."""
        return pd.concat([_renamed(store.rejects(), name_of) for store, name_of in self._stores], ignore_index=True)

    def duplicates(self) -> pd.DataFrame:
        """Return one line per recording left out here, with the recording that stays in its place.

        Columns: cohort, recording_id, patient_id, reason (`waveform` or `recording_id`), and as the copy that stays
        duplicate_of_cohort, duplicate_of, duplicate_of_patient. Ids are pseudonyms as hexadecimal text.
        """
        return self._duplicates.copy()


@overload
def open_stores(paths: str | Path) -> Store: ...
@overload
def open_stores(paths: list[str] | list[Path] | list[str | Path] | tuple[str | Path, ...]) -> UnionStore: ...
def open_stores(paths: str | Path | Sequence[str | Path]) -> Store | UnionStore:
    """Open a store, or several stores of one recipe as one: `ec.open("a.zarr")`, `ec.open(["a.zarr", "b.zarr"])`.

    Checks that every file of each snapshot is there with its size. Raises StoreError with the remedy if a store is
    missing, damaged, of another version or named twice, and if one name stands for two descriptions of a cohort under
    one key; RecipeMismatch if the recipes differ.
    """
    if isinstance(paths, str | Path):
        return open_store(paths)
    if not paths:
        raise StoreError("the list of stores is empty. Name one or more.")
    return _join_stores([open_store(path) for path in paths])


def open_named(names: Sequence[str | Path]) -> AnyStore:
    """Open the store of a single name as it is, those of several as one: command lines always have a list."""
    return open_store(names[0]) if len(names) == 1 else open_stores(list(names))


def _join_stores(members: Sequence[Store]) -> UnionStore:
    """Open stores as one, in the order given. Raises as `open_stores` does."""
    _refuse_strangers(members)
    names = _cohort_names(members)
    first_rows = np.cumsum([0, *(member.n_rows for member in members)]).tolist()
    index, kept_for, reason = _join(members, names, first_rows)
    duplicates = _describe_copies(index, kept_for, reason)
    segments = [
        segment.model_copy(update={"cohort": name_of[segment.cohort], "first_row": first + segment.first_row})
        for member, name_of, first in zip(members, names, first_rows, strict=False)
        for segment in member.segments
    ]
    return UnionStore(
        index=index.take(kept_for < 0),
        fingerprint=hashlib.sha256(" ".join(member.fingerprint for member in members).encode()).hexdigest(),
        n_duplicates=len(duplicates),
        _members=tuple(
            Member(member.place, member.manifest, member.fingerprint, first)
            for member, first in zip(members, first_rows, strict=False)
        ),
        _recipe=members[0].recipe,
        _segments=tuple(segments),
        _segment_folders=tuple(folder for member in members for folder in member._folders),
        _stores=tuple(zip(members, names, strict=True)),
        _duplicates=duplicates,
    )


def _refuse_strangers(members: Sequence[Store]) -> None:
    first = members[0]
    seen: dict[object, Store] = {}
    for store in members:
        if store.recipe != first.recipe:
            mine, theirs = store.recipe.told_from(first.recipe)
            raise RecipeMismatch(
                f"{store.path}: found recipe {mine}, expected {theirs} as in {first.path}. "
                "Open stores of one recipe together, or ingest again with that recipe."
            )
        place = store.path.resolve() if isinstance(store.path, Path) else store.path
        # By place and by content: of a store named by a link or a copy every recording would be there twice.
        for mark in (place, store.fingerprint):
            if mark in seen:
                raise StoreError(
                    f"{store.path}: the store {seen[mark].path} is named a second time. Name different stores."
                )
            seen[mark] = store


def _cohort_names(members: Sequence[Store]) -> list[dict[str, str]]:
    """Return for each member what its cohorts are called here. Raises StoreError for two descriptions under one key."""
    keys: defaultdict[str, set[str]] = defaultdict(set)
    descriptions: dict[tuple[str, str], tuple[str, Path | str]] = {}
    for member in members:
        key = member.manifest.key_fingerprint
        for segment in member.segments:
            keys[segment.cohort].add(key)
            digest, path = descriptions.setdefault((segment.cohort, key), (segment.spec_sha256, member.path))
            if digest != segment.spec_sha256:
                raise StoreError(
                    f"{member.path}: cohort {segment.cohort!r} is described differently in {path}, so that one number may "
                    "stand for two patients. Ingest one of them again, under a name of its own or by the other's "
                    "description."
                )
    names = []
    meant: dict[str, tuple[str, str]] = {}
    for member in members:
        key = member.manifest.key_fingerprint
        shared = {name: f"{name}_{key[:_KEY_DIGITS]}" for name, found in keys.items() if len(found) > 1}
        names.append({name: shared.get(name, name) for name in (*member.index.cohorts, *_cohorts_of(member))})
        for name, called in names[-1].items():
            if meant.setdefault(called, (name, key)) != (name, key):
                raise StoreError(
                    f"{member.path}: two cohorts would both be called {called!r}. Ingest one under another name."
                )
    return names


def _cohorts_of(member: Store) -> set[str]:
    return {segment.cohort for segment in member.segments}


def _renamed(rejects: pd.DataFrame, name_of: Mapping[str, str]) -> pd.DataFrame:
    return rejects.assign(cohort=[name_of.get(name, name) for name in rejects["cohort"]])


def _join(
    members: Sequence[Store], names: list[dict[str, str]], first_rows: list[int]
) -> tuple[CohortIndex, NDArray[np.int64], NDArray[np.str_]]:
    """Join the indexes. Return all records by patient; per entry the entry it is a copy of, or -1; and what is the same."""
    cohorts, cohort = _merge_codes(
        [[name_of[name] for name in member.index.cohorts] for member, name_of in zip(members, names, strict=True)],
        [member.index["cohort"] for member in members],
    )
    sites, site = _merge_codes([member.index.sites for member in members], [m.index["site"] for m in members])
    devices, device = _merge_codes([member.index.devices for member in members], [m.index["device"] for m in members])
    every = sorted({name for member in members for name in member.index.columns})
    columns = {name: _column([member.index for member in members], name) for name in every}
    member_of = np.repeat(np.arange(len(members)), [len(member.index) for member in members])
    columns |= {"row": columns["row"] + np.array(first_rows)[member_of], "cohort": cohort, "site": site}
    columns["device"] = device
    columns["patient"] = _number_patients(members, cohort, member_of)
    _, first = np.unique(columns["patient"], return_index=True)
    # Days count from a patient's first record in a store, so that those of two stores have no common zero.
    columns["days"] = np.where(member_of > member_of[first][columns["patient"]], np.float32(np.nan), columns["days"])
    kept_for, reason = _find_copies(columns, cohort)
    # Patients contiguous, as in the index of one store: samplers rest on that. Stable, so that earlier stores come first.
    order = np.argsort(columns["patient"], kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    kept_for = np.where(kept_for < 0, -1, place[kept_for])[order]
    ordered = {
        name: column[order].astype(COLUMNS.get(name, column.dtype), copy=False) for name, column in columns.items()
    }
    return CohortIndex(ordered, cohorts, sites, devices), kept_for, reason[order]


def _merge_codes(names: Sequence[Sequence[str]], codes: Sequence[NDArray]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Merge lists of names in order of first appearance, and return it with all codes as places in it; -1 stays -1."""
    merged = list(dict.fromkeys(name for some in names for name in some))
    place = {name: number for number, name in enumerate(merged)}
    # The last element is -1, so that the code -1 picks it.
    parts = [np.array([*(place[name] for name in some), -1])[code] for some, code in zip(names, codes, strict=True)]
    return tuple(merged), np.concatenate(parts)


def _column(indexes: Sequence[CohortIndex], name: str) -> NDArray:
    """Join one column; label and quality columns are unknown in a store that never had them."""
    parts = [index.columns.get(name, np.full(len(index), np.nan, np.float32)) for index in indexes]
    column = np.concatenate(parts)
    return column if all(name in index.columns for index in indexes) else column.astype(np.float32)


def _number_patients(members: Sequence[Store], cohort: NDArray, member_of: NDArray) -> NDArray[np.int64]:
    """Number patients by first appearance, per record: the same pseudonym in the same cohort is one patient."""
    per_store = [member.index.patient_ids for member in members]
    first_patient = np.cumsum([0, *(len(ids) for ids in per_store)])[:-1]
    local = np.concatenate([member.index["patient"] for member in members]) + first_patient[member_of]
    cohort_of = np.zeros(sum(len(ids) for ids in per_store), np.int64)
    cohort_of[local] = cohort
    pseudonym = number_ids(np.concatenate(per_store))
    # Pseudonym and cohort in one number: cheaper to sort than rows of two columns.
    _, first, inverse = np.unique(
        pseudonym * (cohort_of.max(initial=0) + 1) + cohort_of, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[inverse][local]


def _find_copies(columns: dict[str, NDArray], cohort: NDArray) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Return for each record the one that stays in its place, or -1 if it stays itself; and what is the same in both.

    This follows an ingest into one store: an id met before is passed over, then a waveform met before is a copy. A store
    holds neither twice, so the one that stays is in an earlier store.
    """
    kept_for = np.full(len(cohort), -1)
    reason = np.full(len(cohort), "", "U12")
    recording = number_ids(columns["recording_id"]) * (int(cohort.max(initial=0)) + 1) + cohort
    for name, keys in (("recording_id", recording), ("waveform", number_ids(columns["waveform_digest"]))):
        alive = np.flatnonzero(kept_for < 0)
        _, first, inverse = np.unique(keys[alive], return_index=True, return_inverse=True)
        again = first[inverse] != np.arange(len(alive))
        kept_for[alive[again]] = alive[first[inverse[again]]]
        reason[alive[again]] = name
    # The record kept for a copy by id may turn out to be a copy by waveform: then both point at the one that stays.
    is_copy_of_copy = (kept_for >= 0) & (kept_for[kept_for] >= 0)
    return np.where(is_copy_of_copy, kept_for[kept_for], kept_for), reason


def _describe_copies(index: CohortIndex, kept_for: NDArray[np.int64], reason: NDArray[np.str_]) -> pd.DataFrame:
    copies = np.flatnonzero(kept_for >= 0)
    copies = copies[np.argsort(index["row"][copies])]
    kept = kept_for[copies]
    names = np.array(index.cohorts, object)
    return pd.DataFrame(
        {
            "cohort": names[index["cohort"][copies]],
            "recording_id": _hex(index["recording_id"][copies]),
            "patient_id": _hex(index["patient_id"][copies]),
            "reason": reason[copies],
            "duplicate_of_cohort": names[index["cohort"][kept]],
            "duplicate_of": _hex(index["recording_id"][kept]),
            "duplicate_of_patient": _hex(index["patient_id"][kept]),
        },
        dtype=object,
    )


def _hex(ids: NDArray[np.uint8]) -> list[str]:
    return [row.tobytes().hex() for row in ids]
