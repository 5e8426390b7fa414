"""EchoNext 1.1.0: 100,000 ten-second ECGs with findings of an echocardiogram, Columbia University, New York, USA.

`EchoNext_{train,val,test,no_split}_waveforms.npy`, (ECG, 1, 2500 samples, 12 leads) at 250 Hz, whose rows are those of one
split in `echonext_metadata_100k.csv`. The numbers are no voltages: they were median filtered, clipped and standardised by
constants that nobody published, so recipes that ask for mV refuse them. A flag is 0 also where nobody measured; here it
is unknown then. `no_split` holds earlier ECGs of patients of val and test: never train on it.
"""

from ecgcohorts.cohorts.schema import About, Files, Label, Layout, Rule, Table, Where
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers.arrays.description import ArrayDescription


def _column(*names: str, optional: bool = False) -> Rule:
    return tuple(Where(column=name, optional=optional) for name in names)


# Flag -> what was measured for it. The grades of valves have a level "presumed none", so that they are always known.
_MEASURED: dict[str, Rule] = {
    "lvef_lte_45_flag": _column("lvef_value"),
    "lvwt_gte_13_flag": _column("ivs_measurement", "lvpw_measurement"),
    "pasp_gte_45_flag": _column("pasp_value"),
    "tr_max_gte_32_flag": _column("tr_max_velocity_value"),
    "pericardial_effusion_moderate_large_flag": _column("pericardial_effusion_value", optional=True),
}
_GRADED = tuple(
    f"{name}_moderate_or_greater_flag"
    for name in (
        *("shd", "aortic_stenosis", "aortic_regurgitation", "mitral_regurgitation", "tricuspid_regurgitation"),
        *("pulmonary_regurgitation", "rv_systolic_dysfunction"),
    )
)
_VALUES = ("lvef_value", "pasp_value", "tr_max_velocity_value", "pr_interval", "qrs_duration", "qt_corrected")

SPEC = CohortSpec(
    name="echonext",
    title="EchoNext, Columbia University, USA",
    licence="restricted: PhysioNet data use agreement",
    citation="EchoNext 1.1.0, https://physionet.org/content/echonext/1.1.0/",
    mains_hz=60,  # USA
    about=About(
        country="USA",
        access="restricted",
        records=100_000,
        patients=36_286,
        notes=(
            "patients are counted in the three splits, of 82,543 records; no_split has 17,457 more of them",
            "no_split holds earlier ECGs of patients of val and test: never train on it",
            "samples are standardised, no millivolts; the order of leads is inferred from their relations",
            "unconfirmed: the column that says whether an effusion was looked for; without it that flag is unknown",
        ),
    ),
    layouts=(
        Layout(
            name="npy",
            reader="arrays",
            files=Files(include=("**/EchoNext_*_waveforms.npy",)),
            arrays=ArrayDescription(
                kind="npy",
                rate_hz=250,
                unit="none",
                leads=TWELVE_LEADS,
                axes="record_one_time_lead",
                samples=2500,
            ),
            tables=(
                Table(
                    file="echonext_metadata_100k.csv",
                    match="row",
                    group="split",
                    pattern=r"EchoNext_(train|val|test|no_split)_waveforms",
                ),
            ),
            recording=_column("ecg_key"),
            patient=(Where(column="patient_key", usual_fillers=False),),  # every row has one
            age=_column("age_at_ecg"),
            sex=_column("sex"),
            acquired_at=(),  # the year alone is known
            labels={
                **{name: Label(find=_column(name), measured=rule) for name, rule in _MEASURED.items()},
                **{name: Label(find=_column(name)) for name in (*_GRADED, *_VALUES)},
                "acquisition_year": Label(find=_column("acquisition_year")),
                "split": Label(find=_column("split"), values={"no_split": 0, "train": 1, "val": 2, "test": 3}),
            },
        ),
    ),
)
