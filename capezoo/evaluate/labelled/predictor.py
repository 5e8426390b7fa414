"""A linear model on the features of published weights, as a folder of plain numbers, and its answers for new files.

    FOLDER/encoder/                the weight folder, as `capezoo pull` copies it
    FOLDER/predictor.json          what is answered, from which weights, and how it was tested
    FOLDER/predictor.safetensors   means, scales, coefficients

Nothing in it is a pickle. The folder may be hostile: sizes and shapes are checked before they are used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from capezoo.evaluate.labelled.examples import Kind, Labelled, read_covariates
from capezoo.evaluate.labelled.probe import Row, fitted
from capezoo.specs.base import Spec, parse
from ecgcohorts.errors import SourceError, SpecError, UnreadableRecording
from ecgcohorts.io.durable import sync_folder, write_file
from ecgcohorts.io.regular import read_bounded

if TYPE_CHECKING:
    from torch import nn

ENCODER, ABOUT, NUMBERS = "encoder", "predictor.json", "predictor.safetensors"
# Bytes of either file; 20 classes of 65,536 features have 10 MB.
_LIMIT = 64 << 20
_NAMES = ("fill", "mean", "scale", "coefficient", "intercept")


class About(Spec):
    """predictor.json: what is answered, and how."""

    format: Literal["capezoo-predictor"] = "capezoo-predictor"
    format_version: Literal[1] = 1
    target: str = Field(max_length=200)
    kind: Kind
    classes: tuple[str, ...] = Field(max_length=100)
    covariates: tuple[str, ...] = Field(default=(), max_length=100, description="columns to be given beside the ECG")
    features: int = Field(gt=0, le=1 << 16, description="of the encoder")
    weights: str = Field(description="SHA-256 over the tensors of the encoder, as embeddings have it")
    threshold: float | None = Field(description="of the probability; chosen in cross-validation")
    records: int = Field(gt=0, description="that it was fitted on")
    patients: int = Field(gt=0)
    tested: dict[str, tuple[float, float | None, float | None]] = Field(
        description="metric of cross-validation on the same recordings: value and 95 % interval"
    )


@dataclass(frozen=True, eq=False)
class Predictor:
    """A linear model. numbers: fill, mean, scale (input,), coefficient (output, input), intercept (output,)."""

    about: About
    numbers: Mapping[str, NDArray[np.float64]]

    @classmethod
    def fit(cls, data: Labelled, row: Row, target: str, weights: str, seed: int = 0) -> Self:
        """Fit on all recordings of the table that `row` tested. weights: digest of the encoder's tensors."""
        features = data.features[row.name]
        x = np.hstack([features, data.covariates])
        model = fitted(x, data.target, data.patient, data.kind, "linear", seed)
        imputer, scaler, last = (step for _, step in model.best_estimator_.steps)
        # scikit-learn keeps one row for two classes, and none for a regression.
        numbers = {
            "fill": imputer.statistics_,
            "mean": scaler.mean_,
            "scale": scaler.scale_,
            "coefficient": np.atleast_2d(last.coef_),
            "intercept": np.atleast_1d(last.intercept_),
        }
        about = About(
            target=target,
            kind=data.kind,
            classes=data.classes,
            covariates=data.covariate_names,
            features=features.shape[1],
            weights=weights,
            threshold=row.table.get("threshold"),
            records=len(x),
            patients=len(np.unique(data.patient)),
            tested={name: (found.value, *found.interval().limits) for name, found in row.metrics.items()},
        )
        return cls(about, {name: np.asarray(array, np.float64) for name, array in numbers.items()})

    def answers(self, features: NDArray[Any], covariates: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return numbers, or probabilities (record, class). covariates: (record, covariate), NaN where unknown.

        Raises SpecError if either has another width than the model was fitted on.
        """
        given = np.empty((len(features), 0)) if covariates is None else covariates
        if features.shape[1] != self.about.features or given.shape[1] != len(self.about.covariates):
            expected = (
                f"{self.about.features} and {len(self.about.covariates)}: {', '.join(self.about.covariates) or 'none'}"
            )
            raise SpecError(
                f"found {features.shape[1]} features and {given.shape[1]} covariates, expected {expected}. Use its own encoder."
            )
        x = np.hstack([features, given]).astype(np.float64)
        x = np.where(np.isnan(x), self.numbers["fill"], x)
        scaled = (x - self.numbers["mean"]) / self.numbers["scale"]
        output = scaled @ self.numbers["coefficient"].T + self.numbers["intercept"]
        if self.about.kind == "number":
            return output[:, 0]
        if self.about.kind == "binary":
            positive = 1 / (1 + np.exp(-output[:, 0]))
            return np.stack([1 - positive, positive], axis=1)
        odds = np.exp(output - output.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def save(self, folder: Path) -> None:
        """Write the two files of the model into a folder that holds the encoder."""
        from safetensors.numpy import save

        write_file(folder / NUMBERS, save({name: np.ascontiguousarray(one) for name, one in self.numbers.items()}))
        write_file(folder / ABOUT, json.dumps(self.about.model_dump(mode="json"), indent=2).encode())
        sync_folder(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the two files. Raises SourceError if one is missing or damaged, SpecError if they say what cannot be."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            text = read_bounded(folder / ABOUT, _LIMIT).decode("utf-8", "replace")
            numbers = load(read_bounded(folder / NUMBERS, _LIMIT))
        except UnreadableRecording as error:
            raise SourceError(
                f"{folder}: found no predictor ({error.found}), expected {ABOUT} and {NUMBERS}."
            ) from None
        except (SafetensorError, ValueError, KeyError) as error:
            raise SourceError(
                f"{folder / NUMBERS}: found no whole file of numbers ({error}). Publish it again."
            ) from None
        about = parse(About, text, str(folder / ABOUT))
        width, outputs = about.features + len(about.covariates), len(about.classes) if about.kind == "classes" else 1
        shapes = dict.fromkeys(_NAMES[:3], (width,)) | {"coefficient": (outputs, width), "intercept": (outputs,)}
        found = {name: array.shape for name, array in numbers.items()}
        fine = found == shapes and all(
            array.dtype == np.float64 and np.isfinite(array).all() for array in numbers.values()
        )
        if not fine or (numbers["scale"] <= 0).any():
            raise SpecError(
                f"{folder / NUMBERS}: found arrays {found}, expected finite float64 {shapes}. Publish it again."
            )
        return cls(about, numbers)

    def require(self, model: "nn.Module") -> None:
        """Raise SpecError for weights that this model was not fitted on."""
        from capezoo.embedding.folder import weights_digest

        if weights_digest(model) != self.about.weights:
            raise SpecError(
                "found an encoder with other weights than the model was fitted on. Take the folder as it was published."
            )


class Answers:
    """Turns facts and features of recordings into columns of answers, for `embed_files`.

    covariates: table with a row for each file, if the model takes any. Raises SpecError if it takes them and there is none, or
    the other way round. unknown: recordings so far of which a covariate is not known, and was filled.
    """

    def __init__(self, predictor: Predictor, covariates: Path | None = None, key: str = "file") -> None:
        self._predictor, self._table, self.unknown = predictor, None, 0
        wanted = predictor.about.covariates
        if bool(wanted) != (covariates is not None):
            found = "no table of covariates" if covariates is None else "a table of covariates"
            raise SpecError(f"found {found}, expected {', '.join(wanted) or 'none'}, as the model was fitted with.")
        if covariates is not None:
            self._table = read_covariates(covariates, key, wanted)

    def __call__(self, facts: pd.DataFrame, features: NDArray[np.float32]) -> pd.DataFrame:
        about, given = self._predictor.about, None
        if self._table is not None:
            given = self._table.of(facts)
            self.unknown += int(np.isnan(given).any(axis=1).sum())
        found = self._predictor.answers(features, given)
        if about.kind == "number":
            return pd.DataFrame({about.target: found})
        columns = {f"{about.target}: {name}": found[:, at] for at, name in enumerate(about.classes)}
        chosen = found.argmax(axis=1) if about.threshold is None else (found[:, 1] >= about.threshold).astype(np.int64)
        return pd.DataFrame({**columns, about.target: np.array(about.classes, object)[chosen]})
