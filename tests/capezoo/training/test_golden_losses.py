"""The losses of InfoNCE step by step, as they were before the training core was rebuilt."""

import json
from pathlib import Path

import pytest

from capezoo.specs import SamplerSpec
from capezoo.training.loop import pretrain

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "info_nce_losses.json").read_text())


@pytest.mark.parametrize("sampler", ["in_distribution", "patient_pairs"])
def test_losses_are_those_recorded_step_by_step(sampler, store, tmp_path, config):
    seen = []
    changes = {"sampler": SamplerSpec(name=sampler, pairs=8), "max_steps": 20, "checkpoint_every": 100}
    pretrain(store, config(**changes), tmp_path / "run", progress=seen.append)
    golden = GOLDEN["torch_epsilon"][sampler]
    # Equal to the last bit where they were recorded; another processor may sum in another order.
    assert [report.loss for report in seen] == pytest.approx(golden["losses"], rel=1e-5)
    held_out = [report.held_out.loss for report in seen if report.held_out]
    assert held_out == pytest.approx(golden["held_out"], rel=1e-5)
