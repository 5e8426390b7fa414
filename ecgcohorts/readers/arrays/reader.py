"""Read bare arrays of numbers: one data file is one recording, and a description states what the file does not."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import size_of
from ecgcohorts.readers._shared.units import steps_per_mv, without_infinities
from ecgcohorts.readers.arrays import hdf5, matlab, npy, text
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.readers.arrays.manifest import Manifest
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".yaml", ".yml")  # of the manifest
NEEDS = ("h5py",)  # for HDF5 only
VARIANTS = (
    "text of numbers: comma, semicolon, tab or space separated, decimal comma, gzipped",
    "NumPy .npy",
    "a dataset of an HDF5 file, MATLAB 7.3 included",
    "a variable of a MATLAB 4 to 7 file",
)
ISOLATED = True
UNDECLARED = "length not declared"
_KINDS: dict[str, type[text.TextArray | npy.NpyArray | hdf5.Hdf5Array | matlab.MatlabArray]] = {
    "csv": text.TextArray,
    "npy": npy.NpyArray,
    "hdf5": hdf5.Hdf5Array,
    "matlab": matlab.MatlabArray,
}
_INT32 = np.iinfo(np.int32)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the recordings of the data files of a manifest; entries are their paths from its folder.

    digital (integers) or analog_mv (floats): (lead, time). recording_id is the stem of the data file, which files of
    two folders may share; the entry is unique. Raises UnreadableRecording at the first file that does not fit.
    """
    manifest = Manifest.load(path)
    for entry in manifest.entries(path) if entries is None else entries:
        file = manifest.file(path.parent, entry)
        yield _recording(file, manifest.description, Origin("arrays", path, entry))


def scan(path: Path) -> Iterator[Recording]:
    """Yield one header per data file of a manifest, in the order of paths.

    A file whose length cannot be determined has n_samples 0, and reading it says why: one damaged file hides no others.
    """
    manifest = Manifest.load(path)
    for entry in manifest.entries(path):
        try:
            n_samples = _length(manifest.file(path.parent, entry), manifest.description)
        except UnreadableRecording:
            n_samples = 0
        yield _header(manifest.description, Origin("arrays", path, entry), n_samples)


def beside(path: Path, entries: Sequence[str] | None = None, samples: bool = True) -> list[str]:
    """List the data files of a manifest that `read` opens, by name or glob from its folder. `scan` opens all of them."""
    return list(Manifest.load(path).files if entries is None else entries)


@dataclass(frozen=True)
class _Described:
    """A reader of data files whose description stands elsewhere: in that of a cohort."""

    description: ArrayDescription

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
        """Yield the one recording of a data file; its entry is empty."""
        for entry in [""] if entries is None else entries:
            if entry:
                raise _refusal(Reason.MISSING_FILE, "no such entry", "the one recording of the file", path)
            yield _recording(path, self.description, Origin("arrays", path))

    def scan(self, path: Path) -> Iterator[Recording]:
        """Yield its header."""
        yield _header(self.description, Origin("arrays", path), _length(path, self.description))


def described(description: ArrayDescription) -> _Described:
    """Return a reader for data files of one description, without a manifest."""
    return _Described(description)


def _length(path: Path, description: ArrayDescription) -> int:
    """Return the samples per lead as declared, in at most one pass over the file."""
    if description.samples is not None:
        size_of(path)  # refuses a link or a pipe at once
        return description.samples
    shape = _KINDS[description.kind](path, description).shape()
    return shape[1] if description.axes == "lead_time" else shape[0]


def _header(description: ArrayDescription, source: Origin, n_samples: int) -> Recording:
    return Recording(
        recording_id=_stem(source),
        leads=description.leads,
        rate_hz=description.rate_hz,
        analog_mv=np.zeros((len(description.leads), 0)),
        n_samples=n_samples,
        source=source,
        unit="none" if description.unit == "none" else "mV",
    )


def _recording(path: Path, description: ArrayDescription, source: Origin) -> Recording:
    stored = _KINDS[description.kind](path, description).load()
    samples = stored if description.axes == "lead_time" else stored.T
    # One unit for all leads: a description states no other.
    unit = "mV" if description.unit == "none" else description.unit  # the header says that these are none
    per_mv = steps_per_mv(description.steps_per_unit, unit, description.leads[0], str(path))
    notes = (UNDECLARED,) if description.kind == "csv" and description.samples is None else ()
    header = _header(description, source, samples.shape[1])
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
        gain_per_mv=np.full(len(digital), per_mv),
        baseline=np.zeros(len(digital)),
        missing=None if description.missing is None else digital == description.missing,
        notes=notes,
    )


def _in_mv(
    samples: NDArray, description: ArrayDescription, per_mv: float
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return floats in mV, NaN where missing, and notes."""
    with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN, and values that no voltage has
        analog_mv, notes = without_infinities(np.ascontiguousarray(samples, np.float64) / per_mv)
        if description.missing is not None:  # in the precision of the file: 0.1 as float32 is not 0.1
            analog_mv[samples == samples.dtype.type(description.missing)] = np.nan
    return analog_mv, notes


def _stem(source: Origin) -> str:
    name = Path(source.entry).name or source.path.name
    return Path(name.removesuffix(".gz")).stem


def _refusal(reason: Reason, found: str, expected: str, path: Path) -> UnreadableRecording:
    return UnreadableRecording(reason, found, expected, "See arrays in docs/formats.md.", str(path))
