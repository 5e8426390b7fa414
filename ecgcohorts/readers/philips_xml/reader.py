"""Read Philips XML: decode the leads, cut the calibration second that may end them, and collect what stands around."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.leads import LIMB_LEADS, TWELVE_LEADS, canonical
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.readers._shared.limits import MAX_LEADS, check_shape
from ecgcohorts.readers._shared.people import NO_CLOCK, Context, age_of, known, moment, sex_of, stated_age
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.readers._xml.document import Root, read_xml, root_name
from ecgcohorts.readers._xml.values import base64_bytes, integer, number, refuse, text_of
from ecgcohorts.readers.philips_xml.xli import decode, rebuild_limb_leads
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".xml",)
VARIANTS = (
    "SierraECG 1.03, PhilipsECG 1.04, 1.04.01 and 1.04.02, with and without namespace, UTF-8 and UTF-16",
    "XLI compression, or none in base64 or plain text; 12 leads and more; the calibration second is cut",
)
TYPES = ("SierraECG", "PhilipsECG")
# Other types and versions exist in test files of published readers, and have to be refused.
VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
STANDARD_SETS = ("STD-12", "10-WIRE")  # acquisition types whose twelve leads need no labels
SAMPLE_BYTES = 2
MAX_TOTAL = 1 << 22  # samples over all leads; our default: 12 leads for 11 min, where the schema has 11 s at most
MOST_CHARACTERS = 64  # for a sample in plain text, white space included; our default
# Each stretch of the calibration pulse must last this long; our default. Seen: 0.10 to 0.17 s of zeros, 0.2 s, 0.1 s.
SHORTEST_STRETCH_S = 0.05
CALIBRATION_S = 1.0
PULSED_S = 11  # length of the recordings that were seen to end with a pulse: 10 s and the calibration second
CUT = "calibration pulse, last second cut"
NO_PULSE = "11 s without calibration pulse, nothing cut"
NO_LABELS = "leads not named, the standard order taken"
RESCALED = "another rate or resolution than at acquisition"

MAINS_HZ = {"50": 50.0, "60": 60.0}
AGE_UNITS = ("years", "months", "weeks", "days", "hours")

# Section -> elements kept as Recording.fields for cohort rules: no names of people, no free text, no serial numbers.
KEPT = {
    "documentinfo": ("documenttype", "documentversion"),
    "dataacquisition": ("machine",),
    "dataacquisition/acquirer": (
        *("departmentid", "departmentname", "institutionid", "institutionname", "institutionlocationid"),
        *("facilityid", "facilityname"),
    ),
    "dataacquisition/signalcharacteristics": (
        *("acsetting", "acquisitiontype", "electrodeplacement", "leadset", "derivedleads", "signalbandwidth"),
        *("numberchannelsallocated", "numberchannelsvalid"),
    ),
    "patient/generalpatientdata": ("patientid", "MRN", "uniquepatientid", "sex", "race", "pacestatus"),
    "patient/generalpatientdata/age": ("dateofbirth", *AGE_UNITS),
    "patient/generalpatientdata/height": ("cm", "inch"),
    "patient/generalpatientdata/weight": ("kg", "lb"),
}
FLAGS = {
    "artfiltered": "artifact filter",
    "waveformmodified": "modified since acquisition",
    "upsampled": "upsampled since acquisition",
    "downsampled": "downsampled since acquisition",
}

_NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
_BAND = re.compile(rf"({_NUMBER})-({_NUMBER})")  # signalbandwidth of 1.03: 0.05-150
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.[0-9]+)?")

_PLAIN = re.compile(r"\s*+(?:[+-]?[0-9]{1,5}(?:\s++|$))*+")


class _Waveform(NamedTuple):
    """The `parsedwaveforms` element as declared; its samples stay encoded."""

    element: Element
    leads: tuple[str, ...]
    rate_hz: float
    n_samples: int
    per_mv: float
    baseline: int
    compressed: bool
    notes: tuple[str, ...]


def sniff(head: bytes) -> bool:
    """Tell whether the first element is `restingecgdata`."""
    return root_name(head) == "restingecgdata"


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a Philips file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the first 10 s of 11 where a calibration pulse ends them. Raises UnreadableRecording.
    """
    root = read_xml(path)
    waveform = _waveform(root, str(path))
    digital = _samples(waveform, str(path))
    quirks = [NO_PULSE] if waveform.n_samples == PULSED_S * waveform.rate_hz else []
    # Machines write 11 s, of which 10 s are ECG. A later filter would smear the pulse over the last beats.
    if _has_pulse(digital - waveform.baseline, waveform):
        digital, quirks = digital[:, : -round(CALIBRATION_S * waveform.rate_hz)], [CUT]
    waveform = waveform._replace(notes=(*waveform.notes, *quirks))
    yield _recording(path, root, waveform, digital, digital.shape[1])


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; no payload is decoded, so a calibration second still counts."""
    root = read_xml(path)
    waveform = _waveform(root, str(path))
    yield _recording(path, root, waveform, np.zeros((len(waveform.leads), 0), np.int32), waveform.n_samples)


def _recording(path: Path, root: Root, waveform: _Waveform, digital: NDArray[np.int32], n_samples: int) -> Recording:
    n_leads = len(waveform.leads)
    return Recording(
        recording_id=path.stem,
        leads=waveform.leads,
        rate_hz=waveform.rate_hz,
        digital=digital,
        gain_per_mv=np.full(n_leads, waveform.per_mv),
        baseline=np.full(n_leads, float(waveform.baseline)),
        n_samples=n_samples,
        source=Origin("philips_xml", path),
        **_context(root, waveform.element).facts(*root.notes, *waveform.notes),
    )


def _waveform(root: Element, where: str) -> _Waveform:
    """Parse the rhythm as declared and check it against the limits. Representative beats stand elsewhere, never read."""
    _check_document(root, where)
    found = root.findall("waveforms/parsedwaveforms")
    if len(found) != 1:
        refuse(Reason.EMPTY if not found else Reason.UNSUPPORTED, f"{len(found)} parsedwaveforms", "one", where)
    parsed, signal = found[0], root.find("dataacquisition/signalcharacteristics")
    compressed = _is_compressed(parsed, where)
    leads, labelled = _leads(parsed, signal, where)
    rate_hz, acquired_hz = _stated(parsed, signal, ("samplespersecond",), ("samplingrate",), where)
    uv_per_step, acquired_uv = _stated(parsed, signal, ("resolution",), ("resolution", "signalresolution"), where)
    if rate_hz is None:
        refuse(Reason.HEADER, "no sampling rate", "samplespersecond or samplingrate", where)
    if uv_per_step is None or uv_per_step <= 0:
        refuse(Reason.UNIT, "no usable resolution", "uV per step", where)
    n_samples = _n_samples(parsed, rate_hz, where)
    check_shape(len(leads), n_samples, rate_hz, where)
    if len(leads) * n_samples > MAX_TOTAL:
        refuse(Reason.LIMIT, f"{len(leads)} leads of {n_samples} samples", f"at most {MAX_TOTAL} samples", where)
    if compressed and tuple(map(canonical, leads[:6])) != LIMB_LEADS:
        refuse(Reason.UNSUPPORTED, "compressed leads in another order", f"{' '.join(LIMB_LEADS)} first", where)
    rescaled = acquired_hz not in (None, rate_hz) or acquired_uv not in (None, uv_per_step)
    quirks = {NO_LABELS: not labelled, RESCALED: rescaled}
    return _Waveform(
        *(parsed, leads, rate_hz, n_samples, steps_per_mv(1 / uv_per_step, "uV", leads[0], where)),
        *(_baseline(parsed, signal, compressed, where), compressed),
        tuple(name for name, met in quirks.items() if met),
    )


def _check_document(root: Element, where: str) -> None:
    if root.tag != "restingecgdata":
        refuse(Reason.FORMAT, "another root element", "restingecgdata", where)
    if text_of(root, "documentinfo/documenttype") not in TYPES:
        refuse(Reason.UNSUPPORTED, "another document type", " or ".join(TYPES), where)
    if text_of(root, "documentinfo/documentversion") not in VERSIONS:
        refuse(Reason.UNSUPPORTED, "another document version", ", ".join(VERSIONS), where)


def _is_compressed(parsed: Element, where: str) -> bool:
    """Tell whether samples are XLI: 1.03 says it by flag and method, and tools clear the flag alone; 1.04 by method."""
    flag = parsed.get("compressflag", "").strip()
    method = (parsed.get("compression") or parsed.get("compressmethod") or "").strip()
    if flag not in ("", "True", "False") or method not in ("", "XLI") or (flag == "True" and not method):
        refuse(Reason.UNSUPPORTED, "another compression", "XLI or none", where)
    compressed = method == "XLI" and flag != "False"
    if parsed.get("dataencoding", "").strip() not in (("Base64",) if compressed else ("Base64", "Plain")):
        refuse(Reason.UNSUPPORTED, "another data encoding", "Base64, or Plain without compression", where)
    for name in ("bitspersample", "nbitspersample"):
        if integer(parsed, f"@{name}", where) not in (None, 8 * SAMPLE_BYTES):
            refuse(Reason.UNSUPPORTED, "samples of another size", f"{8 * SAMPLE_BYTES} bits", where)
    return compressed


def _stated(
    parsed: Element, signal: Element | None, of_data: Sequence[str], of_machine: Sequence[str], where: str
) -> tuple[float | None, float | None]:
    """Return a number of the waveform, and of its acquisition. The first counts: data may be changed afterwards."""
    stated = [number(parsed, f"@{name}", where) for name in of_data]
    acquired = [number(signal, name, where) for name in of_machine]
    ours = next((value for value in acquired if value is not None), None)
    return next((value for value in stated if value is not None), ours), ours


def _n_samples(parsed: Element, rate_hz: float, where: str) -> int:
    duration_ms = number(parsed, "@durationperchannel", where)
    if duration_ms is None:
        refuse(Reason.HEADER, "no durationperchannel", "milliseconds", where)
    # The one number that every compressed lead must hit: the format has no checksum.
    n_samples = duration_ms * rate_hz / 1000
    if n_samples != round(n_samples):
        refuse(Reason.HEADER, f"{n_samples:g} samples per lead", "a whole number", where)
    return round(n_samples)


def _leads(parsed: Element, signal: Element | None, where: str) -> tuple[tuple[str, ...], bool]:
    """Return the names of the leads, and whether the file gives them. C1 to C6 of old files are V1 to V6 of today."""
    labels = parsed.get("leadlabels", "").split(maxsplit=MAX_LEADS)
    if len(labels) > MAX_LEADS:
        refuse(Reason.LIMIT, "more lead labels", f"at most {MAX_LEADS}", where)
    count = integer(parsed, "@numberofleads", where)
    if labels:
        if count not in (None, len(labels)):
            refuse(Reason.HEADER, f"{len(labels)} lead labels", "one for each of numberofleads", where)
        return tuple(re.sub(r"^C(?=[1-6]$)", "V", label) for label in labels), True
    # Files of 1.03 name no leads at all.
    allocated = integer(signal, "numberchannelsallocated", where)
    known = text_of(signal, "acquisitiontype") in STANDARD_SETS
    if not known or not {count, allocated} <= {None, len(TWELVE_LEADS)}:
        refuse(Reason.LEADS, "leads without names", f"names, or twelve leads of {' or '.join(STANDARD_SETS)}", where)
    return TWELVE_LEADS, False


def _baseline(parsed: Element, signal: Element | None, compressed: bool, where: str) -> int:
    """Return the step that is 0 mV: `signaloffset`, to be subtracted from each sample."""
    signed = parsed.get("signalsigned") or text_of(signal, "signalsigned")
    if signed.strip() not in ("", "True"):
        refuse(Reason.UNSUPPORTED, "unsigned samples", "signed ones", where)
    is_given = parsed.get("signaloffset") is not None
    offset = (integer(parsed, "@signaloffset", where) if is_given else integer(signal, "signaloffset", where)) or 0
    if abs(offset) >= 1 << 15 or (compressed and offset):
        # How an offset enters the sums of residuals is unknown; no such file was seen.
        refuse(Reason.UNSUPPORTED, "a signal offset", "none where leads are compressed", where)
    return offset


def _samples(waveform: _Waveform, where: str) -> NDArray[np.int32]:
    """Decode all leads to (lead, time). In every encoding one lead follows the other."""
    text = waveform.element.text or ""
    n_leads, n_samples = len(waveform.leads), waveform.n_samples
    if not text.strip():
        refuse(Reason.EMPTY, "no samples", "text in parsedwaveforms", where)
    if waveform.element.get("dataencoding", "").strip() == "Plain":
        return _plain(text, n_leads * n_samples, where).reshape(n_leads, n_samples)
    data = base64_bytes("".join(text.split()), where)
    if waveform.compressed:
        return rebuild_limb_leads(decode(data, n_leads, n_samples, where)).astype(np.int32)
    if len(data) != n_leads * n_samples * SAMPLE_BYTES:
        refuse(Reason.TRUNCATED, f"{len(data)} bytes", f"{n_leads} leads of {n_samples} samples", where)
    return np.frombuffer(data, "<i2").reshape(n_leads, n_samples).astype(np.int32)


def _plain(text: str, count: int, where: str) -> NDArray[np.int32]:
    """Parse integers in text. Uncompressed leads are leads, not residuals, as the tools that expand XLI write them."""
    if len(text) > MOST_CHARACTERS * count:
        refuse(Reason.LIMIT, f"{len(text)} characters of samples", f"{MOST_CHARACTERS} for each of {count}", where)
    if not text.isascii() or not _PLAIN.fullmatch(text):
        refuse(Reason.HEADER, "samples that are not integers", "integers and white space only", where)
    values = np.fromstring(text, np.int32, sep=" ")
    if len(values) != count:
        refuse(Reason.TRUNCATED, f"{len(values)} samples", f"{count}", where)
    if values.min() < -(1 << 15) or values.max() >= 1 << 15:
        refuse(Reason.HEADER, "samples beyond 16 bits", "16-bit integers", where)
    return values


def _has_pulse(steps: NDArray[np.int32], waveform: _Waveform) -> bool:
    """Tell whether the last second ends with 0, 1 mV, 0, each flat and at the same time in every lead.

    steps: (lead, time) above 0 mV. A lead that is flat for all of that second (an electrode off) does not count.
    """
    tail = steps[:, -round(CALIBRATION_S * waveform.rate_hz) :]
    tail = tail[(tail != tail[:, :1]).any(axis=1)]
    least = max(2, round(SHORTEST_STRETCH_S * waveform.rate_hz))
    if not tail.size or steps.shape[1] <= waveform.rate_hz + least:
        return False
    high = np.flatnonzero((tail == round(waveform.per_mv)).all(axis=0))
    zero = (tail == 0).all(axis=0)
    if len(high) < least or high[-1] - high[0] + 1 != len(high):
        return False
    before, after = zero[max(0, high[0] - least) : high[0]], zero[high[-1] + 1 :]
    return bool(min(len(before), len(after)) >= least and before.all() and after.all())


def _context(root: Element, parsed: Element) -> Context:
    """Collect the facts around `parsed`, the waveform. Any section may be missing, any text a placeholder."""
    fields: dict[str, str] = {}
    for section, tags in KEPT.items():
        element = root.find(section)
        fields |= {tag: text for tag in tags if (text := text_of(element, tag))}
    acquisition = root.find("dataacquisition")
    machine = root.find("dataacquisition/machine")
    for element, names in ((acquisition, ("date", "time")), (machine, ("detaildescription",))):
        if element is not None:
            fields |= {name: text for name in names if (text := element.get(name, "").strip())}
    acquired_at = _moment(fields.get("date", ""), fields.get("time", ""))
    stated = next((years for unit in AGE_UNITS if (years := stated_age(fields.get(unit, ""), unit)) is not None), None)
    # `age/@defaultage` is an assumption of the machine.
    age_years, doubts = age_of(stated, _moment(fields.get("dateofbirth", ""), ""), acquired_at)
    time = fields.get("time")
    clock = (NO_CLOCK,) if acquired_at is not None and time and not _TIME.fullmatch(time) else ()
    places = (fields.get(tag) for tag in ("institutionid", "institutionname"))
    return Context(
        patient_id=known(fields.get("patientid")),
        age_years=age_years,
        sex=sex_of(fields.get("sex", "")),
        acquired_at=acquired_at,
        device=known(fields.get("machine")),
        site=next((place for place in places if not is_placeholder(place)), None),
        mains_hz=MAINS_HZ.get(fields.get("acsetting", "")),
        fields=fields,
        notes=(*_filter_notes(parsed, acquisition, fields), *_channel_notes(fields), *doubts, *clock),
    )


def _moment(date: str, time: str) -> datetime | None:
    found, clock = _DATE.fullmatch(date), _TIME.fullmatch(time)
    return None if found is None else moment(*found.groups(), *(clock.groups() if clock else ()))


def _filter_notes(parsed: Element, acquisition: Element | None, fields: dict[str, str]) -> list[str]:
    """Tell the filters that were applied to the data, in Hz."""
    # `reportbandwidth` is left out: it is for the print. So is `acsetting`, the power line: it is 60 in files whose
    # `notchfiltered` is False.
    band = _BAND.fullmatch(fields.get("signalbandwidth", ""))
    notes = []
    for place, (name, what) in enumerate((("hipass", "high-pass"), ("lowpass", "low-pass"))):
        text = (parsed.get(name) or text_of(acquisition, f"signalcharacteristics/{name}")).strip()
        if re.fullmatch(_NUMBER, text):
            notes.append(f"{what} {float(text):g} Hz")
        elif band and not text:
            notes.append(f"{what} {float(band[place + 1]):g} Hz")
    if parsed.get("notchfiltered") == "True":
        named = [text for text in parsed.get("notchfilterfreqs", "").split() if re.fullmatch(_NUMBER, text)]
        notes.append(f"AC filter {' and '.join(named)} Hz" if named else "AC filter")
    return [*notes, *(note for name, note in FLAGS.items() if parsed.get(name) == "True")]


def _channel_notes(fields: dict[str, str]) -> list[str]:
    valid, allocated = (fields.get(f"numberchannels{what}", "") for what in ("valid", "allocated"))
    whole = all(re.fullmatch(r"[0-9]{1,3}", text) for text in (valid, allocated))
    return [f"valid channels: {int(valid)} of {int(allocated)}"] if whole and int(valid) < int(allocated) else []
