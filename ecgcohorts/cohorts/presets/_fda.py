"""Three drug studies of the FDA in healthy volunteers, published in one form: `raw/<subject>/<uuid>.hea` and tables."""

from collections.abc import Mapping

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

_NOTES = (
    "triplicates were taken seconds apart: near duplicates of each other",
    "a subject's number names another person in each of the three studies",
)
# `medians` holds an averaged beat of each recording under the same name.
_RAW = Files(include=("**/raw/**/*.hea",))
_SUBJECT = (Where(path=r"(?:^|/)raw/([^/]+)/"),)
# As the studies measured them, in ms. Not PR: two of its values wrapped around 2^32.
INTERVALS = {"rr_ms": "RR", "qt_ms": "QT", "qrs_ms": "QRS", "jtpeak_ms": "JTPEAK", "tpeaktend_ms": "TPEAKTEND"}


def study(name: str, title: str, about: About, tables: tuple[Table, ...], labels: Mapping[str, str]) -> CohortSpec:
    """Make the preset of one study. The last table has AGE and SEX. labels: name -> column of the first table."""
    person, first = tables[-1].name, tables[0].name
    return CohortSpec(
        name=name,
        title=title,
        licence="ODC-BY 1.0",
        citation=f"{title}, https://physionet.org",
        mains_hz=60,  # USA
        about=about.model_copy(update={"country": "USA", "access": "open", "notes": (*_NOTES, *about.notes)}),
        layouts=(
            Layout(
                name="raw",
                reader="wfdb",
                files=_RAW,
                tables=tables,
                recording=(Where(path=r"([^/]+)\.hea$"),),
                patient=_SUBJECT,
                age=(Where(column="AGE", table=person),),
                sex=(Where(column="SEX", table=person),),
                labels={key: Label(find=(Where(column=column, table=first),)) for key, column in labels.items()},
            ),
        ),
    )
