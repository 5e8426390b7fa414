"""A recipe: a named list of typed steps, which takes a decoded recording to a stored strip.

The steps say what is done and with which numbers; `ecgcohorts.preprocess.strip` does it. A changed number is a new name,
never an edit: stores and weights carry the recipe and refuse to mix two.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from ecgcohorts.leads import TWELVE_LEADS, canonical

Positive = Annotated[float, Field(gt=0)]
# How a filter continues a signal beyond its ends. The first three are the `padtype` of scipy.signal.sosfiltfilt; "gust"
# pads nothing and chooses the start of either pass so that both orders of passes agree (Gustafsson 1996).
Ends = Literal["odd", "even", "constant", "gust"]


class _Step(BaseModel):
    """Base of the steps. Rates in Hz, durations in s, voltages in mV unless the name says otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CheckRate(_Step):
    """Refuse sources outside a range of rates, and rates whose ratio to the recipe's is no simple fraction."""

    step: Literal["check_rate"] = "check_rate"
    source_rate_hz: tuple[Positive, Positive] = (100.0, 8000.0)
    # The bound on the denominator is also what keeps the filter of a polyphase resampler small.
    max_denominator: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class SelectLeads(_Step):
    """Take leads by name, in this order; limb leads that are missing are derived from two others."""

    step: Literal["select_leads"] = "select_leads"
    leads: Annotated[tuple[str, ...], Field(min_length=1)]

    @field_validator("leads")
    @classmethod
    def _known(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(leads)) < len(leads) or any(canonical(lead) != lead for lead in leads):
            raise ValueError(f"expected some of {' '.join(TWELVE_LEADS)}, each once, spelt like this")
        return leads


class FillGaps(_Step):
    """Bridge gaps by a straight line; a longer gap ends the recording there."""

    # Before any filter: one missing sample makes a whole filtered lead NaN, and one sample of -32.768 mV, which some
    # formats write in its place, errs by more than 50 uV over 0.65 s.
    step: Literal["fill_gaps"] = "fill_gaps"
    max_gap_s: Annotated[float, Field(ge=0)] = 0.040


class Trim(_Step):
    """Drop columns of exactly 0 mV in all leads at either end: padding."""

    step: Literal["trim"] = "trim"


class RecordStatistics(_Step):
    """Keep mean and deviation of each lead of the whole recording, as columns of the index."""

    # ECG-FM scales by the whole record, of which a store keeps a strip only.
    step: Literal["record_statistics"] = "record_statistics"


class Cut(_Step):
    """Keep at most `strip_s` of the recording; refuse one shorter than `window_s`, the window every strip can give."""

    step: Literal["cut"] = "cut"
    strip_s: Positive
    window_s: Positive
    keep: Literal["start", "centre"] = "start"


class Resample(_Step):
    """Bring the signal to another rate.

    poly: `scipy.signal.resample_poly` with padtype="line", which knows no circle and shifts nothing.
    linear: `numpy.interp` with both end points pinned, as CAPE's public code; it has no anti-alias filter and shifts time.
    fourier: `scipy.signal.resample`, which takes the signal as a circle. decimate: `scipy.signal.decimate`, by a whole factor.
    """

    # On made-up ECGs of 240 to 1000 Hz polyphase errs by at most 1.5 uV, linear by 25; from 100 Hz by 8 and 143.
    step: Literal["resample"] = "resample"
    rate_hz: Positive
    method: Literal["poly", "linear", "fourier", "decimate"] = "poly"


class _Filter(_Step):
    """What filters share: each runs forward and backward, so it delays nothing and attenuates twice."""

    ends: Ends = "odd"
    pad_s: Positive | None = None  # None: SciPy's default, three times the length of the filter
    joined: bool = False  # one cascade, and one pass, with the filter before it


class BandPass(_Filter):
    """Keep what lies between two frequencies; without `low_hz` a low-pass, without `high_hz` a high-pass."""

    step: Literal["band_pass"] = "band_pass"
    low_hz: Positive | None = None
    high_hz: Positive | None = None
    kind: Literal["butterworth", "fir"] = "butterworth"
    order: Annotated[int, Field(ge=1, le=10_000)]  # of the prototype; of a windowed FIR, its number of taps
    top_of_source_rate: Annotated[float, Field(gt=0, lt=0.5)] | None = None  # high_hz is never above this share of it


