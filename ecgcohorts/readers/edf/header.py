"""Parse headers of EDF, EDF+ and BDF files: fixed ASCII fields, each matched from end to end.

Sources: Kemp et al. 1992 (EDF); Kemp and Olivan 2003 and the specification at edfplus.info (EDF+); BioSemi's description
of BDF.
"""

import re
from collections.abc import Callable
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, NoReturn, Self

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._shared.limits import MAX_LEADS

HEADER_BYTES = 256  # fixed part, and as much again for every signal
EDF, BDF = b"0       ", b"\xffBIOSEMI"
MAX_SIGNALS = 2 * MAX_LEADS  # our default; signals that are left out count, too
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
CHARACTERS = "latin-1"  # only ASCII is allowed, but files hold the micro sign
UNFINISHED = -1  # number of records while a file is being written
FETCH_AGAIN = "Fetch the file again from its source."

_EXACT = Context(prec=40)  # decimal digits: many more than two 8-character fields can need
_INTEGER = re.compile(r"[+-]?[0-9]{1,8}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,8}(?:[.,][0-9]{0,7})?|[.,][0-9]{1,7})(?:[eE][+-]?[0-9]{1,2})?")
# May be thousands: 32,767 is 32767 or 32.767.
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# Fields of the part per signal, in the file's order: width in bytes.
_WIDTHS = {
    "label": 16,
    "transducer": 80,
    "dimension": 8,
    "physical_minimum": 8,
    "physical_maximum": 8,
    "digital_minimum": 8,
    "digital_maximum": 8,
    "prefilter": 80,
    "samples": 8,
    "reserved": 32,
}
_UNUSED = ("transducer", "reserved")  # passed over: cutting out texts takes a sixth of the time of an ECG of 10 s


class Signal(NamedTuple):
    """One signal as declared; its calibration stays text until it is used."""

    label: str
    dimension: str
    calibration: tuple[str, str, str, str]  # physical minimum and maximum, digital minimum and maximum
    prefilter: str
    per_record: int
    offset: int  # samples of a record in front of its own

    @property
    def is_annotation(self) -> bool:
        """Whether it holds texts instead of samples."""
        return self.label in ANNOTATIONS

    @property
    def has_commas(self) -> bool:
        """Whether its writer puts a comma for the decimal point."""
        return "," in self.calibration[0] or "," in self.calibration[1]

    def scale(self, sample_bytes: int, where: str) -> "Scale":
        """Compute the scale from the four limits. Raises UnreadableRecording if they give no gain."""
        found = _scale_of(self.calibration, sample_bytes)
        if found is None and any("," in limit for limit in self.calibration):
            refuse(
                Reason.HEADER,
                "a comma in the limits of a signal, which may separate thousands",
                "decimal points, or decimal commas that cannot be taken for anything else",
                where,
            )
        if found is None:
            refuse(
                Reason.HEADER,
                "limits of a signal that give no gain",
                "two different physical ones, and two digital ones in order",
                where,
            )
        return found


class Header(NamedTuple):
    """A file as its header declares it."""

    patient: str
    recording: str
    start_date: str
    start_time: str
    kind: str  # "EDF+C", "EDF+D", "BDF+C", "BDF+D", or empty
    sample_bytes: int
    n_records: int
    record_s: Decimal
    signals: tuple[Signal, ...]

    @property
    def is_discontinuous(self) -> bool:
        """Whether each record states its own time."""
        return self.kind.endswith("D")

    @property
    def header_bytes(self) -> int:
        """Size of the header."""
        return HEADER_BYTES * (1 + len(self.signals))

    @property
    def record_samples(self) -> int:
        """Samples of one record, over all signals."""
        last = self.signals[-1]
        return last.offset + last.per_record

    @property
    def declared_bytes(self) -> int:
        """Size of the whole file."""
        return self.header_bytes + self.n_records * self.record_samples * self.sample_bytes

    def rate_hz(self, signal: Signal) -> float:
        """Return the sampling rate of a signal."""
        # In decimals, as the header gives both numbers: 7 samples in 0.3 s, as floats, give a rate next to the right one.
        return float(_EXACT.divide(Decimal(signal.per_record), self.record_s))

    @classmethod
    def parse(cls, read: Callable[[int], bytes], where: str) -> Self:
        """Read a whole header; `read` returns so many bytes, fewer at the end of the file. Raises UnreadableRecording."""
        data = read(HEADER_BYTES)
        n_signals = _n_signals(data, where)
        data += read(HEADER_BYTES * n_signals)
        if len(data) < HEADER_BYTES * (1 + n_signals):
            refuse(Reason.TRUNCATED, f"{len(data)} bytes", f"{HEADER_BYTES * (1 + n_signals)} of a header", where)
        text = data.decode(CHARACTERS)
        n_records = _integer(text[236:244], "records", where)
        if n_records == UNFINISHED:
            refuse(Reason.UNSUPPORTED, "a file that its writer has not finished (-1 records)", "a number", where)
        signals = _signals(text, n_signals, where)
        record_s = _duration(text[244:252], signals, where)
        if n_records < 1:
            refuse(Reason.EMPTY, f"{n_records} records", "at least one", where)
        if record_s <= 0:
            refuse(Reason.HEADER, f"records of {float(record_s):g} s", "more than 0 s", where)
        # `EDF+C` means nothing in a BDF file, and the other way round.
        is_bdf = data[:8] == BDF
        kind = text[192:197]
        return cls(
            patient=text[8:88].strip(" "),
            recording=text[88:168].strip(" "),
            start_date=text[168:176].strip(" "),
            start_time=text[176:184].strip(" "),
            kind=kind if kind in (("BDF+C", "BDF+D") if is_bdf else ("EDF+C", "EDF+D")) else "",
            sample_bytes=3 if is_bdf else 2,
            n_records=n_records,
            record_s=record_s,
            signals=signals,
        )


