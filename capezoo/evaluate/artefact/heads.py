"""What embeddings tell: age and sex by heads fitted at home, and the device by a probe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.scalers import SCALERS, Features, fit_scaler

# Strengths tried for age, by leaving one patient out, and inverse strengths of the L2 penalty: ours, for heads of some
# 75 patients.
_RIDGE = (10.0, 100.0, 1000.0)
_SEX_C, _DEVICE_C = 0.02, 0.1
_FOLDS = 5
_FEWEST = 2  # patients with an age, and of each sex, that a head is fitted on

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """What heads of every home say of every rendering; axes as in `trial.Trial`."""

    age_years: Floats
    sex_score: Floats
    largest_z: Floats
    constant_age: Floats
    age_patients: tuple[int, ...]
    sex_patients: tuple[int, ...]


def answer(train: Features, home: Whole, homes: int, age: Floats, sex: Floats, tested: NDArray[np.float32]) -> Answers:
    """Fit heads on the training patients of each home and let them answer for every rendering.

    train: (patient, unit), with home, age and sex (patient,). tested: (rendering, test, unit). Raises Unanswerable for a
    home of too few patients with an age or of either sex.
    """
    shape = (len(SCALERS), homes, *tested.shape[:2])
    years, scores, largest = np.empty(shape), np.empty(shape), np.empty(shape[:3])
    places = [np.flatnonzero(home == number) for number in range(homes)]
    aged = [here[np.isfinite(age[here])] for here in places]
    sexed = [here[np.isfinite(sex[here])] for here in places]
    for number in range(homes):
        counts = np.bincount(sex[sexed[number]].astype(int), minlength=2)
        if min(len(aged[number]), *counts) < _FEWEST:
            raise Unanswerable(
                f"found {len(aged[number])} training patients with an age below 90, {counts[0]} men and {counts[1]} women on "
                f"a device, expected {_FEWEST} of each. Take a larger cohort."
            )
        for kind, name in enumerate(SCALERS):
            scaler = fit_scaler(train[places[number]], name)
            # One call over all renderings: a head costs more to call than to apply. In double precision, so that equal
            # renderings get equal answers wherever they stand.
            scaled = scaler(tested.reshape(-1, tested.shape[-1])).astype(np.float64)
            years[kind, number] = _ridge(scaler(train[aged[number]]), age[aged[number]], scaled).reshape(shape[2:])
            scores[kind, number] = _logistic(scaler(train[sexed[number]]), sex[sexed[number]], scaled).reshape(
                shape[2:]
            )
            largest[kind, number] = np.abs(scaled).reshape(*shape[2:], -1).max(axis=(1, 2))
    constant = np.array([np.median(age[here]) for here in aged])
    return Answers(years, scores, largest, constant, tuple(map(len, aged)), tuple(map(len, sexed)))


def device_scores(features: Features, device: Whole, devices: int, seed: int) -> Floats:
    """Return (patient, device) probabilities by probes that have not seen the patient, in five folds.

    Raises Unanswerable if a device has fewer than two patients.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    fewest = int(np.bincount(device, minlength=devices).min())
    if fewest < 2:
        raise Unanswerable(f"found {fewest} test patients of a device, expected two or more. Take a larger cohort.")
    scores = np.zeros((len(device), devices))
    folds = StratifiedKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed % 2**32)
    for known, new in folds.split(features, device):
        # Scaled by the known patients alone: the scale would otherwise have seen those it is tested on.
        scaler = fit_scaler(features[known], "guarded")
        probe = LogisticRegression(C=_DEVICE_C, max_iter=3000).fit(scaler(features[known]), device[known])
        scores[new] = probe.predict_proba(scaler(features[new]))
    return scores


def _ridge(x: NDArray, y: Floats, new: NDArray) -> Floats:
    from sklearn.linear_model import RidgeCV

    return np.asarray(RidgeCV(alphas=_RIDGE).fit(x, y).predict(new), np.float64)


def _logistic(x: NDArray, y: Floats, new: NDArray) -> Floats:
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(C=_SEX_C, max_iter=3000).fit(x, y).decision_function(new), np.float64)
