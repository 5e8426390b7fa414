"""MFER (ISO 22077): tags that describe channels, then one frame of samples, channel by channel in every sequence.

Sources: what the standard and its forerunner MFER part 1 publish of their tags, two independent readers, and one file of
a Nihon Kohden monitor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import read_bounded
from ecgcohorts.leads import canonical
from ecgcohorts.readers._shared.limits import MAX_LEADS, check_shape
from ecgcohorts.readers._shared.people import DAYS_PER_YEAR, Context, age_in_years, age_of, known, moment
from ecgcohorts.readers._shared.units import steps_per_mv
from ecgcohorts.recording import Origin, Recording, Sex

SUFFIXES = (".mfer", ".mfr", ".mwf")
VARIANTS = (
    "one rhythm frame of 8, 16 or 32-bit integers, either byte order, blocks of any length per channel",
    "the twelve leads and voltages at their rate; dominant beats, events and other signals left out",
)
MARK = b"@ MFR "  # the preamble: tag, its 32 bytes of content, the first letters of these
FILE_LIMIT = 256 << 20  # bytes; our default
MOST_TAGS = 20_000  # our default; a file has dozens, and one per event
LONGEST_LENGTH = 4  # bytes of a length of more than 127
CHANNEL_BITS, LONG = 7, 0x80  # a length or channel number of 128 and more has this bit set

FILLER, ORDER, TEXT_CODE, BLOCK, CHANNELS, SEQUENCES, WAVEFORM, LEAD = 0x00, 0x01, 0x03, 0x04, 0x05, 0x06, 0x08, 0x09
TYPE, INTERVAL, STEP, OFFSET, COMPRESSION, NULL, DEVICE, WAVE = 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x12, 0x17, 0x1E
ATTRIBUTES, SKEW, GROUP, END = 0x3F, 0x43, 0x67, 0x80
PATIENT_ID, AGE, SEX, TIME = 0x82, 0x83, 0x84, 0x85  # 0x81 is the name: never read
OF_CHANNELS = (BLOCK, LEAD, TYPE, INTERVAL, STEP, OFFSET, NULL)

DOMINANT_BEAT = 9  # a waveform type
TYPES = {0: "i2", 1: "u2", 2: "i4", 3: "u1", 4: "u2", 5: "i1", 6: "u4", 7: "f4", 8: "f8"}
READ_TYPES = (0, 1, 2, 3, 5)  # the others hold status bits, floats, or integers of more than 31 bits
HERTZ, SECONDS = 0, 1  # units of an interval
VOLT = 0  # unit of a step
FURTHEST_EXPONENT = 12  # decimal; our default, beyond it is no rate and no voltage
# Codes of the standard's twelve leads and of those that other formats have too; others keep their number as name.
LEADS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR", 9: "V7", 66: "V8", 67: "V9"}
LEADS |= {2 + place: f"V{place}" for place in range(1, 7)} | {8 + place: f"V{place}R" for place in range(3, 8)}
LEADS |= {16: "X", 17: "Y", 18: "Z"}
SEXES: dict[int, Sex] = {1: "male", 2: "female"}
CODECS = {
    "ANSI X3.4": "ascii",
    "ASCII": "ascii",
    "UTF-8": "utf-8",
    "UTF-16LE": "utf-16-le",
    "UTF-16BE": "utf-16-be",
    "SHIFT_JIS": "shift_jis",
    "EUC-JP": "euc_jp",
    "ISO 8859": "latin-1",
}
NO_AGE, NO_YEAR = 0xFF, 0xFFFF

OTHER_RATES = "signals at other rates than the ECG left out"
NO_VOLTAGE = "signals that are no voltage left out"
BEATS_LEFT_OUT = "frames of dominant beats left out"


class _Channel(NamedTuple):
    """One channel of a frame."""

    name: str
    dtype: np.dtype[np.generic]
    is_integer: bool  # of at most 32 bits with sign
    block: int  # samples in a row
    rate_hz: float
    per_mv: float  # NaN: no voltage
    null: int | None


class _Frame(NamedTuple):
    """The rhythm: its channels, how often their blocks come, and where its bytes lie."""

    channels: tuple[_Channel, ...]
    sequences: int
    wave: memoryview


@dataclass
class _State:
    """Definitions in force while tags are read in order."""

    where: str
    order: str = "big"  # of numbers, unless the file says otherwise
    codec: str = "ascii"
    n_channels: int = 1
    waveform: int = 0
    common: dict[int, bytes] = field(default_factory=dict)
    own: dict[int, dict[int, bytes]] = field(default_factory=dict)  # channel -> tag -> value
    facts: dict[int, bytes] = field(default_factory=dict)
    patient_id: str = ""
    device: str = ""
    frames: list[_Frame] = field(default_factory=list)
    beats: int = 0

    def number(self, value: bytes, signed: bool = False) -> int:
        return int.from_bytes(value, "little" if self.order == "little" else "big", signed=signed)

    def text(self, value: bytes) -> str:
        """Decode a text, stripped; empty if it is not of the declared encoding."""
        try:
            return value.decode(self.codec).split("\0", 1)[0].strip()
        except UnicodeDecodeError:
            return ""


def sniff(head: bytes) -> bool:
    """Tell whether a file starts with the preamble, without which no file was seen."""
    return head.startswith(MARK)


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of a file. `entries` is ignored: a file has none.

    digital: (lead, time) int32, the stored integers; the file's null value is missing. Raises UnreadableRecording.
    """
    state, kept, notes = _open(path)
    (frame,) = state.frames
    digital = np.stack([_samples(frame, place) for place in kept])
    nulls = [frame.channels[place].null for place in kept]
    missing = np.zeros(digital.shape, bool)
    for row, samples, null in zip(missing, digital, nulls, strict=True):
        if null is not None:
            row[:] = samples == null
    yield _recording(path, state, kept, notes, digital, missing if missing.any() else None)


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; none is decoded."""
    state, kept, notes = _open(path)
    yield _recording(path, state, kept, notes, np.zeros((len(kept), 0), np.int32))


def _recording(
    path: Path,
    state: _State,
    kept: list[int],
    notes: tuple[str, ...],
    digital: NDArray[np.int32],
    missing: NDArray[np.bool_] | None = None,
) -> Recording:
    (frame,) = state.frames
    channels = [frame.channels[place] for place in kept]
    return Recording(
        recording_id=path.stem,
        leads=tuple(channel.name for channel in channels),
        rate_hz=channels[0].rate_hz,
        digital=digital,
        gain_per_mv=np.array([channel.per_mv for channel in channels]),
        baseline=np.zeros(len(channels)),
        missing=missing,
        n_samples=channels[0].block * frame.sequences,
        source=Origin("mfer", path),
        **_context(state).facts(*notes),
    )


def _open(path: Path) -> tuple[_State, list[int], tuple[str, ...]]:
    """Read all tags; return them, the places of the channels to decode, and notes. Raises UnreadableRecording."""
    data, where = read_bounded(path, FILE_LIMIT), str(path)
    if not sniff(data):
        _refuse(Reason.FORMAT, "another start", "the preamble of MFER", where)
    state = _State(where)
    for tag, channel, value in _tags(memoryview(data), where):
        _apply(state, tag, channel, value)
    # Frames that follow each other may be one recording or several, and their pointers tell it in ways not seen yet.
    # Two rhythms side by side would be one ECG that nobody recorded.
    if len(state.frames) != 1:
        reason = Reason.UNSUPPORTED if state.frames else Reason.EMPTY
        _refuse(reason, f"{len(state.frames)} frames of rhythm", "one", where)
    kept, notes = _choose(state.frames[0], where)
    return state, kept, (*notes, BEATS_LEFT_OUT) if state.beats else notes


def _tags(data: memoryview, where: str) -> Iterator[tuple[int, int | None, memoryview]]:
    """Yield (tag, channel or None, content) in order; groups are opened. Every length is compared with what is left."""
    at, count = 0, 0
    while at < len(data):
        tag, channel, count = data[at], None, count + 1
        at += 1
        # Fillers and the end mark are single bytes; in a Nihon Kohden file the end mark is the last byte.
        if tag == FILLER:
            continue
        if tag == END:
            return
        if count > MOST_TAGS:
            _refuse(Reason.LIMIT, f"more than {MOST_TAGS} tags", "a few dozen", where)
        if tag == ATTRIBUTES:
            channel, at = _byte(data, at, where), at + 1
            if channel >= LONG:
                _refuse(Reason.LIMIT, "a channel number above 127", f"at most {MAX_LEADS} channels", where)
        length, at = _byte(data, at, where), at + 1
        if length == LONG:
            _refuse(Reason.UNSUPPORTED, "a tag of undeclared length", "the length of every tag", where)
        if length > LONG:
            size = length - LONG
            if size > LONGEST_LENGTH or at + size > len(data):
                _refuse(Reason.HEADER, f"a length of {size} bytes", f"at most {LONGEST_LENGTH}", where)
            # Whatever the order of other numbers, the most significant byte of a length comes first.
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if length > len(data) - at:
            _refuse(Reason.TRUNCATED, f"{len(data) - at} bytes of a tag", f"{length} as declared", where)
        yield tag, channel, data[at : at + length]
        at += length


def _byte(data: memoryview, at: int, where: str) -> int:
    if at >= len(data):
        _refuse(Reason.TRUNCATED, "the end of the file inside a tag", "its length and content", where)
    return data[at]


def _apply(state: _State, tag: int, channel: int | None, content: memoryview) -> None:
    """Let one tag take effect. Tags that are not understood are skipped: each says how long it is."""
    if tag == WAVE:
        _add_frame(state, content)
        return
    if channel is not None:
        _define_channel(state, channel, content)
        return
    value = bytes(content[:256])
    if tag == ORDER:
        if value not in (b"", b"\0", b"\1"):
            _refuse(Reason.HEADER, "an unknown byte order", "0 or 1", state.where)
        state.order = "little" if value == b"\1" else "big"
    elif tag == TEXT_CODE:
        name = value.split(b"\0", 1)[0].decode("latin-1").upper()
        state.codec = next((codec for start, codec in CODECS.items() if name.startswith(start)), "ascii")
    elif tag == CHANNELS:
        state.n_channels, state.own = state.number(value) if value else 1, {}
    elif tag == WAVEFORM:
        state.waveform = state.number(value[:2])
    elif tag in (SEQUENCES, *OF_CHANNELS):
        state.common[tag] = value
    elif tag in (AGE, SEX, TIME):
        state.facts[tag] = value
    # Texts are decoded when they come: files change the encoding before and after the name.
    elif tag == PATIENT_ID:
        state.patient_id = state.text(value)
    elif tag == DEVICE:
        state.device = state.text(value)
    elif (tag == COMPRESSION and any(value[:2])) or (tag == SKEW and any(value)) or tag == GROUP:
        what = {COMPRESSION: "compressed samples", SKEW: "channels sampled one after another", GROUP: "grouped tags"}
        _refuse(Reason.UNSUPPORTED, what[tag], "plain samples at the same times", state.where)


def _define_channel(state: _State, channel: int, content: memoryview) -> None:
    own = state.own.setdefault(channel, {})
    for tag, inner, value in _tags(content, state.where):
        if inner is not None or tag in (SEQUENCES, WAVE, GROUP):
            _refuse(Reason.UNSUPPORTED, f"tag {tag:#x} inside a channel", "attributes of one channel", state.where)
        own[tag] = bytes(value[:256])


def _add_frame(state: _State, wave: memoryview) -> None:
    """Keep a frame of rhythm, its channels as they are defined now; the samples must fill it exactly."""
    if state.waveform == DOMINANT_BEAT:
        state.beats += 1
        return
    if not 1 <= state.n_channels <= MAX_LEADS:
        _refuse(Reason.LIMIT, f"{state.n_channels} channels", f"1 to {MAX_LEADS}", state.where)
    if any(channel >= state.n_channels for channel in state.own):
        _refuse(Reason.HEADER, f"a channel beyond {state.n_channels}", "attributes of declared channels", state.where)
    channels = tuple(_channel(state, place) for place in range(state.n_channels))
    size = sum(channel.block * channel.dtype.itemsize for channel in channels)
    declared = state.common.get(SEQUENCES, b"")
    sequences = state.number(declared) if declared else len(wave) // size
    if sequences < 1 or sequences * size != len(wave):
        reason = Reason.TRUNCATED if sequences * size > len(wave) else Reason.HEADER
        _refuse(reason, f"{len(wave)} bytes of samples", f"{sequences} sequences of {size}", state.where)
    state.frames.append(_Frame(channels, sequences, wave))


def _channel(state: _State, place: int) -> _Channel:
    """Resolve one channel: its own attributes before those of all channels. Nothing is taken for granted."""
    own = state.common | state.own.get(place, {})
    (code,) = own.get(TYPE, b"\0")[:1] or b"\0"
    if code not in TYPES:
        _refuse(Reason.UNSUPPORTED, f"data type {code}", "integers or floats", state.where)
    block = state.number(own[BLOCK]) if own.get(BLOCK) else 1
    if not 1 <= block <= FILE_LIMIT:
        _refuse(Reason.HEADER, f"blocks of {block} samples", "at least one", state.where)
    lead = own.get(LEAD, b"")
    number = lead[0] if len(lead) == 1 else state.number(lead[:2])
    name = LEADS.get(number, f"MFER-{number}")
    if OFFSET in own and any(own[OFFSET]):
        _refuse(Reason.UNSUPPORTED, "an offset, whose sign programs disagree about", "0 mV at 0", state.where)
    dtype = np.dtype(("<" if state.order == "little" else ">") + TYPES[code])
    null = own.get(NULL, b"")
    is_integer = code in READ_TYPES
    # The value for all channels may be of another size than the samples of this one (status bits beside voltages).
    if len(null) != dtype.itemsize or not is_integer:
        null = b""
    return _Channel(
        name,
        dtype,
        is_integer,
        block,
        _rate_hz(state, own.get(INTERVAL, b"")),
        _per_mv(state, own.get(STEP, b""), name, is_integer),
        int(np.frombuffer(null, dtype)[0]) if null else None,
    )


def _scaled(state: _State, value: bytes, what: str) -> tuple[int, Fraction]:
    """Parse (unit, number): a mantissa times a power of ten."""
    exponent = int.from_bytes(value[1:2], "big", signed=True)
    mantissa = state.number(value[2:], signed=True)
    if not 3 <= len(value) <= 2 + LONGEST_LENGTH or mantissa < 1 or abs(exponent) > FURTHEST_EXPONENT:
        _refuse(Reason.HEADER, f"{len(value)} bytes as {what}", "a unit and a number above 0", state.where)
    return value[0], mantissa * Fraction(10) ** exponent


def _rate_hz(state: _State, value: bytes) -> float:
    # The standard takes 1 kHz and 1 uV where a file says nothing; a file that lost these tags would be read wrong.
    if not value:
        _refuse(Reason.RATE, "no sampling interval", "one for every channel", state.where)
    unit, number = _scaled(state, value, "sampling interval")
    if unit not in (HERTZ, SECONDS):
        _refuse(Reason.UNSUPPORTED, f"samples along unit {unit}", "Hz or seconds", state.where)
    return float(number if unit == HERTZ else 1 / number)


def _per_mv(state: _State, value: bytes, name: str, is_integer: bool) -> float:
    """Return steps per mV; NaN for what is no voltage. One of the twelve leads must be one, in integers."""
    unit, number = _scaled(state, value, "sensitivity") if value else (None, Fraction(1))
    is_voltage = unit == VOLT and is_integer
    if not is_voltage and canonical(name) is not None:
        _refuse(Reason.UNIT, f"lead {name} without a step in volts, or no integers", "both", state.where)
    return steps_per_mv(float(1 / number), "V" if is_voltage else "", name, state.where)


def _choose(frame: _Frame, where: str) -> tuple[list[int], tuple[str, ...]]:
    """Choose the twelve leads and every voltage sampled like them; the fastest voltages where no channel is a lead."""
    voltages = [place for place, channel in enumerate(frame.channels) if not np.isnan(channel.per_mv)]
    if not voltages:
        _refuse(Reason.EMPTY, "no channel that is a voltage", "at least one", where)
    leads = [place for place in voltages if canonical(frame.channels[place].name)]
    sampled = {(frame.channels[place].rate_hz, frame.channels[place].block) for place in leads or voltages}
    if leads and len(sampled) > 1:
        _refuse(Reason.UNSUPPORTED, "ECG leads at several rates", "one rate", where)
    rate_hz, block = max(sampled)
    kept = [p for p in voltages if (frame.channels[p].rate_hz, frame.channels[p].block) == (rate_hz, block)]
    check_shape(len(kept), block * frame.sequences, rate_hz, where)
    quirks = {OTHER_RATES: len(kept) < len(voltages), NO_VOLTAGE: len(voltages) < len(frame.channels)}
    return kept, tuple(name for name, met in quirks.items() if met)


def _samples(frame: _Frame, place: int) -> NDArray[np.int32]:
    """Decode one channel: its block of every sequence, one after another."""
    sizes = [channel.block * channel.dtype.itemsize for channel in frame.channels]
    start = sum(sizes[:place])
    rows = np.frombuffer(frame.wave, np.uint8).reshape(frame.sequences, sum(sizes))
    block = np.ascontiguousarray(rows[:, start : start + sizes[place]])
    return block.view(frame.channels[place].dtype).astype(np.int32).ravel()


def _context(state: _State) -> Context:
    """Collect patient, time and device. The name, notes and events are never read."""
    acquired_at = _moment(state, state.facts.get(TIME, b""))
    age_years, doubts = age_of(*_age(state, state.facts.get(AGE, b"")), acquired_at)
    sex = state.facts.get(SEX, b"")
    fields = {"PatientID": state.patient_id, "Manufacturer": state.device, "Sex": str(sex[0]) if sex else ""}
    fields |= {"Time": acquired_at.isoformat() if acquired_at else "", "WaveformType": str(state.waveform)}
    device = state.device.split("^")  # maker, model, version
    return Context(
        patient_id=known(state.patient_id),
        age_years=age_years,
        sex=SEXES.get(sex[0]) if sex else None,
        acquired_at=acquired_at,
        device=(device[1] if len(device) > 1 else device[0]).strip() or None,
        site=None,
        mains_hz=None,
        fields={name: text for name, text in fields.items() if text},
        notes=doubts,
    )


def _moment(state: _State, value: bytes) -> datetime | None:
    """Parse year, month, day, and hour, minute, second."""
    return moment(state.number(value[:2]), *value[2:7]) if len(value) >= 7 else None


def _age(state: _State, value: bytes) -> tuple[float | None, datetime | None]:
    """Parse (age in years, birth date): years and days, then a year, month and day; each part may be unknown."""
    if len(value) < 3 or not any(value):  # zeros fill the field where nothing is known
        return None, None
    # De-identified files fill the whole field with 0xFF.
    age = None if value[0] == NO_AGE else age_in_years(value[0] + state.number(value[1:3]) / DAYS_PER_YEAR, "year")
    year = state.number(value[3:5]) if len(value) >= 7 else NO_YEAR
    return age, None if year == NO_YEAR else moment(year, *value[5:7])


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)
