"""The embedding in two dimensions, coloured by cohort: an illustration. The numbers are in `separability`."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.evaluate.measure.scalers import fit_scaler
from capezoo.evaluate.page.figures import scatter
from capezoo.specs import Spec, derive_seed

PERPLEXITY = 30.0  # scikit-learn's and openTSNE's default; unstated in CAPE
EARLY, LATE = 250, 750  # iterations; scikit-learn's 1,000 in all
MAX_RECORDS = 500  # per cohort; our default. CAPE draws 10,000


class EmbeddingMap(Spec):
    """Places of some records. `points` are rounded to what a picture can show."""

    name: str  # of the weights
    method: Literal["t-SNE", "PCA"]
    perplexity: float | None
    seed: int
    cohorts: tuple[str, ...]
    cohort: tuple[int, ...]  # per point, place in `cohorts`
    rows: tuple[int, ...]  # per point, row of the store
    points: tuple[tuple[float, float], ...]

    def svg(self) -> str:
        """The map as an SVG picture."""
        how = "first two principal components" if self.method == "PCA" else f"t-SNE, perplexity {self.perplexity:g}"
        return scatter(f"{self.name}: {how}", np.array(self.points), np.array(self.cohort), self.cohorts)


def embedding_map(
    name: str,
    features: NDArray[np.float32],
    cohort: Sequence[str],
    rows: NDArray[np.int64],
    seed: int,
    max_records: int = MAX_RECORDS,
) -> EmbeddingMap:
    """Place at most `max_records` random records of every cohort: features (record, unit), the rest one per record.

    t-SNE from a PCA start on units z-scored with the guarded scaler; PCA alone where records are too few for it.
    """
    names = np.asarray(cohort)
    cohorts, codes = np.unique(names, return_inverse=True)
    chosen = np.sort(np.concatenate([_some(np.flatnonzero(codes == c), max_records, seed, str(n))
                                     for c, n in enumerate(cohorts)]))  # fmt: skip
    z = fit_scaler(features[chosen], "guarded")(features[chosen])
    # openTSNE wants three times as many neighbours as the perplexity, and points that differ.
    few = len(chosen) < 3 * PERPLEXITY + 2 or not z.any()
    points = _pca(z) if few else _tsne(z, derive_seed(seed, "map") % 2**31)
    return EmbeddingMap(
        name=name,
        method="PCA" if few else "t-SNE",
        perplexity=None if few else PERPLEXITY,
        seed=seed,
        cohorts=tuple(cohorts.tolist()),
        cohort=tuple(codes[chosen].tolist()),
        rows=tuple(rows[chosen].tolist()),
        points=tuple((float(x), float(y)) for x, y in points.round(3)),
    )


def _some(places: NDArray[np.int64], at_most: int, seed: int, name: str) -> NDArray[np.int64]:
    if len(places) <= at_most:
        return places
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "map", name)))
    return generator.choice(places, at_most, replace=False)


def _pca(z: NDArray[np.float32]) -> NDArray[np.float64]:
    """First two principal components, each pointing where its largest entry is positive; zeros where there is none."""
    centred = z.astype(np.float64) - z.mean(axis=0, dtype=np.float64)
    if min(centred.shape) < 2:
        return np.zeros((len(z), 2))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    return np.asarray(centred @ (axes[:2] * signs[:, None]).T)


def _tsne(z: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    from openTSNE import TSNE, initialization

    start = initialization.rescale(_pca(z))
    fit = TSNE(
        perplexity=PERPLEXITY, initialization=start, early_exaggeration_iter=EARLY, n_iter=LATE, random_state=seed
    ).fit(z)
    return np.asarray(fit)