class Notch(_Filter):
    """Take out the mains frequency: the cohort's ("mains"), or always the same."""

    step: Literal["notch"] = "notch"
    hz: Positive | Literal["mains"] = "mains"
    # Q 30 takes 11.5 dB at 0.5 Hz beside the mains and distorts a clean ECG by 2.3 uV; Q 10 takes 28 dB for 7.4 uV.
    q: Positive = 30.0
    harmonics: bool = False  # also whole multiples below half the rate, one pass each
    min_source_rate_ratio: Annotated[float, Field(ge=0)] = 2.2  # no notch if the source has fewer samples a period


class SubtractMedian(_Step):
    """Subtract a running median, `scipy.signal.medfilt`: beyond the ends it sees zeros."""

    step: Literal["subtract_median"] = "subtract_median"
    width_s: Positive


class CheckAmplitude(_Step):
    """Refuse a recording whose amplitude no ECG has: the median over leads of the 99th percentile of |x|."""

    step: Literal["check_amplitude"] = "check_amplitude"
    # Of 1,400 recordings of eleven sets the medians are 0.56 to 1.29 mV. A factor of 1000 falls outside, one of 5 may not.
    amplitude_mv: tuple[Positive, Positive] = (0.1, 10.0)
    above_hz: Positive | None = None  # measured above this frequency, where a recipe leaves offset and drift in


