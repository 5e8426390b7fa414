"""Take windows of long recordings as recordings of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol, cast

from ecgcohorts.cohorts.schema import Windows
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.recording import Origin, Recording

# Our default: a day of Holter in steps of one second has 86,400.
MAX_WINDOWS = 1 << 17


class _Reader(Protocol):
    """The two functions of `readers.Reader`, without importing every reader to name them."""

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]: ...

    def scan(self, path: Path) -> Iterator[Recording]: ...


class _LongReader(Protocol):
    """A reader whose module says `LONG = True`: it reads samples of a recording of any length without the others."""

    def read(self, path: Path, entries: Sequence[str] | None, part: slice) -> Iterator[Recording]: ...

    def scan(self, path: Path, long: bool) -> Iterator[Recording]: ...


def _in_windows(reader: _Reader, windows: Windows | None) -> _Reader:
    """Return a reader whose recordings are windows of those of another; that one itself where there are none."""
    return reader if windows is None else _InWindows(reader, windows)


class _InWindows:
    """A reader of windows. It keeps the last recording read, since its windows follow one another."""

    def __init__(self, reader: _Reader, windows: Windows) -> None:
        self._reader, self._windows = reader, windows
        self._last: tuple[Path, str, Recording] | None = None  # the whole, or the header of one that is read in parts

    @property
    def _reads_parts(self) -> bool:
        return getattr(self._reader, "LONG", False)

    def scan(self, path: Path) -> Iterator[Recording]:
        for header, _ in self._headers(path):
            for start in _starts(self._windows, header.duration_s, path):
                yield _named(header, start, self._windows.length_s)

    def read(self, path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
        """Yield windows by entry, as `scan` names them; None: all of them."""
        if entries is None:
            entries = [header.source.entry for header in self.scan(path) if header.source]
        for entry in entries:
            found = Windows.NAME.search(entry)
            if found is None:
                raise UnreadableRecording(
                    Reason.MISSING_FILE, "a name without window", "one such as @60+10s", "Plan again.", str(path)
                )
            whole = self._whole(path, entry.removesuffix(found[0]))
            start, length = float(found[1]), float(found[2])
            first, last = round(start * whole.rate_hz), round((start + length) * whole.rate_hz)
            if first >= whole.n_samples:
                found_s = f"a recording of {whole.duration_s:g} s"
                raise UnreadableRecording(
                    Reason.EMPTY, found_s, f"a window from {start:g} s on", "Choose an earlier start.", str(path)
                )
            yield _named(self._cut(whole, slice(first, last), path), start, length)

    def _headers(self, path: Path) -> Iterator[tuple[Recording, bool]]:
        """Yield each recording without samples, and whether it is too long to be read whole."""
        try:
            yield from ((header, False) for header in self._reader.scan(path))
        except UnreadableRecording as error:
            if error.reason is not Reason.LIMIT or not self._reads_parts:
                raise
            yield from ((header, True) for header in cast(_LongReader, self._reader).scan(path, long=True))

    def _whole(self, path: Path, entry: str) -> Recording:
        if self._last is None or self._last[:2] != (path, entry):
            self._last = None  # two long recordings need not fit into memory
            header, is_long = next(self._headers(path)) if self._reads_parts else (None, False)
            # Read whole where that is possible: checksums are of the whole.
            whole = header if header and is_long else next(iter(self._reader.read(path, [entry])))
            self._last = (path, entry, whole)
        return self._last[2]

    def _cut(self, whole: Recording, part: slice, path: Path) -> Recording:
        samples = whole.digital if whole.digital is not None else whole.analog_mv
        if samples is None or not samples.shape[1]:
            return next(iter(cast(_LongReader, self._reader).read(path, None, part)))
        return _cut(whole, part)


def _starts(windows: Windows, duration_s: float, path: Path) -> Iterator[float]:
    """Yield the starts of the windows that a recording has whole.

    Where it has none, the first of them: the recipe says why it is too short, and the recording is accounted for.
    """
    if windows.every_s is None:
        whole = [start for start in windows.starts_s if start + windows.length_s <= duration_s]
        starts = whole or [min(windows.starts_s)]
    elif duration_s <= windows.length_s:
        starts = [0.0]
    else:
        count = int((duration_s - windows.length_s) / windows.every_s) + 1
        if min(count, windows.at_most or count) > MAX_WINDOWS:
            raise UnreadableRecording(
                Reason.LIMIT,
                f"{count} windows",
                f"{MAX_WINDOWS} at most",
                "Set at_most or a larger every_s.",
                str(path),
            )
        starts = [number * windows.every_s for number in range(min(count, windows.at_most or count))]
    yield from starts[: windows.at_most]


def _named(recording: Recording, start: float, length: float) -> Recording:
    """Return a window under its own entry and time."""
    origin = recording.source or Origin("", Path())
    at = recording.acquired_at
    samples = min(round(length * recording.rate_hz), recording.n_samples)
    return replace(
        recording,
        n_samples=samples,
        acquired_at=None if at is None else at + timedelta(seconds=start),
        source=replace(origin, entry=f"{origin.entry}@{start:.10g}+{length:.10g}s"),
    )


def _cut(recording: Recording, part: slice) -> Recording:
    """Return some columns of a recording."""
    digital, analog_mv, missing = recording.digital, recording.analog_mv, recording.missing
    return replace(
        recording,
        digital=None if digital is None else digital[:, part],
        analog_mv=None if analog_mv is None else analog_mv[:, part],
        missing=None if missing is None else missing[:, part],
        n_samples=min(part.stop, recording.n_samples) - part.start,
    )
