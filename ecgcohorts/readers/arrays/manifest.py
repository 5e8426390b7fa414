"""What an array of numbers does not say about itself: rate, unit, leads, orientation. Stated by a person, never guessed.

A manifest is a small YAML file that says it for data files beside it; a cohort description says it inline.
"""

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ecgcohorts.errors import Reason, RejectedRecording, UnreadableRecording
from ecgcohorts.leads import positions
from ecgcohorts.readers._shared.files import read_bounded, size_of
from ecgcohorts.readers._shared.limits import HIGHEST_HZ, LOWEST_HZ, MAX_LEADS, check_shape

VERSION_KEY, FILES_KEY = "ecg_arrays", "files"
MAX_COLUMNS = 256  # of a text, leads or not; our default
MAX_MANIFEST_BYTES = 32 << 10  # our default; a long one has 1 kB
MAX_GLOBS = 64  # our default
MAX_BRACKETS = 64  # our default; three lists are possible, and YAML takes its time over thousands
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:#[^\n]*)?\r?\n|---[ \t]*\r?\n)*ecg_arrays[ \t]*:[ \t]")
_GLOB = re.compile(r"[^/\\:\0]+(?:/[^/\\:\0]+)*")


class ArrayDescription(BaseModel):
    """How to read a file that holds one recording as one array. Nothing in it has a default that could be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["csv", "npy", "hdf5", "matlab"]  # csv: any text of numbers, gzipped if its name ends in .gz
    rate_hz: Annotated[float, Field(ge=LOWEST_HZ, le=HIGHEST_HZ)]
    unit: Literal["nV", "uV", "mV", "V"]
    steps_per_unit: Annotated[float, Field(gt=0)] = 1.0  # e.g. 200 with unit mV: integers of 5 uV
    leads: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LEADS)]  # in the order of the array
    axes: Literal["lead_time", "time_lead"]  # lead_time: one row per lead
    name: str | None = None  # hdf5: path of the dataset; matlab: name of the variable
    samples: Annotated[int, Field(gt=0)] | None = None  # per lead; another number is refused
    missing: float | None = None  # the value that means "no sample"
    skip_lines: Annotated[int, Field(ge=0, le=1000)] = 0  # csv: lines before the numbers
    columns: tuple[Annotated[int, Field(ge=0, lt=MAX_COLUMNS)], ...] | None = None  # csv: those of the leads, from 0
    separator: Literal[",", ";", "tab", "space"] = ","  # csv; space: any white space
    decimal: Literal[".", ","] = "."  # csv

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "ArrayDescription":
        if (self.name is None) == (self.kind in ("hdf5", "matlab")):
            raise ValueError("expected name for hdf5 and matlab (the dataset or variable), and for nothing else")
        # not model_fields_set: a description that went to JSON and back states its defaults too
        fields, of_csv = type(self).model_fields, ("skip_lines", "columns", "separator", "decimal")
        given = {name for name in of_csv if getattr(self, name) != fields[name].default}
        if self.kind != "csv" and given:
            raise ValueError(f"found {', '.join(sorted(given))}, which only csv has")
        if self.decimal == self.separator:
            raise ValueError("found one character as decimal point and as separator")
        if self.columns is not None and (self.axes != "time_lead" or len(self.columns) != len(self.leads)):
            raise ValueError("expected as many columns as leads, and axes: time_lead")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("found one column for two leads")
        return self

    @model_validator(mode="after")
    def _leads_are_names(self) -> "ArrayDescription":
        if any(not lead.strip() or not lead.isprintable() or len(lead) > 40 for lead in self.leads):
            raise ValueError("expected lead names of 1 to 40 characters")
        if len({lead.strip().casefold() for lead in self.leads}) < len(self.leads):
            raise ValueError("found one lead twice")
        try:
            positions(self.leads)
        except RejectedRecording as error:
            raise ValueError(f"found {error.found}") from None
        return self

    def check_shape(self, shape: tuple[int, ...], where: str) -> None:
        """Compare the shape of an array, its axes as in the file, with what is described. Before it is allocated."""
        if len(shape) != 2:
            raise UnreadableRecording(
                Reason.HEADER, f"an array of {len(shape)} axes", f"two, {self.axes}", "Describe another array.", where
            )
        n_leads, n_samples = shape if self.axes == "lead_time" else shape[::-1]
        if n_leads != len(self.leads):
            raise UnreadableRecording(
                Reason.LEADS, f"{n_leads} leads", f"{len(self.leads)}, as described", "Check leads and axes.", where
            )
        if self.samples is not None and n_samples != self.samples:
            reason = Reason.TRUNCATED if n_samples < self.samples else Reason.HEADER
            raise UnreadableRecording(
                reason, f"{n_samples} samples", f"{self.samples}, as described", "Fetch it again, or correct it.", where
            )
        check_shape(n_leads, n_samples, self.rate_hz, where)


class Manifest(BaseModel):
    """The data files beside a manifest, and how to read all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(min_length=1, max_length=MAX_GLOBS)]
    description: ArrayDescription

    @model_validator(mode="after")
    def _globs_stay_below(self) -> "Manifest":
        for glob in self.files:
            parts = glob.split("/")
            if not _GLOB.fullmatch(glob) or not glob.isprintable() or {".", ".."} & {*parts} or parts[-1] == "**":
                raise ValueError("expected files such as *.npy, day1/*.csv or **/*.txt: below this folder, with /")
            if any("**" in part for part in (parts[1:] if parts[0] == "**" else parts)):
                raise ValueError("found ** elsewhere than as the first folder of a pattern")
        return self


