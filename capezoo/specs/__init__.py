"""What goes into a run and what comes out, as frozen values that go to JSON and back to an equal object.

Every number says where it comes from in its description: "CAPE" is arXiv 2509.10369, "PCLR" broadinstitute/ml4h,
"Keras" a default of the framework CAPE used; "our default" means that no source states it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from ecgcohorts.errors import RecipeMismatch, SpecError
from ecgcohorts.leads import EIGHT_LEADS, TWELVE_LEADS, canonical
from ecgcohorts.preprocess.recipes import CAPE_V1, Recipe

Share = Annotated[float, Field(ge=0.0, le=1.0)]
SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, no infinities (JSON has none)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnySpec = TypeVar("AnySpec", bound=BaseModel)


def parse(kind: type[AnySpec], values: Mapping[str, Any] | str, where: str) -> AnySpec:
    """Build a spec from a mapping or JSON text. Raises SpecError, in one line, naming the first wrong key."""
    try:
        if isinstance(values, str):
            return kind.model_validate_json(values)
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_beside(kind, first["loc"]))
            raise SpecError(f"{where}: found unknown key {key!r}, expected one of {known}.") from None
        raise SpecError(f"{where}: found {first['input']!r:.80} for {key!r}, expected: {first['msg']}.") from None


class InputSpec(Spec):
    """What an encoder must be fed. Enforced where weights meet signals."""

    leads: tuple[str, ...] = Field(default=EIGHT_LEADS, description="in this order; CAPE")
    rate_hz: float = Field(default=400.0, gt=0, description="samples per second; CAPE")
    length: int = Field(default=2800, gt=0, description="samples per window, 7 s; CAPE")
    unit: Literal["mV"] = Field(default="mV", description="CAPE")
    recipe: str = Field(default=CAPE_V1.name, description="preprocessing recipe of the signals; our default")
    normalisation: Literal["none"] = Field(default="none", description="scaling after the recipe; PCLR feeds plain mV")

    @classmethod
    def of_recipe(cls, recipe: Recipe) -> Self:
        """The input that stores of this recipe serve."""
        return cls(
            leads=recipe.leads,
            rate_hz=recipe.rate_hz,
            length=recipe.window_samples,
            unit=recipe.unit,
            recipe=recipe.name,
        )

    @field_validator("leads")
    @classmethod
    def _known_leads(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        if not leads or len(set(leads)) < len(leads) or any(canonical(lead) != lead for lead in leads):
            raise ValueError(f"some of {' '.join(TWELVE_LEADS)}, each once, spelt like this")
        return leads

    def differences(self, recipe: Recipe) -> dict[str, str]:
        """What signals of `recipe` have otherwise than this spec asks for: name -> found and expected."""
        checks: tuple[tuple[str, object, object], ...] = (
            ("recipe", recipe.name, self.recipe),
            ("leads", recipe.leads, self.leads),
            ("rate_hz", recipe.rate_hz, self.rate_hz),
            ("unit", recipe.unit, self.unit),
        )
        wrong = {
            name: f"{name} {_text(found)} (expected {_text(wanted)})"
            for name, found, wanted in checks
            if found != wanted
        }
        if self.length > recipe.strip_samples:
            wrong["length"] = f"strips of {recipe.strip_samples} samples (expected at least {self.length})"
        return wrong

    def require_recipe(self, recipe: Recipe, what: str = "the store", ignoring: Collection[str] = ()) -> None:
        """Raise RecipeMismatch, naming every difference, unless signals of `recipe` are what this spec asks for.

        ignoring: names of differences that do not count.
        """
        wrong = [text for name, text in self.differences(recipe).items() if name not in ignoring]
        if wrong:
            raise RecipeMismatch(f"{what}: found {'; '.join(wrong)}. Ingest again with recipe {self.recipe!r}, or use "
                                 f"weights made for {recipe.name!r}.")  # fmt: skip


class PartSpec(Spec):
    """A plug-in by its registered name, and the values of its `Config` that differ from the defaults."""

    name: str
    config: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("config", mode="before")
    @classmethod
    def _lists(cls, config: object) -> object:
        """Tuples become lists, as JSON would make them, so that a spec equals its round trip."""
        if not isinstance(config, Mapping):
            return config
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


class EncoderSpec(PartSpec):
    """An encoder: a module of `capezoo.encoders` and its settings."""

    name: str = "cape_resnet"


class ObjectiveSpec(PartSpec):
    """An objective: a module of `capezoo.objectives` and its settings."""

    name: str = "info_nce"


class SamplerSpec(Spec):
    """Which patients share a batch. `in_distribution`: one cohort each (CAPE-Z); `patient_pairs`: mixed (CAPE-X)."""

    name: Literal["in_distribution", "patient_pairs"] = "in_distribution"
    pairs: int = Field(default=512, ge=2, description="patients in the global batch, two ECGs each; CAPE (1,024 ECGs)")
    singles: Literal["drop", "self"] = Field(
        default="drop", description="patients with one ECG: left out (CAPE), or paired with another crop of it (ours)"
    )
    small_groups: Literal["raise", "drop"] = Field(
        default="raise",
        description="cohorts with fewer than `pairs` patients: refused, or left out and named; our default",
    )
    cohort_temperature: float = Field(
        default=1.0,
        ge=0,
        description="batches per cohort in proportion to patients ** this, in_distribution only; unstated: our default",
    )


class ViewsSpec(Spec):
    """Perturbations on the device, after the crop that the batch plan decides. CAPE names them, without numbers."""

    mask_probability: Share = Field(default=0.5, description="chance that a view is masked; unstated: our default")
    mask_samples: tuple[int, int] = Field(
        default=(140, 560),
        description="length of the zeroed span, both ends included, 5-20 % of 7 s; unstated: our default",
    )
    gain_range: tuple[float, float] = Field(
        default=(1.0, 1.0), description="factor on all leads of a view, log-uniform; off: our default"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.mask_samples[0] <= self.mask_samples[1]:
            raise ValueError(f"mask_samples {self.mask_samples}: give 0 < shortest <= longest")
        if not 0 < self.gain_range[0] <= self.gain_range[1]:
            raise ValueError(f"gain_range {self.gain_range}: give 0 < lowest <= highest")
        return self


class OptimiserSpec(Spec):
    """Adam with a half-period cosine per step: lr_t = lr / 2 (1 + cos(pi t / T)), ending at 0."""

    lr: float = Field(default=0.1, gt=0, description="initial learning rate for batches of 1,024 ECGs; CAPE, PCLR")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="Keras")
    eps: float = Field(default=1e-7, gt=0, description="Keras")
    weight_decay: float = Field(default=0.0, ge=0, description="Keras Adam has none")
    warmup_steps: int = Field(default=0, ge=0, description="linear rise to lr before the cosine; unstated: our default")
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest gradient norm; unstated: our default is no clipping"
    )


class HeldOutSpec(Spec):
    """Patients kept out of training, on whom loss and collapse are watched."""

    fraction: float = Field(
        default=0.1, ge=0, lt=1, description="of patients, by a hash of their pseudonym; our default"
    )
    salt: str = Field(default="pretrain-v1", description="names the split: the same in every run that should share it")
    every_steps: int = Field(default=250, gt=0, description="between two evaluations; our default")
    batches_per_cohort: int = Field(default=8, gt=0, description="at most, fixed by the seed; our default")


class ProbeSpec(Spec):
    """Small classifiers on embeddings of held-out patients, one unaugmented central window each."""

    patients: int = Field(default=250, ge=0, description="per cohort at most; 0: no probes; our default")
    every_steps: int = Field(default=1000, gt=0, description="between two measurements; our default")


class ComputeSpec(Spec):
    """How the numbers are computed. On a CPU with one process, `precision` and `compile` alone have an effect."""

    precision: Literal["32-true", "bf16-mixed"] = Field(
        default="32-true", description="bf16-mixed is what GPUs are fast at; the loss is float32 in both; our default"
    )
    tf32: bool = Field(
        default=True,
        description="float32 products on a GPU round their factors to 10 bits; default of the TensorFlow that CAPE used",
    )
    compile: bool = Field(
        default=False, description="the encoder by torch.compile: minutes at the start, faster steps; our default"
    )
    batch_norm: Literal["sync", "local"] = Field(
        default="sync",
        description="statistics of the whole batch, as on one GPU, or of each process's share; torch synchronises "
        "GPUs only; our default",
    )


class RunConfig(Spec):
    """Everything that decides the weights of a pretraining run, given a store."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(ge=0, lt=2**31)  # no default: a run states its seed
    encoder: EncoderSpec = EncoderSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    input: InputSpec = InputSpec()
    sampler: SamplerSpec = SamplerSpec()
    views: ViewsSpec = ViewsSpec()
    optimiser: OptimiserSpec = OptimiserSpec()
    held_out: HeldOutSpec = HeldOutSpec()
    probes: ProbeSpec = ProbeSpec()
    compute: ComputeSpec = ComputeSpec()
    cohorts: tuple[str, ...] = Field(default=(), description="train on these only; empty: all in the store")
    epochs: int = Field(default=200, gt=0, description="CAPE")
    max_steps: int | None = Field(
        default=None, gt=0, description="stop, and end the cosine, here instead of after `epochs`"
    )
    checkpoint_every: int = Field(default=500, gt=0, description="steps; our default")
    keep_checkpoints: int = Field(default=2, gt=0, description="newest kept: one to fall back on; our default")
    log_every: int = Field(default=10, gt=0, description="steps per line of metrics.csv; our default")
    curves: bool = Field(default=True, description="draw curves.png with every checkpoint, if matplotlib is installed")
    tensorboard: bool = Field(default=False, description="write what metrics.csv holds for TensorBoard, too")

    @model_validator(mode="after")
    def _mask_fits(self) -> Self:
        if self.views.mask_probability > 0 and self.views.mask_samples[1] > self.input.length:
            raise ValueError(f"mask of {self.views.mask_samples[1]} samples in a window of {self.input.length}")
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON."""
        return fingerprint(self)


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


def fingerprint(spec: BaseModel) -> str:
    """SHA-256 of a spec's canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def derive_seed(seed: int, *key: str | int) -> int:
    """A seed of its own for one use, from the run's seed and a key such as ("views", step): 63 bits of SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _keys_beside(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Keys of the spec in which the last part of `place` was found."""
    for part in place[:-1]:
        inner = kind.model_fields[part].annotation if isinstance(part, str) else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
