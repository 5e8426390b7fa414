"""The scaler confound in small: a unit that another cohort switches on."""

import numpy as np
import pytest

from capezoo.evaluate.measure.scalers import _CLIP, Health, _effective_rank, fit_scaler


@pytest.fixture
def train():
    x = np.random.default_rng(0).normal(5, 15, size=(400, 6)).astype(np.float32)
    x[:, 3] = 0.1  # dead
    x[:, 4] = 1e-4 * x[:, 0]  # near-dead: 1e-4 of the median deviation
    return x


def test_plain_is_the_z_score_and_zero_for_constant_units(train):
    z = fit_scaler(train, "plain")(train)
    live = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(z[:, live].std(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(z[:, live].mean(axis=0), 0, atol=1e-4)
    assert (z[:, 3] == 0).all()
    other = train.copy()
    other[:, 3] = 50
    assert (fit_scaler(train, "plain")(other)[:, 3] == 0).all()


def test_a_unit_switched_on_explodes_plainly_and_is_bounded_when_guarded(train):
    other = train.copy()
    other[:, 4] = 10
    assert np.abs(fit_scaler(train, "plain")(other)).max() > 1000
    guarded = fit_scaler(train, "guarded")(other)
    assert np.abs(guarded).max() == _CLIP
    live = [0, 1, 2, 5]  # units in order are untouched by the guard
    np.testing.assert_allclose(guarded[:, live], fit_scaler(train, "plain")(other)[:, live])


def test_health_counts_units(train):
    other = train.copy()
    other[:, 4] = 10
    found = Health.of(train, {"home": train, "away": other})
    assert (found.units, found.dead, found.near_dead) == (6, 1, 1)
    assert found.largest_z["home"] < 6 < 1000 < found.largest_z["away"]
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_effective_rank_of_known_spectra():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(200, 8)))[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]  # columns orthonormal and centred
    assert _effective_rank(basis.astype(np.float32)) == pytest.approx(8, rel=1e-3)
    assert _effective_rank((basis * [1, 1, 0, 0, 0, 0, 0, 0]).astype(np.float32)) == pytest.approx(2, rel=1e-2)
    assert _effective_rank(np.ones((5, 3), np.float32)) == 0
