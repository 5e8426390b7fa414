"""PTB-XL: 21,799 ten-second clinical ECGs of 18,869 patients, Physikalisch-Technische Bundesanstalt, Germany.

Layout of releases 1.0.1 to 1.0.3: `ptbxl_database.csv` beside `records500/`; the 100 Hz copies are left alone.
"""

import re

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Overlap, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec

# SCP-ECG statement codes by diagnostic superclass. Source: scp_statements.csv of the release, `diagnostic` rows.
_SUPERCLASSES = {
    "norm": ["NORM"],
    "mi": [
        *["AMI", "ASMI", "ALMI", "LMI", "IMI", "ILMI", "IPMI", "IPLMI", "PMI"],
        *["INJAS", "INJAL", "INJLA", "INJIN", "INJIL"],
    ],
    "sttc": [
        *["NDT", "NST_", "DIG", "LNGQT", "ANEUR", "EL"],
        *["ISC_", "ISCAL", "ISCAN", "ISCAS", "ISCIL", "ISCIN", "ISCLA"],
    ],
    "cd": ["1AVB", "2AVB", "3AVB", "LAFB", "LPFB", "CLBBB", "ILBBB", "CRBBB", "IRBBB", "IVCD", "WPW"],
    "hyp": ["LVH", "RVH", "LAO/LAE", "RAO/RAE", "SEHYP"],
}
# The same statements by diagnostic subclass; NORM is the superclass again. Source: the same rows.
_SUBCLASSES = {
    "imi": ["IMI", "ILMI", "IPMI", "IPLMI", "INJIN", "INJIL"],
    "ami": ["AMI", "ASMI", "ALMI", "INJAS", "INJAL", "INJLA"],  # lateral injury too, as the table has it
    "lmi": ["LMI"],
    "pmi": ["PMI"],
    "sttc": ["NDT", "DIG", "LNGQT", "ANEUR", "EL"],
    "nst": ["NST_"],
    "isc": ["ISC_"],
    "isca": ["ISCAL", "ISCAN", "ISCAS", "ISCLA"],
    "isci": ["ISCIL", "ISCIN"],
    "avb": ["1AVB", "2AVB", "3AVB"],
    "lafb_lpfb": ["LAFB", "LPFB"],
    **{
        "clbbb": ["CLBBB"],
        "ilbbb": ["ILBBB"],
        "crbbb": ["CRBBB"],
        "irbbb": ["IRBBB"],
        "ivcd": ["IVCD"],
        "wpw": ["WPW"],
    },
    **{"lvh": ["LVH"], "rvh": ["RVH"], "lao_lae": ["LAO/LAE"], "rao_rae": ["RAO/RAE"], "sehyp": ["SEHYP"]},
}
# The statements that are no diagnosis, and those that are both. Source: the same table, rows `form` and `rhythm`.
_FORM_OR_RHYTHM = (
    *(
        "ABQRS",
        "PVC",
        "STD_",
        "VCLVH",
        "QWAVE",
        "LOWT",
        "NT_",
        "PAC",
        "LPR",
        "INVT",
        "LVOLT",
        "HVOLT",
        "TAB_",
        "STE_",
        "PRC(S)",
    ),
    *("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU"),
)
_STATEMENTS = (*(code for codes in _SUPERCLASSES.values() for code in codes), *_FORM_OR_RHYTHM)
# The six abnormalities of CODE by their nearest SCP code: complete bundle branch blocks, fibrillation without flutter.
_SIX = {"avb1": ["1AVB"], "rbbb": ["CRBBB"], "lbbb": ["CLBBB"], "sb": ["SBRAD"], "af": ["AFIB"], "st": ["STACH"]}


def _column(code: str) -> str:
    """NST_ -> scp_nst, LAO/LAE -> scp_lao_lae, PRC(S) -> scp_prc_s."""
    return "scp_" + "_".join(re.findall(r"\w+", code.lower())).strip("_")


def _present(codes: list[str]) -> Label:
    # A code counts whatever its likelihood, because 0 means "likelihood not given" (Wagner 2020, table of columns)
    return Label(find=(Where(column="scp_codes"),), codes=tuple(codes))


SPEC = CohortSpec(
    name="ptb_xl",
    title="PTB-XL, Germany, 1989-1996",
    licence="CC BY 4.0",
    citation="Wagner et al. 2020, doi:10.1038/s41597-020-0495-6; data doi:10.13026/kfzx-aw45",
    mains_hz=50,  # Germany
    about=About(
        country="Germany",
        access="open",
        records=21_799,
        patients=18_869,
        repeated_patients=2_111,
        notes=("patients with two or more are those of the index of 21,837 records, from which 38 were removed later",),
    ),
    overlaps=(Overlap(cohort="cinc2021_ptb_xl", what="all records, and 38 that the Challenge has more", found=True),),
    layouts=(
        Layout(
            name="records500",
            reader="wfdb",
            files=Files(include=("records500/**/*.hea",)),
            tables=(Table(file="ptbxl_database.csv", key="filename_hr", match="path"),),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            patient=(Where(column="patient_id", fillers=("0",), usual_fillers=False),),
            age=(Where(column="age"),),
            age_codes={"300": 90},  # "over 89"; releases before it carry 90 to 94 as they are, capped alike
            sex=(Where(column="sex"),),
            sex_codes={"0": "male", "1": "female"},
            acquired_at=(Where(column="recording_date"),),
            device=(Where(column="device"),),
            site=(Where(column="site"),),
            labels={
                **{name: _present(codes) for name, codes in {**_SUPERCLASSES, **_SIX}.items()},
                **{f"sub_{name}": _present(codes) for name, codes in _SUBCLASSES.items()},
                **{_column(code): _present([code]) for code in _STATEMENTS},
                "strat_fold": Label(find=(Where(column="strat_fold"),)),  # 1-8 train, 9 validation, 10 test
            },
        ),
    ),
)
