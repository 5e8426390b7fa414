"""Leipzig Heart Center: 39 recordings of 78 s to 2.5 h in 29 children and 10 adults, with intracardiac leads, Germany.

`x001.hea`: twelve surface leads first, then two to eight intracardiac ones; `children-subject-info.csv` and
`adults-subject-info.csv`. A window of ten seconds is taken each minute, 60 of a recording at most.
"""

from ecgcohorts.cohorts.schema import About, Files, Layout, Rule, Table, Where, Windows
from ecgcohorts.cohorts.spec import CohortSpec

_TABLES = tuple(
    Table(name=who, file=f"{who}-subject-info.csv", key="file_name", match="stem") for who in ("children", "adults")
)


def _in_both(column: str, pattern: str | None = None) -> Rule:
    return tuple(Where(column=column, table=table.name, pattern=pattern) for table in _TABLES)


SPEC = CohortSpec(
    name="leipzig",
    title="Leipzig Heart Center, Germany",
    licence="ODC-BY 1.0",
    citation="Leipzig Heart Center ECG-Database 1.0.0, https://physionet.org/content/leipzig-heart-center-ecg/1.0.0/",
    mains_hz=50,  # Germany
    about=About(
        country="Germany",
        access="open",
        records=39,
        patients=39,
        repeated_patients=0,
        notes=(
            "29 children and 10 adults with arrhythmia, many in the electrophysiology laboratory",
            "surface leads are clipped in six records",
            "unconfirmed: the name of the column of sex",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/x???.hea",)),
            windows=Windows(length_s=10, every_s=60, at_most=60),
            tables=_TABLES,
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(path=r"([^/]+)\.hea$"),),
            age=_in_both("age", r"^\s*\.?(\d+(?:\.\d+)?)\s*$"),  # one reads .14.3
            sex=tuple(place.model_copy(update={"optional": True}) for place in (*_in_both("sex"), *_in_both("gender"))),
            acquired_at=(),
        ),
    ),
)
