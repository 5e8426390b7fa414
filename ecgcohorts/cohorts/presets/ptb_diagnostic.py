"""PTB Diagnostic ECG: 549 ECGs of 290 patients, mostly with myocardial infarction, Berlin, Germany.

Layout `patient001/s0010_re.hea`: twelve leads in `.dat`, the Frank leads in `.xyz`, 1000 Hz, up to two minutes. The
patient is the folder, so where the folders are lost every recording is a patient of its own. The comments are a
clinical summary; the one label source is `Reason for admission`, which is the diagnosis of a person, not of the ECG.
The Challenge of 2020 has the same recordings with half the steps per mV (`cinc2021_ptb`): no digest finds them equal.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Overlap, Where
from ecgcohorts.cohorts.spec import CohortSpec

# Texts of `Reason for admission`, of which 27 records have none; `n/a` is unknown.
_REASONS = {
    "admitted_mi": ("Myocardial infarction",),
    "healthy_control": ("Healthy control",),
    "admitted_bundle_branch_block": ("Bundle branch block",),
    "admitted_cardiomyopathy": ("Cardiomyopathy",),
    "admitted_dysrhythmia": ("Dysrhythmia",),
    "admitted_heart_failure": ("Heart failure (NYHA 2)", "Heart failure (NYHA 3)", "Heart failure (NYHA 4)"),
    "admitted_hypertrophy": ("Hypertrophy",),
    "admitted_valvular_disease": ("Valvular heart disease",),
    "admitted_myocarditis": ("Myocarditis",),
    "admitted_angina": ("Stable angina", "Unstable angina"),
    "admitted_palpitation": ("Palpitation",),
}

SPEC = CohortSpec(
    name="ptb_diagnostic",
    title="PTB Diagnostic ECG, Germany, 1990-1998",
    licence="ODC-BY 1.0",
    citation="Bousseljot et al. 1995, doi:10.1515/bmte.1995.40.s1.317; data doi:10.13026/C28C71",
    mains_hz=50,  # Germany
    about=About(country="Germany", access="open", records=549, patients=290, repeated_patients=113),
    overlaps=(Overlap(cohort="cinc2021_ptb", what="516 of 549 records, as other integers", found=False),),
    layouts=(
        Layout(
            name="wfdb",
            reader="wfdb",
            files=Files(include=("**/*.hea",)),
            recording=(Where(path=r"([^/]+)\.hea$"),),
            # The header gives no id: without its folders, every recording is a patient of its own.
            patient=(Where(path=r"(?:^|/)(patient\d+)/"),),
            age=(Where(header="age"),),
            sex=(Where(header="sex"),),
            acquired_at=(Where(header="ECG date"),),
            time_format="%d/%m/%Y",
            labels={
                name: Label(find=(Where(header="Reason for admission"),), codes=texts)
                for name, texts in _REASONS.items()
            },
        ),
    ),
)
