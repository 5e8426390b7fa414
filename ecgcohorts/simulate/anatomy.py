"""A simulated person: a heart as ten waves of a dipole, and a chest as a lead matrix.

Model: McSharry et al., IEEE TBME 2003;50:289 (each wave a Gaussian in time), in three dimensions by Sameni et al.,
EURASIP JASP 2007:43407. Frame: Frank's, in mV: x to the left, y to the feet, z to the back. Lead vectors: Dower et al.,
Clin Cardiol 1980;3:87. The wave vectors below are our own, chosen so that the projected leads of the average person
look normal (r in V1, transition at V3, q in V5-V6, T upright in V2-V6) and swing as far from peak to valley as the
median of 200 PTB-XL records does (1.0 mV in I, 1.3 in II and V1, 2.3 in V2, 2.1 in V3 and V4, 1.8 in V5, 1.4 in V6).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.recording import Sex
from ecgcohorts.simulate.traits import COLUMN, NAMES, draw_traits

# Dower's matrix: rows I, II, V1-V6 (leads.EIGHT_LEADS), columns x, y, z.
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
CHEST = slice(2, 8)  # rows V1-V6
CHEST_SPACING_CM = 4.0  # between neighbouring chest electrodes of an adult; our approximation
# Wenger and Kligfield, J Electrocardiol 1996;29:179: electrodes 1.14 inch (2.9 cm) off on average. Half of the variance
# is taken as between sessions; the other half is one operator's habit or the person's own shape, `LEAD_SCALE_SD`.
PLACEMENT_SD_CM = 2.0
INFERIOR_PER_CM = 0.06  # change of a chest lead's y coefficient per cm downwards; our approximation
LEAD_SCALE_SD = 0.10  # ln, per lead and person; our approximation
LEAD_TILT_SD = 0.05  # added to each coefficient, per person; our approximation
WAVE_SHAPE_SD = 0.16  # relative, per wave and component, per person; our approximation
# The same, drawn anew for every session: acute illness, treatment, filling, posture. Calibrated with the session columns
# of `traits`: two recordings of a person are about as alike as two of PTB-XL (docs/simulate.md), not more.
WAVE_SHAPE_SESSION_SD = 0.13
# Rotation about the long axis of the body. Between persons: Hoekema 1999 (frontal 5, transversal 9 degrees), between
# sessions (posture): our approximation.
HORIZONTAL_SD_DEG, HORIZONTAL_SESSION_SD_DEG = 9.0, 5.0

# Wave: vector in mV along (the wave's frontal axis, across it, z); see WAVES in beats.py for their timing.
WAVE_NAMES = ("p_right", "p_left", "q", "r_apex", "r_wall", "s", "st", "t_rise", "t_peak", "t_tail")
WAVE_VECTORS_MV = np.array(
    [
        [0.090, 0.00, -0.060],
        [0.090, 0.00, 0.025],
        [-0.160, -0.06, -0.420],
        [1.250, 0.03, -0.200],
        [0.600, -0.07, 1.200],
        [-0.180, -0.12, 0.450],
        [0.500, 0.25, -0.830],
        [0.140, 0.00, -0.075],
        [0.270, 0.00, -0.145],
        [0.060, 0.00, -0.030],
    ]
)
ATRIAL, QRS, ST, T = slice(0, 2), slice(2, 6), 6, slice(7, 10)
ST_IN_V3 = float(DOWER[4] @ WAVE_VECTORS_MV[ST])  # V3 amplitude of the ST vector as it stands above
_FRONTAL = np.stack([DOWER[0], DOWER[1] - DOWER[0] / 2])  # leads I and aVF
_FRONTAL_INVERSE, _FRONTAL_Z = np.linalg.inv(_FRONTAL[:, :2]), _FRONTAL[:, 2]
NET_QRS_WEIGHTS = np.array([0.075, 0.10, 0.095, 0.085])  # relative widths: areas of the QRS waves


@dataclass(frozen=True, eq=False)
class Patient:
    """The facts that stay the same between the recordings of one simulated person."""

    sex: Sex
    age_years: float  # at the first recording
    z: NDArray[np.float64]  # (trait,) standard normal score among people of this sex and age
    wave_shape: NDArray[np.float64]  # (wave, 3) factors on WAVE_VECTORS_MV
    leads: NDArray[np.float64]  # (lead, 3) lead vectors, I, II, V1-V6
    horizontal_deg: float
    ectopic_mv: NDArray[np.float64]  # (3,) main vector of this person's ventricular ectopics

    @classmethod
    def draw(cls, rng: np.random.Generator, sex: Sex, age_years: float) -> Self:
        """Draw a person of the given sex and age."""
        scale = np.exp(LEAD_SCALE_SD * rng.standard_normal((len(EIGHT_LEADS), 1)))
        leads = DOWER * scale + LEAD_TILT_SD * rng.standard_normal(DOWER.shape)
        # Ectopics start anywhere in the ventricles: any frontal direction, more often from the right (front to back).
        direction = rng.standard_normal(3) + np.array([0.6, 0.4, 0.6])
        return cls(
            sex=sex,
            age_years=age_years,
            z=rng.standard_normal(len(NAMES)),
            wave_shape=1 + WAVE_SHAPE_SD * rng.standard_normal(WAVE_VECTORS_MV.shape),
            leads=leads,
            horizontal_deg=float(HORIZONTAL_SD_DEG * rng.standard_normal()),
            ectopic_mv=1.3 * direction / np.linalg.norm(direction),
        )


@dataclass(frozen=True, eq=False)
class Session:
    """One visit: traits at that age and tone, and electrodes as they were placed that day."""

    age_years: float
    traits: NDArray[np.float64]  # (trait,), order of traits.NAMES
    waves_mv: NDArray[np.float64]  # (wave, 3) Frank vectors
    leads: NDArray[np.float64]  # (lead, 3)
    breath_hz: float
    breath_depth: float  # 1 = usual
    tremor: float  # factor on muscle noise, median 1
    ectopic_mv: NDArray[np.float64]  # (3,)

    def trait(self, name: str) -> float:
        return float(self.traits[COLUMN[name]])

    @classmethod
    def draw(cls, rng: np.random.Generator, patient: Patient, age_years: float) -> Self:
        """Draw a visit of `patient` at `age_years`."""
        tone = float(rng.standard_normal())
        traits = draw_traits(patient.sex, age_years, patient.z, rng.standard_normal(len(NAMES)), tone)
        shape = patient.wave_shape + WAVE_SHAPE_SESSION_SD * rng.standard_normal(WAVE_VECTORS_MV.shape)
        turn = patient.horizontal_deg + HORIZONTAL_SESSION_SD_DEG * float(rng.standard_normal())
        return cls(
            age_years=age_years,
            traits=traits,
            waves_mv=_frank_waves(traits, shape, turn),
            leads=_placed(rng, patient.leads) * _chest_gain(traits),
            breath_hz=float(
                np.clip(0.25 + 0.04 * rng.standard_normal() + 0.01 * tone, 0.15, 0.45)
            ),  # 15 breaths a minute
            breath_depth=float(np.exp(0.3 * rng.standard_normal())),
            tremor=float(np.exp(0.4 * rng.standard_normal())),
            ectopic_mv=patient.ectopic_mv * np.exp(traits[COLUMN["ln_qrs_gain"]]),
        )


def _frank_waves(traits: NDArray[np.float64], shape: NDArray[np.float64], horizontal_deg: float) -> NDArray[np.float64]:
    """Return (wave, 3) Frank vectors in mV with the axes and gains that `traits` ask for."""
    own = WAVE_VECTORS_MV * shape
    own[QRS] *= np.exp(traits[COLUMN["ln_qrs_gain"]])
    own[T] *= np.exp(traits[COLUMN["ln_t_gain"]])
    own = own @ _about_y(np.deg2rad(horizontal_deg)).T
    net_qrs = NET_QRS_WEIGHTS @ own[QRS]
    for waves, net, axis in (
        (ATRIAL, own[ATRIAL].sum(axis=0), "p_axis_deg"),
        (QRS, net_qrs, "qrs_axis_deg"),
        (T, own[T].sum(axis=0), "t_axis_deg"),
    ):
        turn = _frank_angle(traits[COLUMN[axis]], net) - np.arctan2(net[1], net[0])
        own[waves] = own[waves] @ _about_z(turn).T
    # The ST vector is fixed in direction: its trait is the amplitude in V3 of the average chest.
    own[ST] = WAVE_VECTORS_MV[ST] * (traits[COLUMN["st_v3_mv"]] / ST_IN_V3)
    return own


def _frank_angle(axis_deg: float, net: NDArray[np.float64]) -> float:
    """Return the frontal angle (rad) to which the net vector must turn for leads I and aVF to show `axis_deg`.

    The leads show I : aVF = cos : (sqrt 3 / 2) sin, because the augmented leads are shorter by that factor. Turning keeps
    z and the length r in the frontal plane. Of all (x, y) that project onto the axis, `t * aim - tilt`, one has length r.
    """
    axis = np.deg2rad(axis_deg)
    aim = _FRONTAL_INVERSE @ [np.cos(axis), np.sqrt(3) / 2 * np.sin(axis)]
    tilt = _FRONTAL_INVERSE @ _FRONTAL_Z * net[2]
    along, square = aim @ tilt, aim @ aim
    # A negative root means that z alone outweighs the frontal plane; then the nearest axis is taken.
    root = np.sqrt(max(0.0, along**2 - square * (tilt @ tilt - net[:2] @ net[:2])))
    x, y = (along + root) / square * aim - tilt
    return float(np.arctan2(y, x))


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _about_y(angle: float) -> NDArray[np.float64]:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def _chest_gain(traits: NDArray[np.float64]) -> NDArray[np.float64]:
    gain = np.ones((len(EIGHT_LEADS), 1))
    gain[CHEST] = np.exp(traits[COLUMN["ln_chest_gain"]])
    return gain


def _placed(rng: np.random.Generator, leads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lead vectors after each chest electrode slipped sideways (towards its neighbours) and up or down."""
    sideways, down = PLACEMENT_SD_CM * rng.standard_normal((2, 6))
    chest = leads[CHEST]
    slope = np.gradient(chest, CHEST_SPACING_CM, axis=0)
    moved = leads.copy()
    moved[CHEST] = chest + sideways[:, None] * slope
    moved[CHEST, 1] += INFERIOR_PER_CM * down
    return moved
