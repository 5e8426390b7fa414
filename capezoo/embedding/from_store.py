"""Features of every recording of a store: central windows, adapted and scaled as the weights ask."""

import copy
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation, window_starts
from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import lead_statistics, scaled
from capezoo.zoo.forward import BATCH, _features, _has_batch_norm, estimate_batch_norm
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.loading.loader import read_ahead
from ecgcohorts.recording import MISSING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ecgcohorts.store.reader import AnyStore

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
# Whose statistics BatchNorm uses: those kept in training, or those of the recording's own cohort.
BatchNorm = Literal["running", "per_cohort"]
_NO_BATCH_NORM = (
    "found batch_norm=per_cohort and weights without BatchNorm, expected weights with it. Leave it at running."
)
_BLOCKS_AHEAD = 2  # 46 MB of windows
# A few hundred settle a mean and a deviation a channel (each window has thousands of samples); our defaults.
_NORM_WINDOWS, _NORM_BLOCK = 512, 128
_FEW_WINDOWS = 20  # below which statistics say more of these people than of the cohort; our default


def store_features(
    model: "nn.Module",
    store: "AnyStore",
    plan: Adaptation,
    progress: Progress | None = None,
    device: str | None = None,
    batch_norm: BatchNorm = "running",
) -> NDArray[np.float32]:
    """Return features (record, unit) in the order of the index. progress: told records done and in all.

    device: auto, cpu, cuda or cuda:N; None: where the model is. batch_norm: as for `embed`.
    Raises StoreError for a recording shorter than the window, SpecError for weights that give no numbers.
    """
    count = len(store.index)
    found, done = np.empty((count, int(model.num_features)), np.float32), 0  # type: ignore[arg-type]
    for block in _blocks(model, store, plan, [range(count)], device, batch_norm):
        found[done : done + len(block)] = block
        done += len(block)
        if progress:
            progress(done, count)
    return found


