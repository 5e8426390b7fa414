"""Parse WFDB header files strictly, with a short list of named quirks that published data need.

Every token is matched from end to end, so nothing is half understood: `3.6e2` is 360 Hz, `1E3/mV` a gain of 1000, and
`(1e3)` as a baseline an error. Source: the WFDB specification, header(5).
"""

import math
import re
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, NoReturn, Self

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared.limits import MAX_LEADS, MAX_SAMPLES, MAX_SECONDS, TAKE_WINDOWS

HEADER_LIMIT = 1 << 20  # bytes of a .hea file
MAX_SEGMENTS = 10_000  # our default
MAX_DATE = 80  # characters; our default: more is no date, and something else went wrong

NULL = "~"  # a signal file that is not there, or a segment without signals
# What the specification assumes where a field is missing. That the baseline is the ADC zero is one of these, too.
DEFAULT_RATE_HZ = 250.0  # header(5)
DEFAULT_GAIN = 200.0  # header(5): when missing or zero
MAT_SUFFIX = ".mat"

# Quirks, by the name under which they stand in Recording.notes.
MAT_NAME = "record name ends in .mat"
MONTH_NAME_DATE = "base date written as DD-Mon-YYYY"
NO_DATE = "base time or date out of range, ignored"
UNREAD_DATE = "base time or date not understood, ignored"
BYTE_ORDER_MARK = "byte order mark before the header"
ASSUMED_GAIN = "gain missing, 200 steps per unit assumed"
CUT_COMMENT = "last comment has no line end, left out"

# No leading plus: "16 +24" is a byte offset with a space before it, not a gain of 24.
_NUMBER = re.compile(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"-?[0-9]{1,15}")
_NAME = re.compile(r"([^/]+)(?:/([0-9]{1,6}))?")
_RATE = re.compile(rf"({_NUMBER.pattern})(?:/{_NUMBER.pattern}(?:\({_NUMBER.pattern}\))?)?")
_FORMAT = re.compile(r"([0-9]{1,3})(?:x([0-9]{1,6}))?(?::([0-9]{1,9}))?(?:\+([0-9]{1,15}))?")
_GAIN = re.compile(rf"({_NUMBER.pattern})(?:\((-?[0-9]{{1,15}})\))?(?:/(\S+))?")
_GAP, _WHOLE = r"[ \t]+", _INTEGER.pattern
_DETAILS = re.compile(  # each of these may be the last
    rf"(?:[0-9]{{1,15}}(?:{_GAP}({_WHOLE})(?:{_GAP}({_WHOLE})(?:{_GAP}({_WHOLE})(?:{_GAP}[0-9]{{1,15}}(?:{_GAP}(.*))?)?)?)?)?)?"
)
_TIME = re.compile(
    r"(?:(?:([0-9]{1,2}):)?([0-9]{1,2}):)?([0-9]{1,2})(?:(\.[0-9]{1,6})[0-9]*)?"
    r"(?:[ \t]+([0-9]{1,2})/([0-9]{1,2})/([0-9]{1,4}))?"
)
_MONTH_NAME = re.compile(r"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})[ \t]+([0-9]{1,2}):([0-9]{2}):([0-9]{2})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_RECORD_LINE = re.compile(
    rf"[^/\s]+(/[0-9]+)?[ \t]+0*[1-9][0-9]*(?:[ \t]+{_RATE.pattern}(?:[ \t]+[0-9]+(?:[ \t].*)?)?)?"
)
_SEGMENT_LINE = re.compile(r"\S+[ \t]+[0-9]+")
# Only formats that exist (0: layout header), so that columns of numbers are not taken for a header.
_SIGNAL_LINE = re.compile(r"\S+[ \t]+(?:0|8|16|24|32|61|80|160|212|31[01]|508|516|524)(?:[x:+][0-9x:+]*)?(?:[ \t].*)?")
_FORBIDDEN = frozenset('/\\:\0"<>|?*')  # in file names, on any of the systems where a record may be read
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TAGGED = re.compile(r"<([^<>]*)>[ \t]*:?")  # several of these may share a line; INCART's <diagnoses> has no colon
_NUMBERED = re.compile(r"([A-Za-z_]+) (\d+)")  # INCART: `patient 1`


