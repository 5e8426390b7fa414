"""WeightCard: the label on published weights."""

from typing import Literal

from pydantic import Field

from capezoo.specs.base import SHA256, Spec
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec, ObjectiveSpec, RunConfig


class Metric(Spec):
    """One measured number with its interval, and what it was measured on."""

    name: str  # such as "age_mae_years"
    cohort: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = Field(default=None, ge=0)
    method: str = ""  # how value and interval were made, command included


class CohortUse(Spec):
    """A cohort as it was used in training."""

    name: str
    patients: int = Field(ge=0)
    records: int = Field(ge=0)
    licence: str = "unknown"


class Training(Spec):
    """What the weights were made from and with."""

    run: RunConfig
    cohorts: tuple[CohortUse, ...]
    store_fingerprint: str
    record_digests: SHA256 | None = None  # of the file that lists the waveform digests of all training records
    digest_key: str | None = Field(
        default=None, max_length=64, description="fingerprint of the key that the publisher keeps, if digests are keyed"
    )
    steps: int = Field(ge=0)
    command: str = ""
    commit: str = ""
    versions: dict[str, str] = Field(default_factory=dict)  # of libraries


class Golden(Spec):
    """A fixed synthetic input and the embedding it must give."""

    file: str = "golden.npz"
    sha256: SHA256
    tolerance: float = Field(
        default=1e-4, gt=0, description="largest difference of embeddings over the largest expected value; our default"
    )


class WeightCard(Spec):
    """The label on published weights."""

    card_version: Literal[1] = 1
    name: str
    version: str
    summary: str = ""
    encoder: EncoderSpec
    input: InputSpec
    objective: ObjectiveSpec | None = None  # None: random or imported weights
    parameters: int = Field(ge=0)
    embedding_dim: int = Field(gt=0)
    training: Training | None = None
    weights_licence: str = "unknown"
    data_licences: dict[str, str] = Field(default_factory=dict)  # cohort -> licence
    metrics: tuple[Metric, ...] = ()
    intended_use: str = ""
    known_failures: tuple[str, ...] = ()
    sha256: dict[str, SHA256] = Field(default_factory=dict)  # file name -> digest, weights included
    golden: Golden | None = None
    half_cosine: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="stored in half precision: least cosine of a golden embedding to the one in full; None: in full",
    )
