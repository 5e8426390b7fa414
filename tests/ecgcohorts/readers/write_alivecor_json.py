"""Write recordings as AliveCor's Kardia API describes them, with known samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIX = {"leadI": "I", "leadII": "II", "leadIII": "III", "AVR": "AVR", "AVL": "AVL", "AVF": "AVF"}
CANARIES = ("KANARIENVOGEL-KARDIA-551", "slept badly, Herr Kardiasson", "SERIAL-KARDIA-77120", "tag-of-kardia-room")
(ID, NOTE, SERIAL, TAG) = CANARIES


def block(signal: dict[str, NDArray | list[Any]], **changes: Any) -> dict[str, Any]:
    """A signal of 500 nV a step at 300 Hz; a change of None leaves a key out."""
    lists = {lead: values if isinstance(values, list) else values.tolist() for lead, values in signal.items()}
    known = {
        "frequency": 300,
        "mainsFrequency": 60,
        "amplitudeResolution": 500,
        "numLeads": len(signal),
        "samples": lists,
    }
    return {key: value for key, value in (known | changes).items() if value is not None}


def recording(raw: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """A recording; its enhanced signal is another one, which must never be read in place of the raw one."""
    known = {
        "id": "rec-1",
        "patientID": ID,
        "duration": None,
        "heartRate": 65,
        "note": NOTE,
        "tags": [TAG],
        "algorithmDetermination": "normal",
        "recordedAt": "2019-02-20T17:43:05Z",
        "deviceInfo": {"hardwareType": "triangle", "serialNumber": SERIAL},
        "data": {"raw": raw, "enhanced": block({"leadI": [9, 9, 9]})}
        if raw
        else {"enhanced": block({"leadI": [9, 9]})},
    } | changes
    return {key: value for key, value in known.items() if value is not None}


def ecg(n_leads: int, n_samples: int, seed: int = 0) -> NDArray[np.int64]:
    """(lead, time) in steps of 0.5 uV: one spike a second over a little noise."""
    rng = np.random.default_rng(seed)
    time = (np.arange(n_samples) % 300 - 150) / 300
    spikes = rng.uniform(800, 2800, (n_leads, 1)) * np.exp(-((time / 0.02) ** 2))
    return np.rint(spikes + rng.normal(0, 40, spikes.shape)).astype(np.int64)


def write(folder: Path, seconds: float | None = None) -> tuple[Path, list[dict[str, Any]]]:
    """The fixture of the reader contract: one small lead, or twelve: no recipe of a store takes six."""
    keys = [*SIX, "V1", "V2", "V3", "V4", "V5", "V6"] if seconds else ["leadI"]
    steps = ecg(len(keys), round(seconds * 300) if seconds else 12)
    path = folder / "ecg.json"
    path.write_text(json.dumps(recording(block(dict(zip(keys, steps, strict=True))))), "utf-8")
    leads = tuple(SIX.get(key, key) for key in keys)
    return path, [{"entry": "", "leads": leads, "rate_hz": 300.0, "signal_mv": steps * 500 / 1e6}]


def _decimals(folder: Path) -> Path:
    path = folder / "ecg.json"
    samples = {"leadI": [1.5, None, -2], "leadII": [0, 3, 4e1]}
    path.write_text(json.dumps(recording(block(samples)), indent=2), "utf-8")
    return path


VARIANT_FIXTURES = {"decimals": _decimals}
