"""How well do plain linear models tell simulated recorders apart, and age and sex of simulated people?

python examples/simulated_baselines.py [patients per cohort] [seed]

Recordings go through the recipe cape-v1. Recorders: logistic regression on the spectrum. Age and sex: ridge and logistic
regression on the averaged beat, trained in one cohort, tested on other patients of it and on the other cohorts.
Patients never stand on both sides. Needs scikit-learn (extra `zoo`).
"""

import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.simulate import HOSPITALS, draw_exams, plan

RATE_HZ, WINDOW = 400, 2800
BAND_EDGES_HZ = np.array([1, 3, 8, 15, 25, 35, 45, 55, 65, 75, 85, 95, 110, 130, 180])
BEFORE, AFTER, STEP = 140, 220, 3  # samples of the averaged beat around the QRS, every third kept
COMPONENTS = 60
PENALTY = 1000.0  # fixed: leave-one-out choice would see the same patient on both sides


@dataclass(frozen=True)
class Features:
    """One row per recording."""

    spectra: NDArray[np.float64]  # (recording, band) ln power, median over leads
    beats: NDArray[np.float64]  # (recording, feature) averaged beat of 8 leads, mean RR, ln SD of RR
    cohort: NDArray[np.str_]
    patient: NDArray[np.str_]
    age: NDArray[np.float64]
    male: NDArray[np.bool_]


def spectrum(window_mv: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.abs(np.fft.rfft(window_mv * np.hanning(WINDOW), axis=1)) ** 2
    bins = BAND_EDGES_HZ * WINDOW // RATE_HZ
    bands: NDArray[np.float64] = np.log([np.median(power[:, a:b].mean(axis=1)) for a, b in pairwise(bins)])
    return bands


def averaged_beat(window_mv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median beat around the peaks of the smoothed slope, found without help from the simulator."""
    slope = np.convolve(np.abs(window_mv[:, 4:] - window_mv[:, :-4]).sum(axis=0), np.hanning(33), "same")
    high = np.flatnonzero(slope > 0.35 * np.quantile(slope, 0.99))
    groups = np.split(high, np.flatnonzero(np.diff(high) > RATE_HZ // 5) + 1)
    peaks = np.array([group[np.argmax(slope[group])] for group in groups])
    inside = peaks[(peaks >= BEFORE) & (peaks < WINDOW - AFTER)]
    beat = np.median([window_mv[:, peak - BEFORE : peak + AFTER : STEP] for peak in inside], axis=0)
    rr_s = np.diff(peaks) / RATE_HZ
    return np.concatenate([beat.ravel(), [rr_s.mean(), np.log(rr_s.std() + 0.005)]])


def extract(patients: int, seed: int) -> Features:
    """Simulate, preprocess, and describe every recording by its spectrum and its averaged beat."""
    spectra, beats, who = [], [], []
    for hospital in HOSPITALS.values():
        for exam in draw_exams(plan(hospital, patients, seed), seed):
            recording = exam.recording()
            strip = make_strip(recording, mains_hz=recording.mains_hz, with_quality=False)
            start = (strip.valid_stop - WINDOW) // 2
            window_mv = strip.samples[:, start : start + WINDOW] / 1000
            spectra.append(spectrum(window_mv))
            beats.append(averaged_beat(window_mv))
            who.append((hospital.name, f"{hospital.name} {recording.patient_id}", recording.age_years, recording.sex))
    cohort, patient, age, sex = (np.array(column) for column in zip(*who, strict=True))
    return Features(np.array(spectra), np.array(beats), cohort, patient, age.astype(float), sex == "male")


def sex_model() -> Pipeline:
    return make_pipeline(
        StandardScaler(), PCA(COMPONENTS, random_state=0), LogisticRegression(C=10 / PENALTY, max_iter=3000)
    )


def age_model() -> Pipeline:
    return make_pipeline(StandardScaler(), PCA(COMPONENTS, random_state=0), Ridge(PENALTY))


def held_out(model: Pipeline, x: NDArray[np.float64], y: NDArray, patient: NDArray, method: str) -> NDArray[np.float64]:
    """Predictions for each recording by a model that never saw its patient."""
    scores: NDArray[np.float64] = cross_val_predict(model, x, y, groups=patient, cv=GroupKFold(5), method=method)
    return scores


def cohort_auc(features: Features, columns: NDArray[np.float64]) -> dict[str, float]:
    """Area under the curve of each cohort against the others."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    scores = held_out(model, columns, features.cohort, features.patient, "predict_proba")
    names = np.unique(features.cohort)
    return {name: roc_auc_score(features.cohort == name, scores[:, place]) for place, name in enumerate(names)}


def within(features: Features, name: str) -> tuple[float, float, float]:
    """Age MAE in years, share of age variance explained, and sex AUC, in one cohort, patients held out."""
    mine = features.cohort == name
    x, age, male, patient = features.beats[mine], features.age[mine], features.male[mine], features.patient[mine]
    predicted = held_out(age_model(), x, age, patient, "predict")
    score = held_out(sex_model(), x, male, patient, "predict_proba")[:, 1]
    explained = 1 - ((predicted - age) ** 2).mean() / age.var()
    return float(np.abs(predicted - age).mean()), float(explained), float(roc_auc_score(male, score))


def transfer(features: Features, source: str, target: str) -> tuple[float, float]:
    """Age MAE in years and sex AUC in `target` of models fitted on all of `source`."""
    a, b = features.cohort == source, features.cohort == target
    predicted = age_model().fit(features.beats[a], features.age[a]).predict(features.beats[b])
    score = sex_model().fit(features.beats[a], features.male[a]).predict_proba(features.beats[b])[:, 1]
    return float(np.abs(predicted - features.age[b]).mean()), float(roc_auc_score(features.male[b], score))


def main(patients: int, seed: int) -> None:
    started = time.perf_counter()
    features = extract(patients, seed)
    print(f"{len(features.age)} recordings simulated and preprocessed in {time.perf_counter() - started:.1f} s")
    for label, columns in (
        ("1-180 Hz", features.spectra),
        ("1-35 Hz only", features.spectra[:, :5]),
        ("beats", features.beats),
    ):
        print(f"cohort AUC, {label}: " + ", ".join(f"{k} {v:.3f}" for k, v in cohort_auc(features, columns).items()))
    for name in HOSPITALS:
        age = features.age[features.cohort == name]
        mae, explained, auc = within(features, name)
        guess = np.abs(age - np.median(age)).mean()
        print(f"{name}: age MAE {mae:.1f} (guessing the median {guess:.1f}), R2 {explained:.2f}, sex AUC {auc:.3f}")
        for other in HOSPITALS:
            if other != name:
                mae, auc = transfer(features, name, other)
                print(f"   to {other}: age MAE {mae:.1f}, sex AUC {auc:.3f}")


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:3]]
    main(*numbers, *(300, 0)[len(numbers) :])
