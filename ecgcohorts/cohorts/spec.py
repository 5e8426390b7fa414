"""Describe one cohort as data, from a preset or a YAML file, and apply the description to each recording."""

import difflib
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from ecgcohorts.cohorts import values
from ecgcohorts.cohorts._devices import _known_device
from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.schema import (
    About,
    Cohort,
    Files,
    Frozen,
    Label,
    Layout,
    Mains,
    Name,
    Overlap,
    Rule,
    Sentinel,
    Table,
    Where,
    Windows,
)  # fmt: skip
from ecgcohorts.cohorts.tables import Tables
from ecgcohorts.errors import Reason, RejectedRecording, SpecError, did_you_mean, expectation
from ecgcohorts.io.yaml_text import read_yaml
from ecgcohorts.leads import standard
from ecgcohorts.plugins import load, names
from ecgcohorts.privacy.placeholders import is_placeholder
from ecgcohorts.privacy.pseudonyms import PseudonymKey
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording, Sex, Unit
from ecgcohorts.sources import Source, open_source

__all__ = ["CohortSpec", "Description", "SourceItem", "Tables"]

T = TypeVar("T")
KIND = "ecgcohorts.cohorts.presets"
MAX_YAML_BYTES = 1 << 20  # our default; a complete cohort file has about 2 kB
MISSING_INT16 = -32768  # WFDB's "no sample" of 16-bit formats
_PARTS: dict[str, type[BaseModel]] = {
    "layouts": Layout, "files": Files, "arrays": ArrayDescription, "tables": Table, "labels": Label, "cohorts": Cohort,
    "about": About, "overlaps": Overlap, "windows": Windows,
    **dict.fromkeys(
        ("recording", "patient", "age", "age_at", "sex", "acquired_at", "device", "site", "find", "measured", "by"), Where
    ),
}  # fmt: skip


