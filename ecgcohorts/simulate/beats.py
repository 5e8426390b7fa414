"""Draw the clean ECG of one visit: the times of the beats, and the shape of each beat in eight leads."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.simulate.anatomy import ATRIAL, QRS, ST, WAVE_NAMES, Session, T

# Centre and width (standard deviation) of each wave. P waves as fractions of the P duration after P onset, QRS waves
# as fractions of the QRS duration after QRS onset, both chosen so that the visible complex lasts that long; T waves in s.
P_CENTRES, P_WIDTHS = np.array([0.35, 0.63]), np.array([0.16, 0.17])
QRS_CENTRES, QRS_WIDTHS = np.array([0.18, 0.42, 0.57, 0.78]), np.array([0.075, 0.10, 0.095, 0.085])
ST_AFTER_QRS_S, ST_WIDTH_S = 0.055, 0.060
# The T wave rises slowly and falls fast. Peak to end 85 ms (WHI); T_TAIL rounds its foot.
T_PEAK_TO_END_S = 0.085
T_CENTRES_S, T_WIDTHS_S = np.array([-0.070, 0.0, 0.045]), np.array([0.060, 0.042, 0.040])
QT_PER_RR = 0.154  # s per s, Framingham: Sagie et al., Am J Cardiol 1992;70:797
QT_MEMORY = 0.7  # share of the mean RR in the RR that sets QT, the rest is the preceding one; our approximation
BEFORE_S, AFTER_S = 0.42, 0.62  # part of a beat that is drawn, around QRS onset

# Share of RR variance by breathing, by 0.1 Hz waves and by chance; our approximation of a supine adult.
RESPIRATORY_SHARE, MAYER_SHARE, RANDOM_SHARE = 0.55, 0.30, 0.15
MAYER_HZ = 0.1
RR_MIN_S = 0.35
# Breathing turns the heart and changes its distance from the chest: amplitude and angle at usual depth; our
# approximation (the effect itself: Einthoven 1913, used for ECG-derived respiration).
BREATH_GAIN, BREATH_TURN_RAD = 0.05, np.deg2rad(3.0)
BEAT_GAIN_SD = 0.015  # further beat-to-beat variation; our approximation

# Ventricular ectopics: early, wide, no P, T opposite, pause after them.
ECTOPIC_COUPLING, ECTOPIC_WIDTH, ECTOPIC_T = 0.62, 1.7, -0.35


@dataclass(frozen=True, eq=False)
class Beats:
    """The beats of one recording, in order of time."""

    onset_s: NDArray[np.float64]  # (beat,) QRS onset; 0 is the first stored sample
    rr_s: NDArray[np.float64]  # (beat,) interval since the beat before
    ectopic: NDArray[np.bool_]  # (beat,)
    breath: NDArray[np.float64]  # (beat,) phase of breathing, -1 to 1

    @classmethod
    def draw(cls, rng: np.random.Generator, session: Session, start_s: float, stop_s: float) -> Self:
        """Draw beats with QRS onset from `start_s` to `stop_s`, with breathing, 0.1 Hz and random variation of RR."""
        mean_rr = 60 / session.trait("heart_rate_bpm")
        sd = np.exp(session.trait("ln_rr_sd")) / 1000
        count = int((stop_s - start_s) / RR_MIN_S) + 2
        breath_phase, mayer_phase = rng.uniform(0, 2 * np.pi, 2)
        noise = rng.standard_normal(count)
        share = np.exp(session.trait("ln_ectopic_share"))
        ectopic_on = rng.random() < share
        ectopic_draw = rng.random(count) < 0.12  # share of beats in a recording that has ectopics
        time, rr = start_s + rng.uniform(0, mean_rr), mean_rr
        onsets: list[float] = []
        rrs: list[float] = []
        flags: list[bool] = []
        for beat in range(count):
            early = bool(ectopic_on and ectopic_draw[beat] and not (flags and flags[-1]))
            if beat:
                wave = np.sqrt(2 * RESPIRATORY_SHARE) * np.sin(2 * np.pi * session.breath_hz * time + breath_phase)
                wave += np.sqrt(2 * MAYER_SHARE) * np.sin(2 * np.pi * MAYER_HZ * time + mayer_phase)
                rr = max(RR_MIN_S, mean_rr + sd * (wave + np.sqrt(RANDOM_SHARE) * noise[beat]))
                if early:
                    rr = max(RR_MIN_S, ECTOPIC_COUPLING * rr)
                elif flags[-1]:
                    rr *= 2 - ECTOPIC_COUPLING  # compensatory pause
                time += rr
            if time > stop_s:
                break
            onsets.append(time)
            rrs.append(rr)
            flags.append(early)
        onset = np.array(onsets)
        breath = np.sin(2 * np.pi * session.breath_hz * onset + breath_phase)
        return cls(onset, np.array(rrs), np.array(flags, bool), breath)

    def clean_ecg(self, rng: np.random.Generator, session: Session, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draw the eight-lead ECG in mV, (lead, time), without noise or device, at the evenly spaced instants `time_s`."""
        centres, widths = _timing(session, self)
        vectors = _vectors(rng, session, self)
        rate = 1 / (time_s[1] - time_s[0])
        length = round((BEFORE_S + AFTER_S) * rate)
        first = np.ceil((self.onset_s - BEFORE_S - time_s[0]) * rate).astype(int)
        at = time_s[0] + (first[:, None] + np.arange(length)) / rate - self.onset_s[:, None]  # (beat, sample)
        kernels = np.exp(-0.5 * ((at[:, None] - centres[..., None]) / widths[..., None]) ** 2)  # (beat, wave, sample)
        drawn = vectors.transpose(0, 2, 1) @ kernels  # (beat, 3, sample)
        dipole = np.zeros((3, len(time_s) + 2 * length))
        # Beats may overlap at high rates, so they are added; the margin of one beat on each side is cut off again.
        for beat, start in enumerate(first + length):
            if 0 <= start <= dipole.shape[1] - length:
                dipole[:, start : start + length] += drawn[beat]
        return session.leads @ dipole[:, length : length + len(time_s)]


