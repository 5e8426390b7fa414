"""Read bare arrays of numbers: a data file is one recording or many, and a description states what the file does not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import size_of
from ecgcohorts.readers._shared.units import steps_per_mv, without_infinities
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.readers.arrays.manifest import Manifest
from ecgcohorts.readers.arrays.records import Records
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".yaml", ".yml")  # of the manifest
NEEDS = ("h5py",)  # for HDF5 only
VARIANTS = (
    "text of numbers: comma, semicolon, tab or space separated, decimal comma, gzipped",
    "NumPy .npy and .npz",
    "datasets of an HDF5 file, MATLAB 7.3 included",
    "a variable of a MATLAB 4 to 7 file, or a field of a structure",
    "one recording in a file, or many along the first axis, with ids, scales and lengths of their own",
)
ISOLATED = True
UNDECLARED = "length not declared"
_INT32 = np.iinfo(np.int32)


class _Part(NamedTuple):
    """One recording in a data file: the whole, or a record of it."""

    path: Path
    description: ArrayDescription
    source: Origin
    record: int | None = None
    records: Records | None = None

    @property
    def name(self) -> str:
        """The id of the record; otherwise the stem of the file, and the number."""
        stem = Path(self.path.name.removesuffix(".gz")).stem
        if self.records is None or self.record is None:
            return stem
        entry = self.records.entries[self.record]
        return entry if self.description.ids is not None else f"{stem}-{entry}"

    @property
    def length(self) -> int | None:
        """Samples per lead of a record, without padding; None for a whole file."""
        if self.records is None:
            return None
        lengths = self.records.lengths
        return self.records.samples if lengths is None else int(lengths[self.record or 0])

    def samples(self) -> NDArray:
        """Return (lead, time) as stored, without padding."""
        return Records.stored(self.path, self.description, self.record)[:, : self.length]

    def per_mv(self) -> NDArray[np.float64]:
        """Return the steps per mV of each lead."""
        description, where = self.description, str(self.path)
        unit = "mV" if description.unit == "none" else description.unit  # the header says that these are none
        if self.records is None or self.records.scale is None:
            # One unit for all leads: a description states no other.
            one = steps_per_mv(description.steps_per_unit, unit, description.leads[0], where)
            return np.full(len(description.leads), one)
        factors = np.broadcast_to(self.records.scale[self.record or 0], len(description.leads))
        pairs = zip(factors.tolist(), description.leads, strict=True)
        return np.array([steps_per_mv(1 / factor, unit, lead, where) for factor, lead in pairs])


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the recordings of the data files of a manifest; entries are their paths from its folder.

    A record of a file of many is `path#id`, or `path#number`. digital (integers) or analog_mv (floats): (lead, time).
    recording_id is the id or the stem of the data file, which files of two folders may share; the entry is unique.
    Raises UnreadableRecording at the first file that does not fit.
    """
    manifest = Manifest.load(path)
    if entries is None:
        for entry in manifest.entries(path):
            for part in _parts(manifest, path, entry):
                yield _recording(part)
        return
    for entry in entries:
        file, record = _split(entry, manifest.description)
        data = manifest.file(path.parent, file)
        yield _recording(_part(data, manifest.description, Origin("arrays", path, entry, (file,)), record))


def scan(path: Path) -> Iterator[Recording]:
    """Yield one header per recording in the data files of a manifest, in the order of paths and of records.

    A file whose length cannot be determined has n_samples 0, and reading it says why: one damaged file hides no others.
    """
    manifest = Manifest.load(path)
    for entry in manifest.entries(path):
        parts = _parts(manifest, path, entry)
        # Not a for loop around a try: the generator itself opens the file, and raises.
        while True:
            try:
                part = next(parts)
                n_samples = _length(part)
            except StopIteration:
                break
            except UnreadableRecording:
                origin = Origin("arrays", path, entry, (entry,))
                yield _header(_Part(path.parent / entry, manifest.description, origin), 0)
                break
            yield _header(part, n_samples)


def beside(path: Path, entries: Sequence[str] | None = None, samples: bool = True) -> list[str]:
    """List the data files of a manifest that `read` opens, by name or glob from its folder. `scan` opens all of them."""
    manifest = Manifest.load(path)
    if entries is None:
        return list(manifest.files)
    return list(dict.fromkeys(_split(entry, manifest.description)[0] for entry in entries))


