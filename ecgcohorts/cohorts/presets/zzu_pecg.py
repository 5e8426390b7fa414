"""ZZU pECG: 14,190 ECGs of 5 to 120 s of 11,643 children, First Affiliated Hospital of Zhengzhou University, China.

Join `Child_ecg.z01` and `Child_ecg.zip` and unpack them: `Child_ecg/P00/P00001/P00001_E01.hea`, and beside that folder
`AttributesDictionary.csv`. Ages are days with a `d`, sexes stand in quotes. 1,856 records have the nine leads I, II, III,
aVR, aVL, aVF, V1, V3, V5; a recipe of eight leads refuses them, and these children are sick twice as often as the others.
"""

from string import ascii_uppercase

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

# Beginnings of ICD-10 codes. Some codes have a text before them that belongs to them, `(FO) Q21.1`.
_DISEASES = {
    "icd_congenital": ("Q20", "Q21", "Q22", "Q23", "Q24", "Q25", "Q26", "Q27", "Q28", "(FO) Q21"),
    "icd_myocarditis": ("I40", "I41", "I51.4"),
    "icd_kawasaki": ("M30.3",),
    "icd_cardiomyopathy": ("I42", "I43"),
}

# Statements of AHA/ACC/HRS by their numbers, as in `sph`. A letter for the category stands before each, L145, but the
# numbers are unique without it; plain words stand where the standard has no statement.
_STATEMENTS = {"normal_ecg": 1, "st": 21, "sb": 22, "af": 50, "avb1": 82, "lbbb": 104, "rbbb": 106}

SPEC = CohortSpec(
    name="zzu_pecg",
    title="ZZU pECG, children, China",
    licence="CC BY 4.0",
    citation="ZZU pediatric ECG database, Zhengzhou University, https://figshare.com",
    mains_hz=50,  # China
    about=About(
        country="China",
        access="open",
        records=14_190,
        patients=11_643,
        repeated_patients=1_691,
        notes=(
            "1,856 records have nine leads; dropping them is no neutral filter",
            "gain and baseline differ by record and lead; a rail at 26.6 mV touches 11.8 %",
            "unconfirmed: the form of Acquisition_date, and the ICD-10 codes behind each group of diseases",
            "unconfirmed: that numbers in AHA_code are those of the AHA statements; 6,473 of 26,797 are plain words",
        ),
    ),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/P*_E*.hea",)),
            tables=(Table(file="AttributesDictionary.csv", key="Filename", pattern=r"(P\d+/P\d+/P\d+_E\d+)\.hea$"),),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(column="Patient_ID"),),
            age=(Where(column="Age", pattern=r"^\W*(\d+)\s*d\W*$"),),
            age_unit="days",
            sex=(Where(column="Gender", pattern=r"(\w+)"),),
            acquired_at=(Where(column="Acquisition_date"),),
            labels={
                **{
                    name: Label(find=(Where(column="ICD-10 code"),), codes=codes, prefix=True, separator=";")
                    for name, codes in _DISEASES.items()
                },
                **{
                    name: Label(
                        find=(Where(column="AHA_code"),), codes=tuple(f"{letter}{number}" for letter in ascii_uppercase)
                    )
                    for name, number in _STATEMENTS.items()
                },
                "n_leads": Label(find=(Where(column="Lead"),)),
            },
        ),
    ),
)
