"""Settings of objectives, views and samplers that ask for too much: refused within 1 s of the processor and 256 MB."""

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
        objectives.build(ObjectiveSpec(name=name, config=settings), tokens if name == "cpc" else encoder, seed=0)
    elif kind == "view":
        views.build([ViewSpec(name=name, config=settings)], InputSpec())
    else:
        parse(RunConfig, {"name": "x", "seed": 0, name: settings}, "run")

for one in (("objective", "byol", {}), ("objective", "info_nce", {}), ("objective", "cpc", {}), ("view", "zero_span", {}),
            ("run", "views", [])):
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
