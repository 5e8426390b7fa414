"""Keep splits in a store by name: one code a row, and what it means, beside the signals and as safe as they are.

STORE/splits/<name>/<generation>/zarr.json     the definition, as an attribute
STORE/splits/<name>/<generation>/part/         int8 [row] place in the definition's parts, -1 for none
STORE/splits/<name>/<generation>/mark/         uint16 [row] start of the recording's pseudonym: are rows still the same?

Rows that come later are in no part. Codes are kept by row and not by recording id: 80 MB less for 5 million recordings,
and nothing of a patient who is removed stays behind.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ecgcohorts.errors import KeyMismatch, SpecError, StoreError, did_you_mean
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.index.rules import UNASSIGNED, SplitDefinition
from ecgcohorts.index.splits import Split
from ecgcohorts.io.durable import write_file
from ecgcohorts.io.place import Folder
from ecgcohorts.store.columns import read_column, write_column
from ecgcohorts.store.commit import (
    changing,
    clear_leftovers,
    publish,
    refuse_interrupted,
    remove_unlisted,
)
from ecgcohorts.store.reader import AnyStore, Member, Store
from ecgcohorts.store.schema import FileEntry, Manifest, group_metadata

_GROUP = "zarr.json"


def save_split(path: str | Path, split: Split, *, replace: bool = False) -> str:
    """Keep a split in a store under its name, and return the store's new fingerprint. No signal is read or written.

    Saving the same split again changes nothing, but clears away what a killed run left. Raises StoreError if the store
    has another one of that name (unless `replace`), if an ingest was interrupted, or if the split has recordings that the
    store does not have; LockHeld if another process is writing.
    """
    with changing(path) as (folder, store):
        # The same again is no change: a script that saves its split at the start may run twice.
        kept = load_split(store, split.name) if split.name in split_names(store) else None
        if kept is not None and _equal(kept, split, store.index):
            clear_leftovers(folder, store.manifest)
            return store.fingerprint
        if kept is not None and not replace:
            raise StoreError(
                f"{folder}: another split is called {split.name!r}. Save yours under another name, or with replace=True "
                "(--replace)."
            )
        code = split.column(store.index)
        if (code >= 0).sum() != len(split.codes):
            strange = len(split.codes) - int((code >= 0).sum())
            raise StoreError(
                f"{folder}: {strange} recordings of split {split.name!r} are not in this store. Save its part of the split: "
                "split.on(store.index)."
            )
        refuse_interrupted(folder)
        remove_unlisted(Folder(folder), store.manifest)
        return publish(folder, _next_manifest(folder, store, split.definition, code))


def load_split(store: AnyStore, name: str) -> Split:
    """Load a split by name, for the recordings it knew when it was saved.

    Several stores opened as one give the split that each of them keeps; recordings of a store without it are in no part.
    Raises SpecError if there is none of that name, StoreError if it is damaged, if its rows are no longer the same, or if
    two stores mean different splits by that name.
    """
    kept = [(member, _generations(member)) for member in store.members]
    parts = [_load(member, store.index, name, found[name]) for member, found in kept if name in found]
    if not parts:
        known = split_names(store)
        there = ", ".join(known) or "none there"
        raise SpecError(f"{store.path}: found no split {name!r}, expected one of: {there}.{did_you_mean(name, known)}")
    if any(part.definition != parts[0].definition for part in parts):
        raise StoreError(f"{store.path}: these stores keep different splits {name!r}. Load that of each by itself.")
    ids, codes = ([getattr(part, field) for part in parts] for field in ("recording_id", "codes"))
    return Split(parts[0].definition, np.concatenate(ids), np.concatenate(codes))


def part_of(store: AnyStore, words: str) -> CohortIndex:
    """Return the recordings of one part of a split, named `SPLIT=PART`. Raises SpecError if there is none."""
    name, _, part = words.partition("=")
    parts = load_split(store, name).of(store.index)
    if part not in parts:
        known = ", ".join(parts)
        raise SpecError(
            f"found no part {part!r} in split {name!r}, expected one of {known}.{did_you_mean(part, parts)}"
        )
    return parts[part]


def _home(name: str, generation: int) -> str:
    return f"splits/{name}/{generation:06d}"


def _load(member: Member, index: CohortIndex, name: str, generation: int) -> Split:
    """Load the split of one store, for the entries of the index that are in it."""
    home = _home(name, generation)
    folder = f"{member.path}/{home}"
    try:
        attributes = json.loads(member.manifest.read_file(member.place, f"{home}/{_GROUP}"))["attributes"]
        definition = SplitDefinition.model_validate(attributes["split"])
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError):
        raise StoreError(f"{folder}: the split's definition is damaged. Restore it from a copy.") from None
    if definition.name != name:
        raise StoreError(f"{folder}: this split calls itself {definition.name!r}. Restore it from a copy.")
    # No longer than the store: hundreds of chunks of nothing pack to some kB, and unpack to gigabytes.
    rows_there = sum(segment.rows for segment in member.manifest.segments)
    part, mark = (read_column(member.place, member.manifest, f"{home}/{one}", rows_there) for one in ("part", "mark"))
    rows = index["row"] - member.first_row
    known = np.flatnonzero((rows >= 0) & (rows < len(part)))
    # Two bytes a recording are enough: another recording has the same by chance once in 65,536, and all must match.
    if not np.array_equal(mark[rows[known]], _marks(index)[known]):
        raise StoreError(f"{folder}: the split was made for other rows. Make it again: its definition is in {_GROUP}.")
    code = part[rows[known]]
    if part.dtype != np.int8 or code.max(initial=UNASSIGNED) >= len(definition.parts):
        raise StoreError(f"{folder}: found codes without a part. Restore the split from a copy.")
    inside = code >= 0
    return Split(definition, index["recording_id"][known[inside]], code[inside])


def split_like(store: AnyStore, other: AnyStore, name: str) -> Split:
    """Apply a split that another store keeps to the recordings of this one, found by their ids.

    For stores of one source: made again with another recipe, or grown elsewhere. Recordings that the other does not have
    are in no part. Raises KeyMismatch for stores of different keys, whose ids cannot be compared; SpecError if they have no
    recording of the split in common, or if a patient or a waveform would be on two sides here.
    """
    mine, theirs = ({member.manifest.key_fingerprint for member in one.members} for one in (store, other))
    if not mine <= theirs:
        raise KeyMismatch(
            f"{store.path}: made with another pseudonym key than {other.path}, so that their ids cannot be compared. "
            "Make the split anew."
        )
    split = load_split(other, name).on(store.index)
    if not len(split.codes):
        raise SpecError(f"{store.path}: found no recording of split {name!r} of {other.path}. Name another store.")
    split.assert_disjoint(store.index)
    return split


def split_names(store: AnyStore) -> list[str]:
    """List the splits that a store keeps, by name; of several stores, all that any of them keeps."""
    return sorted({name for member in store.members for name in _generations(member)})


def _generations(member: Member) -> dict[str, int]:
    """Map each split to the generation that wrote it."""
    places = [name.split("/") for name in member.manifest.files if name.startswith("splits/")]
    return {place[1]: int(place[2]) for place in places if len(place) == 4 and place[3] == _GROUP}


def write_split(
    folder: Path, generation: int, definition: SplitDefinition, code: NDArray[np.int8], index: CohortIndex, n_rows: int
) -> list[str]:
    """Write the files of a split, code: int8 [record of the index]; return their paths in the store.

    A command that renumbers rows loads the splits before, writes them for the new index, and lists them in the manifest.
    """
    home = folder / _home(definition.name, generation)
    # By row of the store, empty rows included, so that the code of a recording is found without a search.
    part = np.full(n_rows, UNASSIGNED, np.int8)
    mark = np.zeros(n_rows, np.uint16)
    part[index["row"]], mark[index["row"]] = code, _marks(index)
    write_column(home / "part", part)
    write_column(home / "mark", mark)
    write_file(home / _GROUP, group_metadata({"split": definition.model_dump(mode="json")}))
    groups = [home.parent / _GROUP, home.parent.parent / _GROUP]
    for group in groups:
        write_file(group, group_metadata())
    files = [path for path in home.rglob("*") if path.is_file()] + groups
    return [path.relative_to(folder).as_posix() for path in files]


def _marks(index: CohortIndex) -> NDArray[np.uint16]:
    """Return the first two bytes of every recording's pseudonym."""
    return np.ascontiguousarray(index["recording_id"][:, :2]).view("<u2").ravel().astype(np.uint16)


def _equal(one: Split, other: Split, index: CohortIndex) -> bool:
    same_codes = np.array_equal(one.column(index), other.column(index))
    return one.definition == other.definition and len(one.codes) == len(other.codes) and same_codes


def _next_manifest(folder: Path, store: Store, definition: SplitDefinition, code: NDArray[np.int8]) -> Manifest:
    """Write the files of the next generation: the split, and the index and rejects as they are under its number."""
    manifest, generation = store.manifest, store.manifest.generation + 1
    files = manifest.carry_over(folder, generation, without=(f"splits/{definition.name}/",))
    written = write_split(folder, generation, definition, code, store.index, store.n_rows)
    files |= FileEntry.of_files(folder, written)
    return manifest.model_copy(update={"generation": generation, "files": dict(sorted(files.items()))})
