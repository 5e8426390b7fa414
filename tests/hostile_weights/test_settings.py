"""Settings of objectives, views, encoders and samplers that ask for too much: refused within 1 s of the processor and 256 MB."""

import json
import os
import subprocess
import sys

import pytest

SECONDS, MEBIBYTES = 1.0, 256

# By kind of setting: what a run is given. Each is refused by name, before anything of that size is made.
CASES = {
    "byol: a hidden layer of 2^62": ("objective", "byol", {"hidden": 1 << 62}),
    "byol: a projection of 2^40": ("objective", "byol", {"projection": 1 << 40}),
    "byol: layers whose product is too large": ("objective", "byol", {"hidden": 65_536, "projection": 65_536}),
    "info_nce: a head of 10^12": ("objective", "info_nce", {"head_width": 10**12}),
    "info_nce: an output of 10^12": ("objective", "info_nce", {"head_out": 10**12}),
    "info_nce: a head whose product is too large": (
        "objective",
        "info_nce",
        {"head_width": 65_536, "head_out": 65_536},
    ),
    "cpc: a horizon of 2^40": ("objective", "cpc", {"ahead": 1 << 40}),
    "cpc: 10^9 negatives": ("objective", "cpc", {"negatives": 10**9}),
    "simclr: an output of 10^12": ("objective", "simclr", {"head_out": 10**12}),
    "simclr: a head whose product is too large": ("objective", "simclr", {"head_width": 65_536, "head_out": 65_536}),
    "mae: a decoder of 2^40": ("objective", "mae", {"width": 1 << 40}),
    "mae: 10^9 blocks": ("objective", "mae", {"depth": 10**9}),
    "mae: blocks whose product is too large": ("objective", "mae", {"width": 65_536, "depth": 64}),
    "jepa_vit: blocks whose product is too large": ("objective", "jepa_vit", {"width": 65_536, "heads": 64}),
    "jepa_vit: blocks of 10^12 tokens": ("objective", "jepa_vit", {"shortest": 10**12}),
    "wav2vec2: 10^9 negatives": ("objective", "wav2vec2", {"negatives": 10**9}),
    "wav2vec2: spans of 10^12": ("objective", "wav2vec2", {"span": 10**12}),
    "wav2vec2: 10^9 groups": ("objective", "wav2vec2", {"groups": 10**9}),
    "wav2vec2: codes whose product is too large": (
        "objective",
        "wav2vec2",
        {"groups": 64, "codes": 65_536, "projection": 65_536},
    ),
    "wav2vec2: a projection of 2^16 by 2^16": (
        "objective",
        "wav2vec2",
        {"groups": 1, "codes": 1, "projection": 65_536},
    ),
    "wav2vec2_cmsc: a projection of 2^16 by 2^16": (
        "objective",
        "wav2vec2_cmsc",
        {"groups": 1, "codes": 1, "projection": 65_536},
    ),
    "lead_spans: a span of 1e308 s": ("view", "lead_spans", {"seconds": [1.0, 1e308]}),
    "permutation: 2^40 parts": ("view", "permutation", {"parts": 1 << 40}),
    "time_warp: 2^40 knots": ("view", "time_warp", {"knots": 1 << 40}),
    "baseline_wander: 2^40 waves": ("view", "baseline_wander", {"waves": 1 << 40}),
    "mains_hum: 10^4 frequencies": ("view", "mains_hum", {"hz": [50.0] * 10_000}),
    "vit1d: 2^40 registers": ("encoder", "vit1d", {"registers": 1 << 40}),
    "vit1d: widths whose product is too large": ("encoder", "vit1d", {"embedding_dim": 65_536}),
    "wav2vec2: widths whose product is too large": ("encoder", "wav2vec2", {"embedding_dim": 65_536}),
    "wav2vec2: a stem whose product is too large": (
        "encoder",
        "wav2vec2",
        {"stem_width": 65_536, "kernels": [4096] * 64, "strides": [4096] * 64},
    ),
    "transformer1d: widths whose product is too large": ("encoder", "transformer1d", {"width": 65_536}),
    "transformer1d: 10^9 layers": ("encoder", "transformer1d", {"depth": 10**9}),
    "net1d: widths whose product is too large": ("encoder", "net1d", {"widths": [65_536] * 64, "blocks": [1] * 64}),
    "net1d: 2^18 blocks": ("encoder", "net1d", {"widths": [64] * 64, "blocks": [4096] * 64}),
    "resnet18_1d: widths whose product is too large": ("encoder", "resnet18_1d", {"embedding_dim": 65_536}),
    "zero_span: a span of 2^70": ("view", "zero_span", {"samples": [1, 1 << 70], "probability": 0}),
    "65 views, one after the other": ("run", "views", [{"name": "gain"}] * 65),
    "20,000 views, one after the other": ("run", "views", [{"name": "gain"}] * 20_000),
    "10^9 views of a patient": ("run", "sampler", {"views": 10**9}),
    "10^12 patients in a batch": ("run", "sampler", {"groups": 10**12}),
}

_MEASURE = """
import json, resource, sys, time
from capezoo import encoders, objectives, views
from capezoo.specs import EncoderSpec, InputSpec, ObjectiveSpec, RunConfig, ViewSpec, parse
from ecgcohorts.errors import SpecError

encoder = encoders.build(EncoderSpec(config={"widths": [8], "embedding_dim": 8}), seed=0)
tokens = encoders.build(EncoderSpec(name="vit1d", config=json.loads(sys.argv[1])), seed=0)

def build(kind, name, settings):
    if kind == "objective":
        whole = name in ("byol", "info_nce", "simclr")
        objectives.build(ObjectiveSpec(name=name, config=settings), encoder if whole else tokens, seed=0)
    elif kind == "encoder":
        encoders.build(EncoderSpec(name=name, config=settings), seed=0)
    elif kind == "view":
        views.build([ViewSpec(name=name, config=settings)], InputSpec())
    else:
        parse(RunConfig, {"name": "x", "seed": 0, name: settings}, "run")

for one in (("objective", "byol", {}), ("objective", "info_nce", {}), ("objective", "cpc", {}), ("view", "zero_span", {}),
            ("objective", "mae", {}), ("objective", "wav2vec2", {}), ("run", "views", [])):
    build(*one)
for case in json.load(sys.stdin):
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        build(*case)
        ended = "built"
    except SpecError as error:
        ended = str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([ended, time.process_time() - begun, grown / 1024]), flush=True)
"""


@pytest.fixture(scope="module")
def measured() -> dict[str, tuple[str, float, float]]:
    """By case: how it ended, seconds of the processor, and MiB by which the process grew, after good settings of each kind."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    tiny = {"depth": 1, "embedding_dim": 16, "head_dim": 8}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, json.dumps(tiny)], input=json.dumps(list(CASES.values())),
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    lines = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(lines) == len(CASES), done.stderr[-2000:]
    return dict(zip(CASES, lines, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_setting_is_refused_at_little_cost(measured: dict[str, tuple[str, float, float]], case: str) -> None:
    ended, seconds, mebibytes = measured[case]
    assert "expected" in ended
    assert "\n" not in ended
    assert len(ended) < 500
    assert seconds < SECONDS
    assert mebibytes < MEBIBYTES
