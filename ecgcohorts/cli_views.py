"""Commands that look at a store, or at several as one: what is in it, tables, pictures, a page, and exports."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic_settings import CliPositionalArg

from ecgcohorts.console import Command, StoreNames, output, progress, short

_STORES = "store; several are read as one"
_ALSO = "another store to read as one with the first; may be repeated"
_out = output()


class Info(Command):
    """Cohorts, patients, recordings, recipe and accounts of a store."""

    store: CliPositionalArg[StoreNames] = Field(description=_STORES)
    as_json: Annotated[bool, Field(validation_alias=AliasChoices("json"), description="for programs")] = False

    def cli_cmd(self) -> None:
        from ecgcohorts.store import open_named
        from ecgcohorts.store.info import describe, render

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
    """Give a store back as WFDB records, or its index as a Parquet table."""

    store: CliPositionalArg[str]
    out: CliPositionalArg[Path] = Field(description="folder (wfdb) or file (parquet) to make")
    format: Literal["wfdb", "parquet"] = Field("wfdb", description="signals, or who is in the store")
    also: StoreNames = Field([], description=_ALSO)

    def cli_cmd(self) -> None:
        from ecgcohorts.export import export_index, export_wfdb
        from ecgcohorts.store import open_named

        store = open_named([self.store, *self.also])
        if self.format == "parquet":
            _out.print(f"{self.out}: {export_index(store, self.out):,} rows")
            return
        with progress() as tell:
            count = export_wfdb(store, self.out, lambda done, total: tell("export", done, total))
        _out.print(f"{self.out}: {count:,} records")
