"""Write DICOM waveform files with known samples: any transfer syntax, any group, any attribute left out or bent.

Written from PS3.5 (encoding), PS3.10 (file meta information) and PS3.3 C.10.9 (waveform module), not from the reader.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SCP_NUMBERS = dict(zip(TWELVE, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
TWELVE_LEAD_STORAGE = "1.2.840.10008.5.1.4.1.1.9.1.1"

CANARIES = (
    "Quexwiddle^Zorbanna",
    "PID-8842-KANARI",
    "OTHERID-5519-KANARI",
    "Klinik-am-Kanarienberg",
    "ACC-7731-KANARI",
    "Dr-Hufflewock-Referrer",
    "Operator-Zimtvogel",
    "Kanarienweg-77-Vogelstadt",
    "SERIAL-2299-KANARI",
    "1.2.826.0.1.3680043.8.498.77553311",
    "Befund: Kanarienfibrillation",
    "private-kanari-text",
    "STATION-KANARI-4",
)
(NAME, PATIENT_ID, OTHER_ID, INSTITUTION, ACCESSION, PHYSICIAN, OPERATOR) = CANARIES[:7]
(ADDRESS, SERIAL, UID, FINDING, PRIVATE, STATION) = CANARIES[7:]

Value = str | int | bytes | list["DataSet"]
DataSet = Mapping[int, tuple[str, Value] | None]  # tag -> VR and value; None leaves it out

PATIENT: DataSet = {
    0x00080005: ("CS", "ISO_IR 100"),
    0x00080016: ("UI", TWELVE_LEAD_STORAGE),
    0x00080018: ("UI", UID),
    0x00080020: ("DA", "20190331"),
    0x0008002A: ("DT", "20190331140559.250+0100"),
    0x00080030: ("TM", "140500"),
    0x00080050: ("SH", ACCESSION),
    0x00080060: ("CS", "ECG"),
    0x00080070: ("LO", "Example"),
    0x00080080: ("LO", INSTITUTION),
    0x00080090: ("PN", PHYSICIAN),
    0x00081010: ("SH", STATION),
    0x00081070: ("PN", OPERATOR),
    0x00081090: ("LO", "Cart 9"),
    0x00090010: ("LO", PRIVATE),
    0x00100010: ("PN", NAME),
    0x00100020: ("LO", PATIENT_ID),
    0x00100030: ("DA", "19560229"),
    0x00100040: ("CS", "F"),
    0x00101000: ("LO", OTHER_ID),
    0x00101010: ("AS", "063Y"),
    0x00101040: ("LO", ADDRESS),
    0x00181000: ("LO", SERIAL),
    0x0040B020: ("SQ", [{0x00700006: ("ST", FINDING)}]),
}
_LONG = ("OB", "OW", "SQ", "UN", "UT")
_PADDED_WITH_NUL = ("UI", "OB", "OW", "UN")


@dataclass(frozen=True)
class Encoding:
    """How data sets are written; `undefined` gives sequences and items no length, but an end."""

    uid: str = EXPLICIT
    undefined: bool = False

    @property
    def order(self) -> str:
        return ">" if self.uid == BIG_ENDIAN else "<"

    def data_set(self, values: DataSet) -> bytes:
        return b"".join(
            self.element(tag, *value) for tag, value in sorted(values.items(), key=lambda item: item[0]) if value
        )

    def element(self, tag: int, vr: str, value: Value) -> bytes:
        head = struct.pack(f"{self.order}HH", tag >> 16, tag & 0xFFFF)
        data = self.value(vr, value)
        length = 0xFFFFFFFF if self.undefined and vr == "SQ" else len(data)
        if self.uid == IMPLICIT:
            head += struct.pack("<I", length)
        elif vr in _LONG:
            head += vr.encode() + b"\0\0" + struct.pack(f"{self.order}I", length)
        else:
            head += vr.encode() + struct.pack(f"{self.order}H", length)
        return head + data

    def value(self, vr: str, value: Value) -> bytes:
        if isinstance(value, list):
            items = b"".join(self.item(item) for item in value)
            return items + (self.mark(0xE0DD, 0) if self.undefined else b"")
        if isinstance(value, int):
            return struct.pack(self.order + {"US": "H", "UL": "I"}[vr], value)
        data = value.encode("latin-1") if isinstance(value, str) else value
        return data + (b"\0" if vr in _PADDED_WITH_NUL else b" ") * (len(data) % 2)

    def item(self, values: DataSet) -> bytes:
        data = self.data_set(values)
        if self.undefined:
            return self.mark(0xE000, 0xFFFFFFFF) + data + self.mark(0xE00D, 0)
        return self.mark(0xE000, len(data)) + data

    def mark(self, element: int, length: int) -> bytes:
        return struct.pack(f"{self.order}HHI", 0xFFFE, element, length)


@dataclass(frozen=True)
class Group:
    """One multiplex group of samples (channel, time) int. `channel` changes every channel, `group` the group itself."""

    samples: NDArray[np.integer]
    leads: Sequence[str] = TWELVE
    rate: str = "500"
    label: str | None = "RHYTHM"
    originality: str = "ORIGINAL"
    bits: int = 16
    kind: str = "SS"
    channel: DataSet = field(default_factory=dict)
    group: DataSet = field(default_factory=dict)
    per_channel: Mapping[int, DataSet] = field(default_factory=dict)  # place -> changes of that channel

    def data(self, order: str) -> bytes:
        unsigned = "u" if self.kind in ("UB", "US", "UL", "MB", "AB") else "i"
        return self.samples.T.astype(f"{order}{unsigned}{self.bits // 8}").tobytes()

    def item(self, order: str) -> DataSet:
        channels = [
            dict(channel(lead) | dict(self.channel) | dict(self.per_channel.get(place, {})))
            for place, lead in enumerate(self.leads)
        ]
        values: dict[int, tuple[str, Value] | None] = {
            0x00181068: ("DS", "0"),
            0x003A0004: ("CS", self.originality),
            0x003A0005: ("US", len(self.samples)),
            0x003A0010: ("UL", self.samples.shape[1]),
            0x003A001A: ("DS", self.rate),
            0x003A0020: ("SH", self.label) if self.label is not None else None,
            0x003A0200: ("SQ", channels),
            0x54001004: ("US", self.bits),
            0x54001006: ("CS", self.kind),
            0x54001010: ("OB" if self.bits == 8 else "OW", self.data(order)),
        }
        return values | dict(self.group)


def code(value: str, scheme: str, meaning: str) -> tuple[str, Value]:
    """A code sequence of one item."""
    return "SQ", [{0x00080100: ("SH", value), 0x00080102: ("SH", scheme), 0x00080104: ("LO", meaning)}]


def channel(lead: str) -> dict[int, tuple[str, Value] | None]:
    """A channel definition as a cart writes it: 2.5 uV a step."""
    return {
        0x003A0208: code(f"5.6.3-9-{SCP_NUMBERS.get(lead, 99)}", "SCPECG", f"Lead {lead}"),
        0x003A0210: ("DS", "2.5"),
        0x003A0211: code("uV", "UCUM", "microvolt"),
        0x003A0212: ("DS", "1"),
        0x003A0213: ("DS", "0"),
        0x003A0215: ("DS", "0"),
        0x003A021A: ("US", 16),
        0x003A0220: ("DS", "0.050"),
        0x003A0221: ("DS", "150"),
        0x003A0222: ("DS", "50"),
    }


def meta(uid: str) -> bytes:
    """Preamble, DICM and file meta information, which is explicit little endian whatever comes after it."""
    explicit = Encoding()
    body = b"".join(
        (
            explicit.element(0x00020001, "OB", b"\0\1"),
            explicit.element(0x00020002, "UI", TWELVE_LEAD_STORAGE),
            explicit.element(0x00020003, "UI", UID),
            explicit.element(0x00020010, "UI", uid),
        )
    )
    return bytes(128) + b"DICM" + explicit.element(0x00020000, "UL", len(body)) + body


def document(
    groups: Sequence[Group], encoding: Encoding | None = None, patient: DataSet = PATIENT, uid: str | None = None
) -> bytes:
    """A whole file. `uid` puts another transfer syntax into its meta information than the one it is written in."""
    encoding = encoding or Encoding()
    waveform: DataSet = {0x54000100: ("SQ", [group.item(encoding.order) for group in groups])}
    return meta(uid or encoding.uid) + encoding.data_set({**patient, **waveform})


def known_samples(n_channels: int = 12, n_samples: int = 400, seed: int = 5, limit: int = 800) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-limit, limit, (n_channels, n_samples))


def median(leads: Sequence[str] = TWELVE) -> Group:
    """A beat that must never be read."""
    return Group(np.full((len(leads), 600), 9999), leads, label="MEDIAN BEAT", originality="DERIVED")


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    leads = ("I", "II") if seconds is None else TWELVE
    samples = known_samples(len(leads), 40 if seconds is None else round(seconds * 500))
    beat = Group(samples[:, :20], leads, label="MEDIAN BEAT", originality="DERIVED")
    path = folder / "ecg.dcm"
    path.write_bytes(document([beat, Group(samples, leads)]))
    return path, [{"entry": "", "leads": leads, "rate_hz": 500.0, "signal_mv": samples * 2.5e-3}]


def _variant(encoding: Encoding) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "ecg.dcm"
        path.write_bytes(document([Group(known_samples(2, 40), ("I", "II"))], encoding))
        return path

    return make


def _one_after_the_other(folder: Path) -> Path:
    """As on paper: each lead in a group of its own, by the times of the groups."""
    samples = known_samples(2, 20)
    groups = [
        Group(samples[row : row + 1], (lead,), group={0x00181068: ("DS", str(40 * row))})
        for row, lead in enumerate(("I", "II"))
    ]
    path = folder / "ecg.dcm"
    path.write_bytes(document(groups))
    return path


VARIANT_FIXTURES = {
    "one_after_the_other": _one_after_the_other,
    "implicit": _variant(Encoding(IMPLICIT)),
    "big_endian": _variant(Encoding(BIG_ENDIAN)),
    "delimited": _variant(Encoding(undefined=True)),
    "implicit_delimited": _variant(Encoding(IMPLICIT, undefined=True)),
}
