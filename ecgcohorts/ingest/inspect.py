"""What is in a folder of raw ECG files, before anything is decided about it. Reads a sample, writes nothing."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ecgcohorts.cohort_files import list_files
from ecgcohorts.errors import Reason, RecordingError, SourceError, UnreadableRecording
from ecgcohorts.identity import is_placeholder
from ecgcohorts.plugins import load, names
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from rich.table import Table

READERS = "ecgcohorts.readers"
ROWS_SHOWN = 8  # our default: of each kind of finding, the commonest


@dataclass(frozen=True)
class Inspection:
    """Counts over a sample of the recordings below a path. Texts are keys and file names, never header values."""

    path: Path
    suffixes: Counter[str]  # of all files
    n_candidates: int  # files some reader's suffix fits
    n_files: int  # of them looked at
    formats: Counter[str] = field(default_factory=Counter)  # from here on: recordings read
    rates_hz: Counter[float] = field(default_factory=Counter)
    leads: Counter[str] = field(default_factory=Counter)  # names in file order
    units: Counter[str] = field(default_factory=Counter)
    lengths_s: tuple[float, ...] = ()
    missing: Counter[str] = field(default_factory=Counter)  # facts the reader itself does not find
    header_keys: Counter[str] = field(default_factory=Counter)  # further facts, for the rules of a cohort file
    notes: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)  # reason code -> recordings
    examples: dict[str, str] = field(default_factory=dict)  # reason code -> the first such, in words

    @property
    def n_recordings(self) -> int:
        """Recordings read whole."""
        return self.formats.total()


def inspect(path: Path, sample: int = 200) -> Inspection:
    """Read up to `sample` recordings, evenly spread over the files at or below `path`, and count what they are.

    Signals are decoded, so that a truncated or altered payload shows. Raises SourceError if there is no file.
    """
    files = _files(path)
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "none" for name in files)
    candidates = _candidates(files)
    chosen = _spread(candidates, sample)
    found = Inspection(path, suffixes, len(candidates), len(chosen))
    lengths: list[float] = []
    left = sample
    for place, name in enumerate(chosen):
        file = path / name if path.is_dir() else path
        share = -(-left // (len(chosen) - place))  # files of many recordings share what is left of the sample
        try:
            reader, recordings = _read_some(file, share)
            for recording in recordings:
                _count(found, reader, recording)
                lengths.append(recording.duration_s)
                left -= 1
        except RecordingError as error:
            left -= 1
            found.unreadable[error.reason.value] += 1
            found.examples.setdefault(error.reason.value, f"{name}: expected {error.expected}")  # no header text
    return replace(found, lengths_s=tuple(sorted(lengths)))


def render(found: Inspection) -> "Table":
    """The inspection as a rich table of kind, finding and count."""
    from rich.table import Table

    table = Table(title=f"{found.path}: {found.n_recordings} recordings read, {found.unreadable.total()} unreadable")
    for title in ("", "found"):
        table.add_column(title, overflow="fold")
    table.add_column("count", justify="right")
    kinds: list[tuple[str, Counter[str]]] = [
        ("files", found.suffixes),
        ("format", found.formats),
        ("rate", Counter({f"{rate:g} Hz": count for rate, count in found.rates_hz.items()})),
        ("leads", found.leads),
        ("unit", found.units),
        ("length", _length_rows(found.lengths_s)),
        ("not found by the reader", found.missing),
        ("header keys", found.header_keys),
        ("note", found.notes),
        ("unreadable", Counter({_reason_row(found, code): count for code, count in found.unreadable.items()})),
    ]
    for kind, counts in kinds:
        for place, (text, count) in enumerate(counts.most_common(ROWS_SHOWN)):
            table.add_row(kind if place == 0 else "", text, str(count))
        if len(counts) > ROWS_SHOWN:
            table.add_row("", f"and {len(counts) - ROWS_SHOWN} more", "")
        if counts:
            table.add_section()
    table.caption = f"looked at {found.n_files} of {found.n_candidates} files that may hold recordings"
    return table


def _files(path: Path) -> list[str]:
    if path.is_file():
        return [path.name]
    if not path.is_dir():
        raise SourceError(f"found nothing at {path}, expected a file or a folder. Check the path.")
    files = list_files(path)
    if not files:
        raise SourceError(f"found no file below {path}, expected raw ECG files. Check the path.")
    return files


def _candidates(files: list[str]) -> list[str]:
    """Files whose suffix some reader knows; if there is none, all of them: formats are told by content."""
    known = {suffix for name in names(READERS) for suffix in load(READERS, name).SUFFIXES}
    return [name for name in files if PurePosixPath(name).suffix.lower() in known] or files


def _spread(items: list[str], n: int) -> list[str]:
    """At most n items at equal distances: the order is that of folders, and the first n would be one folder."""
    n = min(n, len(items))
    return [items[place * len(items) // n] for place in range(n)]


def _read_some(file: Path, limit: int) -> tuple[str, Iterable[Recording]]:
    """Reader name and the first `limit` recordings of a file, decoded."""
    from ecgcohorts.readers import detect

    name = detect(file)
    reader = load(READERS, name)
    entries = [h.source.entry for h in islice(reader.scan(file), limit) if h.source is not None and h.source.entry]
    try:
        return name, list(reader.read(file, entries or None))
    except RecordingError:
        raise
    except Exception as error:  # a strange file must not end the inspection of the others
        raise UnreadableRecording(Reason.UNEXPECTED, type(error).__name__, f"a {name} file", "", str(file)) from error


def _count(found: Inspection, reader: str, recording: Recording) -> None:
    found.formats[reader] += 1
    found.rates_hz[recording.rate_hz] += 1
    found.leads[" ".join(recording.leads)] += 1
    if recording.gain_per_mv is None:
        found.units["mV, floating point"] += 1
    else:
        gains = sorted(set(np.round(recording.gain_per_mv, 6).tolist()))
        found.units[", ".join(f"{gain:g}" for gain in gains) + " steps per mV"] += 1
    absent = {
        "patient id": is_placeholder(recording.patient_id),
        "age": recording.age_years is None,
        "sex": recording.sex is None,
        "time": recording.acquired_at is None,
        "device": recording.device is None,
    }
    found.missing.update(name for name, is_absent in absent.items() if is_absent)
    found.header_keys.update(list(recording.fields))
    found.notes.update(recording.notes)


def _length_rows(lengths_s: tuple[float, ...]) -> Counter[str]:
    rounded = Counter(f"{length:.3f} s" for length in lengths_s)
    if len(rounded) <= ROWS_SHOWN:
        return rounded
    low, middle, high = (lengths_s[place] for place in (0, len(lengths_s) // 2, -1))
    return Counter({f"{low:.3f} to {high:.3f} s, median {middle:.3f} s": len(lengths_s)})


def _reason_row(found: Inspection, code: str) -> str:
    return f"{code}, for example {found.examples[code]}"
