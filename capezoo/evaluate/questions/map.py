"""Maps: the embedding in two dimensions, coloured by cohort; an illustration, in which distances mean little.

The numbers beside it are those of `separability`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.report.charts import scatter

EXAMPLES = (
    "capezoo evaluate map --weights w/x --weights random --store store.zarr --seed 0 -o study",
    "capezoo evaluate map --weights w/x --store store.zarr --seed 0 --max-records 2000 -o study",
)
# Iterations; scikit-learn's 1,000 in all.
_EARLY, _LATE = 250, 750


class Config(Spec):
    """What is drawn."""

    max_records: int = Field(
        500, gt=0, description="records of each cohort at most, at random; our default, CAPE 10,000"
    )
    perplexity: float = Field(
        30.0, gt=1, description="of t-SNE; scikit-learn's and openTSNE's default, unstated in CAPE"
    )


class _Map(Spec):
    """Places of the records drawn for one set of weights, rounded to what a picture can show."""

    name: str  # of the weights
    method: Literal["t-SNE", "PCA"]
    perplexity: float | None
    points: tuple[tuple[float, float], ...]


class Result(Spec):
    """One map for each set of weights, of the same records."""

    cohorts: tuple[str, ...]
    cohort: tuple[int, ...]  # per point, place in `cohorts`
    rows: tuple[int, ...]  # per point, row of the store
    maps: tuple[_Map, ...]


def run(context: Context, config: Config) -> Result:
    """Place at most `max_records` random records of every cohort.

    t-SNE from a PCA start on units z-scored with the guarded scaler; PCA alone where records are too few for it.
    """
    cohorts, codes = np.unique(context.cohorts, return_inverse=True)
    chosen = np.sort(np.concatenate([_some(np.flatnonzero(codes == code), config.max_records, context.seed, str(name))
                                     for code, name in enumerate(cohorts)]))  # fmt: skip
    maps = []
    for subject in context.subjects:
        # Of several initialisations the first: a mean of pictures is none.
        maps.append(_placed(subject.name, subject.features[chosen], context.seed, config.perplexity))
        context.progress(len(maps), len(context.subjects))
    return Result(
        cohorts=tuple(cohorts.tolist()),
        cohort=tuple(codes[chosen].tolist()),
        rows=tuple(context.index["row"][chosen].tolist()),
        maps=tuple(maps),
    )


def tables(result: Result) -> Sequence[Table]:
    """Which records are drawn."""
    drawn = np.bincount(result.cohort, minlength=len(result.cohorts))
    frame = pd.DataFrame({"records drawn": drawn}, index=list(result.cohorts))
    return [Table("records drawn", frame, folded=True)]


def figures(result: Result) -> Sequence[Figure]:
    """Draw the maps, in the order of the weights."""
    codes = np.array(result.cohort, np.int64)
    drawn = []
    for one in result.maps:
        how = "first two principal components" if one.method == "PCA" else f"t-SNE, perplexity {one.perplexity:g}"
        points = np.array(one.points, np.float64).reshape(-1, 2)
        drawn.append(Figure(one.name, scatter(f"{one.name}: {how}", points, codes, result.cohorts)))
    return drawn


def _placed(name: str, features: Features, seed: int, perplexity: float) -> _Map:
    z = fit_scaler(features, "guarded")(features)
    # openTSNE wants three times as many neighbours as the perplexity, and points that differ.
    few = len(z) < 3 * perplexity + 2 or not z.any()
    points = _pca(z) if few else _tsne(z, perplexity, derive_seed(seed, "map") % 2**31)
    return _Map(
        name=name,
        method="PCA" if few else "t-SNE",
        perplexity=None if few else perplexity,
        points=tuple((float(x), float(y)) for x, y in points.round(3)),
    )


def _some(places: NDArray[np.int64], at_most: int, seed: int, name: str) -> NDArray[np.int64]:
    if len(places) <= at_most:
        return places
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "map", name)))
    return generator.choice(places, at_most, replace=False)


def _pca(z: Features) -> NDArray[np.float64]:
    """First two principal components, each pointing where its largest entry is positive; zeros where there is none."""
    centred = z.astype(np.float64) - z.mean(axis=0, dtype=np.float64)
    if min(centred.shape) < 2:
        return np.zeros((len(z), 2))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary and differs between LAPACK builds: fix it, or pictures flip.
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    return np.asarray(centred @ (axes[:2] * signs[:, None]).T)


def _tsne(z: Features, perplexity: float, seed: int) -> NDArray[np.float64]:
    from openTSNE import TSNE, initialization

    # With a random start the global layout is arbitrary; from PCA it is not (Kobak and Linderman 2021).
    start = initialization.rescale(_pca(z))
    fit = TSNE(
        perplexity=perplexity, initialization=start, early_exaggeration_iter=_EARLY, n_iter=_LATE, random_state=seed
    ).fit(z)
    return np.asarray(fit)
