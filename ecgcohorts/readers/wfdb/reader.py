"""Read WFDB records: the plain ones here, the rare ones by way of `package`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import OpenFolder
from ecgcohorts.readers._shared.limits import check_rate
from ecgcohorts.readers.wfdb.header import HEADER_LIMIT, NULL, Header
from ecgcohorts.readers.wfdb.package import CONVERT, outline, read_rare
from ecgcohorts.readers.wfdb.signal import A_PART, Samples, is_plain
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".hea",)
NEEDS = ("wfdb",)  # for FLAC, several rates and skew only
LONG = True  # reads parts of plain records of any length
BESIDE = (".dat", ".mat")  # what signals of a header are called that are named like it
VARIANTS = (
    "formats 8 16 24 32 61 80 160 212 310 311 and FLAC 508 516 524",
    "several files, segments and rates, skew, byte offsets",
    "MATLAB 4 signal files and header quirks of the PhysioNet Challenges",
)
NO_CHECKSUM = "no checksum, samples not verified"


def read(path: Path, entries: Sequence[str] | None = None, part: slice | None = None) -> Iterator[Recording]:
    """Yield the one recording of a WFDB header, or a part of a plain one. `entries` is ignored: a record has none.

    digital: (lead, time) int32, native integers. Records of several segments come as analog_mv, since their gains may
    differ. Signals that are not voltages (respiration ...) are kept with a gain of NaN. Raises UnreadableRecording.
    """
    with OpenFolder(path.parent) as folder:
        header = _header(folder, path, part is not None)
        plain = is_plain(header)
        found = Samples.read(header, folder, str(path), part) if plain else read_rare(header, folder, path)
    if part is not None and not plain:
        raise UnreadableRecording(Reason.UNSUPPORTED, "a part of a rare record", "all of it", CONVERT, str(path))
    check_rate(found.rate_hz, str(path))
    yield _recording(path, header, found, 0)


def scan(path: Path, long: bool = False) -> Iterator[Recording]:
    """Yield the same recording without samples, from the header alone; n_samples is 0 where it does not say.

    long: a plain record of any length.
    """
    with OpenFolder(path.parent) as folder:
        header = _header(folder, path, long)
        found = outline(header, folder, path)
    check_rate(found.rate_hz, str(path))
    yield _recording(path, header, found, round(header.n_frames * found.rate_hz / header.rate_hz))


def beside(path: Path, entries: Sequence[str] | None = None, samples: bool = True) -> list[str]:
    """List the files of the same folder that `read` opens: signals, and segments with theirs as far as they are there.

    Without `samples`, list those that `scan` opens: of a record of segments, the first. `entries` is ignored.
    """
    with OpenFolder(path.parent) as folder:
        header = Header.parse(folder.read(path.name, HEADER_LIMIT), str(path))
        if not header.segments:
            return _signal_files(header) if samples else []
        headers = list(dict.fromkeys(f"{name}.hea" for name, _ in header.segments if name != NULL))
        if not samples:
            return headers[:1]
        found = list(headers)
        for name in headers:
            with suppress(UnreadableRecording):  # one that is not there, or that `read` will refuse
                found += _signal_files(Header.parse(folder.read(name, HEADER_LIMIT), name))
    return found


def _beside(header: Header) -> tuple[str, ...]:
    # Headers of segments are not opened: what their signals are called is a guess, and right for most.
    segments = dict.fromkeys(name for name, _ in header.segments if name != NULL)
    return (*_signal_files(header), *(name + suffix for name in segments for suffix in (".hea", *BESIDE)))


def _header(folder: OpenFolder, path: Path, long: bool) -> Header:
    data = folder.read(path.name, HEADER_LIMIT)
    header = Header.parse(data, str(path), long)
    # Rare records are read whole or not at all, so for them the limits hold.
    return Header.parse(data, str(path)) if long and not is_plain(header) else header


def _signal_files(header: Header) -> list[str]:
    return list(dict.fromkeys(signal.file for signal in header.signals if signal.file != NULL))


def _recording(path: Path, header: Header, found: Samples, n_samples: int) -> Recording:
    signals = found.signals
    # Without a declared length there is nothing that a sum could be compared with.
    verified = A_PART in found.notes or (header.n_frames and all(s.checksum is not None for s in signals))
    gain_per_mv = baseline = None
    if found.digital is not None:
        gain_per_mv, baseline = Samples.steps_of(signals, str(path)), np.array([signal.baseline for signal in signals])
    return Recording(
        recording_id=path.stem,
        leads=tuple([signal.name for signal in signals]),
        rate_hz=found.rate_hz,
        digital=found.digital,
        gain_per_mv=gain_per_mv,
        baseline=baseline,
        missing=found.missing,
        analog_mv=found.analog_mv,
        n_samples=n_samples,
        acquired_at=header.acquired_at,
        fields=header.fields,
        source=Origin("wfdb", path, beside=_beside(header)),
        notes=header.notes + found.notes + (() if verified else (NO_CHECKSUM,)),
        unit=Samples.unit_of(signals),
    )
