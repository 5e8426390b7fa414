"""Maps: the embedding in two dimensions, coloured by cohort, device, site, sex, age or any column; distances mean little.

Figure 4 of CAPE (arXiv 2509.10369). A map is an illustration: the numbers beside it are measured in the embedding itself, on as
many patients of every value. Cohorts that are projected had no part in the map: they are placed among the records it was fitted
on, so that a new cohort cannot bend it.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.evaluate.measure.parts import draw
from capezoo.evaluate.measure.scalers import Features, fit_scaler
from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.evaluate.questions._colours import Column, columns_of
from capezoo.evaluate.questions._separation import Separation
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.errors import SpecError, require
from ecgcohorts.index.cohort_index import CohortIndex
from ecgcohorts.report.charts import scatter

EXAMPLES = (
    "capezoo evaluate map --weights w/x --weights random --store store.zarr --seed 0 -o study",
    "capezoo evaluate map --weights w/x --store store.zarr --seed 0 --cohort code15 --column device -o study",
    "capezoo evaluate map --weights w/x --store store.zarr --seed 0 --fit ptb_xl --method both --column age -o study",
)
# Iterations; scikit-learn's 1,000 in all.
_EARLY, _LATE = 250, 750
# Of a UMAP; its own default.
_MIN_DISTANCE = 0.1

Method = Literal["t-SNE", "UMAP", "PCA"]


class Config(Spec):
    """What is drawn, and how."""

    method: Literal["tsne", "umap", "both"] = Field("tsne", description="UMAP needs the extra `umap`")
    column: tuple[str, ...] = Field(
        (),
        description="cohort, device, site, sex, age, a label or another column, whose values have colours; repeat for more; "
        "default: the first five, where they vary",
    )
    cohort: tuple[str, ...] = Field((), description="cohort that is drawn; repeat for more; default: all")
    fit: tuple[str, ...] = Field(
        (), description="cohort that the map is fitted on, the others are projected; repeat for more; default: all"
    )
    max_records: int = Field(10_000, gt=0, description="records of each cohort at most, drawn at random; CAPE")
    perplexity: float = Field(
        30.0, gt=1, description="of t-SNE; scikit-learn's and openTSNE's default, unstated in CAPE"
    )
    neighbours: int = Field(15, gt=1, description="of each record, for UMAP and for the share of neighbours")
    max_patients: int = Field(300, ge=5, description="patients of each value, for the numbers; our default")
    min_patients: int = Field(30, gt=0, description="values with fewer patients are drawn, but have no part in numbers")

    def require(self, index: CohortIndex) -> None:
        """Raise SpecError for what the store does not know, and MissingExtra for a package that is not installed."""
        if self.method != "tsne":
            require("umap", "umap")
        for name in (*self.cohort, *self.fit):
            index.cohort_code(name)
        if self.cohort and not set(self.fit) <= set(self.cohort):
            raise SpecError(
                f"found --fit {', '.join(self.fit)}, expected cohorts that are drawn: {', '.join(self.cohort)}."
            )
        for name in self.column:
            Column.require(index, name)


class _Map(Spec):
    """Places of the records drawn for one set of weights, rounded to what a picture can show."""

    name: str  # of the weights
    method: Method
    perplexity: float | None
    points: tuple[tuple[float, float], ...]


class _Colours(Spec):
    """Values of one column, and how far they lie apart in each embedding."""

    name: str
    values: tuple[str, ...]
    ordered: bool  # bands of a number
    codes: tuple[int, ...]  # per point, place in `values`; -1 unknown
    numbers: dict[str, Separation]  # weights -> numbers; none where fewer than two values have patients enough


class Result(Spec):
    """One map for each set of weights and method, of the same records."""

    cohorts: tuple[str, ...]
    cohort: tuple[int, ...]  # per point, place in `cohorts`
    rows: tuple[int, ...]  # per point, row of the store
    maps: tuple[_Map, ...]
    projected: tuple[str, ...] = ()  # cohorts that no map was fitted on
    # Earlier results have none and were coloured by cohort.
    columns: tuple[_Colours, ...] = ()


def run(context: Context, config: Config) -> Result:
    """Place at most `max_records` random records of every cohort.

    Units are z-scored with the guarded scaler over the records that maps are fitted on. t-SNE and UMAP start from PCA; PCA
    alone where records are too few. Of several initialisations the first is drawn: a mean of pictures is none.
    """
    # Beside embeddings lie labels, but no measures of quality. The store has both, of the same recordings in the same order.
    index = context.index if context.store is None else context.store.index
    config.require(index)
    known = np.isin(context.cohorts, config.cohort) if config.cohort else np.ones(len(context.cohorts), bool)
    cohorts, codes = np.unique(context.cohorts[known], return_inverse=True)
    places = np.flatnonzero(known)
    chosen = np.sort(np.concatenate([draw(places[codes == code], config.max_records, derive_seed(context.seed, "map", str(name)))
                                     for code, name in enumerate(cohorts)]))  # fmt: skip
    drawn = context.cohorts[chosen]
    fitted = np.isin(drawn, config.fit) if config.fit else np.ones(len(chosen), bool)
    methods = {"tsne": ["t-SNE"], "umap": ["UMAP"], "both": ["t-SNE", "UMAP"]}[config.method]
    patients = context.index["patient"][chosen]
    columns = columns_of(index, chosen, config.column)
    numbers: dict[str, dict[str, Separation]] = {column.name: {} for column in columns}
    maps = []
    for subject in context.subjects:
        features = subject.features[chosen]
        for method in methods:
            maps.append(_placed(subject.name, features, fitted, method, context.seed, config))
            context.progress(len(maps), len(context.subjects) * len(methods))
        for column in columns:
            found = Separation.of(features, column.texts, patients, context.seed, config.neighbours,
                                  fewest=config.min_patients, most=config.max_patients)  # fmt: skip
            if found:
                numbers[column.name][subject.name] = found
    return Result(
        cohorts=tuple(cohorts.tolist()),
        cohort=tuple(np.searchsorted(cohorts, drawn).tolist()),
        rows=tuple(context.index["row"][chosen].tolist()),
        maps=tuple(maps),
        projected=tuple(name for name in cohorts.tolist() if config.fit and name not in config.fit),
        columns=tuple(_coloured(column, numbers[column.name]) for column in columns),
    )


def tables(result: Result) -> Sequence[Table]:
    """How far the values of each column lie apart, and which records are drawn."""
    rows = {}
    for column in result.columns:
        for weights, found in column.numbers.items():
            rows[f"{column.name}, {weights}"] = [
                f"{found.patients} of each of {len(found.values)}",
                f"{found.probe_auc:.3f}",
                f"{found.neighbours:.3f}",
                f"{1 / len(found.values):.3f}",
                f"{found.silhouette:.3f}",
            ]
    shown = []
    if rows:
        heads = ["patients", "linear probe AUC", "neighbours of the same value", "by chance", "silhouette"]
        caption = (
            "Measured in the embedding, not in the map, on one ECG of each patient and as many patients of every value; values "
            "with too few patients are left out. By chance the AUC is 0.5 and the silhouette 0 or less."
        )
        shown.append(
            Table("How far values lie apart", pd.DataFrame.from_dict(rows, orient="index", columns=heads), caption)
        )
    counts = np.bincount(result.cohort, minlength=len(result.cohorts))
    how = ["projected" if name in result.projected else "fitted" for name in result.cohorts]
    frame = pd.DataFrame({"records drawn": counts, "the map is": how}, index=list(result.cohorts))
    missing = [f"{column.name}: {column.codes.count(-1):,}" for column in result.columns if column.codes.count(-1)]
    caption = f"Not drawn where the value is unknown: {', '.join(missing)}" if missing else ""
    shown.append(Table("records drawn", frame, caption, folded=True))
    return shown


def figures(result: Result) -> Sequence[Figure]:
    """Draw each map once for each column, in the order of the weights."""
    titled = [f"{name} (projected)" if name in result.projected else name for name in result.cohorts]
    columns = result.columns or (
        _Colours(name="cohort", values=result.cohorts, ordered=False, codes=result.cohort, numbers={}),
    )
    drawn = []
    for one in result.maps:
        tsne = "t-SNE" if one.perplexity is None else f"t-SNE, perplexity {one.perplexity:g}"
        how = {"PCA": "first two principal components", "UMAP": "UMAP", "t-SNE": tsne}[one.method]
        points = np.array(one.points, np.float64).reshape(-1, 2)
        for column in columns:
            names = titled if column.name == "cohort" else column.values
            title = f"{one.name}, {one.method}, {column.name}"
            codes = np.array(column.codes, np.int64)
            svg = scatter(f"{one.name}: {how}, by {column.name}", points, codes, names, ordered=column.ordered)
            found = column.numbers.get(one.name)
            drawn.append(Figure(title, svg, _caption(column.name, found)))
    return drawn


def _caption(column: str, found: Separation | None) -> str:
    if found is None:
        return ""
    return (
        f"{column}: probe AUC {found.probe_auc:.3f}, neighbours of the same value {found.neighbours:.3f} "
        f"(chance {1 / len(found.values):.3f}), silhouette {found.silhouette:.3f}"
    )


def _coloured(column: Column, numbers: dict[str, Separation]) -> _Colours:
    return _Colours(
        name=column.name,
        values=column.values,
        ordered=column.ordered,
        codes=tuple(column.codes.tolist()),
        numbers=numbers,
    )


def _placed(name: str, features: Features, fitted: NDArray[np.bool_], method: str, seed: int, config: Config) -> _Map:
    """Fit a map on some of the records and place all of them."""
    z = fit_scaler(features[fitted], "guarded")(features)
    # openTSNE wants three times as many neighbours as the perplexity, and points that differ.
    needed = 3 * config.perplexity + 2 if method == "t-SNE" else config.neighbours + 2
    few = fitted.sum() < needed or not z[fitted].any()
    place: Callable[[Features, Features], tuple[NDArray, NDArray]] = _by_pca
    if not few:
        kept_seed = derive_seed(seed, "map") % 2**31
        place = _by_tsne(config.perplexity, kept_seed) if method == "t-SNE" else _by_umap(config.neighbours, kept_seed)
    points = np.zeros((len(z), 2))
    points[fitted], points[~fitted] = place(z[fitted], z[~fitted])
    is_tsne = method == "t-SNE" and not few
    return _Map(
        name=name,
        method="PCA" if few else "t-SNE" if is_tsne else "UMAP",
        perplexity=config.perplexity if is_tsne else None,
        points=tuple((float(x), float(y)) for x, y in points.round(3)),
    )


def _by_pca(z: Features, others: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First two principal components, each pointing where its largest entry is positive; zeros where there is none."""
    mean = z.mean(axis=0, dtype=np.float64)
    centred = z.astype(np.float64) - mean
    if min(centred.shape) < 2:
        return np.zeros((len(z), 2)), np.zeros((len(others), 2))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary and differs between LAPACK builds: fix it, or pictures flip.
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    directions = (axes[:2] * signs[:, None]).T
    return np.asarray(centred @ directions), np.asarray((others - mean) @ directions)


