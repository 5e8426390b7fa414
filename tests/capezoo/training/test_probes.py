"""Probes find what is in embeddings, and no more than chance where nothing is."""

import numpy as np
import pytest

from capezoo.training import probes
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex

N = 120  # patients of each of three cohorts


def index_of(cohort: np.ndarray, age: np.ndarray, sex: np.ndarray) -> CohortIndex:
    columns = {name: np.zeros(len(cohort), dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(len(cohort)), "patient": np.arange(len(cohort))}
    columns |= {"cohort": cohort.astype(np.int32), "age": age.astype(np.float32), "sex": sex.astype(np.int8)}
    return CohortIndex(columns, ("a", "b", "c"))


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    cohort = np.repeat(np.arange(3), N)
    return cohort, rng.uniform(20, 90, 3 * N), rng.integers(0, 2, 3 * N), rng.normal(size=(3 * N, 16)).astype("f4")


def test_noise_gives_chance(people):
    cohort, age, sex, noise = people
    found = probes.measure(noise, index_of(cohort, age, sex), seed=0)
    assert tuple(found) == probes.COLUMNS
    assert found["knn_cohort_chance"] == pytest.approx((N - 1) / (3 * N - 1))
    assert found["age_mae_chance"] == pytest.approx(np.abs(age - np.median(age)).mean(), rel=0.03)
    assert (found["cohort_auc_chance"], found["sex_auc_chance"]) == (0.5, 0.5)
    for name, close in (("knn_cohort", 0.04), ("cohort_auc", 0.08), ("sex_auc", 0.08), ("age_mae", 1.5)):
        assert found[name] == pytest.approx(found[f"{name}_chance"], abs=close), name


def test_what_is_in_them_is_found(people):
    cohort, age, sex, noise = people
    telling = noise.copy()
    telling[:, :3] += 8 * np.eye(3)[cohort]
    telling[:, 3] = (age - 55) / 20
    telling[:, 4] += 6 * sex
    found = probes.measure(telling, index_of(cohort, age, sex), seed=0)
    assert found["knn_cohort"] > 0.95
    assert found["cohort_auc"] > 0.99
    assert found["age_mae"] < 1.0 < 10 < found["age_mae_chance"]
    assert found["sex_auc"] > 0.95
    assert found == probes.measure(telling, index_of(cohort, age, sex), seed=0)


def test_predictions_are_of_patients_not_fitted_on(people):
    """A probe with more units than patients fits anything; only patients it has not seen show that it is nothing."""
    cohort, age, sex, _ = people
    wide = np.random.default_rng(1).normal(size=(3 * N, 800)).astype("f4")
    found = probes.measure(wide, index_of(cohort, age, sex), seed=0)
    assert found["sex_auc"] == pytest.approx(0.5, abs=0.1)
    assert found["age_mae"] > 0.9 * found["age_mae_chance"]


def test_what_nobody_knows_is_left_out(people):
    cohort, age, sex, noise = people
    none = np.full(3 * N, -1)
    assert set(probes.measure(noise, index_of(cohort, age, none), 0)) & {"sex_auc"} == set()
    assert "age_mae" not in probes.measure(noise, index_of(cohort, np.full(3 * N, np.nan), sex), 0)
    alone = probes.measure(noise[:N], index_of(cohort[:N], age[:N], sex[:N]), 0)
    assert "cohort_auc" not in alone
    assert "sex_auc" in alone
    few = np.r_[0:N, N : N + probes.FEWEST - 1]  # one cohort and too little of another
    assert "cohort_auc" not in probes.measure(noise[few], index_of(cohort[few], age[few], sex[few]), 0)


def test_cohorts_count_alike(people):
    """A cohort of five sixths of the patients must not make chance look like knowledge."""
    _, age, sex, noise = people
    uneven = np.repeat([0, 1], [5 * N // 2, N // 2])
    found = probes.measure(noise, index_of(uneven, age, sex), 0)
    each = N // 2
    assert found["knn_cohort_chance"] == pytest.approx((each - 1) / (2 * each - 1))
    assert found["knn_cohort"] == pytest.approx(0.5, abs=0.06)


def test_neighbours_by_hand(monkeypatch):
    x = np.array([[1, 0], [9, 0.1], [0, 1], [0.1, 9]], "f4")  # by angle two and two; by distance the small ones
    monkeypatch.setattr(probes, "NEIGHBOURS", 1)
    assert probes._neighbour_share(x, np.array([0, 0, 1, 1])) == 1
    assert probes._neighbour_share(x, np.array([0, 1, 1, 1])) == 0.5
