"""Commands that look at a store, or at several as one: what is in it, tables, pictures, a page, and exports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg

from ecgcohorts.cli.console import Command, StoreNames, output, progress, short
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex

_STORES = "store; several are read as one"
_ALSO = "another store to read as one with the first; may be repeated"
_out = output()


class Info(Command):
    """Cohorts, patients, recordings, recipe and accounts of a store."""

    store: CliPositionalArg[StoreNames] = Field(description=_STORES)
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False

    def cli_cmd(self) -> None:
        from ecgcohorts.store import open_named
        from ecgcohorts.store.upkeep.info import describe, render

        facts = describe(open_named(self.store))
        if self.as_json:
            print(json.dumps(facts, indent=2))
        else:
            _out.print(render(facts))


class Table1(Command):
    """Who is in a store: patients, recordings, age, sex, devices, labels per cohort."""

    store: CliPositionalArg[StoreNames] = Field(description=_STORES)
    form: Literal["text", "csv", "latex", "markdown"] = Field("text", description="text is for the terminal")

    def cli_cmd(self) -> None:
        from ecgcohorts.report import table1
        from ecgcohorts.store import open_named

        made = table1.table1(open_named(self.store).index)
        if self.form == "text":
            _out.print(table1.table1_text(made))
        else:
            print(getattr(table1, f"table1_{self.form}")(made))


class Plot(Command):
    """Draw one recording on ECG paper in exact millimetres: SVG, PNG or PDF by the suffix of the output."""

    store: CliPositionalArg[str]
    record: CliPositionalArg[str] = Field(description="row, or recording id")
    out: Annotated[Path, Field(validation_alias=short("o", "out"))]
    layout: str = Field("3x4+1", description="rows x columns + rhythm strips: 3x4+1, 6x2+1, 12x1")
    sheet: Literal["fit", "a4", "letter"] = Field("fit", description="size of the page")
    dpi: float = Field(304.8, gt=0, description="of a PNG; 304.8 is 12 pixels a millimetre")
    also: StoreNames = Field([], description=_ALSO)

    def cli_cmd(self) -> None:
        from ecgcohorts.report.paper import Layout, Page, plot_record
        from ecgcohorts.store import open_named

        page = Page(Layout.parse(self.layout), sheet=self.sheet)
        plot_record(open_named([self.store, *self.also]), self.record, self.out, page, self.dpi)
        _out.print(f"{self.out}")


class Report(Command):
    """One self-contained HTML page about a store."""

    store: CliPositionalArg[StoreNames] = Field(description=_STORES)
    out: Annotated[Path, Field(validation_alias=short("o", "out"))]

    def cli_cmd(self) -> None:
        from ecgcohorts.report.html import report
        from ecgcohorts.store import open_named

        report(open_named(self.store), self.out)
        _out.print(f"{self.out}")


class Export(Command):
    """Give recordings of a store to other tools: WFDB records, Hugging Face or WebDataset shards, or the index as a table."""

    store: CliPositionalArg[str]
    out: CliPositionalArg[Path] = Field(description="folder to make; parquet: file")
    format: Literal["wfdb", "parquet", "huggingface", "webdataset"] = Field(
        "wfdb", description="parquet: who is in the store; the others: signals"
    )
    cohort: StoreNames = Field([], description="recordings of this cohort only; may be repeated")
    within: str | None = Field(None, description="SPLIT=PART: recordings of that part only")
    split: str | None = Field(None, description="huggingface, webdataset: every part of this split by itself")
    also: StoreNames = Field([], description=_ALSO)

    def cli_cmd(self) -> None:
        from ecgcohorts import export
        from ecgcohorts.cli.splits import part_of
        from ecgcohorts.store import load_split, open_named

        store = open_named([self.store, *self.also])
        index = store.index if self.within is None else part_of(store, self.within)
        if self.cohort:
            index = index.where(cohort=self.cohort)
        parts = {export.WHOLE: index} if self.split is None else self._parts(load_split(store, self.split).of(index))
        if self.format == "parquet":
            _out.print(f"{self.out}: {export.export_index(store, self.out, index=index):,} rows")
            return
        with progress() as tell:

            def said(done: int, total: int) -> None:
                tell("export", done, total)

            if self.format == "wfdb":
                count = export.export_wfdb(store, self.out, said, index=index)
            elif self.format == "huggingface":
                count = export.export_huggingface(store, self.out, said, parts=parts)
            else:
                count = export.export_webdataset(store, self.out, said, parts=parts)
        _out.print(f"{self.out}: {count:,} records")

    def _parts(self, parts: "dict[str, CohortIndex]") -> "dict[str, CohortIndex]":
        """Refuse them for formats that have none."""
        if self.format in ("wfdb", "parquet"):
            raise SpecError(
                f"found --split with --format {self.format}, expected huggingface or webdataset. "
                "Export one part at a time: --within SPLIT=PART."
            )
        return parts