def _by_tsne(perplexity: float, seed: int) -> Callable[[Features, Features], tuple[NDArray, NDArray]]:
    def place(z: Features, others: Features) -> tuple[NDArray, NDArray]:
        from openTSNE import TSNE, initialization

        # With a random start the global layout is arbitrary; from PCA it is not (Kobak and Linderman 2021).
        start = initialization.rescale(_by_pca(z, others)[0])
        fit = TSNE(
            perplexity=perplexity, initialization=start, early_exaggeration_iter=_EARLY, n_iter=_LATE, random_state=seed
        ).fit(z)
        points = np.array(fit)
        if not len(others):
            return points, np.zeros((0, 2))
        # Each further record moves by itself among its neighbours in the fitted map, which openTSNE centres in place before.
        placed = np.asarray(fit.transform(others))
        return points, placed + (points[0] - np.asarray(fit)[0])

    return place


def _by_umap(neighbours: int, seed: int) -> Callable[[Features, Features], tuple[NDArray, NDArray]]:
    def place(z: Features, others: Features) -> tuple[NDArray, NDArray]:
        from umap import UMAP

        start = _by_pca(z, others)[0]
        # UMAP's own spectral start fails on unconnected graphs and is scaled to 10; several jobs would lose the seed.
        fit = UMAP(
            n_neighbors=neighbours,
            min_dist=_MIN_DISTANCE,
            init=(start / max(float(np.abs(start).max()), 1e-9) * 10).astype(np.float32),
            random_state=seed,
            n_jobs=1,
        ).fit(z)
        return np.asarray(fit.embedding_), np.asarray(fit.transform(others)) if len(others) else np.zeros((0, 2))

    return place
