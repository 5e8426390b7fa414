"""A trial is what its cell says, the same every time, and its heads and probe answer what they are asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from capezoo.errors import Unanswerable
from capezoo.evaluate.artefact import heads, run
from capezoo.evaluate.artefact.arms import ARMS
from capezoo.evaluate.artefact.signatures import RENDERINGS, Signature
from capezoo.evaluate.artefact.trial import Cell, Settings, Trial
from capezoo.evaluate.measure.heads import one_thread
from ecgcohorts.errors import RecipeMismatch, SpecError

SMALL = Settings(steps=4, pairs=4, encoder={"widths": [4, 4], "embedding_dim": 8, "stem_stride": 8, "kernel": 4})
CELL = Cell(kind="tone", strength_uv=200, arm="mixed", seed=2)
ANSWERS = ("patient", "age", "sex", "device", "age_years", "sex_score", "constant_age", "device_score", "largest_z")


@pytest.fixture(scope="module")
def material(artefact_materials):
    """36 people, of both sexes and known age on every device."""
    whole = artefact_materials["filtered"]
    return replace(whole, sex=np.arange(36) % 2.0, age=20.0 + np.arange(36))


def equal(one: Trial, other: Trial) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in ANSWERS)


def test_a_trial_is_the_same_again_and_under_another_key(artefact_materials, material):
    first = run.run(material, CELL, SMALL)
    assert equal(first, run.run(material, CELL, SMALL))
    other = replace(artefact_materials["other key"], sex=material.sex, age=material.age)
    second = run.run(other, CELL, SMALL)
    assert equal(first, second)
    assert first.made_with == second.made_with == run.made_with(material, SMALL)
    assert not equal(first, run.run(material, CELL.model_copy(update={"seed": 3}), SMALL))
    assert run.made_with(material, Settings(steps=5)) != run.made_with(material, Settings(steps=6))


@pytest.mark.parametrize("arm", [name for name in ARMS if not name.startswith("own_devices")])
def test_every_arm_answers_for_every_patient(material, arm, tmp_path):
    trial = run.run(material, CELL.model_copy(update={"arm": arm}), SMALL)
    assert trial.age_years.shape == trial.sex_score.shape == (2, 4, 5, 12)
    assert len(np.unique(trial.patient)) == 12
    np.testing.assert_array_equal(np.bincount(trial.device), [3] * 4)
    np.testing.assert_array_equal(trial.age, material.age[trial.patient])
    np.testing.assert_allclose(trial.device_score.sum(axis=1), 1, atol=1e-6)
    facts = trial.facts
    assert (facts.train_patients, facts.age_patients, facts.renderings) == (24, (6,) * 4, RENDERINGS)
    assert (facts.steps, facts.loss_end is None) == ((4, False) if ARMS[arm].trained else (0, True))
    trial.save(tmp_path / "one.npz")
    assert equal(trial, Trial.load(tmp_path / "one.npz"))


def test_arms_share_patients_and_devices_and_differ_in_what_they_say(material):
    one, other = (
        run.run(material, CELL.model_copy(update={"arm": arm}), SMALL) for arm in ("mixed", "in_distribution")
    )
    for name in ("patient", "device", "constant_age"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.abs(one.age_years - other.age_years).max() > 0


def test_without_strength_every_rendering_is_answered_alike(material):
    trial = run.run(material, CELL.model_copy(update={"strength_uv": 0.0}), SMALL)
    for answers in (trial.age_years, trial.sex_score):
        np.testing.assert_allclose(answers, np.repeat(answers[:, :, :1], 5, axis=2), atol=1e-9)


def plans_of(material, arm, n=12):
    """The devices in each batch of an arm, and the training patients' devices."""
    cell = CELL.model_copy(update={"arm": arm})
    roles = run._draw_roles(material, ARMS[arm], cell.seed, SMALL)
    learner = run._Learner(material, ARMS[arm], cell, SMALL)
    plans = [plan for plan, _ in zip(run._plans(learner._sampler(roles)), range(n), strict=False)]
    return [roles.of(roles.train)[plan.rows] for plan in plans]