def estimate_norms(
    model: "nn.Module",
    store: "AnyStore",
    plan: Adaptation,
    entries: NDArray[np.int64],
    device: str | None = None,
) -> "nn.Module":
    """Set BatchNorm statistics of a model to those of recordings of a store, in place; return the model.

    entries: of the index; at most 512 of them, evenly spaced, are read, and nothing but their signals. The same entries
    give the same statistics. A model without BatchNorm stays as it is. Raises as `store_features` does, and SpecError for
    no entries.
    """
    spec, index = InputSpec.of_model(model), store.index
    chosen = np.sort(entries)[
        np.linspace(0, len(entries) - 1, min(len(entries), _NORM_WINDOWS)).round().astype(np.int64)
    ]
    # Dealt out like cards: a block of one cohort would hide how far the means of cohorts lie apart.
    count = -(-len(chosen) // _NORM_BLOCK)
    parts = [chosen[first::count] for first in range(count)]
    starts = window_starts(index["valid_start"], index["valid_stop"], spec.length)
    made = _windows(store, spec, plan, starts, parts)
    with closing(read_ahead(made, _BLOCKS_AHEAD, store.refuse_removed)) as windows:
        return estimate_batch_norm(model, windows, device)


def _blocks(
    model: "nn.Module",
    store: "AnyStore",
    plan: Adaptation,
    entries: Sequence[range],
    device: str | None = None,
    batch_norm: BatchNorm = "running",
) -> Generator[NDArray[np.float32], None, None]:
    """Yield features of some ranges of the index, in blocks of at most BATCH from the start of each range on.

    The same block gives the same bits whatever is embedded with it. Raises as `store_features` does.
    """
    spec, index = InputSpec.of_model(model), store.index
    # All of them now: a short one must not be found after hours.
    starts = window_starts(index["valid_start"], index["valid_stop"], spec.length)
    parts = [range(first, min(first + BATCH, each.stop)) for each in entries for first in each[::BATCH]]
    own = _OwnNorms(model, store, plan, device) if batch_norm == "per_cohort" else None
    if own:
        parts = [piece for part in parts for piece in _of_one(part, index["cohort"])]
    # Read and scaled in a thread of its own while the block before is computed.
    made = _windows(store, spec, plan, starts, parts)
    with closing(read_ahead(made, _BLOCKS_AHEAD, store.refuse_removed)) as windows:
        for cohort, run in groupby(parts, lambda part: int(index["cohort"][part.start]) if own else None):
            fitted = model if own is None or cohort is None else own.of(cohort)
            for block in _features(fitted, islice(windows, len(list(run))), device):
                if not np.isfinite(block).all():
                    raise SpecError(
                        "found embeddings that are no finite numbers, expected numbers. Check the weights: capezoo verify"
                    )
                yield block


class _OwnNorms:
    """A copy of a model, with the BatchNorm statistics of one cohort of a store after the other."""

    def __init__(self, model: "nn.Module", store: "AnyStore", plan: Adaptation, device: str | None) -> None:
        if not _has_batch_norm(model):
            raise SpecError(_NO_BATCH_NORM)
        self._model, self._store, self._plan, self._device = copy.deepcopy(model), store, plan, device
        self._known: dict[int, dict[str, Tensor]] = {}

    def of(self, cohort: int) -> "nn.Module":
        """Return the model with the statistics of this cohort's recordings; the model before has them then, too."""
        if cohort not in self._known:
            index = self._store.index
            entries = np.flatnonzero(index["cohort"] == cohort)
            if len(entries) < _FEW_WINDOWS:
                name = index.cohorts[cohort]
                log.warning("BatchNorm statistics of cohort %s: estimated on %d recordings alone", name, len(entries))
            # Estimated anew: a layer sees what the layers before make of this cohort, not of the one before.
            estimate_norms(self._model, self._store, self._plan, entries, self._device)
            self._known[cohort] = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        self._model.load_state_dict(self._known[cohort], strict=False)
        return self._model


def _of_one(part: range, cohort: NDArray[np.integer]) -> Iterator[range]:
    """Cut a range of the index where the cohort changes."""
    inner = cohort[part.start : part.stop]
    edges = [part.start, *(part.start + 1 + np.flatnonzero(np.diff(inner))).tolist(), part.stop]
    yield from (range(first, stop) for first, stop in pairwise(edges))


def _windows(
    store: "AnyStore",
    spec: InputSpec,
    plan: Adaptation,
    starts: NDArray[np.int64],
    parts: Sequence[range] | Sequence[NDArray[np.int64]],
) -> Iterator[NDArray[np.float32]]:
    """Yield the windows that the encoder sees, float32 (record, lead, time), part by part: entries of the index."""
    index = store.index
    known = [lead for lead in spec.leads if lead not in plan.zeroed]
    scales = lead_statistics(index, np.arange(len(index)), known, spec.normalisation)
    for each in parts:
        part = np.asarray(each)
        strips = store.read(index["row"][part])
        windows = np.stack([s[:, at : at + spec.length] for s, at in zip(strips, starts[part], strict=True)])
        if (windows == MISSING).any():
            raise StoreError(f"{store.path}: found missing samples inside a valid part. Run: ecgcohorts verify")
        # float32 before the leads are combined: halves of whole microvolts are exact in it.
        windows_mv = plan.fit(windows * np.float32(store.recipe.lsb_uv / 1000), store.recipe.leads, spec)
        statistics = (scales[0][part], scales[1][part]) if scales else None
        if statistics is not None and plan.zeroed:
            # A lead fed as 0 mV has a deviation of 0, so that it stays 0 whatever its mean.
            at = [spec.leads.index(lead) for lead in known]
            whole = np.zeros((2, len(windows_mv), len(spec.leads)), np.float32)
            whole[:, :, at] = statistics
            statistics = (whole[0], whole[1])
        yield scaled(windows_mv, spec.normalisation, statistics=statistics)
