"""Mortara ELI XML (`ECG`): the CHANNEL elements, never the typical cycle beside them.

There is no public specification and no sample file: the layout comes from independent readers (BRAVEHEART, EDFbrowser,
ecgdatakit) and is unconfirmed on real files. Whatever differs from it is refused.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import age_of, known, moment, sex_of, stated_age
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import Root, read_xml, root_name
from ecgcohorts.readers._xml.values import base64_bytes, integer, number, refuse, text_of
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = ("CHANNEL elements of base64 16-bit samples (layout unconfirmed on real files)",)
MARKS = (b"ACQUISITION_TIME", b"<CHANNEL", b"<SUBJECT", b"<TYPICAL_CYCLE")  # `ECG` alone could be anyone's root
ENCODED_AS = {"BITS": "16", "FORMAT": "SIGNED", "ENCODING": "BASE64"}
MISSING = -(1 << 15)  # the least 16-bit value; our reading, as in formats of the same width
SAMPLE_BYTES = 2

# Path of an element -> attributes kept as Recording.fields for cohort rules: an allow-list without names of people or comments.
KEPT = {
    "": ("ACQUISITION_TIME", "AGE", "AGE_UNITS", "HEIGHT", "HEIGHT_UNITS", "WEIGHT", "WEIGHT_UNITS"),
    "SUBJECT/": ("ID", "GENDER", "DOB", "RACE"),
    "SOURCE/": ("MANUFACTURER", "MODEL", "TYPE", "ACQUIRING_DEVICE_SW_VERSION", "LOW_PASS_FILTER"),
}
_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2}))?")


class _Lead(NamedTuple):
    """One CHANNEL element; its samples stay encoded."""

    name: str
    rate_hz: float
    n_samples: int
    per_mv: float
    encoded: str  # base64, white space removed


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `ECG`, and something of Mortara's stands near it."""
    plain = head.replace(b"\0", b"")  # UTF-16
    return root_name(head) == "ECG" and any(mark in plain for mark in MARKS)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of an ELI file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; -32768 is missing. Raises UnreadableRecording.
    """
    root = read_xml(path)
    leads = _leads(root, str(path))
    digital = np.stack([_samples(lead, str(path)) for lead in leads])
    missing = digital == MISSING
    yield _recording(path, root, leads, digital, missing if missing.any() else None)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; no payload is decoded."""
    root = read_xml(path)
    leads = _leads(root, str(path))
    yield _recording(path, root, leads, np.zeros((len(leads), 0), np.int32))


def _recording(
    path: Path,
    root: Root,
    leads: tuple[_Lead, ...],
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    fields = {tag: text for place, tags in KEPT.items() for tag in tags if (text := text_of(root, f"{place}@{tag}"))}
    acquired_at = _moment(fields.get("ACQUISITION_TIME", ""))
    stated = stated_age(fields.get("AGE", ""), fields.get("AGE_UNITS", ""))
    age_years, doubts = age_of(stated, _moment(fields.get("DOB", "")), acquired_at)
    return Recording(
        recording_id=path.stem,
        leads=tuple(lead.name for lead in leads),
        rate_hz=leads[0].rate_hz,
        digital=digital,
        gain_per_mv=np.array([lead.per_mv for lead in leads]),
        baseline=np.zeros(len(leads)),
        missing=missing,
        n_samples=leads[0].n_samples,
        patient_id=known(fields.get("ID")),
        age_years=age_years,
        sex=sex_of(fields.get("GENDER", "")),
        acquired_at=acquired_at,
        device=fields.get("MODEL"),
        fields=fields,
        source=Origin("mortara_xml", path),
        notes=(*root.notes, *doubts),
    )


def _leads(root: Element, where: str) -> tuple[_Lead, ...]:
    """Parse the leads as declared, and check them against each other and the limits."""
    if root.tag != "ECG":
        refuse(Reason.FORMAT, "another root element", "ECG", where)
    leads = tuple(_lead(channel, where) for channel in root.findall("CHANNEL"))
    if not leads:
        refuse(Reason.EMPTY, "no CHANNEL", "at least one", where)
    if len({lead.rate_hz for lead in leads}) > 1:
        refuse(Reason.UNSUPPORTED, "leads of different sampling rates", "one rate", where)
    if len({lead.n_samples for lead in leads}) > 1:
        refuse(Reason.UNSUPPORTED, "leads of unequal length", "equal ones", where)
    check_shape(len(leads), leads[0].n_samples, leads[0].rate_hz, where)
    return leads


def _lead(channel: Element, where: str) -> _Lead:
    """Parse a CHANNEL element. Raises UnreadableRecording."""
    name = text_of(channel, "@NAME")
    # Other values may exist, but no file and no page tells what they mean.
    for attribute, expected in ENCODED_AS.items():
        if text_of(channel, f"@{attribute}").upper() != expected:
            refuse(Reason.UNSUPPORTED, f"samples of another {attribute}", f"{attribute}={expected}", where)
    # One reader adds the offset before it divides, others leave it out, and no file tells which is right.
    if number(channel, "@OFFSET", where):
        refuse(Reason.UNSUPPORTED, "an OFFSET, whose meaning is unknown", "0", where)
    per_mv = number(channel, "@UNITS_PER_MV", where)
    rate_hz = number(channel, "@SAMPLE_FREQ", where)
    n_samples = integer(channel, "@DURATION", where)
    if not name or not rate_hz or n_samples is None:
        refuse(Reason.HEADER, "a lead without name, rate or length", "NAME, SAMPLE_FREQ and DURATION", where)
    if not per_mv or per_mv < 0:
        refuse(Reason.UNIT, "a lead without a positive UNITS_PER_MV", "one for every lead", where)
    encoded = "".join((channel.get("DATA") or "").split())
    return _Lead(name, rate_hz, n_samples, steps_per_mv(per_mv, "mV", name, where), encoded)


def _samples(lead: _Lead, where: str) -> NDArray[np.int32]:
    data = base64_bytes(lead.encoded, where)
    if len(data) != lead.n_samples * SAMPLE_BYTES:
        refuse(Reason.TRUNCATED, f"{len(data)} bytes in a lead", f"{lead.n_samples} samples as declared", where)
    return np.frombuffer(data, "<i2").astype(np.int32)


def _moment(text: str) -> datetime | None:
    """Parse yyyyMMdd, with or without HHmmss."""
    match = _TIME.fullmatch(text)
    return moment(*match.groups()) if match else None