def test_batches_are_of_the_devices_that_the_arm_says(material):
    assert all(len(np.unique(batch)) == 1 for batch in plans_of(material, "in_distribution"))
    assert {int(batch[0, 0]) for batch in plans_of(material, "in_distribution")} == {0, 1, 2, 3}
    for arm in ("mixed", "random_groups"):
        assert max(len(np.unique(batch)) for batch in plans_of(material, arm)) > 2
    assert plans_of(material, "mixed_more_pairs")[0].shape == (16, 2)


def test_views_wear_the_devices_that_the_arm_says(material):
    """A wardrobe holds what a view may be cut from."""
    signature = Signature("tone", 200, 2)
    roles = run._draw_roles(material, ARMS["mixed"], 2, SMALL)
    own = material.render(roles.train, roles.of(roles.train), signature)
    wardrobes = {
        arm: run._Learner(material, ARMS[arm], CELL, SMALL)._wardrobe(roles, own, signature)
        for arm in ("mixed", "device_per_view", "augmented")
    }
    assert [len(one) for one in wardrobes.values()] == [1, 4, 4]
    for device in range(4):
        here = roles.of(roles.train) == device
        np.testing.assert_array_equal(wardrobes["device_per_view"][device][here], own[here])
        # The own signature stays under the second one: both tones are there, or one with another amplitude and phase.
        on_top = wardrobes["augmented"][device].astype(int) - own
        assert (on_top.std(axis=(1, 2)) > 50).all() or device == 1
    learner = run._Learner(material, ARMS["device_per_view"], CELL, SMALL)
    drawn = np.stack([learner._drawn_devices((32, 2), 4, step) for step in range(20)])
    assert np.abs(np.bincount(drawn.ravel()) / drawn.size - 0.25).max() < 0.05
    assert (drawn[..., 0] != drawn[..., 1]).mean() == pytest.approx(0.75, abs=0.06)


