"""AliveCor Kardia recordings (JSON of the Kardia API): the unfiltered signal of one or six limb leads.

Source: AliveCor's API documentation as independent readers restate it; no real file was at hand.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.json_text import Json
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, known
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".json",)
VARIANTS = ("KardiaMobile, one lead or six (layout unconfirmed on real files)",)
ENHANCED = "filtered by the maker (enhanced), no raw signal"
DURATION_DIFFERS = "another duration is declared"
APART_S = 1.0  # our default: durations are rounded

_KEYS = re.compile(rb'"(recordedAt|algorithmDetermination|amplitudeResolution|mainsFrequency|leadI|data12L)"\s*:')
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")
_RESOURCE = re.compile(rb'"resourceType"\s*:')
_INT32 = np.iinfo(np.int32)
_MAINS_HZ = (50.0, 60.0)
_KEPT = {"ID": "id", "Determination": "algorithmDetermination", "HeartRate": "heartRate"}


class _Signal(NamedTuple):
    """One of the two signals of a recording, with its samples still as JSON."""

    leads: dict[str, list[Any]]
    rate_hz: float
    nv_per_step: float
    notes: tuple[str, ...]


def sniff(head: bytes) -> bool:
    """Tell whether an object begins there that has two of the keys of a recording, and is none of FHIR's resources."""
    return bool(_BEGINS.match(head)) and len(set(_KEYS.findall(head))) >= 2 and not _RESOURCE.search(head)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the numbers as written; null is missing. analog_mv where any is no whole number. Raises
    UnreadableRecording.
    """
    content, notes = Json.read(path)
    signal = _signal(content, str(path))
    values, missing = _samples(signal, str(path))
    per_mv = [steps_per_mv(1 / signal.nv_per_step, "nV", lead, str(path)) for lead in signal.leads]
    yield _recording(path, content, signal, notes, **_as_stored(values, missing, np.array(per_mv), str(path)))


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples."""
    content, notes = Json.read(path)
    signal = _signal(content, str(path))
    yield _recording(path, content, signal, notes, analog_mv=np.zeros((len(signal.leads), 0)))


def _signal(content: dict[str, Any], where: str) -> _Signal:
    """Choose the raw signal, and check it as far as its header goes."""
    if "data12L" in content and not Json.at(content, "data"):
        Json.refuse(Reason.UNSUPPORTED, "a recording of Kardia 12L", "one that states its step", where)
    raw, enhanced = Json.at(content, "data", "raw"), Json.at(content, "data", "enhanced")
    # The enhanced signal is filtered by a method that the maker does not state: no recipe could be told of it.
    block = raw if isinstance(raw, dict) else enhanced
    if not isinstance(block, dict):
        Json.refuse(Reason.EMPTY, "no signal", "data.raw", where)
    notes: tuple[str, ...] = () if block is raw else (ENHANCED,)
    rate_hz, step = Json.number(block, "frequency"), Json.number(block, "amplitudeResolution")
    leads = Json.at(block, "samples")
    if rate_hz is None or not isinstance(leads, dict) or not all(isinstance(each, list) for each in leads.values()):
        Json.refuse(Reason.HEADER, "no frequency, or samples of another kind", "a list of numbers for each lead", where)
    if step is None or step <= 0:
        Json.refuse(Reason.UNIT, "no amplitudeResolution", "nV of one step", where)
    count = Json.at(block, "numLeads")
    if count is not None and count != len(leads):
        Json.refuse(Reason.HEADER, f"{len(leads)} leads", "as many as numLeads says", where)
    if len({len(samples) for samples in leads.values()}) > 1:
        Json.refuse(Reason.TRUNCATED, "leads of unequal length", "equal ones", where)
    # Before any memory is taken for samples.
    check_shape(len(leads), len(next(iter(leads.values()), ())), rate_hz, where)
    declared = Json.number(content, "duration")
    found_s = len(next(iter(leads.values()))) / rate_hz
    if declared is not None and abs(declared / 1000 - found_s) > APART_S:
        notes += (DURATION_DIFFERS,)
    # `leadI` and `I` would be one lead.
    named = {_lead_name(key): samples for key, samples in leads.items()}
    if len(named) < len(leads):
        Json.refuse(Reason.DUPLICATE_LEAD, "one lead twice", "each lead once", where)
    return _Signal(named, rate_hz, step, notes)


