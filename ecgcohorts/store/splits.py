"""Splits kept in a store by name: one code a row, and what it means, beside the signals and as safe as they are.

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

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.index import CohortIndex
from ecgcohorts.split_rules import UNASSIGNED, SplitDefinition
from ecgcohorts.splits import Split
from ecgcohorts.store.columns import read_column, write_column
from ecgcohorts.store.commit import clear_leftovers, describe_files, publish, remove_unlisted, writer_lock
from ecgcohorts.store.durable import write_file
from ecgcohorts.store.generations import carry_over, refuse_interrupted
from ecgcohorts.store.reader import Store, open_store, read_manifest
from ecgcohorts.store.schema import Manifest, group_metadata, split_folder

_GROUP = "zarr.json"


def save_split(path: str | Path, split: Split, *, replace: bool = False) -> str:
    """Keep a split in a store under its name, and return the store's new fingerprint. No signal is read or written.

    Saving the same split again changes nothing, but clears away what a killed run left. Raises StoreError if the store
    has another one of that name (unless `replace`), if an ingest was interrupted, or if the split has recordings that the
    store has not; LockHeld if another process is writing.
    """
    folder = Path(path)
    read_manifest(folder)  # is there a store? Locking would make its folder
    with writer_lock(folder):
        store = open_store(folder)
        kept = load_split(store, split.name) if split.name in split_names(store) else None
        if kept is not None and _equal(kept, split, store.index):
            clear_leftovers(folder, store.manifest)
            return store.fingerprint
        if kept is not None and not replace:
            raise StoreError(
                f"{folder}: found another split {split.name!r}. Save yours under another name, or with replace=True."
            )
        code = split.column(store.index)
        if (code >= 0).sum() != len(split.codes):
            strange = len(split.codes) - int((code >= 0).sum())
            raise StoreError(
                f"{folder}: found {strange} recordings of split {split.name!r} that this store does not have, expected "
                "none. Save its part of the split: split.on(store.index)."
            )
        refuse_interrupted(folder)
        remove_unlisted(folder, store.manifest)
        return publish(folder, _next_manifest(store, split.definition, code))


def load_split(store: Store, name: str) -> Split:
    """The split of that name, for the recordings it knew when it was saved.

    Raises SpecError if the store has none of that name, StoreError if it is damaged or its rows are no longer the same.
    """
    found = split_names(store)
    if name not in found:
        raise SpecError(f"{store.path}: found no split {name!r}, expected one of: {', '.join(found) or 'none there'}.")
    folder = store.path / split_folder(name, found[name])
    try:
        attributes = json.loads((folder / _GROUP).read_bytes())["attributes"]
        definition = SplitDefinition.model_validate(attributes["split"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        raise StoreError(f"{folder}: the split's definition is damaged. Restore it from a copy.") from None
    part, mark = read_column(folder / "part"), read_column(folder / "mark")
    rows = store.index["row"]
    known = np.flatnonzero(rows < len(part))
    if not np.array_equal(mark[rows[known]], _marks(store.index)[known]):
        raise StoreError(f"{folder}: the split was made for other rows. Make it again: its definition is in {_GROUP}.")
    code = part[rows[known]]
    if part.dtype != np.int8 or code.max(initial=UNASSIGNED) >= len(definition.parts):
        raise StoreError(f"{folder}: found codes without a part. Restore the split from a copy.")
    inside = code >= 0
    return Split(definition, store.index["recording_id"][known[inside]], code[inside])


def split_names(store: Store) -> dict[str, int]:
    """Names of the splits that a store keeps, with the generation that wrote each."""
    places = [name.split("/") for name in store.manifest.files if name.startswith("splits/")]
    return {place[1]: int(place[2]) for place in places if len(place) == 4 and place[3] == _GROUP}


def write_split(
    folder: Path, generation: int, definition: SplitDefinition, code: NDArray[np.int8], index: CohortIndex, n_rows: int
) -> list[str]:
    """Write the files of a split, code: int8 [record of the index]; return their paths in the store.

    For whoever renumbers rows: load the splits before, write them for the new index, and list them in the manifest.
    """
    home = folder / split_folder(definition.name, generation)
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
    """The first two bytes of every recording's pseudonym."""
    return np.ascontiguousarray(index["recording_id"][:, :2]).view("<u2").ravel().astype(np.uint16)


def _equal(one: Split, other: Split, index: CohortIndex) -> bool:
    same_codes = np.array_equal(one.column(index), other.column(index))
    return one.definition == other.definition and len(one.codes) == len(other.codes) and same_codes


def _next_manifest(store: Store, definition: SplitDefinition, code: NDArray[np.int8]) -> Manifest:
    """Write the files of the next generation: the split, and the index and rejects as they are under its number."""
    manifest, generation = store.manifest, store.manifest.generation + 1
    files = carry_over(store.path, manifest, generation, without=(f"splits/{definition.name}/",))
    written = write_split(store.path, generation, definition, code, store.index, store.n_rows)
    files |= describe_files(store.path, written)
    return manifest.model_copy(update={"generation": generation, "files": dict(sorted(files.items()))})
