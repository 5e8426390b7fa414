"""Presets for a folder of XML that an ECG management system exported, with or without a table beside it."""

from ecgcohorts.cohorts.schema import About, Files, Layout, Rule, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

STATED_BY = "your own data: state it in a cohort file"


def _from_table_then_file(column: str) -> Rule:
    return (Where(column=column), Where(reader=True))


def export_of(name: str, reader: str, title: str) -> CohortSpec:
    """Make a preset for `**/*.xml` of one reader, and `ids.csv`."""
    # The table wins where a cell of it says something: exports are often de-identified, and only the table leads back to
    # a patient.
    return CohortSpec(
        name=name,
        title=title,
        licence=STATED_BY,
        citation=STATED_BY,
        mains_hz="auto",  # the country is not known here
        about=About(access="own"),
        layouts=(
            Layout(
                name="export",
                reader=reader,
                files=Files(include=("**/*.xml", "**/*.XML")),
                tables=(Table(name="ids", file="ids.csv", key="file", match="path", required=False),),
                patient=_from_table_then_file("patient_id"),
                age=_from_table_then_file("age"),
                sex=_from_table_then_file("sex"),
                acquired_at=_from_table_then_file("acquired_at"),
                device=_from_table_then_file("device"),
                site=_from_table_then_file("site"),
            ),
        ),
    )