class CohortSpec(Frozen):
    """A cohort, or a collection of cohorts that were published together. `model_json_schema()` is its JSON Schema."""

    LATER = frozenset({"about", "overlaps", "unit", "max_contradictions", "devices"})

    name: Name
    title: str
    licence: str  # of the data
    citation: str  # or the source in words
    layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]  # the one whose files are there is used
    cohorts: tuple[Cohort, ...] = ()  # first match wins; a recording of none belongs to `name`
    mains_hz: Mains  # of the country of recording; null: no notch, auto: found in the signal
    expected_gain_per_mv: Annotated[float, Field(gt=0)] | None = None  # another gain is refused, never rescaled
    sentinel: Sentinel = "missing"  # what -32768 means
    devices: Literal["as_stated", "known"] = (
        "as_stated"  # known: of a device's text, only a known maker and model is kept
    )
    unit: Unit = "mV"  # none: the samples are no voltages, whatever unit the files state
    about: About = About()
    overlaps: tuple[Overlap, ...] = ()
    # Share of the patients with several recordings whose sexes or ages may contradict each other; null: 0.01.
    max_contradictions: Annotated[float, Field(ge=0, le=1)] | None = None
    # The one layout to look for, where a folder holds files of several. No part of the description: it stays one cohort.
    _chosen: str | None = PrivateAttr(None)

    @classmethod
    def load(cls, name_or_yaml: str) -> "CohortSpec":
        """Load a preset by name, or the cohort that a YAML file describes; with `#LAYOUT` behind it, for that layout alone.

        Raises SpecError, in one line, for an unknown name, a missing file, an unknown key or a value that is not allowed.
        """
        whole, mark, wanted = name_or_yaml.rpartition("#")
        if mark and not Path(name_or_yaml).exists():
            # A copy, because presets are shared.
            part = cls.load(whole).model_copy()
            known = [layout.name for layout in part.layouts]
            if wanted not in known:
                raise SpecError(
                    f"{whole}: found no layout {wanted!r}, expected one of {', '.join(known)}.{did_you_mean(wanted, known)}"
                )
            part._chosen = wanted
            return part
        if Path(name_or_yaml).suffix.lower() not in (".yaml", ".yml"):
            if name_or_yaml not in names(KIND):
                raise SpecError(
                    f"found no cohort {name_or_yaml!r}, expected one of {', '.join(names(KIND))}, or a file ending in .yaml."
                    + did_you_mean(name_or_yaml, names(KIND))
                )
            preset: CohortSpec = load(KIND, name_or_yaml).SPEC
            return preset
        spec = _from_yaml(Path(name_or_yaml))
        readers = names("ecgcohorts.readers")
        for layout in spec.layouts:
            if layout.reader not in readers:
                raise SpecError(
                    f"{name_or_yaml}: found reader {layout.reader!r}, expected one of {', '.join(readers)}."
                )
        return spec

    @model_validator(mode="after")
    def _names_apart(self) -> "CohortSpec":
        layouts, cohorts = [layout.name for layout in self.layouts], [cohort.name for cohort in self.cohorts]
        for kind, found in (("layouts", layouts), ("cohorts", cohorts)):
            if len(set(found)) < len(found):
                raise ValueError(f"found two {kind} of one name: give each its own name")
        labels = {name for layout in self.layouts for name in layout.labels}
        unknown = {name for cohort in self.cohorts for name in cohort.unlabelled} - labels
        if unknown:
            raise ValueError(f"found unlabelled {', '.join(sorted(unknown))}: expected names of labels")
        strange = {overlap.of for overlap in self.overlaps} - {None, *self.cohort_names}
        if strange:
            raise ValueError(f"found overlaps of {', '.join(map(str, strange))}: expected a cohort described here")
        return self

    @property
    def cohort_names(self) -> tuple[str, ...]:
        """The names under which recordings may be filed."""
        return (*(cohort.name for cohort in self.cohorts), self.name) if self.cohorts else (self.name,)

    @property
    def label_names(self) -> tuple[str, ...]:
        """All label columns, over all layouts, in the order they are declared."""
        return tuple(dict.fromkeys(name for layout in self.layouts for name in layout.labels))

    @property
    def sha256(self) -> str:
        """The digest by which a segment of a store remembers its description."""
        # Without what changes nothing in a store: a corrected number of patients is no other description.
        return hashlib.sha256(
            self.model_dump_json(exclude={"about", "overlaps", "max_contradictions"}).encode()
        ).hexdigest()

    def cohort_of(self, item: SourceItem) -> Cohort:
        """Return the cohort of a recording, by its path."""
        stem = item.stem.removesuffix(item.window)
        found = next((cohort for cohort in self.cohorts if re.search(cohort.path, stem)), None)
        return found or self._whole()

    def cohort(self, name: str) -> Cohort:
        """Return a cohort by name; `self.name` is the whole. Raises SpecError for any other name."""
        found = next((cohort for cohort in self.cohorts if cohort.name == name), None)
        if found is None and name != self.name:
            known = self.cohort_names
            raise SpecError(
                f"{self.name}: found no cohort {name!r}, expected one of {', '.join(known)}.{did_you_mean(name, known)}"
            )
        return found or self._whole()

    def find(self, place: Path | Source) -> Found:
        """Find the layout that has files in a folder, given by its path, or in another source.

        Raises SourceError if there is no such folder, or it holds no file of this cohort.
        """
        # A source that must be closed after use is opened, and closed, by the caller.
        layouts = tuple(layout for layout in self.layouts if self._chosen in (None, layout.name))
        return Found.among(layouts, open_source(place) if isinstance(place, Path) else place)

    def scan(self, place: Path | Source) -> Iterator[SourceItem]:
        """Yield the items of `sources` one at a time, for collections too large to hold all headers."""
        yield from self.find(place).scan()

    def sources(self, place: Path | Source, limit: int | None = None) -> list[SourceItem]:
        """List every recording, by path and order in the file. An unreadable header is an item with `error`."""
        return list(islice(self.scan(place), limit))

    def load_tables(self, place: Path | Source) -> Tables:
        """Read the tables beside the recordings. Raises SourceError for a missing table or column."""
        return Tables.load(self.find(place))

    def describe(self, tables: Tables, item: SourceItem) -> "Description":
        """Apply the rules to one recording: its header, its path and the tables.

        `tables` comes from `load_tables` of the same folder. An item without a header is described as far as possible.
        """
        layout, cohort, header = tables.layout, self.cohort_of(item), item.header
        facts = _Facts(item, tables)
        acquired_at = facts.first(
            layout.acquired_at,
            header.acquired_at if header else None,
            lambda text: values.moment(text, layout.time_format),
            "acquired_at",
        )
        age = facts.first(
            layout.age,
            values.age_years(str(header.age_years)) if header and header.age_years is not None else math.nan,
            lambda text: values.age_years(text, layout.age_unit, layout.age_codes),
            "age",
        )
        if age is not None and layout.age_at:
            since = partial(_age_then, age, now=acquired_at, time_format=layout.time_format)
            age = facts.first(layout.age_at, None, since, "age_at" if acquired_at else "")
        labels = {
            name: facts.label(name, label) for name, label in layout.labels.items() if name not in cohort.unlabelled
        }
        named = facts.first(layout.recording, header.recording_id if header else None, _text)
        return Description(
            cohort=cohort.name,
            patient_id=facts.patient(layout.patient, _patient(header.patient_id if header else None)),
            recording_id=item.stem if named is None else f"{named}{item.window}",
            age_years=math.nan if age is None else age,
            sex=facts.first(
                layout.sex, header.sex if header else None, lambda text: values.sex(text, layout.sex_codes), "sex"
            ),
            acquired_at=acquired_at,
            device=facts.first(layout.device, header.device if header else None, self._device),
            site=facts.first(layout.site, header.site if header else None, _text),
            mains_hz=cohort.mains_hz,
            labels=dict.fromkeys(layout.labels, math.nan) | {k: v for k, v in labels.items() if v is not None},
        )

    def _device(self, text: str) -> str | None:
        stated = _text(text)
        return stated if stated is None or self.devices == "as_stated" else _known_device(stated)

    def apply_rules(self, cohort: str, recording: Recording) -> Recording:
        """Return the recording as its cohort understands it: without a unit, or -32768 as a clipped sample, if it says so.

        Raises RejectedRecording if the cohort expects a gain and a lead has another.
        """
        # A gain is never corrected: nothing in the file says which of the two is right.
        # Early headers of the Challenge claim gains of 4880, 200 or 2,000,000 for integers of 1000 steps per mV.
        if self.expected_gain_per_mv is not None and recording.gain_per_mv is not None:
            _check_gain(recording, self.expected_gain_per_mv)
        if self.unit == "none" and recording.unit != "none":
            recording = replace(recording, unit="none")
        if self.cohort(cohort).sentinel == "missing" or recording.missing is None or recording.digital is None:
            return recording
        # Readers mark -32768 as missing, as WFDB says. In records E and JS of the Challenge it is a sample clipped at the
        # foot of the range.
        clipped = recording.missing & (recording.digital == MISSING_INT16)
        if not clipped.any():
            return recording
        return replace(recording, missing=recording.missing & ~clipped, notes=(*recording.notes, "clipped_at_minimum"))

    def to_yaml(self) -> str:
        """Return the spec as a cohort file, defaults left out; `load` of that file gives an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)

    def _whole(self) -> Cohort:
        return Cohort(name=self.name, path="", title=self.title, mains_hz=self.mains_hz, sentinel=self.sentinel)


@dataclass(frozen=True)
class Description:
    """What is known about one recording beside its signal. Ids are as printed in the source, and never stored like that."""

    cohort: str
    patient_id: str | None = field(repr=False)  # None: unknown or a placeholder, so a patient of its own
    recording_id: str = field(repr=False)
    age_years: float = math.nan  # capped at 90
    sex: Sex | None = None
    acquired_at: datetime | None = None
    device: str | None = None
    site: str | None = None
    mains_hz: float | Literal["auto"] | None = None
    labels: dict[str, float] = field(default_factory=dict)

    def patient_pseudonym(self, key: PseudonymKey) -> bytes:
        """Return the pseudonym of the recording's patient."""
        # A recording without a patient id is a patient of its own: hashing one placeholder would make them one person.
        patient = f"\0alone\0{self.recording_id}" if self.patient_id is None else self.patient_id
        return key.pseudonym(self.cohort, "patient", patient)

    @property
    def stored_age(self) -> float:
        """The age as an index stores it: capped, NaN if unknown."""
        return min(self.age_years, values.AGE_CAP_YEARS) if math.isfinite(self.age_years) else math.nan


