"""The simulated heart: traits follow their table, and the drawn ECG shows the traits it was asked for."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgcohorts.leads import EIGHT_LEADS
from ecgcohorts.recording import Sex
from ecgcohorts.simulate.anatomy import DOWER, WAVE_VECTORS_MV, Patient, Session, _frank_waves
from ecgcohorts.simulate.beats import QT_PER_RR, Beats
from ecgcohorts.simulate.traits import COLUMN, NAMES, TRAITS, _expected, draw_traits

RATE_HZ = 1000
L1, L2, V1, V2, V3, V5, V6 = (EIGHT_LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V5", "V6"))


def average_session(sex: Sex = "male", age: float = 50, **changes: float) -> Session:
    """A visit of the average person on the average chest, with some traits set."""
    traits = _expected(sex, age)
    for name, value in changes.items():
        traits[COLUMN[name]] = value
    waves = _frank_waves(traits, np.ones_like(WAVE_VECTORS_MV), 0.0)
    return Session(age, traits, waves, DOWER, breath_hz=0.25, breath_depth=0.0, tremor=1.0, ectopic_mv=np.ones(3))


def one_beat(session: Session, ectopic: bool = False) -> NDArray[np.float64]:
    """(lead, 2 s) clean ECG in mV with QRS onset at 1 s, at 60 beats a minute."""
    beats = Beats(np.array([1.0]), np.array([1.0]), np.array([ectopic]), np.zeros(1))
    return beats.clean_ecg(np.random.default_rng(0), session, np.arange(2 * RATE_HZ) / RATE_HZ)


def extent_ms(wave: NDArray[np.float64], share: float = 0.04) -> float:
    """How long the vector magnitude of `wave` stays above a share of its peak."""
    size = np.linalg.norm(wave, axis=0)
    above = np.flatnonzero(size > share * size.max())
    return float((above[-1] - above[0]) * 1000 / RATE_HZ)


def only(session: Session, *waves: int) -> Session:
    """The session with all other waves silent."""
    kept = np.zeros_like(session.waves_mv)
    kept[list(waves)] = session.waves_mv[list(waves)]
    return Session(**{**vars(session), "waves_mv": kept})


@pytest.mark.parametrize("sex", ["male", "female"])
@pytest.mark.parametrize("age", [20.0, 50.0, 85.0])
def test_draws_have_the_mean_and_the_spread_of_the_table(sex: Sex, age: float) -> None:
    rng = np.random.default_rng(3)
    draws = np.array(
        [
            draw_traits(
                sex, age, rng.standard_normal(len(NAMES)), rng.standard_normal(len(NAMES)), rng.standard_normal()
            )
            for _ in range(4000)
        ]
    )
    for trait, column in zip(TRAITS, draws.T, strict=True):
        sd = np.sqrt(trait.between_sd**2 + trait.within_sd**2 + trait.autonomic**2)
        mean = trait.expected(sex, age)
        assert column.min() >= trait.low
        assert column.max() <= trait.high
        if trait.low < mean - 3 * sd and mean + 3 * sd < trait.high:  # clipping bends the mean of the others
            assert abs(column.mean() - mean) < 5 * sd / np.sqrt(4000), trait.name
            assert 0.93 < column.std() / sd < 1.05, trait.name


def test_the_sexes_and_ages_differ_as_the_literature_says() -> None:
    def gap(name: str, age: float) -> float:
        return float(_expected("male", age)[COLUMN[name]] - _expected("female", age)[COLUMN[name]])

    assert gap("qrs_ms", 52) == pytest.approx(92 - 86)  # ELSA-Brasil medians
    assert gap("heart_rate_bpm", 52) == pytest.approx(63 - 66)
    assert gap("qtc_ms", 30) < gap("qtc_ms", 80) < 0  # longer in women, less so with age
    assert gap("st_v3_mv", 25) > gap("st_v3_mv", 75) > 0  # Macfarlane 2001
    per_decade = np.expm1(10 * (_expected("male", 61) - _expected("male", 60)))
    assert per_decade[COLUMN["ln_qrs_gain"]] == pytest.approx(-0.065, abs=0.002)  # Pipberger 1967
    assert per_decade[COLUMN["ln_t_gain"]] == pytest.approx(-0.0975, abs=0.002)
    women = _expected("female", 90) - _expected("female", 18)
    assert 0.70 < np.exp(women[COLUMN["ln_qrs_gain"]]) < 0.81  # Nemati: 71-80 %


def test_the_average_ecg_has_the_normal_shape() -> None:
    ecg = one_beat(average_session())
    qrs, t = ecg[:, 1000:1100], ecg[:, 1200:1400]
    limb_right = -(ecg[L1] + ecg[L2]) / 2
    assert limb_right[1000:1100].min() < -0.4  # aVR points down
    assert limb_right[1000:1100].max() < 0.2
    r, s = qrs.max(axis=1), -qrs.min(axis=1)
    assert r[V1] < s[V1]  # rS in V1, Rs in V5-V6
    assert np.all(r[[V5, V6]] > s[[V5, V6]])
    assert np.all(np.diff(r[V1 : V1 + 4]) > 0)  # R grows from V1 to V4
    assert s[V2] == s.max()
    assert np.all(t[[L1, L2, *range(V2, V6 + 1)]].max(axis=1) > 0.1)  # T upright
    assert np.all(qrs[[V5, V6], :25].min(axis=1) < -0.02)  # septal q
    peak_to_valley = np.ptp(ecg, axis=1)
    assert np.all((peak_to_valley > 0.5) & (peak_to_valley < 3.5))


@pytest.mark.parametrize("axis", [-20.0, 10.0, 37.0, 60.0, 85.0])
def test_leads_i_and_avf_show_the_axis_that_was_asked_for(axis: float) -> None:
    qrs = only(average_session(qrs_axis_deg=axis), 2, 3, 4, 5)
    lead_i, lead_ii = one_beat(qrs)[[L1, L2]].sum(axis=1)
    avf = (lead_ii - lead_i / 2) * 2 / np.sqrt(3)
    assert np.rad2deg(np.arctan2(avf, lead_i)) == pytest.approx(axis, abs=1)


@pytest.mark.parametrize("duration", [75.0, 92.0, 120.0])
def test_the_qrs_complex_lasts_as_long_as_asked(duration: float) -> None:
    assert extent_ms(one_beat(only(average_session(qrs_ms=duration), 2, 3, 4, 5))) == pytest.approx(duration, rel=0.12)


def test_pr_and_qt_are_as_long_as_asked() -> None:
    short, long = average_session(pr_ms=140, qtc_ms=400), average_session(pr_ms=200, qtc_ms=450)
    starts, ends = [], []
    for session in (short, long):
        p = np.linalg.norm(one_beat(only(session, 0, 1)), axis=0)
        t = one_beat(only(session, 7, 8, 9))[V3]
        starts.append(1000 - np.flatnonzero(p > 0.05 * p.max())[0])
        slope = np.argmin(np.diff(t))
        ends.append(slope + t[slope] / (t[slope] - t[slope + 1]) - 1000)  # tangent at the steepest fall
    assert starts == pytest.approx([140, 200], abs=8)
    # at a mean rate of 63 a minute, Framingham
    rr = 0.7 * 60 / 63 + 0.3 * 1.0
    assert np.array(ends) == pytest.approx(np.array([400, 450]) - 1000 * QT_PER_RR * (1 - rr), abs=15)


def test_the_st_level_of_v3_is_the_trait() -> None:
    ecg = one_beat(only(average_session(st_v3_mv=0.2), 6))
    assert ecg[V3].max() == pytest.approx(0.2, rel=0.04)  # one beat varies by 1.5 %


def test_rhythm_follows_rate_and_variability() -> None:
    slow = Beats.draw(np.random.default_rng(1), average_session(heart_rate_bpm=50, ln_rr_sd=np.log(60)), 0, 600)
    fast = Beats.draw(np.random.default_rng(1), average_session(heart_rate_bpm=90, ln_rr_sd=np.log(10)), 0, 600)
    assert 60 / slow.rr_s[1:].mean() == pytest.approx(50, rel=0.02)
    assert 60 / fast.rr_s[1:].mean() == pytest.approx(90, rel=0.02)
    assert slow.rr_s[1:][~slow.ectopic[1:]].std() == pytest.approx(0.060, rel=0.15)
    assert fast.rr_s[1:].std() == pytest.approx(0.010, rel=0.15)


def test_an_ectopic_beat_is_early_wide_and_followed_by_a_pause() -> None:
    session = average_session(ln_ectopic_share=0.0, ln_rr_sd=np.log(5))  # share 1: every recording has them
    beats = Beats.draw(np.random.default_rng(2), session, 0, 300)
    early = np.flatnonzero(beats.ectopic[:-1])
    assert len(early) > 10
    assert np.all(beats.rr_s[early] < 0.75 * 60 / 63)
    assert np.all(beats.rr_s[early + 1] > 1.25 * 60 / 63)
    wide, narrow = (one_beat(session, ectopic)[:, 980:1180] for ectopic in (True, False))
    assert extent_ms(wide, share=0.3) > 1.4 * extent_ms(narrow, share=0.3)


def test_a_person_is_closer_to_themselves_than_to_others() -> None:
    beats = []
    for person in range(12):
        patient = Patient.draw(np.random.default_rng([1, person]), "female", 60.0)
        beats.append(
            [
                one_beat(Session.draw(np.random.default_rng([2, person, visit]), patient, 60.0 + visit)).ravel()
                for visit in range(2)
            ]
        )
    shape = np.array(beats)
    own = np.linalg.norm(shape[:, 0] - shape[:, 1], axis=-1).mean()
    other = np.mean([np.linalg.norm(shape[a, 0] - shape[b, 1]) for a in range(12) for b in range(12) if a != b])
    assert 0.05 * other < own < 0.7 * other  # alike, but not equal
