"""Report what a folder, an archive or a bucket of raw ECG files holds, without writing anything.

Every file gets a class (`Census`); a sample of the recordings is decoded and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ecgcohorts.errors import Reason, RecordingError, SourceError, UnreadableRecording
from ecgcohorts.ingest.again import _Told
from ecgcohorts.ingest.classify import NAMED_LIKE, Census
from ecgcohorts.ingest.content import Kind
from ecgcohorts.io.buckets import is_url
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers import files_beside, open_reader
from ecgcohorts.recording import Recording
from ecgcohorts.sources import Archive, Source, open_source
from ecgcohorts.sources.windows import at_hand

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SAMPLE = 200  # our default
_ROWS_SHOWN = 8  # our default: of each kind of finding, the commonest
_EXAMPLES = 3  # our default: files named where a person will want to look at them


class _Unreadable(NamedTuple):
    """A reader and the reason for which it refuses files."""

    reader: str
    reason: str  # code


@dataclass(frozen=True)
class _Inspection:
    """The class of every file, and counts over a sample of the recordings.

    Its texts are names of files, keys and leads. Values of headers are health data and never among them; only what a reader
    found wrong may repeat a few letters of one, without which nobody could put it right.
    """

    census: Census
    n_sampled: int  # files of recordings decoded
    formats: Counter[str] = field(default_factory=Counter)  # from here on: numbers of recordings read
    rates_hz: Counter[float] = field(default_factory=Counter)
    leads: Counter[str] = field(default_factory=Counter)  # names in file order
    units: Counter[str] = field(default_factory=Counter)
    lengths_s: tuple[float, ...] = ()
    missing: Counter[str] = field(default_factory=Counter)  # facts that the reader does not find
    header_keys: Counter[str] = field(default_factory=Counter)  # further facts, for the rules of a cohort file
    notes: Counter[str] = field(default_factory=Counter)
    unreadable: dict[_Unreadable, list[str]] = field(default_factory=dict)  # files
    # Cause -> what each was told, by file: two causes may have one code, and never share a line.
    causes: dict[tuple[_Unreadable, str], dict[str, _Told]] = field(default_factory=dict)
    misnamed: dict[tuple[_Unreadable, str], dict[str, _Told]] = field(default_factory=dict)  # of another content

    @property
    def path(self) -> str:
        return str(self.census.source)

    @property
    def n_recordings(self) -> int:
        """Number of recordings read whole."""
        return self.formats.total()

    @property
    def n_unreadable(self) -> int:
        return sum(map(len, self.unreadable.values()))

    @property
    def n_candidates(self) -> int:
        """Number of files that are recordings by their content."""
        return sum(map(len, self.census.recordings.values()))

    def render(self) -> "Group":
        """Render for a terminal: every file by class, then the sample of recordings."""
        from rich.console import Group
        from rich.text import Text

        files = f"{self.census.n_files:,} file{'' if self.census.n_files == 1 else 's'}"
        left_out = "".join(f"; {count:,} {what} left out" for what, count in sorted(self.census.left_out.items()))
        parts: list[Any] = [Text(f"{self.path}: {files}{left_out}"), _classes_table(self.census)]
        if self.misnamed:
            rows = (_refusal_row(each, told) for (each, _), told in self.misnamed.items())
            parts += [Text("\n" + "\n".join(f"named like {row}" for row in islice(rows, _ROWS_SHOWN)))]
        if self.n_candidates:
            head = f"looked into {self.n_sampled:,} of {self.n_candidates:,} files of recordings"
            counts = f"{self.n_recordings:,} recordings read, {self.n_unreadable:,} unreadable"
            parts += [Text(f"\n{head}: {counts}"), _sample_table(self)]
        return Group(*parts)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values. The `files` of `classes` add up to `files`."""
        lengths = self.lengths_s
        return {
            "path": self.path,
            "files": self.census.n_files,
            "left_out": self.census.left_out,
            "classes": [
                {
                    "class": each.kind.value,
                    "what": each.what,
                    "reason": each.reason,
                    "files": len(names),
                    "examples": names[:_EXAMPLES],
                }
                | ({"detail": each.detail} if each.detail else {})
                for kind in Kind
                for each, names in self.census.of(kind)
            ],
            "recording_files": self.n_candidates,
            "recording_files_looked_into": self.n_sampled,
            "recordings_read": self.n_recordings,
            "formats": dict(self.formats),
            "rates_hz": {f"{rate:g}": count for rate, count in self.rates_hz.items()},
            "leads": dict(self.leads),
            "units": dict(self.units),
            "lengths_s": {"shortest": lengths[0], "median": lengths[len(lengths) // 2], "longest": lengths[-1]}
            if lengths
            else {},
            "not_found_by_reader": dict(self.missing),
            "header_keys": dict(self.header_keys),
            "notes": dict(self.notes),
            "unreadable": [
                {"format": each.reader, **_first(told), "files": list(told)}
                for (each, _), told in (*self.causes.items(), *self.misnamed.items())
            ],
        }


def inspect(source: str | Path, sample: int = SAMPLE, tell: Callable[[int], None] | None = None) -> _Inspection:
    """Classify every file of a folder, an archive or a bucket, and decode and count up to `sample` recordings.

    The formats share the sample, so that rare ones are seen, and each spreads its share evenly over its files. Signals
    are decoded, so that a truncated or altered payload shows. A single file that is no archive is inspected alone. tell:
    called with the number of files classified. Raises SourceError if there is no file.
    """
    path = Path(source)
    if not is_url(str(source)) and path.is_file() and not _is_archive(path):
        return _inspect(open_source(path.parent), path.name, sample, tell)
    with open_source(source) as opened:
        return _inspect(opened, None, sample, tell)


def _is_archive(path: Path) -> bool:
    """Say whether a file is an archive that `open_source` opens."""
    with suppress(SourceError):
        return bool(Archive(path))
    return False


def _inspect(source: Source, only: str | None, sample: int, tell: Callable[[int], None] | None) -> _Inspection:
    census = Census.take(source, only, tell)
    reader_of = {name: reader for reader, names in _chosen(census, sample).items() for name in names}
    found = _Inspection(census, len(reader_of))
    lengths: list[float] = []
    left = sample
    for number, (name, reader) in enumerate(sorted(reader_of.items())):
        # A file may hold many recordings: it gets an equal share of what is left of the sample.
        share = -(-left // (len(reader_of) - number))
        try:
            for recording in _decoded(reader, source, name, share):
                _count(found, reader, recording)
                lengths.append(recording.duration_s)
                left -= 1
        except RecordingError as error:
            left -= 1
            refusal, told = _Unreadable(reader, error.reason.value), _Told.by(error)
            found.unreadable.setdefault(refusal, []).append(name)
            found.causes.setdefault((refusal, told.cause), {})[name] = told
    _look_into_misnamed(found, source, sample)
    return replace(found, lengths_s=tuple(sorted(lengths)))


def _look_into_misnamed(found: _Inspection, source: Source, sample: int) -> None:
    """Say of files that are named like a format why they are not of it."""
    wanted = [
        (name, each.what.removeprefix(NAMED_LIKE))
        for each, names in found.census.of(Kind.UNKNOWN)
        if each.what.startswith(NAMED_LIKE)
        for name in names
    ]
    for name, reader in wanted[:sample]:
        try:
            list(_decoded(reader, source, name, 1))
        except RecordingError as error:
            told = _Told.by(error)
            found.misnamed.setdefault((_Unreadable(reader, told.reason), told.cause), {})[name] = told


def _chosen(census: Census, n: int) -> dict[str, list[str]]:
    """Choose at most n files, by reader: an equal share for each format, and what rare formats leave for the others."""
    chosen: dict[str, list[str]] = {}
    left = n
    rarest_first = sorted(census.recordings.items(), key=lambda item: len(item[1]))
    for number, (reader, names) in enumerate(rarest_first):
        chosen[reader] = _spread(names, -(-left // (len(rarest_first) - number)))
        left -= len(chosen[reader])
    return chosen


def _spread(items: list[str], n: int) -> list[str]:
    """Choose at most n items at equal distances: items are sorted by folder, and the first n would be of one folder."""
    n = min(n, len(items))
    return [items[number * len(items) // n] for number in range(n)]


def _decoded(reader: str, source: Source, name: str, limit: int) -> Iterable[Recording]:
    """Decode the first `limit` recordings of a file. Raises RecordingError for any fault of the file."""
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
        # A strange file must not end the inspection of the others.
        except Exception as error:
            raise UnreadableRecording(Reason.UNEXPECTED, type(error).__name__, f"a {reader} file", "", name) from error


def _classes_table(census: Census) -> "Table":
    table = _table("class", "files", "of what", "for example")
    for kind in Kind:
        for row, (each, names) in enumerate(census.of(kind)):
            why = each.detail or each.reason
            what = f"{each.what}: {why}" if why not in ("", Reason.FORMAT.value) else each.what
            # No part of a recording: its header names it, often after the patient, and the header's file is shown.
            shown = names[: {Kind.UNKNOWN: _EXAMPLES, Kind.PART: 0}.get(kind, 1)]
            table.add_row(kind.value if row == 0 else "", f"{len(names):,}", what, "\n".join(shown))
    table.add_row("total", f"{census.n_files:,}")
    return table


def _sample_table(found: _Inspection) -> "Table":
    table = _table("recordings read", "count", "value")
    kinds: list[tuple[str, Mapping[str, int]]] = [
        ("format", found.formats),
        ("unreadable", {_refusal_row(each, told): len(told) for (each, _), told in found.causes.items()}),
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
        for row, (text, count) in enumerate(counts.most_common(_ROWS_SHOWN)):
            table.add_row(kind if row == 0 else "", f"{count:,}", text)
        if len(counts) > _ROWS_SHOWN:
            table.add_row("", "", f"and {len(counts) - _ROWS_SHOWN} more")
    return table


def _table(first: str, count: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(first)
    table.add_column(count, justify="right")
    for name in others:
        table.add_column(name, overflow="fold")
    return table


def _count(found: _Inspection, reader: str, recording: Recording) -> None:
    found.formats[reader] += 1
    found.rates_hz[recording.rate_hz] += 1
    found.leads[" ".join(recording.leads)] += 1
    if recording.unit == "none":
        found.units["none"] += 1
    elif recording.gain_per_mv is None:
        found.units["mV, floating point"] += 1
    else:
        # Rounded, because files write the same gain with more or fewer digits.
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
    if len(rounded) <= _ROWS_SHOWN:
        return rounded
    low, middle, high = (lengths_s[at] for at in (0, len(lengths_s) // 2, -1))
    return Counter({f"{low:.3f} to {high:.3f} s, median {middle:.3f} s": len(lengths_s)})


def _first(told: Mapping[str, _Told]) -> dict[str, str]:
    """Return what the first file of a cause was told."""
    return next(iter(told.values()))._asdict()


def _refusal_row(refusal: _Unreadable, told: Mapping[str, _Told]) -> str:
    names = list(told)
    shown = ", ".join(names[:_EXAMPLES]) + (" ..." if len(names) > _EXAMPLES else "")
    first = told[names[0]]
    return f"{refusal.reader}, {refusal.reason}: {shown} (found {first.found}, expected {first.expected})"
