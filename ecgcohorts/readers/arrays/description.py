"""What an array of numbers does not say about itself: rate, unit, leads, orientation. A person states them."""

from collections import Counter
from math import prod
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ecgcohorts.errors import Reason, RejectedRecording, UnreadableRecording
from ecgcohorts.leads import positions
from ecgcohorts.readers._shared.limits import HIGHEST_HZ, LOWEST_HZ, MAX_LEADS, check_shape

MAX_COLUMNS = 256  # of a text, leads or not; our default
MAX_RECORDS = 1 << 22  # in one file; our default, forty times the largest published array
MAX_FACTS = 1 << 26  # about all records of a file: a scale for each lead of each; our default
MAX_ID = 64  # characters; our default
_WORDS = Counter({"time": 1, "lead": 1, "record": 1, "one": 2})  # of `axes`, and how often each may stand
_SIDE = ("ids", "scale", "lengths")


def _axes(text: str) -> str:
    words = text.split("_")
    if "time" not in words or Counter(words) - _WORDS or "record" in words[1:]:
        raise ValueError(
            "expected lead_time, time_lead or another order of time, lead and one (an axis of length 1), "
            "after record_ where a file holds many recordings"
        )
    return text


class ArrayDescription(BaseModel):
    """How to read a file of one recording, or of many, as arrays. No field has a default that could be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["csv", "npy", "npz", "hdf5", "matlab"]  # csv: any text of numbers, gzipped if its name ends in .gz
    # Rate, unit, leads and axes have no default: text exports of 12 leads at hand state none of them.
    rate_hz: Annotated[float, Field(ge=LOWEST_HZ, le=HIGHEST_HZ)]
    unit: Literal["nV", "uV", "mV", "V", "none"]  # none: numbers that are no voltages, such as z-scores
    steps_per_unit: Annotated[float, Field(gt=0)] = 1.0  # e.g. 200 with unit mV: integers of 5 uV
    leads: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LEADS)]  # in the order of the array
    # lead_time: one row per lead; record_one_time_lead: (records, 1, samples, leads). Without lead: a name for each lead.
    axes: Annotated[str, AfterValidator(_axes)]
    # hdf5: path of the dataset; npz: name of the array; matlab: name of the variable, or structure.field.
    name: str | Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_LEADS)] | None = None
    ids: str | None = None  # hdf5, npz: the array with the id of each record; else entries are numbers from 0
    scale: str | None = None  # hdf5, npz: the array with the units per step of each record, or of each of its leads
    lengths: str | None = None  # hdf5, npz: the array with the samples of each record; the rest is padding
    samples: Annotated[int, Field(gt=0)] | None = None  # per lead; another number is refused
    missing: float | None = None  # the value that means "no sample"
    skip_lines: Annotated[int, Field(ge=0, le=1000)] = 0  # csv: lines before the numbers
    columns: tuple[Annotated[int, Field(ge=0, lt=MAX_COLUMNS)], ...] | None = None  # csv: those of the leads, from 0
    separator: Literal[",", ";", "tab", "space"] = ","  # csv; space: any white space
    decimal: Literal[".", ","] = "."  # csv

    @model_serializer(mode="wrap")
    def _without_unused_keys(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # They came later: stores remember the digest of descriptions that were written before there were any.
        dumped: dict[str, Any] = serialise(self)
        return {name: value for name, value in dumped.items() if value is not None or name not in _SIDE}

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "ArrayDescription":
        if (self.name is None) == (self.kind in ("hdf5", "matlab", "npz")):
            raise ValueError("expected name for hdf5, npz and matlab (the dataset or variable), and for nothing else")
        if isinstance(self.name, str) is not ("lead" in self._words) and self.name is not None:
            raise ValueError("expected one name, or axes without lead and a list with a name for each lead")
        is_list = "lead" not in self._words
        if (self.name is None and is_list) or len(self.names) != (len(self.leads) if is_list else 1):
            raise ValueError("expected as many names as leads, or axes with lead")
        if self.kind == "csv" and self.axes not in ("lead_time", "time_lead"):
            raise ValueError("expected axes lead_time or time_lead for csv")
        if self.has_records and self.kind not in ("npy", "npz", "hdf5"):
            raise ValueError("expected one recording in a file, or npy, npz or hdf5")
        # Not model_fields_set: a description that went to JSON and back states its defaults, too.
        fields, of_csv = type(self).model_fields, ("skip_lines", "columns", "separator", "decimal")
        given = {name for name in of_csv if getattr(self, name) != fields[name].default}
        if self.kind != "csv" and given:
            raise ValueError(f"found {', '.join(sorted(given))}, which only csv has")
        # A .npy file holds one array, so its ids come from a table, by row.
        side = [name for name in _SIDE if getattr(self, name) is not None]
        if side and not (self.has_records and self.kind in ("npz", "hdf5")):
            raise ValueError(f"found {', '.join(side)}, which only npz and hdf5 of many records have")
        if self.scale is not None and self.steps_per_unit != 1:
            raise ValueError("found scale and steps_per_unit: give one")
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

    @property
    def names(self) -> tuple[str | None, ...]:
        """The arrays that a recording stands in: one, or one for each lead."""
        return self.name if isinstance(self.name, tuple) else (self.name,)

    @property
    def has_records(self) -> bool:
        """Whether a file holds many recordings."""
        return "record" in self._words

    @property
    def _words(self) -> list[str]:
        return self.axes.split("_")

    def check_shape(self, shape: tuple[int, ...], where: str) -> int:
        """Compare the shape of an array with this description, before memory is taken for it. Return samples per lead.

        Raises UnreadableRecording.
        """
        if len(shape) != len(self._words):
            raise UnreadableRecording(
                Reason.HEADER,
                f"an array of {len(shape)} axes",
                f"{len(self._words)}, {self.axes}",
                "Describe another array, or other axes.",
                where,
            )
        sizes = {"lead": len(self.leads), "one": 1, "record": 1} | dict(zip(self._words, shape, strict=True))
        n_leads, n_samples, n_records = sizes["lead"], sizes["time"], sizes["record"]
        if n_leads != len(self.leads):
            raise UnreadableRecording(
                Reason.LEADS, f"{n_leads} leads", f"{len(self.leads)}, as described", "Check leads and axes.", where
            )
        if any(size != 1 for word, size in zip(self._words, shape, strict=True) if word == "one"):
            raise UnreadableRecording(Reason.HEADER, f"the shape {shape}", self.axes, "Check the axes.", where)
        if self.samples is not None and n_samples != self.samples:
            reason = Reason.TRUNCATED if n_samples < self.samples else Reason.HEADER
            raise UnreadableRecording(
                reason, f"{n_samples} samples", f"{self.samples}, as described", "Fetch it again, or correct it.", where
            )
        if not 0 < n_records <= MAX_RECORDS:
            reason = Reason.LIMIT if n_records else Reason.EMPTY
            raise UnreadableRecording(reason, f"{n_records} records", f"1 to {MAX_RECORDS}", "Check the axes.", where)
        check_shape(n_leads, n_samples, self.rate_hz, where)
        return n_samples

    def arranged(self, array: NDArray) -> NDArray:
        """Return the array of one recording as (lead, time); of one lead as (time,)."""
        words = [word for word in self._words if word != "record"]
        kept = [word for word in words if word != "one"]
        array = array.reshape([size for word, size in zip(words, array.shape, strict=True) if word != "one"])
        return array.T if kept == ["time", "lead"] else array

    @staticmethod
    def check_side(shape: tuple[int, ...], where: str) -> None:
        """Refuse an array of facts about records that is no list of them, or too long. Raises UnreadableRecording."""
        if len(shape) not in (1, 2) or not 0 < shape[0] <= MAX_RECORDS or prod(shape) > MAX_FACTS:
            found = f"an array of {len(shape)} axes and {prod(shape)} values"
            raise UnreadableRecording(
                Reason.HEADER, found, "one value a record", "Check ids, scale and lengths.", where
            )
