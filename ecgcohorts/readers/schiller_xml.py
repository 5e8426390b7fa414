"""Schiller SEMA XML (`SchillerEDI`): the rhythm of all leads, never the averages that precede it in the file.

Source: one file of SEMA 2.64, published with an ECG converter of Johns Hopkins University, and the readers of that
converter and of BRAVEHEART.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context, age_of, known, moment, sex_of
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import Root, read_xml, root_name
from ecgcohorts.readers._xml.values import count_integers, integer, integers, number, refuse, text_of
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = ("SEMA exports of resting ECGs: one ECG_RHYTHMS block of comma-separated integers, in UV or MV a step",)
ROOT = "SchillerEDI"  # behind the name of a Java package
RHYTHM = "ECG_RHYTHMS"
CODING = "COMMASEPARATE"  # no other was seen
ONE = 1.0  # the exponent of a sampling rate; what another one would mean is not known

# Field -> element below the root, kept as Recording.fields for cohort rules: an allow-list without names, free text or
# the numbers of orders, cases and users.
KEPT = {
    "id": "patdata/id",
    "birthdate": "patdata/birthdate",
    "gender": "patdata/gender",
    "ethnic": "patdata/ethnic",
    "weight": "patdata/weight/value",
    "weight_unit": "patdata/weight/unit",
    "height": "patdata/height/value",
    "height_unit": "patdata/height/unit",
    "pacemaker": "patdata/pacemaker/value",
    "date": "examdescript/startdatetime/date",
    "time": "examdescript/startdatetime/time",
    "rectype": "examdescript/rectype",
    "institute": "examdescript/idu/aquiring_institute/id",
    "department": "examdescript/idu/aquiring_department/id",
    "vendor": "examdescript/aquiringdevice/hardware/vendor",
    "model": "examdescript/aquiringdevice/hardware/model",
    "software_version": "examdescript/aquiringdevice/software/version",
}
_DAY = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})")
# Milliseconds end the time of day; seconds are enough to tell recordings apart.
_CLOCK = re.compile(r"([0-9]{2}):?([0-9]{2}):?([0-9]{2})(?:[0-9]{3})?")
# Name of a filter -> how a note tells its number. Numbers alone are taken, since `-` and OFF say that there was none.
FILTERS_HZ = {"HIGHPASS_CUTOFF_FREQ": "high-pass", "LOWPASS_CUTOFF_FREQ": "low-pass", "MAINS": "AC filter"}
FILTERS_ON = {"SMOOTHING": "smoothing filter", "BASELINE_STABILIZER": "baseline filter"}


class _Rhythm(NamedTuple):
    """The rhythm as declared; its samples stay text."""

    leads: tuple[str, ...]
    rate_hz: float
    per_mv: tuple[float, ...]
    n_samples: int
    lists: tuple[str, ...]


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `SchillerEDI`, with or without its Java package."""
    return root_name(head).rpartition(".")[2] == ROOT


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a SEMA file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the integers as written. Raises UnreadableRecording.
    """
    root, where = read_xml(path), str(path)
    rhythm = _rhythm(root, where)
    counts = {count_integers(text, commas=True) for text in rhythm.lists}
    if counts != {rhythm.n_samples}:
        refuse(Reason.TRUNCATED, f"lists of {sorted(counts)} samples", f"{rhythm.n_samples} as declared", where)
    digital = np.stack([integers(text, rhythm.n_samples, where, commas=True) for text in rhythm.lists])
    yield _recording(path, root, rhythm, digital)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; no list is parsed."""
    root = read_xml(path)
    rhythm = _rhythm(root, str(path))
    yield _recording(path, root, rhythm, np.zeros((len(rhythm.leads), 0), np.int32))


def _recording(path: Path, root: Root, rhythm: _Rhythm, digital: NDArray[np.int32]) -> Recording:
    return Recording(
        recording_id=path.stem,
        leads=rhythm.leads,
        rate_hz=rhythm.rate_hz,
        digital=digital,
        gain_per_mv=np.array(rhythm.per_mv),
        baseline=np.zeros(len(rhythm.leads)),
        n_samples=rhythm.n_samples,
        source=Origin("schiller_xml", path),
        **_context(root).facts(*root.notes),
    )