def _timing(session: Session, beats: Beats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (beat, wave) centres relative to QRS onset, and widths, in s."""
    p_s, pr_s, qrs_s, qtc_s = (session.trait(name) / 1000 for name in ("p_ms", "pr_ms", "qrs_ms", "qtc_ms"))
    usual_rr = 60 / session.trait("heart_rate_bpm")
    rr = QT_MEMORY * usual_rr + (1 - QT_MEMORY) * np.where(beats.ectopic, usual_rr, beats.rr_s)
    qt_s = qtc_s - QT_PER_RR * (1 - rr)
    qrs = np.where(beats.ectopic, ECTOPIC_WIDTH, 1.0) * qrs_s
    qt_s = qt_s + (qrs - qrs_s)
    centres = np.empty((len(rr), len(WAVE_NAMES)))
    widths = np.empty_like(centres)
    centres[:, ATRIAL], widths[:, ATRIAL] = P_CENTRES * p_s - pr_s, P_WIDTHS * p_s
    centres[:, QRS], widths[:, QRS] = np.outer(qrs, QRS_CENTRES), np.outer(qrs, QRS_WIDTHS)
    centres[:, ST], widths[:, ST] = qrs + ST_AFTER_QRS_S, ST_WIDTH_S
    centres[:, T], widths[:, T] = (qt_s - T_PEAK_TO_END_S)[:, None] + T_CENTRES_S, T_WIDTHS_S
    return centres, widths


def _vectors(rng: np.random.Generator, session: Session, beats: Beats) -> NDArray[np.float64]:
    """Return (beat, wave, 3) Frank vectors in mV: the person's waves, changed by breathing, with ectopic beats replaced."""
    depth = session.breath_depth * beats.breath
    gain = 1 + BREATH_GAIN * depth + BEAT_GAIN_SD * rng.standard_normal(len(depth))
    turn = BREATH_TURN_RAD * depth
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y, z = session.waves_mv.T
    vectors = gain[:, None, None] * np.stack(
        [cos * x - sin * y, sin * x + cos * y, np.broadcast_to(z, (len(turn), len(z)))], axis=-1
    )
    early = np.flatnonzero(beats.ectopic)
    vectors[early] = 0
    vectors[early, QRS] = np.array([0.35, 0.80, 0.75, 0.45])[:, None] * session.ectopic_mv
    vectors[early, T] = np.array([0.6, 1.0, 0.2])[:, None] * ECTOPIC_T * session.ectopic_mv
    return vectors
