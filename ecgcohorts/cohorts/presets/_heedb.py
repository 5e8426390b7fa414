"""The Harvard-Emory ECG Database, release 5: a folder for each institution, with tables of one form beside its files."""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Rule, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

# Numbers of GE's 12SL statements.
_STATEMENTS = {"af": ("161",), "sinus_rhythm": ("19", "22"), "normal_sinus_rhythm": ("22",)}
_SOURCES = {  # end of a label's name -> where its list stands
    "": Where(column="codes_physician", table="diagnoses"),
    "_software": Where(column="codes_software", table="diagnoses"),
    "_v24": Where(column="codes", table="diagnoses_v24"),
}
_NOTES = (
    "unconfirmed: read from public code that uses the release, not from its files",
    "name the folder of the institution: ECG/I0001 or ECG/I0006",
    "acquisition times that are not ISO 8601 count as unknown",
    "dates are shifted",
)


def institution(name: str, place: str, about: About, files: Files, named: str, sex: Rule) -> CohortSpec:
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
                # Numbered by the million, so 999999999 is a patient. Whatever else a cell says (empty, nan) is nobody.
                patient=(
                    Where(
                        column="BDSPPatientID", table="metadata", pattern=r"^\s*(\d+)(?:\.0*)?\s*$", usual_fillers=False
                    ),
                ),
                age=(Where(column="AgeAtAcquisition", table="metadata"),),
                age_unit="days",
                sex=sex,
                acquired_at=(Where(column="ECGAcquisitionTime", table="metadata"),),
                site=(Where(path=r"WFDB/(S\d{4})/"),),
                labels={
                    **{
                        statement + end: Label(find=(place,), codes=codes)
                        for statement, codes in _STATEMENTS.items()
                        for end, place in _SOURCES.items()
                    },
                    # Parts of the scaling study are years of a site.
                    "year": Label(find=(Where(path=r"WFDB/(?:S\d{4}/)?(\d{4})/"),)),
                },
            ),
        ),
    )