def opens_manifest(head: bytes) -> bool:
    """Whether the first key of a text is `ecg_arrays`."""
    return _FIRST_LINE.match(head) is not None


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Cached until the file changes: ingest asks for one recording at a time.

    Raises UnreadableRecording for anything that is not stated, stated twice, or stated wrongly.
    """
    return _load(path.absolute(), size_of(path), str(path))


@lru_cache(maxsize=64)
def _load(path: Path, _size_and_time: tuple[int, int], where: str) -> Manifest:
    data = read_bounded(path, MAX_MANIFEST_BYTES)
    if not opens_manifest(data):
        _refuse(Reason.FORMAT, "no key ecg_arrays at its beginning", "ecg_arrays: 1 as the first key", where)
    lines = data.rstrip(b"\r\n").splitlines()
    if not data.endswith(b"\n") or not lines[-1].startswith(f"{FILES_KEY}:".encode()):
        # Optional keys stand before it: a manifest cut anywhere lacks it, and cannot mean something else.
        _refuse(Reason.TRUNCATED, "another end", f"one last line `{FILES_KEY}: [...]` with its line end", where)
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        _refuse(Reason.HEADER, "too many brackets", f"at most {MAX_BRACKETS}", where)
    content = _flat_yaml(data, where)
    version = content.pop(VERSION_KEY, None)
    if version != "1":
        _refuse(Reason.UNSUPPORTED, f"{VERSION_KEY}: {version!s:.20}", f"{VERSION_KEY}: 1", where)
    allowed = [FILES_KEY, *ArrayDescription.model_fields]
    for key in content:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            meant = f"{close[0]}?" if close else f"one of {', '.join(allowed)}"
            _refuse(Reason.HEADER, f"the unknown key {key!r:.40}", meant, where)
    try:
        files = content.pop(FILES_KEY)
        return Manifest(files=files, description=ArrayDescription.model_validate(content))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part != "description") or "the whole"
        _refuse(Reason.HEADER, f"{key[:80]}: {first['msg'][:200]}", "a manifest that states everything", where)


def _flat_yaml(data: bytes, where: str) -> dict[str, Any]:
    """Keys with one text or one list of texts each; pydantic makes numbers of them.

    Built from YAML's events: no alias can multiply anything, nothing nests, no tag makes objects, no key stands twice,
    and a lead called `NO` or a 1:30 stays what was written.
    """
    try:
        events = yaml.parse(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
        found = _pairs((event for event in events if not isinstance(event, _FRAME)), where)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" (line {mark.line + 1})"
        _refuse(Reason.HEADER, f"text that is no YAML in UTF-8{place}", "YAML", where)
    content: dict[str, Any] = {}
    for key, value in found:
        if key in content:
            _refuse(Reason.HEADER, f"the key {key!r:.40} twice", "each key once", where)
        content[key] = value
    return content


_FRAME = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)


def _pairs(events: Iterator[Any], where: str) -> list[tuple[str, str | list[str] | None]]:
    """Keys and values of one flat mapping. Lazy: deep nesting is refused at its second level."""

    def text(event: Any) -> str | None:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
            _refuse(Reason.HEADER, "nesting, an anchor or a tag", "keys with one value or one list each", where)
        is_null = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
        return None if is_null else str(event.value)

    start = next(events, None)
    if not isinstance(start, yaml.MappingStartEvent) or start.anchor is not None or start.tag is not None:
        _refuse(Reason.HEADER, "no keys", "keys and values", where)
    pairs: list[tuple[str, str | list[str] | None]] = []
    while not isinstance(event := next(events, None), yaml.MappingEndEvent):
        key, value = text(event) or "", next(events, None)
        if isinstance(value, yaml.SequenceStartEvent) and value.anchor is None and value.tag is None:
            items = []
            while not isinstance(item := next(events, None), yaml.SequenceEndEvent):
                items.append(text(item) or "")
            pairs.append((key, items))
        else:
            pairs.append((key, text(value)))
    if next(events, None) is not None:
        _refuse(Reason.HEADER, "a second document", "one", where)
    return pairs


def _refuse(reason: Reason, found: str, expected: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, expected, "See arrays in docs/formats.md.", where)
