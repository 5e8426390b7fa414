"""What stands in the tables of a study: published weights, and beside them what was never trained.

random         five untrained networks of the first weights' architecture. Their BatchNorm statistics are those of
               recordings that the question trains on, without labels; of the whole store for questions that train nowhere
random-raw     the same networks as they are made, with BatchNorm layers that subtract 0 and divide by 1
measurements   19 simple measures a lead of the windows that the first weights see
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Adaptation
from capezoo.embedding.folder import embed_store, open_embeddings, weights_digest, without_embeddings
from capezoo.embedding.from_store import estimate_norms
from capezoo.encoders import build
from capezoo.evaluate.questions import Subject
from capezoo.evaluate.results import EvaluatedWeights, file_name
from capezoo.specs.base import derive_seed
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.files import DIGEST_BYTES, Architecture
from capezoo.zoo.forward import _has_batch_norm
from ecgcohorts.errors import SpecError, StoreError

if TYPE_CHECKING:
    from torch import nn

    from capezoo.embedding.folder import Embeddings
    from capezoo.specs.card import Training
    from ecgcohorts.store.union import AnyStore

_RANDOM, _RAW, _MEASUREMENTS = "random", "random-raw", "measurements"
NEVER_TRAINED = (_RANDOM, _RAW, _MEASUREMENTS)  # in place of weights
# Our default. Sex AUROC of five networks lay between .62 and .74: one alone says little.
_INITIALISATIONS = 5
Progress = Callable[[str, int, int], None]  # what, done, total
BatchNorms = Literal["running", "per_cohort", "both"]


@dataclass(frozen=True, eq=False)
class Row:
    """One row of the tables, before anything is embedded. Several models are initialisations of one network."""

    evaluated: EvaluatedWeights
    models: "tuple[nn.Module, ...]"
    trained_on: NDArray[np.uint8] | None  # (record, 16); None: unknown
    estimated: bool = False  # BatchNorm statistics are those of recordings that the question trains on
    training: "Training | None" = None  # what the card says of it

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.evaluated.name


@dataclass(frozen=True, eq=False)
class Planned:
    """A row that is still to be trained: what its card will say."""

    name: str
    trained_on: NDArray[np.uint8] | None
    training: "Training | None"


def with_norms(found: Sequence[Row], batch_norm: BatchNorms) -> list[Row]:
    """Return rows with the BatchNorm statistics asked for, under a name that says so."""
    rows = []
    for one in found:
        has_choice = _has_batch_norm(one.models[0])
        if batch_norm != "per_cohort" or not has_choice:
            rows.append(one)
        if batch_norm != "running" and has_choice:
            changes = {"name": f"{one.name}, BatchNorm per cohort", "batch_norm": "per_cohort"}
            rows.append(replace(one, evaluated=one.evaluated.model_copy(update=changes), estimated=False))
    return rows


def never_trained(name: str, folders: Sequence[Path], seed: int) -> Row:
    """Return the row of one of the names NEVER_TRAINED. folders: of the published weights beside it, in their order."""
    # The architecture and the window of the first weights: others would differ in more than training.
    if folders:
        architecture = Architecture.read(folders[0])
        encoder, spec = architecture.encoder, architecture.input
    else:
        encoder, spec = EncoderSpec(), InputSpec()
    models = (_measurements(spec),) if name == _MEASUREMENTS else _untrained(encoder, spec, seed)
    estimated = name == _RANDOM and any(key.endswith("running_mean") for key in models[0].state_dict())
    digest = hashlib.sha256("\0".join([name, *map(weights_digest, models)]).encode()).hexdigest()
    # Nothing was trained on, which is known: not None.
    nothing = np.zeros((0, DIGEST_BYTES), np.uint8)
    return Row(EvaluatedWeights(name=name, weights=digest, card=None), models, nothing, estimated)


def _measurements(spec: InputSpec) -> "nn.Module":
    from capezoo.evaluate.measure.measurements import Measurements

    # In mV where there are any: a scaled window has lost its amplitude, which is half of what there is to measure.
    in_mv = {} if spec.unit == "none" else {"normalisation": "none"}
    return Measurements(spec.model_copy(update=in_mv)).eval()


def _untrained(encoder: EncoderSpec, spec: InputSpec, seed: int) -> "tuple[nn.Module, ...]":
    models = []
    for k in range(_INITIALISATIONS):
        model = build(encoder, derive_seed(seed, "random-encoder", *([k] if k else [])))
        model.spec = spec  # type: ignore[assignment]
        models.append(model.eval())
    return tuple(models)


class Embedder:
    """Embeddings of a store for rows, kept in a folder: the next question about the same ones reads them."""

    def __init__(self, store: "AnyStore", folder: Path, progress: Progress | None, device: str | None) -> None:
        self._store, self._folder, self._progress, self._device = store, folder / "embeddings", progress, device
        self._opened: dict[Path, Embeddings] = {}

    def subjects(self, rows: Sequence[Row], trains_on: NDArray[np.int64], embeds: bool = True) -> tuple[Subject, ...]:
        """Embed the store with each row. trains_on: entries of the index that a question trains on.

        embeds: false for a question that asks models alone; then its subjects have features of no units.
        """
        if not embeds:
            made_of = [(without_embeddings(row.models[0], self._store, row.name, row.evaluated.card, row.evaluated.batch_norm), row)
                       for row in rows]  # fmt: skip
            return tuple(Subject(made, row.trained_on, (), row.models, row.estimated) for made, row in made_of)
        # Only what the question before had: ten untrained embeddings of a million recordings fill 10 GB.
        before, self._opened = self._opened, {}
        found = []
        for row in rows:
            made = [self._embeddings(row, place, trains_on, before) for place in range(len(row.models))]
            found.append(Subject(made[0], row.trained_on, tuple(made[1:]), row.models, row.estimated, row.training))
        return tuple(found)

    def _embeddings(
        self, row: Row, place: int, trains_on: NDArray[np.int64], before: "dict[Path, Embeddings]"
    ) -> "Embeddings":
        model, name = row.models[place], file_name(row.name)
        weights = weights_digest(model)
        if len(row.models) > 1:
            name += f"-{place}"
        if row.estimated:
            entries = np.ascontiguousarray(self._store.index["row"][trains_on], "<i8")
            of_rows = hashlib.sha256(entries.tobytes()).hexdigest()[:16]
            name += f"-{of_rows}"
            # Their digest is known once they are estimated, which takes a while: this says as much.
            weights = f"untrained {weights[:16]}, BatchNorm statistics of rows {of_rows}"
        path = self._folder / name
        # Names that differ may be one name of a file: `a b` and `a_b`. The later row would take the earlier one's place.
        if path in self._opened:
            path = path.with_name(f"{name}-{weights_digest(model)[:16]}")
        self._opened[path] = before.get(path) or self._open(path, row, model, weights) or self._made(
            path, row, place, trains_on, weights
        )  # fmt: skip
        return self._opened[path]

    def _open(self, path: Path, row: Row, model: "nn.Module", weights: str) -> "Embeddings | None":
        """Return the embeddings of an earlier study if weights, statistics and store are the same; remove others."""
        if not path.exists():
            return None
        try:
            made = open_embeddings(path)
        except (StoreError, SpecError):
            # Damaged, or written by an earlier version: embedding again costs minutes, not results.
            made = None
        wanted = (row.name, weights, self._store.fingerprint, InputSpec.of_model(model), row.evaluated.batch_norm)
        if made:
            info = made.info
            known = info.origin if row.estimated else info.weights
            if (info.name, known, info.store_fingerprint, info.input, info.batch_norm) == wanted:
                return made
        shutil.rmtree(path)
        return None

    def _made(self, path: Path, row: Row, place: int, trains_on: NDArray[np.int64], weights: str) -> "Embeddings":
        model, store = row.models[place], self._store
        what = f"embed {row.name}" + (f", {place + 1} of {len(row.models)}" if len(row.models) > 1 else "")
        if row.estimated:
            # Of its own: the next question has other recordings to estimate on.
            model = deepcopy(model)
            plan = Adaptation.of_recipe(InputSpec.of_model(model), store.recipe, str(store.path))
            estimate_norms(model, store, plan, trains_on, self._device)
            model.origin = weights  # type: ignore[assignment]
        told = _part_of(self._progress, what)
        card, norms = row.evaluated.card, row.evaluated.batch_norm
        return embed_store(model, store, path, row.name, card, told, device=self._device, batch_norm=norms)


def _part_of(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    """Return what tells `progress` of one thing."""
    return lambda done, total: None if progress is None else progress(what, done, total)