class Signal(NamedTuple):
    """One signal line; a NamedTuple because headers are parsed by the million."""

    file: str
    format: int
    per_frame: int  # samples per frame
    skew: int  # samples of this signal that precede sample 0
    offset: int  # bytes (FLAC: samples) before the first sample in the file
    gain: float  # steps per unit
    baseline: float  # step that means 0
    unit: str
    initial: int | None  # first sample, as declared
    checksum: int | None  # sum of all samples, as declared; only its low 16 bits count
    adc_zero: int
    name: str


class Header(NamedTuple):
    """A record as its header declares it."""

    record_name: str
    rate_hz: float  # frames a second
    n_frames: int  # 0: not declared
    n_signals: int
    signals: tuple[Signal, ...]  # empty in the master header of a multi-segment record
    segments: tuple[tuple[str, int], ...]  # (record name, frames)
    acquired_at: datetime | None
    fields: dict[str, str]
    notes: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes, where: str, long: bool = False) -> Self:
        """Parse the bytes of a .hea file. Raises UnreadableRecording naming the line and the token.

        long: the record may be of any length.
        """
        notes: list[str] = []
        lines, comments = _lines(data, where, notes)
        if not lines:
            _refuse("a header without a record line", "`name signals rate samples`", where)
        number, record_line = lines[0]
        line = _Line(number, where)
        tokens = record_line.split(None, 4)
        name, n_segments = _record_name(tokens[0], line, notes)
        n_signals = (
            line.integer(tokens[1], "number of signals", 0) if len(tokens) > 1 else line.refuse("no signal count")
        )
        rate_hz = _rate(tokens[2], line) if len(tokens) > 2 else DEFAULT_RATE_HZ
        n_frames = line.integer(tokens[3], "number of samples", 0) if len(tokens) > 3 else 0
        acquired_at = _acquired_at(tokens[4], line, notes) if len(tokens) > 4 else None
        _check_limits(n_signals, 0 if long else n_frames, rate_hz, where)
        body = lines[1:]
        wanted = n_signals if n_segments is None else n_segments
        if len(body) != wanted:
            kind = "signal" if n_segments is None else "segment"
            _refuse(f"{len(body)} {kind} lines", f"{wanted} as the record line says", where)
        signals: tuple[Signal, ...] = ()
        segments: tuple[tuple[str, int], ...] = ()
        if n_segments is None:
            signals = tuple([_signal(text, _Line(number, where), notes) for number, text in body])
            _check_groups(signals, where)
        else:
            segments = tuple([_segment(text, _Line(number, where)) for number, text in body])
            # A layout segment counts with length 0, so the sum holds for both kinds of records.
            if sum(length for _, length in segments) != n_frames:
                _refuse("segments whose lengths do not add up", f"{n_frames} samples as the record line says", where)
        return cls(
            name,
            rate_hz,
            n_frames,
            n_signals,
            signals,
            segments,
            acquired_at,
            _fields(comments),
            tuple(dict.fromkeys(notes)),
        )


def sniff(head: bytes) -> bool:
    """Tell whether a file starts with a WFDB record line and a line for its first signal or segment."""
    text = head.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    lines = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")][:2]
    if len(lines) < 2 or _CONTROL.search(text):
        return False
    record = _RECORD_LINE.fullmatch(lines[0])
    return record is not None and (_SEGMENT_LINE if record[1] else _SIGNAL_LINE).fullmatch(lines[1]) is not None


class _Line(NamedTuple):
    """The place of a token, for messages, and the checks that every token goes through."""

    number: int
    where: str

    def refuse(self, found: str, expected: str = "a line as in header(5)") -> NoReturn:
        _refuse(f"{found} in line {self.number}", expected, self.where)

    def integer(self, token: str, what: str, least: int | None = None) -> int:
        value = int(token) if _INTEGER.fullmatch(token) else None
        if value is None or (least is not None and value < least):
            self.refuse(f"{token[:40]!r} as {what}", "a whole number")
        return value