class Store(_Step):
    """Round to whole steps of int16.

    unit none: take numbers that are no voltages, and only these. A step is then `lsb_uv` thousandths: a value x 1000 is stored.
    """

    step: Literal["store"] = "store"
    lsb_uv: Positive = 1.0  # rounding adds 0.3 uV rms
    unit: Literal["mV", "none"] = "mV"

    @model_serializer(mode="wrap")
    def _without_mv(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the unit mV: recipes written before there was another keep their digest."""
        return {name: value for name, value in serialise(self).items() if (name, value) != ("unit", "mV")}


AnyStep = Annotated[
    CheckRate | SelectLeads | FillGaps | Trim | RecordStatistics | Cut | Resample | BandPass | Notch | SubtractMedian
    | CheckAmplitude | Store,
    Field(discriminator="step"),
]  # fmt: skip
OneStep = TypeVar("OneStep", bound=_Step)

# The beginning and the end of every recipe, in this order. In between: one cut, resampling and filters in any order.
_FIRST = (CheckRate, SelectLeads, FillGaps, Trim, RecordStatistics)
_LAST = (CheckAmplitude, Store)
_OPTIONAL = (Trim, RecordStatistics, CheckAmplitude)


class Recipe(BaseModel):
    """One preprocessing chain. Equal steps under an equal name give equal strips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    steps: tuple[AnyStep, ...]

    def __hash__(self) -> int:
        # Filters are looked up by recipe several times a strip: hashing every step would cost more than the look-up.
        return hash(self.name)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_order([type(step) for step in self.steps])
        _check_numbers(self.steps)
        return self

    def step(self, kind: type[OneStep]) -> OneStep | None:
        """Return the first step of a kind, or None."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    def changed(self, name: str, *steps: _Step) -> "Recipe":
        """Return a recipe of another name in which each given step replaces the one of its kind.

        >>> from ecgcohorts.preprocess.recipes import CAPE_V1
        >>> CAPE_V1.changed("mine", Resample(rate_hz=500)).rate_hz
        500.0
        """
        kinds: list[type[_Step]] = [type(step) for step in self.steps]
        replaced = list(self.steps)
        for step in steps:
            if kinds.count(type(step)) != 1:
                raise ValueError(f"{self.name} has {kinds.count(type(step))} steps {_name(type(step))}, expected one")
            replaced[kinds.index(type(step))] = cast(AnyStep, step)
        return Recipe(name=name, steps=tuple(replaced))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy, under another name if `update` says so. Steps are replaced by `changed`, which checks them."""
        if set(update or ()) - {"name"}:
            raise TypeError("steps of a recipe are replaced by Recipe.changed")
        return super().model_copy(update=update, deep=deep)

    def told_from(self, other: "Recipe") -> tuple[str, str]:
        """Return the names of two unequal recipes for a message.

        If they share one, beside it the digest of the steps, and beside the second what it has otherwise than the first.
        """
        if self.name != other.name:
            return self.name, other.name
        first, second = (f"{one.name} ({one.digest[:8]})" for one in (self, other))
        return first, f"{second} with {other._otherwise_than(self)}"

    def _otherwise_than(self, other: "Recipe") -> str:
        mine, theirs = ([_name(type(step)) for step in recipe.steps] for recipe in (self, other))
        if mine != theirs:
            more, fewer = Counter(mine) - Counter(theirs), Counter(theirs) - Counter(mine)
            told = [f"the step {name}" for name in more] + [f"no step {name}" for name in fewer]
            return ", ".join(told) or "its steps in another order"
        told = []
        for kind, step, than in zip(mine, self.steps, other.steps, strict=True):
            before = than.model_dump(mode="json")
            for name, value in step.model_dump(mode="json").items():
                if value != before.get(name):
                    told.append(f"{kind} {name} {value!s:.60} instead of {before.get(name)!s:.60}")
        return ", ".join(told)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the steps, in hexadecimal."""
        return hashlib.sha256(self.model_dump_json(include={"steps"}).encode()).hexdigest()

    def required(self, kind: type[OneStep]) -> OneStep:
        """Return the first step of a kind that every recipe has."""
        return cast(OneStep, self.step(kind))

    @cached_property
    def leads(self) -> tuple[str, ...]:
        return self.required(SelectLeads).leads

    @cached_property
    def rate_hz(self) -> float:
        """Samples per second of a strip."""
        return [step.rate_hz for step in self.steps if isinstance(step, Resample)][-1]

    @cached_property
    def unit(self) -> Literal["mV", "none"]:
        """Of the numbers that a strip stands for."""
        return self.required(Store).unit

    @cached_property
    def lsb_uv(self) -> float:
        """One step of the stored integers, in uV; in thousandths where the numbers have no unit."""
        return self.required(Store).lsb_uv

    @cached_property
    def strip_s(self) -> float:
        """Longest strip."""
        return self.required(Cut).strip_s

    @cached_property
    def window_s(self) -> float:
        """Shortest strip: a window of this length can be cut from every one."""
        return self.required(Cut).window_s

    @cached_property
    def strip_samples(self) -> int:
        return round(self.strip_s * self.rate_hz)

    @cached_property
    def window_samples(self) -> int:
        return round(self.window_s * self.rate_hz)

    @cached_property
    def band_hz(self) -> tuple[float, float] | None:
        """What all band-passes let through, or None if there is none."""
        bands = [step for step in self.steps if isinstance(step, BandPass)]
        if not bands:
            return None
        tops = [band.high_hz for band in bands if band.high_hz is not None]
        return max(band.low_hz or 0.0 for band in bands), min([self.rate_hz / 2, *tops])

    @cached_property
    def cuts_first(self) -> bool:
        """Whether the cut comes before resampling, so that nothing beyond the strip is computed."""
        kinds = [type(step) for step in self.steps]
        return kinds.index(Cut) < kinds.index(Resample)

    @cached_property
    def after_cut(self) -> tuple[Cut | Resample | BandPass | Notch | SubtractMedian, ...]:
        """Resampling, filters and a late cut: the steps from source to strip, without checks and rounding."""
        return tuple(
            step
            for step in self.steps
            if isinstance(step, Resample | BandPass | Notch | SubtractMedian)
            or (isinstance(step, Cut) and not self.cuts_first)
        )

    @cached_property
    def record_statistics(self) -> bool:
        """Whether mean and deviation of whole recordings are kept in the index."""
        return self.step(RecordStatistics) is not None


def _name(kind: type[BaseModel]) -> str:
    return str(kind.model_fields["step"].default)


def _check_order(kinds: Sequence[type[BaseModel]]) -> None:
    """Raise ValueError for a step that is missing, given twice, or out of its place."""
    for kind in (*_FIRST, Cut, *_LAST):
        if kinds.count(kind) > 1:
            raise ValueError(f"{_name(kind)} is there {kinds.count(kind)} times, expected once")
        if kind not in kinds and kind not in _OPTIONAL:
            raise ValueError(f"{_name(kind)} is missing")
    if Resample not in kinds:
        raise ValueError("resample is missing: name the rate, even if it is that of most sources")
    head, tail = [kind for kind in _FIRST if kind in kinds], [kind for kind in _LAST if kind in kinds]
    middle = kinds[len(head) : len(kinds) - len(tail)]
    if [*head, *middle, *tail] != list(kinds) or set(middle) & {*_FIRST, *_LAST}:
        raise ValueError(
            f"found the order {', '.join(map(_name, kinds))}; expected {', '.join(map(_name, head))} first and "
            f"{', '.join(map(_name, tail))} last"
        )


def _check_numbers(steps: Sequence[_Step]) -> None:
    """Raise ValueError for numbers of several steps that contradict each other."""
    rate_hz: float | None = None  # that of the source is not known
    before: _Step | None = None
    slowest_hz = next(step for step in steps if isinstance(step, CheckRate)).source_rate_hz[0]
    for step in steps:
        if isinstance(step, Resample):
            if step.method == "decimate" and (rate_hz is None or rate_hz % step.rate_hz):
                raise ValueError(f"decimate to {step.rate_hz:g} Hz: expected a whole factor of a rate before it")
            rate_hz = step.rate_hz
        elif isinstance(step, _Filter | SubtractMedian):
            if rate_hz is None:
                raise ValueError(f"{_name(type(step))} before the first resample, where the rate is not known yet")
            if isinstance(step, _Filter):
                _check_filter(step, before, rate_hz, slowest_hz)
        elif isinstance(step, Cut) and step.window_s > step.strip_s:
            raise ValueError(f"cut: window_s {step.window_s:g} is longer than strip_s {step.strip_s:g}")
        elif isinstance(step, CheckRate | CheckAmplitude):
            low, high = step.source_rate_hz if isinstance(step, CheckRate) else step.amplitude_mv
            if low >= high:
                raise ValueError(f"{_name(type(step))}: {low:g} is not below {high:g}")
        before = step
    kinds = {type(step): step for step in steps}
    if CheckAmplitude in kinds and cast(Store, kinds[Store]).unit == "none":
        raise ValueError("check_amplitude: its limits are mV, and store says unit: none. Leave check_amplitude out")
    cut = next(step for step in steps if isinstance(step, Cut))
    for length_s in (cut.strip_s, cut.window_s):
        samples = length_s * cast(float, rate_hz)
        if abs(samples - round(samples)) > 1e-6:
            raise ValueError(f"cut: {length_s:g} s are {samples:g} samples, expected a whole number")


def _check_filter(step: _Filter, before: _Step | None, rate_hz: float, slowest_hz: float) -> None:
    name = _name(type(step))
    if isinstance(step, BandPass):
        edges = [edge for edge in (step.low_hz, step.high_hz) if edge is not None]
        if not edges or sorted(set(edges)) != edges:
            raise ValueError("band_pass: expected low_hz, high_hz, or both with low_hz below high_hz")
        if edges[-1] >= rate_hz / 2:
            raise ValueError(f"band_pass: {edges[-1]:g} Hz is not below half the rate, {rate_hz / 2:g} Hz")
        if step.low_hz is not None and step.low_hz >= (step.top_of_source_rate or 1.0) * slowest_hz:
            raise ValueError(f"band_pass: nothing is left above {step.low_hz:g} Hz of a source at {slowest_hz:g} Hz")
        if step.kind == "fir" and (step.ends == "gust" or step.pad_s is not None):
            raise ValueError("band_pass: an FIR is padded by its own length, so it has no pad_s and no ends 'gust'")
        if step.kind == "fir" and step.high_hz is None and step.order % 2 == 0:
            raise ValueError("band_pass: a high-pass FIR has an odd number of taps")
    if isinstance(step, Notch):
        highest_hz = 60.0 if step.hz == "mains" else step.hz  # a cohort's may be either
        if highest_hz >= rate_hz / 2:
            raise ValueError(f"notch: {highest_hz:g} Hz is not below half the rate, {rate_hz / 2:g} Hz")
    if step.ends == "gust" and (step.pad_s is not None or step.joined):
        raise ValueError(f"{name}: ends 'gust' pads nothing and joins nothing")
    if step.joined and (not isinstance(before, _Filter) or (before.ends, before.pad_s) != (step.ends, step.pad_s)):
        raise ValueError(f"{name}: joined to no filter before it with the same ends and pad_s")
    if step.joined and any(isinstance(one, BandPass) and one.kind == "fir" for one in (step, before)):
        raise ValueError(f"{name}: an FIR has no second-order sections to join")
