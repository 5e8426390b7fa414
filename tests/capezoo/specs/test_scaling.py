"""Scaling: numpy and torch, missing samples, leads that stand still, statistics of recordings and cohorts."""

from typing import get_args

import numpy as np
import pytest
import torch

from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import OF_STATISTICS, Normalisation, lead_statistics, scaled
from ecgcohorts.errors import SpecError
from ecgcohorts.index.cohort_index import COLUMNS, CohortIndex

ALL = get_args(Normalisation)


@pytest.fixture
def signal() -> np.ndarray:
    x = np.random.default_rng(0).normal([[[0.1]], [[2.0]]], 0.4, (2, 3, 500)).astype(np.float32)  # (window, lead, time)
    x[1, 2] = 0.1  # stands still: its float32 mean is not 0.1, and its deviation not 0
    return x


@pytest.fixture
def statistics() -> tuple[np.ndarray, np.ndarray]:
    return np.float32([[0.1, 0.2, 0.3], [2, 2, 0.1]]), np.float32([[0.5, 0.4, 0.3], [0.5, 0.4, 0]])


def reference(x: np.ndarray, kind: str, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """One window after another in float64, as the sources write them."""
    out = np.zeros(x.shape)
    for place, window in enumerate(x.astype(np.float64)):
        for lead, row in enumerate(window):
            still = np.ptp(row) == 0
            if kind == "none":
                out[place, lead] = row
            elif kind == "window_z":
                out[place, lead] = 0 if still and np.ptp(window) == 0 else (row - window.mean()) / window.std()
            elif kind == "window_lead_z":
                out[place, lead] = 0 if still else (row - row.mean()) / row.std()
            elif kind == "min_max":
                out[place, lead] = 0 if still else 2 * (row - row.min()) / np.ptp(row) - 1
            elif kind == "window_min_max":
                out[place, lead] = (row - window.min()) / np.ptp(window)
            elif deviation[place, lead] > 0:
                out[place, lead] = (row - mean[place, lead]) / deviation[place, lead]
    return out


@pytest.mark.parametrize("kind", ALL)
def test_each_scaling_is_what_its_source_writes(kind, signal, statistics):
    got = scaled(signal, kind, statistics=statistics)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference(signal, kind, *statistics), rtol=1e-4, atol=1e-5)
    if kind not in ("none", "window_z", "window_min_max"):
        assert not got[1, 2].any()


@pytest.mark.parametrize("kind", ALL)
def test_half_precision_is_scaled_in_float32(kind, signal, statistics):
    """300 times 0.4 mV: the squares of a window sum to far more than the 65504 that float16 holds."""
    half = (300 * signal).astype(np.float16)
    wide = scaled(half.astype(np.float32), kind, statistics=statistics)
    got = scaled(half, kind, statistics=statistics)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, wide.astype(np.float16))
    as_tensor = scaled(torch.from_numpy(half), kind, statistics=tuple(torch.from_numpy(one) for one in statistics))
    assert as_tensor.dtype == torch.float16
    np.testing.assert_allclose(as_tensor.float().numpy(), wide, rtol=2e-3, atol=1e-3)
    with pytest.raises(SpecError, match="found a signal of int16, expected floating point numbers"):
        scaled(signal.astype(np.int16), kind, statistics=statistics)


@pytest.mark.parametrize("kind", ALL)
def test_torch_gives_what_numpy_gives(kind, signal, statistics):
    tensors = tuple(torch.from_numpy(value) for value in statistics)
    present = torch.ones(2, 1, 500, dtype=torch.bool)
    present[0, :, 400:] = False
    got = scaled(torch.from_numpy(signal), kind, present, tensors)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), scaled(signal, kind, present.numpy(), statistics), rtol=1e-5, atol=1e-6)
    views = scaled(torch.from_numpy(signal)[None], kind, present[None], tuple(value[None] for value in tensors))
    torch.testing.assert_close(views[0], got)  # any number of leading axes


@pytest.mark.parametrize("kind", ALL)
def test_missing_samples_count_nowhere_and_stay_0(kind, signal, statistics):
    present = np.ones((2, 1, 500), bool)
    present[:, :, 350:] = False
    spoilt = signal.copy()
    spoilt[:, :, 350:] = 1e6
    spoilt[0, 0, 360] = np.nan
    got = scaled(spoilt, kind, present, statistics)
    assert not got[:, :, 350:].any()
    np.testing.assert_allclose(
        got[:, :, :350], scaled(signal[:, :, :350], kind, None, statistics), rtol=1e-4, atol=1e-5
    )
    nothing = scaled(signal, kind, np.zeros((2, 1, 500), bool), statistics)
    assert not nothing.any()


def test_nan_is_missing_too(signal):
    signal[0, 1, 7] = np.nan
    got = scaled(signal, "window_lead_z")
    assert got[0, 1, 7] == 0
    assert np.isfinite(got).all()


def test_what_is_not_there_is_refused(signal):
    with pytest.raises(SpecError, match="found normalisation 'z', expected one of none, window_z"):
        scaled(signal, "z")
    for kind in ("record_lead_z", "cohort_lead_z"):
        assert kind in OF_STATISTICS
        with pytest.raises(SpecError, match=f"found no statistics for {kind}"):
            scaled(signal, kind)


@pytest.fixture
def index() -> CohortIndex:
    columns = {name: np.zeros(6, dtype) for name, dtype in COLUMNS.items()}
    columns |= {"row": np.arange(6), "patient": np.arange(6), "cohort": np.int32([0, 0, 0, 1, 1, 1])}
    columns["mean_I"] = np.float32([0, 1, 2, 5, 5, 5])
    columns["deviation_I"] = np.float32([1, 1, 1, 2, 2, 4])
    return CohortIndex(columns, ("north", "river"))


def test_statistics_of_a_cohort_are_those_of_all_its_samples(index):
    entries = np.array([4, 0])
    assert lead_statistics(index, entries, ("I",), "window_z") is None
    mean, deviation = lead_statistics(index, entries, ("I",), "record_lead_z")
    assert (mean[:, 0].tolist(), deviation[:, 0].tolist()) == ([5, 0], [2, 1])
    # Recordings with exactly these means and deviations, all samples of a cohort thrown together.
    samples = [np.concatenate([[m - d, m + d] for m, d in zip(*part, strict=True)]) for part in
               (((5, 5, 5), (2, 2, 4)), ((0, 1, 2), (1, 1, 1)))]  # fmt: skip
    mean, deviation = lead_statistics(index, entries, ("I",), "cohort_lead_z")
    np.testing.assert_allclose(mean[:, 0], [one.mean() for one in samples])
    np.testing.assert_allclose(deviation[:, 0], [one.std() for one in samples], rtol=1e-6)
    part = index.take([0, 4])
    whole = lead_statistics(part, np.array([1, 0]), ("I",), "cohort_lead_z", whole=index)
    np.testing.assert_array_equal(whole, (mean, deviation))
    with pytest.raises(
        SpecError, match=r"found no statistics of II in the index.*record_statistics, such as plain-500"
    ):
        lead_statistics(index, entries, ("I", "II"), "cohort_lead_z")


def test_a_spec_without_a_recipe_of_its_own_reads_and_writes_as_before():
    spec = InputSpec()
    assert "own_recipe" not in spec.model_dump_json()
    assert set(spec.model_dump()) == {"leads", "rate_hz", "length", "unit", "recipe", "normalisation"}
