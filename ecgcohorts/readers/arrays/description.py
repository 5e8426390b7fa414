"""What an array of numbers does not say about itself: rate, unit, leads, orientation. A person states them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ecgcohorts.errors import Reason, RejectedRecording, UnreadableRecording
from ecgcohorts.leads import positions
from ecgcohorts.readers._shared.limits import HIGHEST_HZ, LOWEST_HZ, MAX_LEADS, check_shape

MAX_COLUMNS = 256  # of a text, leads or not; our default


class ArrayDescription(BaseModel):
    """How to read a file that holds one recording as one array. No field has a default that could be wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["csv", "npy", "hdf5", "matlab"]  # csv: any text of numbers, gzipped if its name ends in .gz
    # Rate, unit, leads and axes have no default: text exports of 12 leads at hand state none of them.
    rate_hz: Annotated[float, Field(ge=LOWEST_HZ, le=HIGHEST_HZ)]
    unit: Literal["nV", "uV", "mV", "V", "none"]  # none: numbers that are no voltages, such as z-scores
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
        # Not model_fields_set: a description that went to JSON and back states its defaults, too.
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
        """Compare the shape of an array, axes as in the file, with this description, before memory is taken for it.

        Raises UnreadableRecording.
        """
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