class Scale(NamedTuple):
    """The inverse of physical = minimum + (digital - least) * (maximum - minimum) / (most - least)."""

    steps_per_unit: float
    baseline: float  # digital value that is 0 units
    least: int
    most: int


def sniff(head: bytes) -> bool:
    """Tell whether a file starts with an EDF or BDF header whose two statements of its length agree."""
    if head[:8] not in (EDF, BDF):
        return False
    text = head.decode(CHARACTERS)
    declared, n_signals = (_INTEGER.fullmatch(field.strip(" ")) for field in (text[184:192], text[252:256]))
    return bool(declared and n_signals and int(declared[0]) == HEADER_BYTES * (1 + int(n_signals[0])))


def _n_signals(head: bytes, where: str) -> int:
    """Return the number of signals, from the first 256 bytes. Raises UnreadableRecording."""
    if head[:8] not in (EDF, BDF):
        refuse(Reason.FORMAT, "another version", "EDF or BDF", where)
    if len(head) < HEADER_BYTES:
        refuse(Reason.TRUNCATED, f"{len(head)} bytes", f"{HEADER_BYTES} of a header", where)
    text = head.decode(CHARACTERS)
    n_signals, declared = _integer(text[252:256], "signals", where), _integer(text[184:192], "header bytes", where)
    if not 1 <= n_signals <= MAX_SIGNALS:
        refuse(Reason.LIMIT, f"{n_signals} signals", f"1 to {MAX_SIGNALS}", where)
    if declared != HEADER_BYTES * (1 + n_signals):
        refuse(Reason.HEADER, f"a header of {declared} bytes", f"{HEADER_BYTES * (1 + n_signals)}", where)
    return n_signals


@lru_cache(maxsize=256)  # the signals of a file share one calibration, and so do the files of a cohort
def _scale_of(calibration: tuple[str, str, str, str], sample_bytes: int) -> Scale | None:
    """Compute the scale from the four limits of a signal; None if they give no gain."""
    texts = calibration[:2], calibration[2:]
    if not all(map(_DECIMAL.fullmatch, texts[0])) or not all(map(_INTEGER.fullmatch, texts[1])):
        return None
    commas = [limit for limit in texts[0] if "," in limit]
    # A limit of its pair that has no three digits after the comma shows what the comma means.
    if commas and (all(map(_GROUPED.fullmatch, commas)) or any("." in limit for limit in texts[0])):
        return None
    low, high = (Decimal(limit.replace(",", ".")) for limit in texts[0])
    least, most = map(int, texts[1])
    # Limits in falling order are legal for the voltage (the signal is upside down), not for the integers.
    bound = 1 << 8 * sample_bytes - 1
    if low == high or not -bound <= least < most < bound:
        return None
    # In decimals, so that -3276.8 to 3276.7 over -32768 to 32767 gives the baseline 0 and not nearly 0.
    steps, units = Decimal(most - least), _EXACT.subtract(high, low)
    baseline = _EXACT.subtract(Decimal(least), _EXACT.divide(_EXACT.multiply(low, steps), units))
    return Scale(float(_EXACT.divide(steps, units)), float(baseline), least, most)


def _signals(text: str, count: int, where: str) -> tuple[Signal, ...]:
    """Parse the part per signal: one field for all signals, then the next field."""
    columns: dict[str, list[str]] = {}
    at = HEADER_BYTES
    for name, width in _WIDTHS.items():
        if name not in _UNUSED:
            columns[name] = [text[start : start + width].strip(" ") for start in range(at, at + width * count, width)]
        at += width * count
    per_record = [_integer(field, "samples of a record", where) for field in columns["samples"]]
    if min(per_record) < 1:
        refuse(Reason.HEADER, f"{min(per_record)} samples in a record", "at least one", where)
    offsets = accumulate(per_record[:-1], initial=0)
    limits = ("physical_minimum", "physical_maximum", "digital_minimum", "digital_maximum")
    calibrations = zip(*(columns[name] for name in limits), strict=True)
    dimensions = [dimension.replace("\xc2\xb5", "\xb5") for dimension in columns["dimension"]]  # a micro sign in UTF-8
    columns_of_signals = (columns["label"], dimensions, calibrations, columns["prefilter"])
    return tuple(Signal(*values) for values in zip(*columns_of_signals, per_record, offsets, strict=True))


def _integer(text: str, what: str, where: str) -> int:
    text = text.strip(" ")
    if not _INTEGER.fullmatch(text):
        refuse(Reason.HEADER, f"an unreadable number of {what}", "a whole one", where)
    return int(text)


def _duration(text: str, signals: tuple[Signal, ...], where: str) -> Decimal:
    """Parse the seconds of a record; a decimal comma only where the limits of the signals have one, too."""
    text, what = text.strip(" "), "seconds of a record"
    if "," in text and not any(signal.has_commas for signal in signals):
        refuse(Reason.HEADER, f"a comma in the {what}, and none in the limits of the signals", "a decimal point", where)
    if not _DECIMAL.fullmatch(text):
        refuse(Reason.HEADER, f"an unreadable number as {what}", "a decimal one", where)
    return Decimal(text.replace(",", "."))


def refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    """Raise UnreadableRecording for a file that can be fetched again."""
    raise UnreadableRecording(reason, found, expected, FETCH_AGAIN, where)
