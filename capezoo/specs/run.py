"""RunConfig: everything that decides the weights of a pretraining run, given a store.

Every number says where it comes from in its description: "CAPE" is arXiv 2509.10369, "PCLR" broadinstitute/ml4h,
"Keras" a default of the framework CAPE used; "our default" means that no source states it.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from capezoo.specs.base import MAX_LAYERS, PartSpec, Share, Spec, fingerprint
from capezoo.specs.input import InputSpec
from ecgcohorts.errors import SpecError


class EncoderSpec(PartSpec):
    """An encoder: a module of `capezoo.encoders` and its settings."""

    name: str = "cape_resnet"


class ObjectiveSpec(PartSpec):
    """An objective: a module of `capezoo.objectives` and its settings."""

    name: str = "info_nce"


class ViewSpec(PartSpec):
    """A view: a module of `capezoo.views`, one perturbation of a window, and its settings."""


# What a stranger's run may ask for: a batch is made whole before anything else finds that it is too large.
_MOST_VIEWS, _MOST_GROUPS = 64, 1 << 20
Pairing = Literal["patient", "record", "adjacent"]
Singles = Literal["drop", "self"]


class SamplerSpec(Spec):
    """Which windows share a batch, and which of them are views of one thing.

    `in_distribution`: each batch from one cohort (CAPE-Z), whatever the pairing. Mixed over cohorts: `patient_pairs` for
    pairing by patient (CAPE-X), `random_batches` for the others.
    """

    name: Literal["in_distribution", "patient_pairs", "random_batches"] = "in_distribution"
    pairing: Pairing = Field(
        default="patient",
        description="two views are recordings of one patient (CAPE), crops of one recording (SimCLR, BYOL), or "
        "neighbouring windows of one recording (CMSC)",
    )
    views: int = Field(default=2, ge=1, le=_MOST_VIEWS, description="of each patient or recording in a batch; CAPE")
    groups: int = Field(
        default=512,
        ge=2,
        le=_MOST_GROUPS,
        description="patients in the global batch, recordings where pairing is not by patient; CAPE (1,024 ECGs)",
    )
    singles: Singles = Field(
        default="drop", description="patients with one ECG: left out (CAPE), or paired with another crop of it (ours)"
    )
    small_groups: Literal["raise", "drop"] = Field(
        default="raise",
        description="cohorts too small for a batch: refused, or left out and named; our default",
    )
    cohort_temperature: float = Field(
        default=1.0,
        ge=0,
        description="batches per cohort in proportion to patients ** this, in_distribution by patient only; unstated: "
        "our default",
    )
    in_distribution_share: tuple[tuple[float, float], ...] | None = Field(
        default=None,
        description="(epoch, share of in-distribution batches) joined by straight lines, other batches are mixed; "
        "in_distribution only; none: all batches have one cohort (CAPE-Z)",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.in_distribution_share and (self.name != "in_distribution" or self.cohort_temperature != 1):
            raise ValueError("in_distribution_share needs name=in_distribution and cohort_temperature=1")
        if self.pairing != "record" and self.views < 2:
            raise ValueError(f"pairing {self.pairing} with one view: set views to 2 or more, or pairing=record")
        mixed = {"patient_pairs": self.pairing == "patient", "random_batches": self.pairing != "patient"}
        if not mixed.get(self.name, True):
            right = "patient_pairs" if self.pairing == "patient" else "random_batches"
            raise ValueError(f"sampler {self.name} does not pair by {self.pairing}: use {right} or in_distribution")
        return self


_Decay = Annotated[
    float, Field(ge=0, lt=1)
]  # of a running mean: with 1 it would never move, and Adam divides by 1 - beta


class OptimiserSpec(Spec):
    """The update of the weights, and how its numbers change from step to step. CAPE: Adam down a half cosine."""

    lr: float = Field(default=0.1, gt=0, description="highest learning rate, for batches of 1,024 ECGs; CAPE, PCLR")
    betas: tuple[_Decay, _Decay] = Field(default=(0.9, 0.999), description="of Adam; Keras")
    eps: float = Field(default=1e-7, gt=0, description="of Adam; Keras")
    epsilon: Literal["keras", "torch"] = Field(
        default="keras",
        description="where eps is added to the root of the second moment: before its bias is corrected (Keras, which "
        "CAPE used), or after (torch). At step 1 Keras's is 1/sqrt(1 - beta2) = 32 times as large",
    )
    kind: Literal["adam", "adamw", "lars"] = Field(
        default="adam", description="CAPE, PCLR; adamw takes the decay off the weights, not the gradient"
    )
    schedule: Literal["half_cosine", "constant"] = Field(
        default="half_cosine", description="from lr to final_lr per step, lr/2 (1 + cos(pi t/T)) with final_lr 0; CAPE"
    )
    final_lr: float = Field(default=0.0, ge=0, description="where the half cosine ends; CAPE")
    warmup_steps: int = Field(default=0, ge=0, description="linear rise to lr at the start; unstated: our default")
    weight_decay: float = Field(default=0.0, ge=0, description="Keras Adam has none")
    final_weight_decay: float | None = Field(
        default=None, ge=0, description="reached by a half cosine from weight_decay (ECG-JEPA); none: it is constant"
    )
    decay_only_matrices: bool = Field(
        default=False, description="spare what has one axis: norms and biases; torch spares nothing"
    )
    rate_factors: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="factor on the learning rate by beginning of a parameter's name, such as encoder.stem; the longest "
        "that fits counts",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest gradient norm; unstated: our default is no clipping"
    )
    momentum: Share = Field(default=0.9, description="of lars; You et al., arXiv 1708.03888")
    trust: float = Field(default=1e-3, gt=0, description="of lars, times |weight| / |gradient|; SimCLR, BYOL")

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.final_lr > self.lr:
            raise ValueError(f"final_lr {self.final_lr}: give at most lr, {self.lr}")
        return self

    def require_fitting(self, names: Collection[str]) -> None:
        """Raise SpecError for a rate factor that fits no parameter: misspelt, it would change nothing in silence."""
        unfit = [prefix for prefix in self.rate_factors if not any(name.startswith(prefix) for name in names)]
        if unfit:
            tops = sorted({".".join(name.split(".")[:2]) for name in names})
            raise SpecError(f"optimiser.rate_factors: no parameter's name begins with {unfit[0]!r}. Names begin with "
                            f"{', '.join(tops)}.")  # fmt: skip


class HeldOutSpec(Spec):
    """Patients kept out of training, on whom loss and collapse are watched."""

    fraction: float = Field(
        default=0.1, ge=0, lt=1, description="of patients, by a hash of their pseudonym; our default"
    )
    salt: str = Field(default="pretrain-v1", description="names the split: the same in every run that should share it")
    split: str | None = Field(
        default=None,
        description="split kept in the store, instead of `fraction`: its part train trains, val is watched, no other is used",
    )
    train_percent: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="of the training patients, by a hash with `salt`: a larger share contains every smaller one",
    )
    every_steps: int = Field(default=250, gt=0, description="between two evaluations; our default")
    batches_per_cohort: int = Field(default=8, gt=0, description="at most, fixed by the seed; our default")


class ProbeSpec(Spec):
    """Small classifiers on embeddings of held-out patients, one unaugmented central window each."""

    patients: int = Field(default=250, ge=0, description="per cohort at most; 0: no probes; our default")
    every_steps: int = Field(default=1000, gt=0, description="between two measurements; our default")


class ComputeSpec(Spec):
    """How the numbers are computed.

    On a CPU with one process `precision`, `compile` and `batch_norm=per_cohort` alone have an effect.
    """

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
    batch_norm: Literal["sync", "local", "per_cohort"] = Field(
        default="sync",
        description="statistics of the whole batch, as on one GPU (torch synchronises GPUs only); of each process's "
        "share; or of each cohort's part of that share, in mixed batches; our default",
    )


class RunConfig(Spec):
    """Everything that decides the weights of a pretraining run, given a store."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(ge=0, lt=2**31)  # no default: a run states its seed
    encoder: EncoderSpec = EncoderSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    input: InputSpec = InputSpec()
    sampler: SamplerSpec = SamplerSpec()
    views: tuple[ViewSpec, ...] = Field(
        default=(ViewSpec(name="zero_span"),),
        max_length=MAX_LAYERS,
        description="applied in this order; CAPE masks, without numbers",
    )
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
    version: Literal[2] = Field(default=2, description="of these fields; values of version 1 had none, and still read")

    @model_validator(mode="before")
    @classmethod
    def _of_this_version(cls, values: Any) -> Any:
        return _upgraded(values) if isinstance(values, Mapping) and _is_first_version(values) else values

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON."""
        return fingerprint(self)


def _is_first_version(values: Mapping[str, Any]) -> bool:
    """Version 1 wrote no version; its sampler counted `pairs`, and its views were one mapping."""
    sampler = values.get("sampler")
    has_pairs = isinstance(sampler, Mapping) and "pairs" in sampler
    return "version" not in values and (has_pairs or isinstance(values.get("views"), Mapping))


_SPAN_1 = {"probability": 0.5, "samples": [140, 560]}  # defaults of version 1, and of zero_span at its 400 Hz


def _upgraded(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run of version 1 in the fields of version 2. Unknown keys stay, for the parser to name."""
    new = dict(old)
    if isinstance(old.get("sampler"), Mapping):
        new["sampler"] = {"groups" if key == "pairs" else key: value for key, value in old["sampler"].items()}
    if isinstance(old.get("views"), Mapping):
        views = dict(old["views"])
        # The span was drawn before the gain, also where it had no effect: in this order the numbers are the same.
        span = {key: views.pop(f"mask_{key}", value) for key, value in _SPAN_1.items()}
        span["samples"] = list(span["samples"])
        gain = list(views.pop("gain_range", (1.0, 1.0)))
        if views:
            raise ValueError(f"views of version 1 have no {', '.join(map(str, views))}")
        # Only what differs from defaults that are still the same, as a run of today would say it.
        new["views"] = [{"name": "zero_span", "config": {key: span[key] for key in span if span[key] != _SPAN_1[key]}}]
        if gain != [1.0, 1.0]:
            new["views"].append({"name": "gain", "config": {"range": gain}})
    if isinstance(old.get("optimiser", {}), Mapping):
        new["optimiser"] = {"epsilon": "torch", **old.get("optimiser", {})}
    return new
