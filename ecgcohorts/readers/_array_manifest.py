"""What an array of numbers does not say about itself: rate, unit, leads, orientation. Stated by a person, never guessed."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ecgcohorts.readers._limits import HIGHEST_HZ, LOWEST_HZ, MAX_LEADS


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
    columns: tuple[int, ...] | None = None  # csv: which columns hold the leads, from 0; None: all
    separator: Literal[",", ";", "tab", "space"] = ","  # csv; space: any white space
    decimal: Literal[".", ","] = "."  # csv

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "ArrayDescription":
        if (self.name is None) == (self.kind in ("hdf5", "matlab")):
            raise ValueError("expected name for hdf5 and matlab (the dataset or variable), and for nothing else")
        given = {name for name in ("skip_lines", "columns", "separator", "decimal") if name in self.model_fields_set}
        if self.kind != "csv" and given:
            raise ValueError(f"found {', '.join(sorted(given))}, which only csv has")
        if self.decimal == self.separator:
            raise ValueError("found one character as decimal point and as separator")
        if self.columns is not None and (self.axes != "time_lead" or len(self.columns) != len(self.leads)):
            raise ValueError("expected as many columns as leads, and axes: time_lead")
        return self
