"""Say which files were refused, and why, to whoever holds them.

A store keeps a pseudonym and a code of each refusal, because paths and what a reader found may name a patient. This reads
the raw files again and writes both into a table outside the store that only its owner may read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.spec import CohortSpec, Description
from ecgcohorts.errors import UnreadableRecording
from ecgcohorts.ingest.again import _Steps, _Told
from ecgcohorts.ingest.plan import DUPLICATE, DUPLICATE_ID
from ecgcohorts.ingest.trace import _STORED, _check_out, _States, _traced, _write
from ecgcohorts.readers import files_beside
from ecgcohorts.sources import open_source
from ecgcohorts.sources.windows import at_hand
from ecgcohorts.store.reader import Store, open_store
from ecgcohorts.store.upkeep.lookup import REMOVED

_COLUMNS = ("path", "entry", "cohort", "recording_id", "reason", "found", "expected", "what_to_do")


@dataclass(frozen=True)
class RefusedReport:
    """How many refusals of a store were found again in its source."""

    out: Path
    refused: int  # written, one row each
    elsewhere: int  # refusals of the store's same cohorts that the source does not show

    def __str__(self) -> str:
        rest = f"; {self.elsewhere} of the store are not in this source" if self.elsewhere else ""
        return f"{self.out}: {self.refused} refused recordings, with their paths{rest}"

    @staticmethod
    def check(out: Path, store: str | Path, source: str | Path) -> None:
        """Raise SpecError for a path inside store or source, or of a file that is no earlier table of refusals."""
        _check_out(out, _COLUMNS, store, source)

    @classmethod
    def save(
        cls,
        store_path: str | Path,
        source: str | Path,
        cohort: str | CohortSpec,
        out: Path,
        key_file: Path | None = None,
    ) -> "RefusedReport":
        """Write path, entry, reason, what was found and what to do of every refused recording of a source, as CSV.

        The file is made with mode 0600. Refused recordings are read again; all others are only listed. Raises EcgError
        subclasses: KeyMismatch for another key than the store's.
        """
        cls.check(out, store_path, source)
        store = open_store(store_path)
        spec = cohort if isinstance(cohort, CohortSpec) else CohortSpec.load(cohort)
        with open_source(source) as opened:
            files = spec.find(opened)
            found, originals = _listed(store, files, spec, key_file)
            rows = [
                [one.item.path, one.item.entry, one.about.cohort, one.name, one.reason, *told]
                for one, told in zip(found, _told(store, files, spec, found, originals), strict=True)
            ]
        _write(out, _COLUMNS, rows)
        rejects = store.rejects()
        return cls(out, len(rows), int(rejects["cohort"].isin(spec.cohort_names).sum()) - len(rows))


class _Refused(NamedTuple):
    item: SourceItem
    about: Description
    name: str  # pseudonym, hexadecimal
    reason: str
    duplicate_of: str


def _listed(
    store: Store, files: Found, spec: CohortSpec, key_file: Path | None
) -> tuple[list[_Refused], dict[str, str]]:
    """Return the refused recordings of a source, and the places of those that others are copies of."""
    table = store.rejects()
    rejects = {
        name: (str(reason), str(like))
        for name, reason, like in zip(table["recording_id"], table["reason"], table["duplicate_of"], strict=True)
    }
    wanted = {like for _, like in rejects.values()} - {""}
    found: list[_Refused] = []
    originals: dict[str, str] = {}
    states = _States(store)
    for one in _traced(files, spec, store.load_key(key_file)):
        if one.name in wanted:
            originals[one.name] = one.item.location
        if one.name in rejects and states.of(one)[1] != _STORED:
            found.append(_Refused(*one, *rejects[one.name]))
    return found, originals


def _told(
    store: Store, files: Found, spec: CohortSpec, found: list[_Refused], originals: dict[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield what was found in each refused recording, what was expected, and what to do."""
    layout = files.layout
    beside = files_beside(layout.reader, layout.arrays)
    steps = _Steps(Found.reader_of(layout), spec, store.recipe)
    # All are fetched, also those that are not read again: windows of an archive are taken in one pass.
    again = at_hand(files.source, [(one.item.path, [one.item.entry]) for one in found], beside)
    for one, file in zip(found, again, strict=True):
        if one.reason == REMOVED:
            yield "a patient who was removed from the store", "", "Nothing: the recording stays out."
        elif one.reason == DUPLICATE:
            place = originals.get(one.duplicate_of, f"recording {one.duplicate_of}")
            yield f"the samples of {place}", "samples of its own", "Nothing, or remove one of the two files."
        elif one.reason == DUPLICATE_ID:
            yield "the id of an earlier recording", "an id of its own", "Correct `recording` in the description."
        else:
            yield _read_again(steps, one, file)


def _read_again(steps: _Steps, one: _Refused, file: Path | UnreadableRecording) -> tuple[str, str, str]:
    told = _Told.by(one.item.error) if one.item.error is not None else None
    about = one.about
    told = told or _Told.of(partial(steps.decode, file, one.item.entry, about.cohort, about.mains_hz))
    if told is None:
        return "nothing wrong now", "", "The file, the description or this program has changed since."
    return told.found, told.expected, told.what_to_do
