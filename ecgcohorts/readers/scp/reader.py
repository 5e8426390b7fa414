"""Read SCP-ECG: decode the rhythm of section 6, and add the reference beats that were subtracted from it."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import Reason
from ecgcohorts.io.regular import read_bounded
from ecgcohorts.readers._shared.limits import check_shape
from ecgcohorts.readers._shared.people import Context
from ecgcohorts.readers.scp.healforce import NAMES, _Slice
from ecgcohorts.readers.scp.huffman import Book
from ecgcohorts.readers.scp.sections import (
    FILE_LIMIT,
    FROM_ZERO,
    LONG_LEADS,
    WRAPS_AT,
    Beats,
    Block,
    _LeadPlan,
    _open_container,
    refuse,
)
from ecgcohorts.readers.scp.tags import read_context
from ecgcohorts.recording import Origin, Recording

SUFFIXES = (".scp",)
VARIANTS = (
    "versions 1 and 2, sections in any order, default, own or no Huffman tables",
    "samples, first and second differences, reference beats added back; not bimodal compression",
    "slices of Healforce's portable devices, three leads of 10 bits, which are SCP-ECG in their frame only",
)
TAGS, TABLES, LEADS, BEATS, REFERENCE, RHYTHM = 1, 2, 3, 4, 5, 6  # section numbers
NV_PER_MV = 1_000_000
MOST_OVERLAP = 4  # our default: how many reference beats may have been subtracted from one sample, on average
INT32 = np.iinfo(np.int32)
BEAT_CUT = "reference beats that reach beyond the beat or the recording, cut there"


class _Rhythm(NamedTuple):
    """Everything known before samples are decoded."""

    plan: _LeadPlan
    block: Block
    reference: Block | None  # section 5, where its beat was subtracted
    beats: Beats | None
    book: Book | None  # None: samples of 16 bits
    context: Context
    notes: tuple[str, ...]

    @property
    def nv_per_step(self) -> int:
        """Step of the decoded samples: with a reference beat, the largest one that divides both steps."""
        own = self.block.nv_per_step
        return math.gcd(own, self.reference.nv_per_step) if self.reference else own


def read(path: Path, entries: Sequence[str] | None = None) -> Iterator[Recording]:
    """Yield the one recording of an SCP file. `entries` is ignored: a file has none.

    digital: (lead, time) int32. Without reference beats the stored integers; with them, whole multiples of the largest
    step that divides both the beat's and the residual's, so that their sum is exact. Raises UnreadableRecording.
    """
    where, data = str(path), read_bounded(path, FILE_LIMIT)
    if _Slice.is_one(data):
        own = _Slice.parse(data, where)
        yield own.recording(path, own.samples(where))
        return
    rhythm = _rhythm(data, where)
    residual = _samples(rhythm.block, rhythm.plan.n_samples, rhythm.book, where)
    if rhythm.reference is None or rhythm.beats is None:
        yield _recording(path, rhythm, residual)
        return
    length = round(rhythm.beats.length_ms * 1000 / rhythm.reference.interval_us)
    if length < 1:
        refuse("a reference beat without samples", "one or more", where)
    template = _samples(rhythm.reference, length, rhythm.book, where)
    digital, cut = _add_beats(rhythm, residual, template, where)
    yield _recording(path, rhythm, digital, (BEAT_CUT,) if cut else ())


def scan(path: Path) -> Iterator[Recording]:
    """Yield the same recording without samples; checksums are verified, nothing is decoded."""
    data = read_bounded(path, FILE_LIMIT)
    if _Slice.is_one(data):
        yield _Slice.parse(data, str(path)).recording(path, np.zeros((len(NAMES), 0), np.int32))
        return
    rhythm = _rhythm(data, str(path))
    yield _recording(path, rhythm, np.zeros((len(rhythm.plan.names), 0), np.int32))


def _recording(path: Path, rhythm: _Rhythm, digital: NDArray[np.int32], notes: tuple[str, ...] = ()) -> Recording:
    n_leads = len(rhythm.plan.names)
    context = rhythm.context._replace(notes=(*rhythm.context.notes, *notes))
    return Recording(
        recording_id=path.stem,
        leads=rhythm.plan.names,
        rate_hz=1e6 / rhythm.block.interval_us,
        digital=digital,
        gain_per_mv=np.full(n_leads, NV_PER_MV / rhythm.nv_per_step),
        baseline=np.zeros(n_leads),
        n_samples=rhythm.plan.n_samples,
        source=Origin("scp", path),
        **context.facts(*rhythm.notes, *rhythm.plan.notes),
    )


def _rhythm(data: bytes, where: str) -> _Rhythm:
    """Take the file apart and check that its sections fit each other. Decodes no sample."""
    sections, notes = _open_container(data, where)
    if RHYTHM not in sections or LEADS not in sections:
        refuse("no rhythm", "leads and rhythm, sections 3 and 6", where, Reason.EMPTY)
    plan = _LeadPlan.parse(sections[LEADS], where)
    book = Book.parse(sections[TABLES], where) if TABLES in sections else None
    stored = Block.parse(sections[RHYTHM], len(plan.names), RHYTHM, where, 0 if book else plan.n_samples)
    check_shape(len(plan.names), plan.n_samples, 1e6 / stored.interval_us, where)
    # Outside protected zones such a rhythm is decimated. Programs that restore it are untested (one says so itself) or
    # refuse it, and no such file was seen.
    if stored.bimodal:
        refuse("bimodal compression", "samples at one rate", where, Reason.BIMODAL)
    reference = found = None
    if plan.beats_subtracted:
        if BEATS not in sections or REFERENCE not in sections:
            refuse("a reference beat subtracted, but not stored", "sections 4 and 5", where)
        found = Beats.parse(sections[BEATS], where)
        reference = Block.parse(sections[REFERENCE], len(plan.names), REFERENCE, where)
        if reference.interval_us != stored.interval_us or plan.start != 1:
            refuse("a beat of another rate, or a rhythm cut out", "one rate, from sample 1", where, Reason.UNSUPPORTED)
    _check_room(stored, plan.n_samples, book, where)
    if FROM_ZERO in plan.notes and (book or {len(chunk) for chunk in stored.chunks} != {2 * plan.n_samples}):
        refuse("samples counted from 0, another number of them stored", "samples counted from 1", where)
    if len(stored.chunks[0]) >= WRAPS_AT:
        notes += (LONG_LEADS,)
    return _Rhythm(plan, stored, reference, found, book, read_context(sections.get(TAGS, b"")), notes)


def _check_room(stored: Block, count: int, book: Book | None, where: str) -> None:
    """Refuse more samples than there can be, before memory is taken: each takes a bit at least, without tables two bytes."""
    shortest = min(len(chunk) for chunk in stored.chunks)
    if count > (8 * shortest if book else shortest // 2):
        refuse(f"{shortest} bytes in a lead", f"room for {count} samples", where, Reason.TRUNCATED)


def _samples(stored: Block, count: int, book: Book | None, where: str) -> NDArray[np.int32]:
    """Decode section 5 or 6 to (lead, time). Differences are summed as their writers formed them, in 16 bits."""
    _check_room(stored, count, book, where)
    samples = np.empty((len(stored.chunks), count), np.int32)
    values = book.decode(stored.chunks, count, where) if book else _stored(stored.chunks, count, where)
    for row, of_lead in zip(samples, values, strict=True):
        row[:] = _summed(of_lead, stored.differences, where)
    return samples


def _stored(chunks: Sequence[bytes], count: int, where: str) -> Iterator[NDArray[np.int64]]:
    """Yield values of 16 bits, which no Huffman table encodes."""
    for chunk in chunks:
        if len(chunk) > 2 * count + 1:  # a byte may pad; two are one more sample
            refuse(f"{len(chunk)} bytes in a lead", f"{2 * count} for {count} samples", where)
        yield np.frombuffer(chunk, "<i2", count).astype(np.int64)


def _summed(values: NDArray[np.int64], differences: int, where: str) -> NDArray[np.int16]:
    """Undo first or second differences; the first sample, or the first two, are stored as they are."""
    steps = values.copy()
    # The first two samples are stored as they are; from the third on, each value is a change of the slope.
    if differences == 2:
        steps[1:2] -= values[:1]
        np.cumsum(steps[1:], out=steps[1:])
    samples = np.cumsum(steps) if differences else steps
    # Writers form differences in 16 bits, where a steep edge wraps; the sum wraps back.
    wrapped = samples.astype(np.int16)
    if not differences and (wrapped != samples).any():
        refuse("samples of more than 16 bits", "16 bits", where)
    return wrapped


def _add_beats(
    rhythm: _Rhythm, residual: NDArray[np.int32], template: NDArray[np.int32], where: str
) -> tuple[NDArray[np.int32], bool]:
    """Add the reference beat to the residual, in place, in steps of `nv_per_step`. Returns it, and whether a beat was cut.

    A beat covers samples start to end, and its fiducial sample falls on that of the reference beat.
    """
    assert rhythm.beats is not None
    assert rhythm.reference is not None
    start, end = rhythm.beats.start, rhythm.beats.end
    ahead = rhythm.beats.fiducial - rhythm.beats.align  # from a sample's number to its number in the reference beat
    first = np.maximum(start, np.maximum(1, 1 - ahead))
    last = np.minimum(end, np.minimum(residual.shape[1], template.shape[1] - ahead))
    lengths = np.maximum(last - first + 1, 0)
    if lengths.sum() > MOST_OVERLAP * residual.shape[1]:
        refuse("reference beats over one another", f"at most {MOST_OVERLAP} on a sample", where, Reason.LIMIT)
    in_beat = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = in_beat + np.repeat(first - 1, lengths)
    inside = places + np.repeat(ahead, lengths)
    # Beat and residual have steps of their own (5 and 20 uV in a test file). Nothing is rounded, and nothing smoothed:
    # some programs average three samples outside the beats.
    of_residual = rhythm.block.nv_per_step // rhythm.nv_per_step
    of_template = rhythm.reference.nv_per_step // rhythm.nv_per_step
    for row, beat in zip(residual, template, strict=True):
        total = row.astype(np.int64) * of_residual
        np.add.at(total, places, beat[inside].astype(np.int64) * of_template)
        if total.min() < INT32.min or total.max() > INT32.max:
            refuse("samples of more than 32 bits", "a possible voltage", where)
        row[:] = total
    return residual, bool(((first > start) | (last < end)).any())
