"""UK Biobank, field 20205: ten-second resting ECGs of the imaging visits, as CardioSoft XML.

Files `<eid>_20205_<instance>_<array>.xml`: instance 2 is the imaging visit, 3 the first repeat. The participant is the
`eid` of the file name, which is the application's own; the patient id inside the file is not used. A table `ukb.csv`
beside the files, if there, adds what the main data set knows: a column `eid` and, named as the UK Biobank's converter
names them, `31-0.0` (sex: 0 female, 1 male), `21003-2.0` and `21003-3.0` (age at either visit).
"""

from ecgcohorts.cohorts.schema import About, Files, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec


def _visit(instance: int) -> Table:
    """Make the table for the recordings of one visit."""
    pattern = rf"(?:^|/)(\d+)_20205_{instance}_\d+\.xml$"
    return Table(name=f"visit_{instance}", file="ukb.csv", key="eid", pattern=pattern, required=False)


SPEC = CohortSpec(
    name="ukb",
    title="UK Biobank, resting ECGs of the imaging visits",
    licence="UK Biobank material transfer agreement (assumed)",
    citation="Littlejohns et al. 2020, doi:10.1038/s41467-020-15948-9; field 20205, https://biobank.ndph.ox.ac.uk",
    mains_hz=50,  # United Kingdom
    about=About(country="United Kingdom", access="restricted"),
    layouts=(
        Layout(
            name="files",
            reader="cardiosoft_xml",
            # Field 6025 (stress tests) has files of the same form, which are another cohort.
            files=Files(include=("**/*_20205_*.xml",)),
            tables=(_visit(2), _visit(3)),
            recording=(Where(path=r"([^/]+)\.xml$"),),
            patient=(Where(path=r"(?:^|/)(\d+)_20205_", usual_fillers=False),),
            age=(
                Where(column="21003-2.0", table="visit_2"),
                Where(column="21003-3.0", table="visit_3"),
                Where(reader=True),
            ),
            sex=(
                Where(column="31-0.0", table="visit_2"),
                Where(column="31-0.0", table="visit_3"),
                Where(reader=True),
            ),
            sex_codes={"0": "female", "1": "male"},
        ),
    ),
)