def _rhythm(root: Element, where: str) -> _Rhythm:
    """Return the one rhythm of the file, by its declared type: averages carry the same lead names."""
    if root.tag.rpartition(".")[2] != ROOT:
        refuse(Reason.FORMAT, "another root element", ROOT, where)
    # Averages come first in the file, so the first block with the wanted leads would be a false ECG of one beat.
    found = [wave for wave in root.findall("eventdata/event/wavedata") if text_of(wave, "type") == RHYTHM]
    if len(found) != 1:
        reason = Reason.UNSUPPORTED if found else Reason.EMPTY
        refuse(reason, f"{len(found)} blocks of {RHYTHM}", "one", where)
    (wave,) = found
    channels = wave.findall("channel")
    names = tuple(text_of(channel, "name") for channel in channels)
    if not all(names):
        refuse(Reason.HEADER, "a lead without name", "a name for every lead", where)
    counts = {integer(channel, "samplecount", where) for channel in channels}
    if len(counts) > 1 or None in counts:
        refuse(Reason.HEADER, "leads of several lengths, or of none", "one samplecount for all", where)
    if any(text_of(channel, "datastype") != CODING for channel in channels):
        refuse(Reason.UNSUPPORTED, "samples in another coding", CODING, where)
    n_samples = int(counts.pop() or 0) if counts else 0
    rate_hz = _rate_hz(wave, where)
    check_shape(len(names), n_samples, rate_hz, where)
    lists = tuple(text_of(channel, "data") for channel in channels)
    return _Rhythm(names, rate_hz, _per_mv(wave, names, where), n_samples, lists)


def _rate_hz(wave: Element, where: str) -> float:
    # A power of ten, or a power of the rate? One file says 1 beside 500 Hz, and BRAVEHEART refuses all others, too.
    if number(wave, "resolution/samplerate/exponent", where) not in (None, ONE):
        refuse(Reason.UNSUPPORTED, "a sampling rate with an exponent", "exponent 1", where)
    rate_hz = number(wave, "resolution/samplerate/value", where)
    if not rate_hz:
        refuse(Reason.HEADER, "no sampling rate", "samplerate in Hz", where)
    return rate_hz


def _per_mv(wave: Element, names: tuple[str, ...], where: str) -> tuple[float, ...]:
    step = number(wave, "resolution/yres/unitperbit", where)
    if not step:
        refuse(Reason.UNIT, "no unitperbit", "the size of a step", where)
    unit = text_of(wave, "resolution/yres/units")
    return tuple(steps_per_mv(1.0 / step, unit, name, where) for name in names)


def _context(root: Element) -> Context:
    """Collect patient, test, device and filters. Whole sections may be missing."""
    fields = {field: text for field, path in KEPT.items() if (text := text_of(root, path))}
    day = _DAY.fullmatch(fields.get("date", ""))
    clock = _CLOCK.fullmatch(fields.get("time", ""))
    acquired_at = moment(*day.groups(), *(clock.groups() if clock else ())) if day else None
    born = _DAY.fullmatch(fields.get("birthdate", ""))
    filters = {text_of(each, "name"): text_of(each, "value") for each in root.iterfind(".//filters_data/filter")}
    hertz = {name: value for name, value in filters.items() if re.fullmatch(r"[0-9]{1,4}([.][0-9]{1,4})?", value)}
    notes = [f"{word} {float(hertz[name]):g} Hz" for name, word in FILTERS_HZ.items() if name in hertz]
    notes += [word for name, word in FILTERS_ON.items() if filters.get(name) == "ON"]
    # The filter tells the mains where it was on; `-` says nothing about them.
    mains_hz = float(hertz.get("MAINS", 0))
    age_years, doubts = age_of(None, moment(*born.groups()) if born else None, acquired_at)
    return Context(
        patient_id=known(fields.get("id")),
        age_years=age_years,
        sex=sex_of(fields.get("gender", "")),
        acquired_at=acquired_at,
        device=fields.get("model"),
        site=fields.get("institute"),
        mains_hz=mains_hz if mains_hz in (50.0, 60.0) else None,
        fields=fields,
        notes=(*notes, *doubts),
    )