def test_statistics_are_those_of_the_arm(material):
    """GroupNorm has none of a batch; per device, a pair far from the others' devices is normalised without them."""
    grouped = run._Learner(material, ARMS["mixed_group_norm"], CELL, SMALL)
    assert not [one for one in grouped.encoder.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    learner = run._Learner(material, ARMS["mixed_per_device"], CELL, SMALL)
    roles = run._draw_roles(material, ARMS["mixed"], 2, SMALL)
    own = material.render(roles.train, roles.of(roles.train), Signature("tone", 200, 2))
    plan = next(run._plans(learner._sampler(roles)))
    signal = learner._cut([own], plan, learner._stop(roles.train), 0)
    made = []
    learner.encoder.train()
    learner.encoder.stem_norm.register_forward_hook(lambda module, given, result: made.append(result.detach().clone()))
    parts = np.array([0, 0, 1, 1])
    for scale in (1.0, 1000.0):
        signal[2:] *= scale
        for asked in (parts, None):
            learner._loss(signal, plan, asked, 0)
    apart, together, apart_far, together_far = (one[:4] for one in made)  # both views of the first two pairs
    np.testing.assert_allclose(apart, apart_far, atol=1e-5)
    assert (together - together_far).abs().max() > 0.1


def test_random_weights_have_the_statistics_of_the_training_patients(material):
    cell = CELL.model_copy(update={"arm": "random_weights"})
    learner = run._Learner(material, ARMS["random_weights"], cell, SMALL)
    roles = run._draw_roles(material, ARMS["random_weights"], cell.seed, SMALL)
    own = material.render(roles.train, roles.of(roles.train), Signature("tone", 200, 2))
    made = []
    learner.encoder.stem.register_forward_hook(lambda module, given, result: made.append(result.detach().clone()))
    assert learner.learn(roles, own, Signature("tone", 200, 2)) == []
    learner.encoder.eval()
    learner.embed(own, roles.train)
    # One batch each: what was seen while estimating, and while embedding.
    first, second = made
    np.testing.assert_array_equal(first, second)
    norm = learner.encoder.stem_norm
    np.testing.assert_allclose(norm.running_mean, first.mean(dim=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(norm.running_var, first.var(dim=(0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("arm", ["own_devices", "own_devices_in_distribution"])
def test_own_devices_are_those_of_the_store_with_enough_patients(material, arm):
    device = np.repeat([0, 1, 2, -1], [14, 14, 4, 4])
    real = replace(material, device=device, devices=("cart", "trolley", "bag"))
    trial = run.run(real, CELL.model_copy(update={"arm": arm}), SMALL)
    assert trial.facts.devices == ("cart", "trolley")
    assert (trial.facts.renderings, trial.age_years.shape, trial.device_score.shape) == ((), (2, 0, 0, 8), (8, 2))
    assert trial.facts.left_out == 8
    np.testing.assert_array_equal(trial.device, device[trial.patient])
    # No signature is added, so its strength cannot matter.
    weak = run.run(real, CELL.model_copy(update={"arm": arm, "strength_uv": 1.0}), SMALL)
    assert equal(trial, weak)


def test_what_cannot_be_run_is_refused(material):
    with pytest.raises(SpecError, match=r"found arm 'mixd'.*Did you mean"):
        run.run(material, CELL.model_copy(update={"arm": "mixd"}), SMALL)
    with pytest.raises(SpecError, match="found kind 'tune'"):
        run.run(material, CELL.model_copy(update={"kind": "tune"}), SMALL)
    with pytest.raises(RecipeMismatch, match="plain-500"):
        run.run(material, CELL.model_copy(update={"kind": "band_edge"}), SMALL)
    with pytest.raises(Unanswerable, match="found 6 training patients on a device, expected 32"):
        run.run(material, CELL)
    with pytest.raises(Unanswerable, match="found 1 devices"):
        run.run(material, CELL.model_copy(update={"arm": "own_devices"}), SMALL)
    with pytest.raises(Unanswerable, match="0 men and 6 women"):
        run.run(replace(material, sex=np.ones(36)), CELL, SMALL)


def test_heads_answer_for_the_heart_and_the_artefact():
    """Age is unit 0 and sex unit 1. A rendering that adds to unit 0 moves ages by the slope of the head, and no sex."""
    rng = np.random.Generator(np.random.PCG64(0))
    train, test = (rng.normal(size=(n, 4)).astype(np.float32) for n in (400, 50))
    age, sex = 50 + 10.0 * train[:, 0], (train[:, 1] > 0).astype(float)
    moved = test + np.array([0.5, 0, 0, 0], np.float32)
    home = np.arange(400) % 2
    answers = heads.answer(train, home, 2, age, sex, np.stack([test, moved]))
    assert answers.age_years.shape == (2, 2, 2, 50)
    np.testing.assert_allclose(answers.age_years[:, :, 0], np.broadcast_to(50 + 10 * test[:, 0], (2, 2, 50)), atol=2)
    shift = answers.age_years[:, :, 1] - answers.age_years[:, :, 0]
    np.testing.assert_allclose(shift, 5, atol=0.5)
    assert np.abs(answers.sex_score[:, :, 1] - answers.sex_score[:, :, 0]).max() < 0.1
    assert np.corrcoef(answers.sex_score[1, 0, 0], test[:, 1])[0, 1] > 0.9
    np.testing.assert_array_equal(answers.constant_age, [np.median(age[home == number]) for number in (0, 1)])


def test_the_guarded_scaler_holds_what_the_plain_one_lets_go():
    rng = np.random.Generator(np.random.PCG64(0))
    train = rng.normal(size=(60, 4)).astype(np.float32)
    train[:, 3] *= 1e-6
    test = np.zeros((1, 5, 4), np.float32)
    test[..., 3] = 1.0
    answers = heads.answer(train, np.zeros(60, int), 1, np.arange(60.0), np.arange(60) % 2.0, test)
    assert answers.largest_z[0, 0, 0] > 1e5
    assert answers.largest_z[1, 0, 0] == 10


def test_the_probe_finds_a_device_and_invents_none():
    rng = np.random.Generator(np.random.PCG64(0))
    device = np.arange(160) % 4
    plain = rng.normal(size=(160, 6)).astype(np.float32)
    marked = plain + 4 * np.eye(6, dtype=np.float32)[device]
    scores = heads.device_scores(marked, device, 4, 1)
    assert (scores.argmax(axis=1) == device).mean() > 0.95
    assert (heads.device_scores(plain, device, 4, 1).argmax(axis=1) == device).mean() < 0.4
    with pytest.raises(Unanswerable, match="found 1 test patients"):
        heads.device_scores(plain, np.repeat([0, 1], [159, 1]), 2, 1)


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
