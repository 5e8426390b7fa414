"""An encoder as a transformer of scikit-learn, for pipelines, cross-validation and grids."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from capezoo.embedding.adapt import Mains, MissingLeads
from capezoo.embedding.embed import OnError, embed
from capezoo.zoo.create import load
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from torch import nn


class EcgEmbedder(TransformerMixin, BaseEstimator):
    """Turns ECGs into features of published weights: one row each, one column a feature.

    weights: name, folder or address of published weights, or a loaded model. The others are as for `capezoo.embed`; arrays
    need rate_hz, leads and unit. X is what `capezoo.embed` takes beside stores: paths of files with one recording each,
    recordings, or an array (record, lead, time). Nothing is learnt from X or y: `fit` loads the weights.
    With `set_output(transform="pandas")`, columns are called feature_0 and so on.
    """

    def __init__(
        self,
        weights: "str | Path | nn.Module" = "cape_resnet.small_z",
        *,
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        mains_hz: Mains = "auto",
        missing_leads: MissingLeads = "refuse",
        on_error: OnError = "raise",
        device: str | None = None,
    ) -> None:
        # As they come, under these names: scikit-learn reads, sets and copies them.
        self.weights = weights
        self.rate_hz = rate_hz
        self.leads = leads
        self.unit = unit
        self.mains_hz = mains_hz
        self.missing_leads = missing_leads
        self.on_error = on_error
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the weights. Raises what `capezoo.load` raises."""
        self.model_ = load(self.weights) if isinstance(self.weights, str | Path) else self.weights
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features, (record, feature). Raises what `capezoo.embed` raises, and SpecError for files of several recordings."""
        check_is_fitted(self)
        settings = {name: value for name, value in self.get_params(deep=False).items() if name != "weights"}
        if not isinstance(X, np.ndarray | list | tuple) and hasattr(X, "tolist"):
            X = X.tolist()  # a column of paths, as pandas has it
        elif isinstance(X, np.ndarray) and X.dtype.kind in "UO":
            X = X.ravel().tolist()
        found = embed(self.model_, X, **settings)
        # A row more or fewer would put every later answer beside another ECG.
        if isinstance(X, list | tuple) and len(found) != len(X):
            raise SpecError(
                f"found {len(found)} recordings in {len(X)} files, expected one in each. Read them first: ecgcohorts.read."
            )
        return found

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the columns."""
        check_is_fitted(self)
        width = int(self.model_.num_features)  # type: ignore[arg-type]
        return np.array([f"feature_{number}" for number in range(width)], dtype=np.object_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags
