"""What is in a folder, an archive or a bucket of raw ECG files, before anything is decided about it. Writes nothing.

Every file gets a class (`classify`); a sample of the recordings is decoded and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecgcohorts.errors import Reason, RecordingError, UnreadableRecording
from ecgcohorts.ingest.classify import Census, Kind, classify
from ecgcohorts.io.buckets import is_url
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers import files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import Folder, Source, is_archive, open_source
from ecgcohorts.sources.windows import at_hand

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SAMPLE = 200  # our default
ROWS_SHOWN = 8  # our default: of each kind of finding, the commonest
EXAMPLES = 3  # our default: files named where a person will want to look at them


class Refusal(NamedTuple):
    """Why recordings of a format do not read."""

    reader: str
    reason: str  # code


@dataclass(frozen=True)
class Inspection:
    """The class of every file, and counts over a sample of the recordings.

    Texts are names of files, keys and leads, never header values.
    """

    census: Census
    n_sampled: int  # files of recordings looked at
    formats: Counter[str] = field(default_factory=Counter)  # from here on: recordings read
    rates_hz: Counter[float] = field(default_factory=Counter)
    leads: Counter[str] = field(default_factory=Counter)  # names in file order
    units: Counter[str] = field(default_factory=Counter)
    lengths_s: tuple[float, ...] = ()
    missing: Counter[str] = field(default_factory=Counter)  # facts the reader itself does not find
    header_keys: Counter[str] = field(default_factory=Counter)  # further facts, for the rules of a cohort file
    notes: Counter[str] = field(default_factory=Counter)
    unreadable: dict[Refusal, list[str]] = field(default_factory=dict)  # files
    expected: dict[Refusal, str] = field(default_factory=dict)  # what the first of them should have held

    @property
    def path(self) -> str:
        return str(self.census.source)

    @property
    def n_recordings(self) -> int:
        """Recordings read whole."""
        return self.formats.total()

    @property
    def n_unreadable(self) -> int:
        return sum(map(len, self.unreadable.values()))

    @property
    def n_candidates(self) -> int:
        """Files of recordings, by their content."""
        return sum(map(len, self.census.recordings.values()))


def inspect(place: str | Path, sample: int = SAMPLE, tell: Callable[[int], None] | None = None) -> Inspection:
    """Classify every file of a folder, an archive or a bucket, decode up to `sample` recordings and count what they are.

    A file that is no archive is looked at alone.

    The sample is shared between the formats, so that the rare ones are seen, and spread evenly over the files of each.
    Signals are decoded, so that a truncated or altered payload shows. tell: called with the number of files classified.
    Raises SourceError if there is no file.
    """
    path = Path(place)
    if not is_url(str(place)) and path.is_file() and not is_archive(path):
        return _inspect(Folder(path.parent), path.name, sample, tell)
    with open_source(place) as source:
        return _inspect(source, None, sample, tell)


def _inspect(source: Source, only: str | None, sample: int, tell: Callable[[int], None] | None) -> Inspection:
    census = classify(source, only, tell)
    reader_of = {name: reader for reader, names in spread_over_formats(census, sample).items() for name in names}
    found = Inspection(census, len(reader_of))
    lengths: list[float] = []
    left = sample
    for place, (name, reader) in enumerate(sorted(reader_of.items())):
        share = -(-left // (len(reader_of) - place))  # files of many recordings share what is left of the sample
        try:
            for recording in read_some(reader, source, name, share):
                _count(found, reader, recording)
                lengths.append(recording.duration_s)
                left -= 1
        except RecordingError as error:
            left -= 1
            refusal = Refusal(reader, error.reason.value)
            found.unreadable.setdefault(refusal, []).append(name)
            found.expected.setdefault(refusal, error.expected)  # `found` may be header text
    return replace(found, lengths_s=tuple(sorted(lengths)))


def spread_over_formats(census: Census, n: int) -> dict[str, list[str]]:
    """At most n files, by reader: an equal share for each format, and what rare ones leave goes to the others."""
    chosen: dict[str, list[str]] = {}
    left = n
    rarest_first = sorted(census.recordings.items(), key=lambda item: len(item[1]))
    for place, (reader, names) in enumerate(rarest_first):
        chosen[reader] = spread(names, -(-left // (len(rarest_first) - place)))
        left -= len(chosen[reader])
    return chosen


def read_some(reader: str, source: Source, name: str, limit: int) -> Iterable[Recording]:
    """The first `limit` recordings of a file, decoded. Raises RecordingError, and of others only what is the source's."""
    opened = open_reader(reader)
    with closing(at_hand(source, [(name, None)], files_beside(reader))) as files:
        file = next(files)
        if isinstance(file, UnreadableRecording):
            raise file
        try:
            headers = islice(opened.scan(file), limit)
            entries = [one.source.entry for one in headers if one.source is not None and one.source.entry]
            return list(opened.read(file, entries or None))
        except RecordingError:
            raise
        except Exception as error:  # a strange file must not end the inspection of the others
            raise UnreadableRecording(Reason.UNEXPECTED, type(error).__name__, f"a {reader} file", "", name) from error


def render(found: Inspection) -> "Group":
    """The inspection for a terminal: every file by class, then what the sample of recordings is."""
    from rich.console import Group
    from rich.text import Text

    files = f"{found.census.n_files:,} file{'' if found.census.n_files == 1 else 's'}"
    left_out = "".join(f"; {count:,} {what} left out" for what, count in sorted(found.census.left_out.items()))
    parts: list[Any] = [Text(f"{found.path}: {files}{left_out}"), _classes_table(found.census)]
    if found.n_candidates:
        head = f"looked into {found.n_sampled:,} of {found.n_candidates:,} files of recordings"
        counts = f"{found.n_recordings:,} recordings read, {found.n_unreadable:,} unreadable"
        parts += [Text(f"\n{head}: {counts}"), _sample_table(found)]
    return Group(*parts)


def as_json(found: Inspection) -> dict[str, Any]:
    """The inspection as values that JSON has. `classes` adds up to `files`."""
    lengths = found.lengths_s
    return {
        "path": found.path,
        "files": found.census.n_files,
        "left_out": found.census.left_out,
        "classes": [
            {
                "class": each.kind.value,
                "what": each.what,
                "reason": each.reason,
                "files": len(names),
                "examples": names[:EXAMPLES],
            }
            for kind in Kind
            for each, names in found.census.of(kind)
        ],
        "recording_files": found.n_candidates,
        "recording_files_looked_into": found.n_sampled,
        "recordings_read": found.n_recordings,
        "formats": dict(found.formats),
        "rates_hz": {f"{rate:g}": count for rate, count in found.rates_hz.items()},
        "leads": dict(found.leads),
        "units": dict(found.units),
        "lengths_s": {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1]}
        if lengths
        else {},
        "not_found_by_reader": dict(found.missing),
        "header_keys": dict(found.header_keys),
        "notes": dict(found.notes),
        "unreadable": [
            {"format": each.reader, "reason": each.reason, "expected": found.expected[each], "files": names}
            for each, names in found.unreadable.items()
        ],
    }


def _classes_table(census: Census) -> "Table":
    table = _table("class", "files", "of what", "for example")
    for kind in Kind:
        for place, (each, names) in enumerate(census.of(kind)):
            what = f"{each.what}: {each.reason}" if each.reason not in ("", Reason.FORMAT.value) else each.what
            shown = names[: EXAMPLES if kind is Kind.UNKNOWN else 1]
            table.add_row(kind.value if place == 0 else "", f"{len(names):,}", what, "\n".join(shown))
    table.add_row("total", f"{census.n_files:,}")
    return table


def _sample_table(found: Inspection) -> "Table":
    table = _table("recordings read", "count", "value")
    kinds: list[tuple[str, Mapping[str, int]]] = [
        ("format", found.formats),
        ("unreadable", {_refusal_row(found, each): len(names) for each, names in found.unreadable.items()}),
        ("rate", {f"{rate:g} Hz": count for rate, count in found.rates_hz.items()}),
        ("leads", found.leads),
        ("unit", found.units),
        ("length", _length_rows(found.lengths_s)),
        ("not found by reader", found.missing),
        ("header keys", found.header_keys),
        ("note", found.notes),
    ]
    for kind, unsorted in kinds:
        counts = Counter(unsorted)
        for place, (text, count) in enumerate(counts.most_common(ROWS_SHOWN)):
            table.add_row(kind if place == 0 else "", f"{count:,}", text)
        if len(counts) > ROWS_SHOWN:
            table.add_row("", "", f"and {len(counts) - ROWS_SHOWN} more")
    return table


def _table(first: str, count: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    table.add_column(count, justify="right")
    for name in others:
        table.add_column(name, overflow="fold")
    return table


def spread(items: list[str], n: int) -> list[str]:
    """At most n items at equal distances: the order is that of folders, and the first n would be one folder."""
    n = min(n, len(items))
    return [items[place * len(items) // n] for place in range(n)]


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


def _refusal_row(found: Inspection, refusal: Refusal) -> str:
    names = found.unreadable[refusal]
    shown = ", ".join(names[:EXAMPLES]) + (" ..." if len(names) > EXAMPLES else "")
    return f"{refusal.reader}, {refusal.reason}: {shown} (expected {found.expected[refusal]})"