def _check_gain(recording: Recording, expected: float) -> None:
    assert recording.gain_per_mv is not None
    leads = standard(recording.leads)
    for name, lead, gain in zip(recording.leads, leads, recording.gain_per_mv.tolist(), strict=True):
        # Signals that are not ECG leads (respiration ...) have gains of their own.
        if lead and not math.isclose(gain, expected):
            raise RejectedRecording(
                Reason.GAIN,
                f"gain {gain:g} per mV in lead {name}",
                f"{expected:g} as in the whole cohort",
                "Fetch the corrected release of this header.",
            )


def _from_yaml(path: Path) -> CohortSpec:
    try:
        return CohortSpec.model_validate(read_yaml(path, MAX_YAML_BYTES, "cohort file"))
    except ValidationError as error:
        raise SpecError(f"{path}: {_complaint(error)}") from None


def _complaint(error: ValidationError) -> str:
    """Tell the first thing that is wrong, and how many more there are, in one line."""
    first, *others = error.errors(include_url=False)
    place = ".".join(map(str, first["loc"]))[:200] or "the file"
    context = first.get("ctx", {})
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(first["loc"]).model_fields)
        close = difflib.get_close_matches(str(first["loc"][-1])[:100], allowed, n=1)
        remedy = f"Did you mean {close[0]}?" if close else "Rename or remove it."
        text = f"found unknown key {place}, expected one of {', '.join(allowed)}. {remedy}"
    elif first["type"] == "missing":
        text = f"the key {place} is missing. Add it."
    elif first["type"] == "value_error":
        text = f"{place}: {context['error']}."
    elif first["type"] == "literal_error":
        text = f"{place}: found {_shown(first['input'])}, expected {context['expected']}."
    else:
        text = f"{place}: found {_shown(first['input'])}, expected: {expectation(first)}."
    return " ".join(text.split()) + (f" ({len(others)} more like this.)" if others else "")