def _lead_name(key: str) -> str:
    """Cut `lead` from leadI, leadII, leadIII; AVR, AVL and AVF stand alone."""
    name = re.sub(r"^lead(?=[IVav])", "", key)
    return name if 0 < len(name) <= 16 and name.isprintable() else "other"


def _samples(signal: _Signal, where: str) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return (lead, time) as int64 or float64, and where null stood."""
    rows, holes = [], []
    for samples in signal.leads.values():
        row = _integers(samples)
        if row is not None:
            rows.append(row)
            holes.append(np.zeros(len(row), bool))
            continue
        types = {*map(type, samples)}
        # Exactly these types: true is an int in Python, and a text must not become a number.
        if not types <= {int, float, type(None)}:
            Json.refuse(Reason.HEADER, "a sample that is no number", "numbers", where)
        hole = np.zeros(len(samples), bool)
        if type(None) in types:
            hole = np.array([sample is None for sample in samples])
            samples = [0 if sample is None else sample for sample in samples]
        try:
            rows.append(np.array(samples))
        except OverflowError:
            Json.refuse(Reason.UNSUPPORTED, "integers of more than 64 bits", "32 bits or fewer", where)
        holes.append(hole)
    if any(row.dtype.kind not in "if" for row in rows):
        Json.refuse(Reason.UNSUPPORTED, "integers of more than 64 bits", "32 bits or fewer", where)
    return np.stack(rows), np.stack(holes)


def _integers(samples: list[Any]) -> NDArray[np.int64] | None:
    """Return samples that are all integers of 64 bits; None where one is anything else."""
    try:
        row = np.frombuffer(array("q", samples), np.int64)
    except (TypeError, OverflowError):
        return None
    # To `array`, true and false are 1 and 0. To ask only there takes half the time of asking every sample for its type.
    doubtful = np.flatnonzero((row == 0) | (row == 1)).tolist()
    return None if any(isinstance(samples[at], bool) for at in doubtful) else row


def _as_stored(
    values: NDArray, missing: NDArray[np.bool_], per_mv: NDArray[np.float64], where: str
) -> dict[str, NDArray | None]:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            Json.refuse(Reason.HEADER, "a number beyond all floats", "numbers", where)
        return {"analog_mv": np.where(missing, np.nan, values / per_mv[:, None])}
    if values.min() < _INT32.min or values.max() > _INT32.max:
        Json.refuse(Reason.UNSUPPORTED, "integers of more than 32 bits", "32 bits or fewer", where)
    digital = values.astype(np.int32)
    return {
        "digital": digital,
        "gain_per_mv": per_mv,
        "baseline": np.zeros(len(per_mv)),
        "missing": missing if missing.any() else None,
    }


def _recording(
    path: Path, content: dict[str, Any], signal: _Signal, notes: tuple[str, ...], **samples: NDArray | None
) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=tuple(signal.leads),
        rate_hz=signal.rate_hz,
        n_samples=len(next(iter(signal.leads.values()))),
        source=Origin("alivecor_json", path),
        **_context(content).facts(*notes, *signal.notes),
        **samples,  # type: ignore[arg-type]
    )


def _context(content: dict[str, Any]) -> Context:
    """Collect what the recording says. Name, notes and tags are never read; sex and age stand elsewhere in the API."""
    block = Json.at(content, "data", "raw") or Json.at(content, "data", "enhanced")
    mains = Json.number(block, "mainsFrequency")
    try:
        # The clock as written; a zone is dropped, since most formats have none.
        acquired_at = datetime.fromisoformat(Json.text(content, "recordedAt")).replace(tzinfo=None)
    except ValueError:
        acquired_at = None
    return Context(
        patient_id=known(Json.text(content, "patientID")),
        age_years=None,
        sex=None,
        acquired_at=acquired_at,
        device=Json.text(content, "deviceInfo", "hardwareType")[:64] or None,
        site=None,
        mains_hz=mains if mains in _MAINS_HZ else None,
        fields={name: text for name, key in _KEPT.items() if (text := Json.text(content, key))},
        notes=(),
    )