def _refuse(found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(Reason.HEADER, found, expected, "Fetch the header again, or correct a copy.", where)


def _lines(data: bytes, where: str, notes: list[str]) -> tuple[list[tuple[int, str]], list[str]]:
    """Return the numbered lines that are not blank, and the comments without their `#`."""
    if data.startswith(b"\xef\xbb\xbf"):
        notes.append(BYTE_ORDER_MARK)
        data = data[3:]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # the specification knows ASCII only; old headers write a Latin-1 micro sign
    if _CONTROL.search(text):
        _refuse("control characters", "a text file", where)
    lines: list[tuple[int, str]] = []
    comments: list[str] = []
    *raw_lines, rest = text.split("\n")
    # A last line without its end may be cut: a comment `Age: 63` to `Age: 6`, and a signal line anywhere behind its first
    # two fields, so that half a gain or half a name would be understood.
    if rest.lstrip().startswith("#"):
        notes.append(CUT_COMMENT)
    elif rest.strip():
        raise UnreadableRecording(
            Reason.TRUNCATED,
            "a header whose last line has no end",
            "a line end after every line",
            "Fetch the header again; if it is whole, add a line end to a copy.",
            where,
        )
    for number, raw in enumerate(raw_lines, 1):
        line = raw.strip()
        if line.startswith("#"):
            comments.append(line[1:].strip())
        elif line:
            lines.append((number, line))
    return lines, comments


def _record_name(token: str, line: _Line, notes: list[str]) -> tuple[str, int | None]:
    match = _NAME.fullmatch(token)
    if match is None:
        line.refuse("a record name that holds a path", "a bare name")
    name, count = match.groups()
    if name.endswith(MAT_SUFFIX):  # Georgia records of the Challenge 2020
        notes.append(MAT_NAME)
        name = name.removesuffix(MAT_SUFFIX)
    if count is None:
        return name, None
    if not 1 <= int(count) <= MAX_SEGMENTS:
        line.refuse(f"{count} segments", f"1 to {MAX_SEGMENTS}")
    return name, int(count)


def _rate(token: str, line: _Line) -> float:
    match = _RATE.fullmatch(token)
    # `360`, `360.` and `3.6e2` are all legal: the specification reads the rate with scanf.
    if match is None or not 0 < float(match[1]) < math.inf:
        line.refuse(f"{token[:40]!r} as sampling rate", "a positive number in Hz")
    return float(match[1])


def _acquired_at(text: str, line: _Line, notes: list[str]) -> datetime | None:
    """Parse base time and date; None if there is no date. One that cannot be or is not understood is noted and ignored."""
    fraction = None
    if match := _MONTH_NAME.fullmatch(text):
        day, month_name, year, hour, minute, second = match.groups()
        # Month names are matched here: strptime depends on the locale.
        month = str(_MONTHS.index(month_name.lower()) + 1) if month_name.lower() in _MONTHS else "0"
        notes.append(MONTH_NAME_DATE)
    elif match := _TIME.fullmatch(text):
        hour, minute, second, fraction, day, month, year = match.groups("0")
        if year == "0":
            return None
    else:
        if len(text) > MAX_DATE:
            line.refuse(f"{len(text)} characters as base time and date", "HH:MM:SS DD/MM/YYYY")
        # `2006`, `2020-05-12`: no sample depends on it, and the order of day and month is not guessed.
        notes.append(UNREAD_DATE)
        return None
    microsecond = round(float(fraction or 0) * 1e6)
    try:
        found = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond)
    except ValueError:
        found = None
    if found is None or found.year < 1900:  # two-digit years are not guessed at
        notes.append(NO_DATE)
        return None
    return found


def _check_limits(n_signals: int, n_frames: int, rate_hz: float, where: str) -> None:
    """Refuse what no ECG needs, before anything is allocated."""
    if n_signals == 0:
        raise UnreadableRecording(Reason.EMPTY, "a record of 0 signals", "at least one", "Leave it out.", where)
    if n_signals > MAX_LEADS:
        _too_large(f"{n_signals} signals", f"{MAX_LEADS}", where)
    if n_frames / rate_hz > MAX_SECONDS:
        _too_large(f"{n_frames / rate_hz / 3600:.3g} h", f"{MAX_SECONDS / 3600:g} h", where)
    check_sample_count(n_frames * n_signals, where)


def check_sample_count(count: int, where: str) -> None:
    """Refuse more samples, over all signals, than fit the memory of a worker."""
    if count > MAX_SAMPLES:
        _too_large(f"{count} samples", f"{MAX_SAMPLES}", where)


def _too_large(found: str, limit: str, where: str) -> NoReturn:
    raise UnreadableRecording(Reason.LIMIT, found, f"at most {limit}", TAKE_WINDOWS, where)