def _shown(value: object) -> str:
    """Return the beginning of a value as text."""
    # A list or a mapping by its kind: its whole text would be made before it is cut.
    return f"{value!r:.60}" if isinstance(value, str | int | float | date | None) else f"a {type(value).__name__}"


def _model_at(place: tuple[int | str, ...]) -> type[BaseModel]:
    holders = [part for part in place[:-1] if part in _PARTS]
    return _PARTS[str(holders[-1])] if holders else CohortSpec


class _Facts:
    """The texts about one recording, from wherever a rule says they stand."""

    def __init__(self, item: SourceItem, tables: Tables) -> None:
        self.item, self.tables = item, tables
        fields = item.header.fields if item.header else {}
        self.fields = {key.casefold(): value for key, value in fields.items()}
        self.rows: dict[str, tuple[str, ...] | None] = {}
        for name, table in tables.loaded.items():  # a table joined over another stands behind it
            by = table.table.by
            self.rows[name] = table.row(item) if not by else table.get(self.first(by, None, lambda text: text or None))
            tables.met[name] += self.rows[name] is None
        tables.met[""] += 1

    def first(
        self,
        rule: Rule,
        by_reader: T | None,
        parse: Callable[[str], T | None],
        fact: str = "",
        unknown: tuple[str, ...] = (),
    ) -> T | None:
        """Return the first value that means something: not None, not NaN.

        fact: what it is called where texts are counted that do not say it; without it they are not. unknown: the texts by
        which the source says that it is not known.
        """
        for place in rule:
            text = None if place.reader else self.text(place)
            # An empty cell or an unreadable date is not a value: the next `Where` is asked.
            value = by_reader if place.reader else None if text is None else parse(text)
            found = value if place.reader else text
            if value is not None and value == value and not (isinstance(found, str) and place.is_filler(found)):
                return value
            # Counted although another place may still say it: whoever names two places wants both to be read.
            if fact and text is not None and values.plain(text) not in unknown:
                self.tables.note(fact, place, text)
        return None

    def label(self, name: str, label: Label) -> float | None:
        if label.measured and self.first(label.measured, None, _text) is None:
            return None
        return self.first(label.find, None, label.number, name, tuple(map(values.plain, label.missing)))

    def patient(self, rule: Rule, by_reader: str | None) -> str | None:
        """Return the first patient id that is one."""
        ids = (self.first((at,), by_reader, _patient if at.usual_fillers else _any_text) for at in rule)
        return next((one for one in ids if one is not None), None)

    def text(self, place: Where) -> str | None:
        if place.path is not None:
            return _first_group(place.path, self.item.location)
        text = place.constant
        if place.header is not None:
            text = self.fields.get(place.header.casefold())
            if self.item.header is not None:
                self.tables.note_key(place.header, self.item.header.fields, text is not None)
        elif place.column is not None:
            name = place.table or self.tables.layout.tables[0].name
            row = self.rows.get(name)
            text = None if row is None else row[self.tables.loaded[name].columns[place.column]]
        return text if text is None or place.pattern is None else _first_group(place.pattern, text)


def _age_then(years: float, known_at: str, now: datetime | None, time_format: str | None = None) -> float:
    """Return the age at `now` of a person who was `years` old at another date, or in another year; NaN if unknown.

    >>> _age_then(52.0, "2180", datetime(2184, 6, 1)), _age_then(0.0, "1950-07-02", datetime(2000, 7, 2))
    (56.0, 50.0)
    """
    is_year = re.fullmatch(r"\s*\d{4}\s*", known_at)
    then = None if is_year else values.moment(known_at, time_format)
    if now is None or (then is None and not is_year):
        return math.nan
    passed = now.year - int(known_at) if then is None else round((now - then).days / 365.25, 2)
    # An age of "over 89" may be any: of the years after it only that they are over 89, of those before it nothing.
    if years >= values.AGE_CAP_YEARS:
        return values.AGE_CAP_YEARS if passed >= 0 else math.nan
    total = years + passed
    return min(total, values.AGE_CAP_YEARS) if 0 <= total <= values.AGE_LIMIT_YEARS else math.nan


def _first_group(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _patient(text: str | None) -> str | None:
    printed = None if text is None else values.id_text(text)
    return None if is_placeholder(printed) else printed


def _any_text(text: str) -> str | None:
    return values.id_text(text) or None


def _text(text: str) -> str | None:
    """Squeeze spaces of a text; None for words that mean nothing."""
    squeezed = " ".join(values.id_text(text).split())
    return None if squeezed.casefold() in ("", "nan", "unknown", "n/a") else squeezed
