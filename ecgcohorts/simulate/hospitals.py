"""The three simulated hospitals: their people and their recorders."""

from dataclasses import dataclass
from typing import Literal

from ecgcohorts.simulate.devices import DeviceSignature
from ecgcohorts.simulate.traits import OLDEST, YOUNGEST

Export = Literal["wfdb", "muse_xml", "code_hdf5"]


@dataclass(frozen=True)
class Hospital:
    """A cohort. Hospitals differ in `device`, `export`, durations and the mix of people, but not in hearts."""

    name: str
    title: str
    export: Export
    device: DeviceSignature
    age_mean: float  # of a normal distribution, cut to YOUNGEST-OLDEST
    age_sd: float
    male_share: float
    durations_s: tuple[tuple[float, float], ...] = ((10.0, 1.0),)  # (length, share of recordings)
    first_patient: int = 1001  # each hospital numbers its own people: equal numbers are different people

    def __post_init__(self) -> None:
        if not YOUNGEST < self.age_mean < OLDEST or not 0 <= self.male_share <= 1:
            raise ValueError(
                f"{self.name}: mean age {self.age_mean}, share of men {self.male_share}; "
                f"expected an age between {YOUNGEST} and {OLDEST} and a share from 0 to 1."
            )


# Mixes of people follow published cohorts of the same kind (CAPE, arXiv:2509.10369, Tables 1 and 2): PTB-XL 62 years
# and 51 % men, BIDMC 58 years and 50 %, CODE 53-56 years and 39 %; spread from their interquartile ranges / 1.35.
NORTH = Hospital(
    name="north",
    title="Simulated hospital North: WFDB records, 500 Hz, wide band",
    export="wfdb",
    device=DeviceSignature(
        name="North Cart 500", rate_hz=500, step_uv=5.0, highpass_hz=0.05, lowpass_hz=150, lowpass_order=2,
        smoothing_taps=1, gain=1.0, gain_sd=0.01, white_uv=1.5, pink_uv=3.0, emg_uv=3.5, hum_uv=6.0, hum_spread=0.8,
        mains_hz=50, wander_uv=40,
    ),
    age_mean=62, age_sd=17, male_share=0.51,
)  # fmt: skip
RIVER = Hospital(
    name="river",
    title="Simulated hospital River: GE MUSE XML, 250 Hz, smoothed",
    export="muse_xml",
    device=DeviceSignature(
        name="River MAC 250", rate_hz=250, step_uv=4.88, highpass_hz=0.16, lowpass_hz=100, lowpass_order=4,
        smoothing_taps=2, gain=0.97, gain_sd=0.01, white_uv=1.0, pink_uv=4.0, emg_uv=3.0, hum_uv=4.0, hum_spread=0.8,
        mains_hz=60, wander_uv=35,
    ),
    age_mean=58, age_sd=17, male_share=0.50,
)  # fmt: skip
COAST = Hospital(
    name="coast",
    title="Simulated telehealth network Coast: CODE-style HDF5, 400 Hz, portable recorders",
    export="code_hdf5",
    device=DeviceSignature(
        name="Coast Tele 400", rate_hz=400, step_uv=9.765625, highpass_hz=0.32, lowpass_hz=75, lowpass_order=2,
        smoothing_taps=3, gain=1.03, gain_sd=0.015, white_uv=3.0, pink_uv=5.0, emg_uv=8.0, hum_uv=10.0, hum_spread=1.0,
        mains_hz=60, wander_uv=90,
    ),
    age_mean=54, age_sd=17, male_share=0.40,
    # CODE-15 %: 2,934 samples in just over half of the records, the rest longer; here 4,000 as in the published crop
    durations_s=((2934 / 400, 0.55), (10.0, 0.45)),
)  # fmt: skip
HOSPITALS = {hospital.name: hospital for hospital in (NORTH, RIVER, COAST)}
