"""The control takes any registered objective, with the windows, batches and numbers that the first one had."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from capezoo import objectives
from capezoo.evaluate.artefact import methods, run
from capezoo.evaluate.artefact.arms import ARMS
from capezoo.evaluate.artefact.campaign import Campaign, plan
from capezoo.evaluate.artefact.signatures import Signature
from capezoo.evaluate.artefact.trial import Cell, Settings
from capezoo.evaluate.measure.heads import one_thread
from capezoo.objectives import Losses, Needs, ViewBatch
from capezoo.specs import fingerprint
from capezoo.specs.run import ObjectiveSpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

NAMES = plugins.names("capezoo.objectives")
SMALL = Settings(steps=4, pairs=4, encoder={"widths": [4, 4], "embedding_dim": 8, "stem_stride": 8, "kernel": 4})
CELL = Cell(kind="tone", strength_uv=200, arm="mixed", seed=2)
TONE = Signature("tone", 200, 2)


@pytest.fixture(scope="module")
def material(artefact_materials):
    """36 people, of both sexes and known age on every device."""
    return replace(artefact_materials["filtered"], sex=np.arange(36) % 2.0, age=20.0 + np.arange(36))


@pytest.fixture(scope="module")
def worn(material):
    """Roles of the patients, and the training patients' recordings as their devices made them."""
    roles = run._draw_roles(material, ARMS["mixed"], CELL.seed, SMALL)
    return roles, material.render(roles.train, roles.of(roles.train), TONE)


class Noted(objectives.Objective):
    """Keeps what it is given."""

    needs = Needs(views=2)

    def __init__(self, needs: Needs) -> None:
        super().__init__()
        self.needs, self.seen, self.weight = needs, [], nn.Parameter(torch.zeros(()))

    def forward(self, encoder: nn.Module, batch: ViewBatch) -> Losses:
        self.seen.append(batch)
        return Losses(self.weight * encoder(batch.signal[:1, 0]).sum())


def learner_of(material, monkeypatch, needs: Needs, arm: str = "mixed", positives: str = "hard") -> run._Learner:
    monkeypatch.setattr(run.objectives, "build", lambda *_: Noted(needs))
    cell = CELL.model_copy(update={"arm": arm, "positives": positives})
    return run._Learner(material, ARMS[arm], cell, SMALL)


def first_batch(learner: run._Learner, worn) -> ViewBatch:
    with one_thread():
        learner.learn(*worn, TONE)
    return learner.objective.seen[0]


