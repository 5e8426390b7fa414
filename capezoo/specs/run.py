"""RunConfig: everything that decides the weights of a pretraining run, given a store.

Every number says where it comes from in its description: "CAPE" is arXiv 2509.10369, "PCLR" broadinstitute/ml4h,
"Keras" a default of the framework CAPE used; "our default" means that no source states it.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from capezoo.specs.base import PartSpec, Share, Spec, fingerprint
from capezoo.specs.input import InputSpec


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
