"""The Harvard-Emory ECG Database: release 5, a folder for each institution with tables beside its files, and release 2."""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Rule, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

# Numbers of GE's 12SL statements.
_STATEMENTS = {"af": ("161",), "sinus_rhythm": ("19", "22"), "normal_sinus_rhythm": ("22",)}
_SOURCES = {  # end of a label's name -> where its list stands
    "": Where(column="codes_physician", table="diagnoses"),
    "_software": Where(column="codes_software", table="diagnoses"),
    "_v24": Where(column="codes", table="diagnoses_v24"),
}
_PATIENT = Where(
    column="BDSPPatientID",
    # Numbered by the million, so 999999999 is a patient. Whatever else a cell says (empty, nan) is nobody.
    pattern=r"^\s*(\d+)(?:\.0*)?\s*$",
    usual_fillers=False,
)
# How release 2 writes folders and suffixes in its tables is not known here, so its files go by their bare names.
_BARE_NAME = r"([^/\\]+?)(?:\.(?:hea|mat))?\s*$"
_NOTES = (
    "unconfirmed: read from public code that uses the release, not from its files",
    "name the folder of the institution: ECG/I0001 or ECG/I0006",
    "acquisition times that are not ISO 8601 count as unknown",
    "dates are shifted",
)


def _labels(sources: dict[str, Where]) -> dict[str, Label]:
    """Make a label of each statement in each list, and the year: parts of the scaling study are years of a site."""
    lists = {
        statement + end: Label(find=(place,), codes=codes)
        for statement, codes in _STATEMENTS.items()
        for end, place in sources.items()
    }
    return {**lists, "year": Label(find=(Where(path=r"WFDB/(?:S\d{4}/)?(\d{4})/"),))}


RELEASE_2 = Layout(
    name="v2",
    reader="wfdb",
    files=Files(include=("ECG/WFDB/S*/**/*.hea",)),
    tables=(
        Table(
            name="people",
            file="Metadata/demographics_ECG.csv",
            key="FileName",
            key_pattern=_BARE_NAME,
            match="stem",
        ),
        Table(
            name="statements",
            file="Metadata/ECG_Interpretations.psv",
            separator="|",
            key="file_source",
            key_pattern=_BARE_NAME,
            match="stem",
            required=False,
        ),
    ),
    patient=(_PATIENT.model_copy(update={"table": "people"}),),
    age=(),  # of `Age` it is not known whether it counts years or days
    sex=(Where(column="SexDSC", table="people"),),
    acquired_at=(),
    site=(Where(path=r"WFDB/(S\d{4})/"),),
    labels=_labels({"_v2": Where(column="diagnostic_codes", table="statements")}),
)


def institution(
    name: str, place: str, about: About, files: Files, named: str, sex: Rule, *others: Layout
) -> CohortSpec:
    """Make the preset of one institution. named: pattern whose group is what its tables call a file, without suffix."""
    stem = rf"{named}\.hea$"
    return CohortSpec(
        name=name,
        title=f"HEEDB, {place}",
        licence="BDSP data use agreement (unconfirmed)",
        citation="Harvard-Emory ECG Database 5.0, Brain Data Science Platform, https://bdsp.io",
        mains_hz=60,  # USA
        about=about.model_copy(update={"notes": (*_NOTES, *about.notes)}),
        layouts=(
            Layout(
                name="v5",
                reader="wfdb",
                files=files,
                tables=(
                    Table(name="metadata", file="metadata/metadata.csv", key="FileName", pattern=stem),
                    Table(
                        name="diagnoses",
                        file="12SL_diagnoses/diagnoses_acquisition.csv",
                        key="FileName",
                        pattern=stem,
                        required=False,
                    ),
                    Table(
                        name="diagnoses_v24",
                        file="12SL_diagnoses/diagnoses_v24.csv",
                        key="FileName",
                        key_pattern=rf"{named}(?:\.hea)?\s*$",  # here alone: a dot before it, .hea and line end behind
                        pattern=stem,
                        required=False,
                    ),
                ),
                patient=(_PATIENT.model_copy(update={"table": "metadata"}),),
                age=(Where(column="AgeAtAcquisition", table="metadata"),),
                age_unit="days",
                sex=sex,
                acquired_at=(Where(column="ECGAcquisitionTime", table="metadata"),),
                site=(Where(path=r"WFDB/(S\d{4})/"),),
                labels=_labels(_SOURCES),
            ),
            *others,
        ),
    )
