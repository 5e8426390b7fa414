"""The losses of InfoNCE step by step, as they were before the training core was rebuilt; and a run folder of that time."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from capezoo.specs import OptimiserSpec, RunConfig, SamplerSpec, ViewSpec, WeightCard, parse
from capezoo.specs.base import fingerprint
from capezoo.training import checkpoint
from capezoo.training.loop import pretrain

FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((FOLDER / "info_nce_losses.json").read_text())


@pytest.mark.parametrize("epsilon", ["torch", "keras"])
@pytest.mark.parametrize("sampler", ["in_distribution", "patient_pairs"])
def test_losses_are_those_recorded_step_by_step(sampler, epsilon, store, tmp_path, config):
    """Adam's epsilon in torch's form: recorded before the rebuilding. Keras's: at the change of the default."""
    seen = []
    changes = {"sampler": SamplerSpec(name=sampler, groups=8), "max_steps": 20, "checkpoint_every": 100}
    changes["optimiser"] = OptimiserSpec(lr=0.01, epsilon=epsilon)
    pretrain(store, config(**changes), tmp_path / "run", progress=seen.append)
    golden = GOLDEN[f"{epsilon}_epsilon"][sampler]
    # Equal to the last bit where they were recorded; another processor may sum in another order.
    assert [report.loss for report in seen] == pytest.approx(golden["losses"], rel=1e-5)
    held_out = [report.held_out.loss for report in seen if report.held_out]
    assert held_out == pytest.approx(golden["held_out"], rel=1e-5)


def test_a_run_folder_of_version_1_goes_on_as_it_would_have(store, tmp_path, config):
    """Stopped after 10 of 12 steps. Its config, checkpoint and fingerprint are of the first version."""
    run = Path(shutil.copytree(FOLDER / "run-1", tmp_path / "run"))
    before = checkpoint.read(run / "checkpoints" / "step-00000010.pt")
    assert "mask_probability" in before["config"]
    then = parse(RunConfig, before["config"], "then")
    assert before["config_fingerprint"] == then.fingerprint != fingerprint(json.loads(before["config"]))
    same = config(optimiser=OptimiserSpec(lr=0.01, epsilon="torch"))
    assert then == same
    seen = []
    pretrain(store, same, run, progress=seen.append)
    assert [report.step for report in seen] == [11, 12]
    assert [report.loss for report in seen] == pytest.approx(GOLDEN["run-1"][10:], rel=1e-5)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 13
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 13)]


def test_a_config_of_version_1_reads_as_the_same_run():
    then = parse(RunConfig, yaml.safe_load((FOLDER / "run-config-1.yaml").read_text()), "then")
    now = RunConfig(
        name="cape_x", seed=3, sampler=SamplerSpec(name="patient_pairs"), optimiser=OptimiserSpec(epsilon="torch")
    )
    assert then == now
    changed = yaml.safe_load((FOLDER / "run-config-1.yaml").read_text())
    changed["views"] = {"mask_probability": 0.0, "mask_samples": [5, 9], "gain_range": [0.5, 2.0]}
    changed["sampler"] |= {"pairs": 24, "singles": "self"}
    then = parse(RunConfig, changed, "then")
    assert then.views == (
        ViewSpec(name="zero_span", config={"probability": 0.0, "samples": [5, 9]}),
        ViewSpec(name="gain", config={"range": [0.5, 2.0]}),
    )
    assert (then.sampler.groups, then.sampler.singles, then.optimiser.epsilon) == (24, "self", "torch")
    assert parse(RunConfig, then.model_dump_json(), "again") == then


def test_a_card_of_before_says_what_it_said():
    """The run in a card of version 1 is that of the card which was written anew since."""
    root = Path(__file__).parents[3]
    (path,) = (root / "capezoo" / "zoo" / "weights").glob("*/card.json")
    now = json.loads(path.read_text())
    then = now | {
        "training": now["training"] | {"run": json.loads((root / "tests/golden/card-run-1.json").read_text())}
    }
    old, new = (parse(WeightCard, json.dumps(card), str(path)).training.run for card in (then, now))
    assert old == new
    assert (old.sampler.groups, old.sampler.pairing, old.sampler.views) == (32, "patient", 2)
    assert (old.views, old.optimiser.epsilon) == ((ViewSpec(name="zero_span"),), "torch")