def _signal(text: str, line: _Line, notes: list[str]) -> Signal:
    file, *tokens = text.split(None, 3)
    if file != NULL:
        _check_bare_name(file, line.where)
    storage = _storage(tokens[0]) if tokens else None
    if storage is None:
        line.refuse(f"{' '.join(tokens[:1])[:40]!r} as storage format", "such as 16, 212, 16x2:5+24")
    scale = _scale(tokens[1] if len(tokens) > 1 else "0")
    if scale is None:
        line.refuse(f"{tokens[1][:40]!r} as gain", "such as 200, 1000(0)/mV, and finite")
    gain, baseline, unit = scale
    if gain == 0.0:
        gain = DEFAULT_GAIN
        notes.append(ASSUMED_GAIN)
    details = _DETAILS.fullmatch(tokens[2] if len(tokens) > 2 else "")
    if details is None:
        line.refuse("other things", "whole numbers: resolution, zero, first value, checksum, block size; then a name")
    zero, initial, checksum, name = details.groups()
    # Baseline and ADC zero are two fields: the official code of the Challenge reads the latter for the former, which is
    # right only where no baseline is given.
    adc_zero = int(zero or 0)
    return Signal(
        file,
        *storage,
        gain,
        float(adc_zero) if baseline is None else baseline,
        unit,
        None if initial is None else int(initial),
        None if checksum is None else int(checksum),
        adc_zero,
        name or "",
    )


# All signals of a record, and most of a cohort, share these two tokens: parsing them once saves a third of the time.
@lru_cache(maxsize=1024)
def _storage(token: str) -> tuple[int, int, int, int] | None:
    """Parse format, samples per frame, skew, byte offset; None if the token is malformed."""
    match = _FORMAT.fullmatch(token)
    if match is None or (match[2] is not None and int(match[2]) == 0):
        return None
    storage, per_frame, skew, offset = match.groups()
    return int(storage), int(per_frame or 1), int(skew or 0), int(offset or 0)


@lru_cache(maxsize=1024)
def _scale(token: str) -> tuple[float, float | None, str] | None:
    """Parse gain, baseline (None: not given), unit; None if the token is malformed."""
    match = _GAIN.fullmatch(token)
    if match is None or not math.isfinite(float(match[1])):
        return None
    return float(match[1]), None if match[2] is None else float(match[2]), match[3] or "mV"


def _check_bare_name(name: str, where: str) -> str:
    """Return a file name taken from a header, if it can only mean a file in the header's own folder."""
    if not _is_bare_name(name):
        raise UnreadableRecording(
            Reason.PATH, f"the file name {name[:80]!r}", "a bare file name", "Name the file without any path.", where
        )
    return name


@lru_cache(maxsize=1024)
def _is_bare_name(name: str) -> bool:
    bad = not name or name[0] in "-~" or ".." in name or name == "." or not _FORBIDDEN.isdisjoint(name)
    return not bad and name.isprintable()


def _segment(text: str, line: _Line) -> tuple[str, int]:
    tokens = text.split()
    if len(tokens) != 2:
        line.refuse("no `name samples`")
    name = tokens[0] if tokens[0] == NULL else _check_bare_name(tokens[0], line.where)
    return name, line.integer(tokens[1], "segment length", 0)


def _check_groups(signals: tuple[Signal, ...], where: str) -> None:
    """Refuse signals of one file that stand apart, or differ in format or offset."""
    groups: dict[str, Signal] = {}
    previous = ""
    for signal in signals:
        first = groups.setdefault(signal.file, signal)
        if signal.file == NULL:
            continue
        # One file is one stream of frames: with two formats in it, no sample has a place.
        if (first.format, first.offset) != (signal.format, signal.offset):
            _refuse(f"two formats or offsets in {signal.file}", "one per file", where)
        if first is not signal and previous != signal.file:
            _refuse(f"signals of {signal.file} in two places", "all of them in one block", where)
        previous = signal.file


def _fields(comments: list[str]) -> dict[str, str]:
    """Split header comments by key: `Age: 63`, `<age>: 63  <sex>: F`, `patient 1`; the last of a key wins.

    Free text is left out.
    """
    fields: dict[str, str] = {}
    for comment in comments:
        tags = list(_TAGGED.finditer(comment))
        # One colon at least: `<b>` alone is markup of a text.
        if tags and not comment[: tags[0].start()].strip() and any(tag[0].endswith(":") for tag in tags):
            stops = [tag.start() for tag in tags[1:]] + [len(comment)]
            for tag, stop in zip(tags, stops, strict=True):
                fields[tag[1].strip()] = comment[tag.end() : stop].strip()
            continue
        key, colon, value = comment.partition(":")
        if colon:
            fields[key.strip()] = value.strip()
        elif (numbered := _NUMBERED.fullmatch(comment.strip())) is not None:
            fields[numbered[1]] = numbered[2]
    return fields
