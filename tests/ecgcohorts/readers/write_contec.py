"""Write files of Contec's ECG90A with known samples, from the published description of the format."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS = ("II", "III", "V1", "V2", "V3", "V4", "V5", "V6")
OFF = 0x6800
CANARIES = ("KANARI90",)  # the name has eight bytes
NAME = CANARIES[0]


def document(
    raw: NDArray[np.integer],
    case: bytes = b"0000037",
    time: bytes = b"2020-11-15 12:59:50",
    sex: int = 1,
    age: int = 54,
    footer: bytes = bytes(37),
) -> bytes:
    """raw: (lead, time) as stored, 2048 is 0 mV."""
    head = case.ljust(8, b"\0") + b"\0\0" + time.ljust(20, b"\0") + b"\0\0" + NAME.encode().ljust(8, b"\0")
    samples = b"".join(int(value).to_bytes(2, "little") for value in raw.T.ravel())
    return head + bytes([sex, age, 73]) + samples + footer


def known_samples(n_samples: int = 40, seed: int = 51) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1500, 2600, (8, n_samples))


def beats(n_samples: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(52)
    phase_s = (np.arange(n_samples) % 800 - 400) / 800
    spike = rng.uniform(80, 280, (8, 1)) * np.exp(-((phase_s / 0.03) ** 2))
    return np.rint(2048 + spike + rng.normal(0, 4, (8, n_samples))).astype(np.int64)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one file, and what must come out of it."""
    raw = known_samples() if seconds is None else beats(round(seconds * 800))
    path = folder / "0000037.ECG"
    path.write_bytes(document(raw))
    return path, [{"entry": "", "leads": LEADS, "rate_hz": 800.0, "signal_mv": (raw - 2048) * 5e-3}]


def write_with_leads_off(folder: Path) -> Path:
    """Limb leads only, as in the published file."""
    raw = known_samples()
    raw[2:] = OFF
    path = folder / "0000038.ECG"
    path.write_bytes(document(raw))
    return path


VARIANT_FIXTURES = {"leads_off": write_with_leads_off}
