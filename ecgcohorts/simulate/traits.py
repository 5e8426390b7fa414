"""The effects of age and sex on a simulated ECG: one table for every cohort, which is the known truth.

Each row approximates published normal limits of the adult ECG; none is our own measurement. A trait of one
recording is

    expected(sex, age) + between_sd * patient + within_sd * session + autonomic * tone

with standard normal `patient` (once per patient), `session` and `tone` (once per recording; tone > 0 is sympathetic),
clipped to [low, high]. Traits whose name starts with `ln_` are natural logarithms of a factor.

Sources by the names used in the table:
ELSA-Brasil     Pinto-Filho et al., Arq Bras Cardiol 2017;109:416, medians of 11,094 healthy adults of 35-74 years
Rijnbeek 2014   J Electrocardiol 47:914, 13,354 healthy adults of 16-90 years
Macfarlane 2018 Adv Exp Med Biol 1065:93; Macfarlane 2001 J Electrocardiol 34:235 (ST amplitude)
Mason 2007      J Electrocardiol 40:228, 46,129 adults (2nd and 98th percentiles)
WHI             Rautaharju et al., J Electrocardiol 2013, 36,299 women (mean, SD, 2nd-98th percentile)
Pipberger 1967  Circulation 35:536, 518 men: QRS amplitudes -6.5 % and ST-T amplitudes -9.75 % per decade of age
Nemati          Nemati and Pipberger, orthogonal ECG of 450 women of 18-90 years (abstract): Y and Z amplitudes of the
                oldest 71 % and 80 % of those of the youngest, QRS level from the sixth decade, ST-T falling to old age,
                trends of men steeper
Simonson 1960   Circulation 22:598, limb amplitudes nearly alike, precordial ones smaller in women
Gellert 2014    J Electrocardiol 47:356, repeatability of QT: intraclass correlation 0.68-0.75
Hoekema 1999    J Electrocardiol 32:137, relative variability of the QRS between persons 0.52
Voss 2015       PLoS ONE 10:e0118308, heart rate variability falls with age
Simpson 2002    Am Heart J 143:535, ventricular ectopics on 2 minutes of ECG in 6 % at 45-65 years, more with age
Sizes that no source above gives are "our approximation"; so are all `within_sd` but that of QTc.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.recording import Sex

CENTRE_YEARS = 50.0  # the age to which the columns `men` and `women` apply
YOUNGEST, OLDEST = 18.0, 90.0  # years


@dataclass(frozen=True)
class _Trait:
    """One measurable property of an ECG and how it depends on age and sex. Slopes are per year of age."""

    name: str
    unit: str
    men: float
    women: float
    men_per_year: float
    women_per_year: float
    between_sd: float
    within_sd: float
    low: float
    high: float
    source: str
    autonomic: float = 0.0

    def expected(self, sex: Sex, age_years: float) -> float:
        """Return the mean over patients of this sex and age, before clipping."""
        centre, slope = (self.men, self.men_per_year) if sex == "male" else (self.women, self.women_per_year)
        return centre + slope * (age_years - CENTRE_YEARS)


TRAITS = (
    _Trait(
        "heart_rate_bpm", "1/min", 63, 66, 0, 0, 7, 3, 42, 115,
        "ELSA-Brasil; SD 9 in WHI; spread within a person our approximation", autonomic=5,
    ),
    _Trait("p_ms", "ms", 112, 108, 0.15, 0.15, 8, 3, 70, 150, "ELSA-Brasil; slope our approximation"),
    _Trait(
        "pr_ms", "ms", 164, 158, 0.35, 0.30, 19, 5, 110, 300,
        "ELSA-Brasil; spread WHI; slope our approximation of Rijnbeek 2014", autonomic=-4,
    ),
    _Trait("qrs_ms", "ms", 92, 86, 0, 0, 7.5, 2, 66, 130, "ELSA-Brasil; spread WHI"),
    _Trait(
        "qtc_ms", "ms", 410, 421, 0.35, 0.15, 12, 7, 350, 490,
        "ELSA-Brasil; SD 14 WHI, shared out by Gellert 2014; rise with age Rijnbeek 2014, slope our approximation",
    ),
    _Trait("p_axis_deg", "degree", 54, 57, 0, 0, 14, 7, 0, 85, "ELSA-Brasil; spread our approximation"),
    _Trait(
        "qrs_axis_deg", "degree", 35, 39, -0.60, -0.55, 23, 10, -40, 100,
        "ELSA-Brasil; limits Mason 2007; leftward with age Rijnbeek 2014, slope our approximation",
    ),
    _Trait("t_axis_deg", "degree", 39, 45, -0.10, -0.10, 14, 10, -10, 85, "ELSA-Brasil; slope and spread our approximation"),
    _Trait(
        "ln_qrs_gain", "ln factor", 0, -0.10, -0.0067, -0.0045, 0.20, 0.10, -0.9, 0.9,
        "Pipberger 1967; Nemati; smaller sex difference with age Macfarlane 2018; spread Hoekema 1999",
    ),
    _Trait(
        "ln_chest_gain", "ln factor", 0, -0.15, 0, 0.0020, 0.12, 0.08, -0.6, 0.6,
        "Simonson 1960; women's left chest leads rise with age Rijnbeek 2014; sizes our approximation",
    ),
    _Trait(
        "ln_t_gain", "ln factor", 0, -0.20, -0.0103, -0.0080, 0.24, 0.18, -1.1, 0.9,
        "Pipberger 1967; Nemati; smaller T in women Simonson 1960, size our approximation", autonomic=-0.08,
    ),
    _Trait(
        "st_v3_mv", "mV", 0.11, 0.035, -0.0018, 0, 0.045, 0.03, -0.05, 0.35,
        "Macfarlane 2001: upper limit in V3 at 25 years 0.31 mV in men, 0.11 in women; age matters in men only",
    ),
    _Trait(
        "ln_rr_sd", "ln ms", 3.35, 3.35, -0.016, -0.016, 0.38, 0.22, 1.6, 4.6,
        "Voss 2015 (direction); about 28 ms at 50 years and -15 % a decade our approximation", autonomic=-0.20,
    ),
    _Trait(
        "ln_ectopic_share", "ln share of recordings", -3.5, -3.5, 0.025, 0.025, 0.8, 0, -7, -0.7,
        "Simpson 2002 (direction); 3 % of recordings at 50 years our approximation",
    ),
)  # fmt: skip
NAMES = tuple(trait.name for trait in TRAITS)
COLUMN = {name: number for number, name in enumerate(NAMES)}

_BETWEEN = np.array([trait.between_sd for trait in TRAITS])
_WITHIN = np.array([trait.within_sd for trait in TRAITS])
_AUTONOMIC = np.array([trait.autonomic for trait in TRAITS])
_LOW = np.array([trait.low for trait in TRAITS])
_HIGH = np.array([trait.high for trait in TRAITS])


def _expected(sex: Sex, age_years: float) -> NDArray[np.float64]:
    """Return the (trait,) means over patients of this sex and age, in the order of NAMES."""
    return np.array([trait.expected(sex, age_years) for trait in TRAITS])


def draw_traits(
    sex: Sex, age_years: float, patient: NDArray[np.float64], session: NDArray[np.float64], tone: float
) -> NDArray[np.float64]:
    """Return the (trait,) values of one recording. patient, session: (trait,) standard normal; tone: standard normal."""
    values = _expected(sex, age_years) + _BETWEEN * patient + _WITHIN * session + _AUTONOMIC * tone
    return np.clip(values, _LOW, _HIGH)