@dataclass(frozen=True)
class _Described:
    """A reader of data files whose description stands elsewhere: in that of a cohort."""

    description: ArrayDescription

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
        """Yield the recordings of a data file. The entry of its only one is empty; records have an id or a number."""
        if self.description.has_records:
            for entry in Records.of(path, self.description).entries if entries is None else entries:
                yield _recording(_part(path, self.description, Origin("arrays", path, entry), entry))
            return
        for entry in [""] if entries is None else entries:
            if entry:
                raise _refusal(Reason.MISSING_FILE, "no such entry", "the one recording of the file", path)
            yield _recording(_Part(path, self.description, Origin("arrays", path)))

    def scan(self, path: Path) -> Iterator[Recording]:
        """Yield their headers."""
        if not self.description.has_records:
            part = _Part(path, self.description, Origin("arrays", path))
            yield _header(part, _length(part))
            return
        records = Records.of(path, self.description)
        for number, entry in enumerate(records.entries):
            part = _Part(path, self.description, Origin("arrays", path, entry), number, records)
            yield _header(part, _length(part))


def described(description: ArrayDescription) -> _Described:
    """Return a reader for data files of one description, without a manifest."""
    return _Described(description)


def _parts(manifest: Manifest, path: Path, entry: str) -> Iterator[_Part]:
    """Yield the recordings of one data file of a manifest."""
    description, file = manifest.description, manifest.file(path.parent, entry)
    if not description.has_records:
        yield _Part(file, description, Origin("arrays", path, entry, (entry,)))
        return
    records = Records.of(file, description)
    for number, name in enumerate(records.entries):
        yield _Part(file, description, Origin("arrays", path, f"{entry}#{name}", (entry,)), number, records)


def _part(file: Path, description: ArrayDescription, source: Origin, entry: str | None) -> _Part:
    """Find a record by its entry in the file. None: the whole file, which holds one recording."""
    if not description.has_records:
        return _Part(file, description, source)
    records = Records.of(file, description)
    number = records.places.get(entry or "", -1)
    if number < 0:
        raise _refusal(Reason.MISSING_FILE, "no such record, or two of one id", "each record once", file)
    return _Part(file, description, source, number, records)


def _split(entry: str, description: ArrayDescription) -> tuple[str, str | None]:
    """Cut an entry of a manifest into the data file and the record, None if there is none."""
    # No id holds the sign, but the name of a file may.
    file, mark, record = entry.rpartition("#") if description.has_records else (entry, "", "")
    return (file, record) if mark else (entry, None)


def _length(part: _Part) -> int:
    """Return the samples per lead as declared, in at most one pass over the file."""
    if part.length is not None:
        return part.length
    if part.description.samples is not None:
        size_of(part.path)  # refuses a link or a pipe at once
        return part.description.samples
    return Records.length(part.path, part.description)


def _header(part: _Part, n_samples: int) -> Recording:
    description = part.description
    return Recording(
        recording_id=part.name,
        leads=description.leads,
        rate_hz=description.rate_hz,
        analog_mv=np.zeros((len(description.leads), 0)),
        n_samples=n_samples,
        fields={} if part.record is None else {"row": str(part.record)},
        source=part.source,
        unit="none" if description.unit == "none" else "mV",
    )


def _recording(part: _Part) -> Recording:
    description, path = part.description, part.path
    samples, per_mv = part.samples(), part.per_mv()
    if not samples.size:
        raise _refusal(Reason.EMPTY, "a record of no samples", "at least one", path)
    notes = (UNDECLARED,) if description.kind == "csv" and description.samples is None else ()
    header = _header(part, samples.shape[1])
    if samples.dtype.kind == "f":
        analog_mv, more = _in_mv(samples, description, per_mv)
        return replace(header, analog_mv=analog_mv, notes=notes + more)
    # Recordings hold 32 bits: clipped or wrapped, such samples would change without a word.
    if samples.min() < _INT32.min or samples.max() > _INT32.max:
        raise _refusal(Reason.UNSUPPORTED, "integers of more than 32 bits", "32 bits or fewer", path)
    digital = np.ascontiguousarray(samples, np.int32)
    return replace(
        header,
        analog_mv=None,
        digital=digital,
        gain_per_mv=per_mv,
        baseline=np.zeros(len(digital)),
        missing=None if description.missing is None else digital == description.missing,
        notes=notes,
    )


def _in_mv(
    samples: NDArray, description: ArrayDescription, per_mv: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return floats in mV, NaN where missing, and notes."""
    with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN, and values that no voltage has
        analog_mv, notes = without_infinities(np.ascontiguousarray(samples, np.float64) / per_mv[:, None])
        if description.missing is not None:  # in the precision of the file: 0.1 as float32 is not 0.1
            analog_mv[samples == samples.dtype.type(description.missing)] = np.nan
    return analog_mv, notes


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "See arrays in docs/formats.md.", str(path))