def test_info_nce_has_the_numbers_and_the_fingerprint_it_had_before_there_were_others(material, worn):
    """Recorded at the last commit without methods, where on one machine all answers are equal bit for bit."""
    assert fingerprint({"settings": Settings().model_dump(mode="json")}).startswith("8ef42f6391a7f984d676b05060baf390")
    assert methods.settings_of("info_nce") == Settings()
    recorded = {
        "mixed": [2.065810441970825, 2.04000186920166, 1.9402474164962769, 1.9869824647903442],
        "mixed_per_device": [2.0725338459014893, 1.944427490234375, 1.9407973289489746, 2.0457675457000732],
    }
    for arm, losses in recorded.items():
        with one_thread():
            np.testing.assert_allclose(run._Learner(material, ARMS[arm], CELL, SMALL).learn(*worn, TONE), losses, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_objective_trains_and_its_encoder_answers(material, worn, name):
    settings = methods.settings_of(name, steps=2, pairs=4)
    learner = run._Learner(material, ARMS["in_distribution"], CELL, settings)
    before = {key: value.clone() for key, value in learner.objective.state_dict().items()}
    with one_thread():
        losses = learner.learn(*worn, TONE)
        again = run._Learner(material, ARMS["in_distribution"], CELL, settings).learn(*worn, TONE)
    assert losses == again
    assert np.isfinite(losses).all()
    teacher = [key for key in before if key.startswith("teacher.") and key.endswith("weight")]
    assert all(not torch.equal(before[key], learner.objective.state_dict()[key]) for key in teacher)
    assert learner.embed(worn[1], worn[0].train).shape == (24, learner.encoder.num_features)


def test_one_view_methods_see_the_windows_of_two_view_methods_unperturbed(material, worn, monkeypatch):
    two = first_batch(learner_of(material, monkeypatch, Needs(views=2), positives="easy"), worn)
    one = first_batch(learner_of(material, monkeypatch, Needs(views=1)), worn)
    assert one.signal.shape == (8, 1, 8, 2800)
    np.testing.assert_array_equal(one.group, two.group.repeat_interleave(2))
    apart = (one.signal[:, 0] != two.signal.flatten(0, 1)).any(dim=1).float().mean(dim=1)
    # Where the easy view leaves a window as it is, and outside the span that it sets to zero, they are equal.
    assert (apart == 0).any()
    assert apart.max() < 0.25


def test_statistics_per_device_are_those_of_a_window_s_own_device(material, worn, monkeypatch):
    """Two windows of a patient stand side by side, and so do their devices."""
    given = []
    monkeypatch.setattr(run, "normalised_per_group", lambda network, parts: given.append(parts) or one_thread())
    batch = first_batch(learner_of(material, monkeypatch, Needs(views=1), "mixed_per_device"), worn)
    roles = worn[0]
    np.testing.assert_array_equal(given[0], roles.of(roles.train)[batch.group])


def test_neighbours_are_halves_of_one_stretch(material, worn, monkeypatch):
    learner = learner_of(material, monkeypatch, Needs(views=2, pairing=("adjacent",)))
    learner.views = []
    batch = first_batch(learner, worn)
    length = int(learner._stop(np.arange(36)).min()) // 2
    assert batch.signal.shape[2:] == (8, length)
    strips = learner._scaled(worn[1])
    for first, second, place in zip(*batch.signal.unbind(1), batch.group.tolist(), strict=True):
        stretch = torch.cat([first, second], dim=1)
        found = (strips[place].unfold(1, 2 * length, 1) == stretch[:, None]).all(dim=2).all(dim=0)
        assert found.any()
    assert learner.embed(worn[1][:2], worn[0].train[:2]).shape == (2, 8)


def test_what_a_method_cannot_use_is_refused(material, tmp_path):
    with pytest.raises(SpecError, match=r"(?s)byoll.*byol"):
        methods.settings_of("byoll")
    with pytest.raises(SpecError, match="found unknown key 'momentum'"):
        methods.settings_of("byol", ["momentum=0.9"])
    settings = methods.settings_of("jepa", ["objective.config.shortest=400"], pairs=4)
    with pytest.raises(SpecError, match="jepa needs 401 tokens or more in a window, encoder s4 makes 176"):
        run.run(material, CELL, settings)
    cells, settings = plan("tone", [200], ["mixed_group_norm"], "hard", [2]), methods.settings_of("cpc", pairs=4)
    with pytest.raises(SpecError, match="mixed_group_norm: found encoder s4, which has no GroupNorm"):
        Campaign(material, cells, tmp_path, settings)
    with pytest.raises(SpecError, match="needs 3 views, expected one or two"):
        methods.pairing(Noted(Needs(views=3)), SMALL)


def test_an_objective_that_nobody_named_gets_an_encoder_it_can_use(monkeypatch):
    """Known methods are a table; all others are asked for what they need."""
    monkeypatch.setattr(methods, "_METHODS", {})
    names = {name: methods.settings_of(name).encoder_name for name in NAMES}
    for name, encoder in names.items():
        needs = plugins.load("capezoo.objectives", name).Objective.needs
        assert encoder == ("vit1d" if needs.drops_tokens else "s4" if needs.tokens else "cape_resnet")
    assert methods.settings_of("jepa", ["lr=0.01"]).objective == ObjectiveSpec(name="jepa")
