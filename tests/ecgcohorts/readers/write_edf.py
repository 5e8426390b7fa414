"""Write EDF, EDF+ and BDF files with known samples, any header field bent. Written from the specification of EDF+."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
CANARIES = (
    "MCH-7755123-KANARI",
    "Zorbanna_Quexwiddle",
    "KANARI-PSG-9981",
    "Technikus_Hufflewock",
    "Kanarien_Telemetrie_7",
    "kanari annotation text",
)
CODE, NAME, ADMISSION, TECHNICIAN, EQUIPMENT, ANNOTATION = CANARIES
PLUS_PATIENT = f"{CODE} F 02-MAY-1951 {NAME}"
PLUS_RECORDING = f"Startdate 02-MAR-2002 {ADMISSION} {TECHNICIAN} {EQUIPMENT}"


@dataclass(frozen=True)
class Signal:
    """One signal: all its samples, and the header fields as they are written."""

    label: str
    samples: NDArray[np.integer]
    per_record: int = 50
    dimension: str | bytes = "uV"
    physical: tuple[str, str] = ("-3276.8", "3276.7")
    digital: tuple[str, str] = ("-32768", "32767")
    prefilter: str = "HP:0.05Hz LP:150Hz N:50Hz"

    def record(self, place: int) -> NDArray[np.integer]:
        return self.samples[place * self.per_record : (place + 1) * self.per_record]

    @property
    def fields(self) -> tuple[tuple[str | bytes, int], ...]:
        return (
            *((self.label, 16), ("AgAgCl electrode", 80), (self.dimension, 8)),
            *((self.physical[0], 8), (self.physical[1], 8), (self.digital[0], 8), (self.digital[1], 8)),
            *((self.prefilter, 80), (str(self.per_record), 8), ("", 32)),
        )


@dataclass(frozen=True)
class Annotations:
    """An annotation signal: every record starts with its onset in seconds; None leaves it out."""

    onsets: Sequence[float | None]
    per_record: int = 30
    label: str = "EDF Annotations"

    def text(self, place: int, size: int) -> bytes:
        onset = self.onsets[place]
        start = b"" if onset is None else f"+{onset:g}".encode() + b"\x14\x14\0"
        return (start + b"+0\x14" + ANNOTATION.encode() + b"\x14\0").ljust(size, b"\0")

    @property
    def fields(self) -> tuple[tuple[str | bytes, int], ...]:
        limits = ("-1", "1", "-32768", "32767") if self.label.startswith("EDF") else ("-1", "1", "-8388608", "8388607")
        return (
            *((self.label, 16), ("", 80), ("", 8), *((limit, 8) for limit in limits)),
            *(("", 80), (str(self.per_record), 8), ("", 32)),
        )


def padded(text: str | bytes, width: int) -> bytes:
    data = text.encode("latin-1") if isinstance(text, str) else text
    assert len(data) <= width, text
    return data.ljust(width)


def encode(values: NDArray[np.integer], size: int) -> bytes:
    """Two's complement, least byte first."""
    if size == 2:
        return values.astype("<i2").tobytes()
    return b"".join(int(value).to_bytes(3, "little", signed=True) for value in values)


def document(
    signals: Sequence[Signal | Annotations],
    record_s: str = "0.1",
    kind: str = "",
    bdf: bool = False,
    **changes: str | bytes,
) -> bytes:
    """A whole file. changes: any of the fixed header fields as text."""
    size = 3 if bdf else 2
    first = next(signal for signal in signals if isinstance(signal, Signal))
    n_records = len(first.samples) // first.per_record
    plus = "+" in kind
    fixed: dict[str, tuple[str | bytes, int]] = {
        "version": (b"\xffBIOSEMI" if bdf else "0", 8),
        "patient": (PLUS_PATIENT if plus else f"{NAME} {CODE}", 80),
        "recording": (PLUS_RECORDING if plus else f"{TECHNICIAN} {ADMISSION}", 80),
        "start_date": ("02.03.02", 8),
        "start_time": ("14.05.59", 8),
        "header_bytes": (str(256 * (len(signals) + 1)), 8),
        "reserved": (kind or ("24BIT" if bdf else ""), 44),
        "n_records": (str(n_records), 8),
        "record_s": (record_s, 8),
        "n_signals": (str(len(signals)), 4),
    }
    head = b"".join(padded(changes.get(name, text), width) for name, (text, width) in fixed.items())
    for column in zip(*[signal.fields for signal in signals], strict=True):
        head += b"".join(padded(text, width) for text, width in column)
    return head + b"".join(
        signal.text(place, size * signal.per_record)
        if isinstance(signal, Annotations)
        else encode(signal.record(place), size)
        for place in range(n_records)
        for signal in signals
    )


def known_samples(n_signals: int = 12, n_samples: int = 500, seed: int = 6, limit: int = 9000) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-limit, limit, (n_signals, n_samples))


def leads_of(samples: NDArray[np.integer], labels: Sequence[str] = TWELVE, **changes: Any) -> list[Signal]:
    """One signal a row, named in order."""
    return [Signal(label, row, **changes) for label, row in zip(labels, samples, strict=False)]


def physical(signal: Signal) -> NDArray[np.float64]:
    """Samples in the signal's own unit, by the formula of the specification."""
    low, high = (float(text) for text in signal.physical)
    least, most = (float(text) for text in signal.digital)
    return low + (signal.samples - least) * (high - low) / (most - least)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one EDF+C file of 500 Hz, and what must come out of it."""
    labels = TWELVE[:2] if seconds is None else TWELVE
    samples = known_samples(len(labels), 100 if seconds is None else round(seconds * 500))
    records = Annotations([place * 0.1 for place in range(samples.shape[1] // 50)])
    path = folder / "ecg.edf"
    names = tuple(f"ECG {label}" for label in labels)
    path.write_bytes(document([*leads_of(samples, names), records], kind="EDF+C"))
    return path, [{"entry": "", "leads": names, "rate_hz": 500.0, "signal_mv": samples * 1e-4}]


def write_bdf(folder: Path) -> Path:
    """Two leads of 24 bits."""
    limits = ("-8388608", "8388607")
    path = folder / "ecg.bdf"
    signals = leads_of(known_samples(2, 100), physical=limits, digital=limits, dimension="nV")
    path.write_bytes(document(signals, bdf=True))
    return path


def write_discontinuous(folder: Path) -> Path:
    """Two leads in EDF+D records that follow each other."""
    path = folder / "ecg.edf"
    path.write_bytes(document([*leads_of(known_samples(2, 100)), Annotations([0.0, 0.1])], kind="EDF+D"))
    return path


VARIANT_FIXTURES = {"bdf": write_bdf, "edf_plus_d": write_discontinuous}
