"""ECG-FM: wav2vec 2.0 with CMSC and random lead masking, 12 leads at 500 Hz, neighbouring windows of 5 s.

Source: arXiv 2408.05178 and its public code, from which the numbers are read. There a batch is 64 pairs on each of four
GPUs, twice before a step: 512 pairs, whose windows are compared 64 by 64. With eight processes it is the same here; with
fewer each compares more, and `sampler.groups` is what one GPU's memory allows. `ecg_fm_small` is ours, for a CPU.
"""

from capezoo.specs.input import InputSpec
from capezoo.specs.run import (
    EncoderSpec,
    HeldOutSpec,
    ObjectiveSpec,
    OptimiserSpec,
    ProbeSpec,
    RunConfig,
    SamplerSpec,
    ViewSpec,
)


def _published(seed: int) -> RunConfig:
    """ECG-FM at the study's numbers."""
    return RunConfig(
        name="ecg_fm",
        seed=seed,
        encoder=EncoderSpec(name="wav2vec2", config={"in_leads": 12}),
        objective=ObjectiveSpec(name="wav2vec2_cmsc"),
        input=InputSpec(recipe="plain-500", normalisation="record_lead_z"),
        sampler=SamplerSpec(name="random_batches", pairing="adjacent", groups=512),
        views=(ViewSpec(name="lead_mask"),),
        # Its "adam" takes the decay off the weights and adds eps before the second moment's bias is corrected.
        optimiser=OptimiserSpec(
            kind="adamw",
            lr=5e-5,
            betas=(0.9, 0.98),
            eps=1e-6,
            epsilon="keras",
            schedule="constant",
            weight_decay=0.01,
        ),
        epochs=200,
    )


def _small(seed: int) -> RunConfig:
    """The same with a narrow network, 32 pairs, and 300 steps."""
    narrow = {
        "stem_width": 64,
        "embedding_dim": 64,
        "head_dim": 32,
        "depth": 4,
        "position_kernel": 32,
        "position_groups": 4,
        # With it a CPU has no one kernel for attention: 0.84 s a step on one core, 0.72 s without.
        "attention_dropout": 0.0,
    }
    run = _published(seed)
    # In 300 steps of 5e-5 Adam moves no weight by more than 0.015: twenty times the published rate. Of twice 64 codes about
    # 100 are in use after 100 steps.
    changes = {
        "name": "ecg_fm_small",
        "encoder": EncoderSpec(name="wav2vec2", config={"in_leads": 12, **narrow}),
        "objective": ObjectiveSpec(name="wav2vec2_cmsc", config={"codes": 64, "projection": 64}),
        "sampler": SamplerSpec(name="random_batches", pairing="adjacent", groups=32),
        "optimiser": run.optimiser.model_copy(update={"lr": 1e-3, "warmup_steps": 30}),
        "held_out": HeldOutSpec(every_steps=100, batches_per_cohort=2),
        "probes": ProbeSpec(every_steps=100),
        "epochs": 1_000_000,  # `max_steps` ends the run, however few recordings there are
        "max_steps": 300,
        "checkpoint_every": 100,
    }
    return RunConfig.model_validate(dict(run) | changes)


RUNS = {"ecg_fm": _published, "ecg_fm_small": _small}
