"""One trial: draw patients and devices, render, pretrain, and ask."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn

import ecgcohorts as ec
from capezoo import encoders, objectives, views
from capezoo.errors import TrainingDiverged, Unanswerable
from capezoo.evaluate.artefact import heads, methods
from capezoo.evaluate.artefact.arms import Arm, arm_named
from capezoo.evaluate.artefact.rendering import Material, Places, Strips
from capezoo.evaluate.artefact.signatures import DEVICES, RENDERINGS, Signature
from capezoo.evaluate.artefact.trial import Cell, Facts, Positives, Settings, Trial
from capezoo.evaluate.measure.heads import one_thread
from capezoo.objectives import ViewBatch
from capezoo.specs import EncoderSpec, InputSpec, OptimiserSpec, derive_seed, fingerprint
from capezoo.specs.run import ViewSpec
from capezoo.training.device import seeded
from capezoo.training.norms import normalised_per_group
from capezoo.training.optimiser import Optimiser
from capezoo.zoo.forward import estimate_batch_norm, features
from ecgcohorts.samplers import window_starts

if TYPE_CHECKING:
    from ecgcohorts.samplers.plan import BatchPlan
    from ecgcohorts.samplers.planner import BatchPlanner

_BLOCK = 64  # windows embedded at a time
_TENTH = 10
# Of what a trial does. Raise it whenever its numbers change: trials of earlier code are then refused, not mixed in.
_CODE = 1
# The published view, and what makes the signature the cheapest way to know a recording again: whole leads left out and
# another gain on either side.
_VIEWS: dict[Positives, tuple[ViewSpec, ...]] = {
    "easy": (ViewSpec(name="zero_span"),),
    "hard": (
        ViewSpec(name="zero_span"),
        ViewSpec(name="lead_mask", config={"probability": 0.5}),
        ViewSpec(name="gain", config={"range": [0.5, 2.0]}),
    ),
}
_CPU = torch.device("cpu")


def made_with(material: Material, settings: Settings) -> str:
    """Return the fingerprint of all that a trial depends on beside its cell."""
    return fingerprint({"code": _CODE, "settings": settings.model_dump(mode="json"), "material": material.fingerprint})


def run(material: Material, cell: Cell, settings: Settings | None = None) -> Trial:
    """Run one trial in one thread; the same arguments give the same answers, bit for bit, on one machine.

    Raises SpecError for an unknown kind or arm, RecipeMismatch for a signature that the material cannot wear, Unanswerable
    if its patients are too few, TrainingDiverged if the loss is no number.
    """
    begun = time.perf_counter(), time.process_time()
    settings = settings or Settings()
    arm, signature = arm_named(cell.arm), Signature(cell.kind, cell.strength_uv, cell.seed)
    material.refuse(signature)
    with one_thread():
        roles = _draw_roles(material, arm, cell.seed, settings)
        own = material.render(roles.train, roles.of(roles.train), roles.signature(signature))
        learner = _Learner(material, arm, cell, settings)
        losses = learner.learn(roles, own, signature)
        return _asked(learner, roles, own, signature, losses, begun)


@dataclass(frozen=True, eq=False)
class _Roles:
    """Training and test patients, and the device of each patient of the material (-1: not used)."""

    train: Places
    test: Places
    device: Places
    names: tuple[str, ...]
    is_made_up: bool

    def of(self, places: Places) -> Places:
        return self.device[places]

    def signature(self, asked: Signature) -> Signature:
        """Return the signature that patients wear: none where the devices are real."""
        return asked if self.is_made_up else Signature(asked.kind, 0.0, asked.seed)


def _draw_roles(material: Material, arm: Arm, seed: int, settings: Settings) -> _Roles:
    """Draw test patients and devices. They depend on the seed alone, whatever kind, strength and arm."""
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "patients")))
    device = np.full(len(material), -1, np.int64)
    if not arm.own_devices:
        order = generator.permutation(len(material))
        n_test = int(len(order) * settings.test_share)
        test, train = order[:n_test], order[n_test:]
        # Equal numbers of each: with few patients, drawing would leave one device without a batch.
        for part in (test, train):
            device[part] = np.arange(len(part)) % len(DEVICES)
        _require(train, device, DEVICES, settings.pairs)
        return _Roles(np.sort(train), np.sort(test), device, DEVICES, True)
    names: list[str] = []
    parts: list[tuple[Places, Places]] = []
    for code, name in enumerate(material.devices):
        here = generator.permutation(np.flatnonzero(material.device == code))
        n_test = int(len(here) * settings.test_share)
        if len(here) - n_test >= settings.pairs:
            device[here] = len(names)
            names.append(name)
            parts.append((here[:n_test], here[n_test:]))
    if len(names) < 2:
        raise Unanswerable(
            f"{material.cohort}: found {len(names)} devices with {settings.pairs} training patients, expected two or more. "
            "Take a cohort whose store names its devices."
        )
    test, train = (np.sort(np.concatenate(part)) for part in zip(*parts, strict=True))
    return _Roles(train, test, device, tuple(names), False)


def _require(train: Places, device: Places, names: tuple[str, ...], pairs: int) -> None:
    fewest = int(np.bincount(device[train], minlength=len(names)).min())
    if fewest < pairs:
        raise Unanswerable(
            f"found {fewest} training patients on a device, expected {pairs}, as a batch has. Take a larger cohort, or fewer "
            "pairs."
        )


class _Learner:
    """Encoder and objective, and what they are fed."""

    def __init__(self, material: Material, arm: Arm, cell: Cell, settings: Settings) -> None:
        self.material, self.arm, self.cell, self.settings = material, arm, cell, settings
        whole = InputSpec.of_recipe(material.recipe)
        config: dict[str, JsonValue] = {**settings.encoder, "in_leads": len(whole.leads)}
        if arm.statistics == "group_norm":
            config["norm"] = "group"
        encoder = EncoderSpec(name=settings.encoder_name, config=config)
        # Seeds without the arm: all arms begin with the same weights.
        self.encoder = encoders.build(encoder, derive_seed(cell.seed, "encoder"))
        self.objective = objectives.build(settings.objective, self.encoder, derive_seed(cell.seed, "objective"))
        self.pairing = methods.pairing(self.objective, settings)
        # Two neighbours have to fit into the shortest recording.
        half = int(self._stop(np.arange(len(material))).min()) // 2
        length = min(whole.length, half) if self.pairing == "adjacent" else whole.length
        self.input = whole.model_copy(update={"length": length})
        methods.check(self.objective, self.encoder, encoder, self.input, self.pairing, settings)
        # Views are to make two windows unlike; a method that takes one sees it as it is.
        self.views = views.build(_VIEWS[cell.positives] if self.objective.needs.views > 1 else (), self.input)

    def learn(self, roles: _Roles, own: Strips, signature: Signature) -> list[float]:
        """Pretrain on the training patients; return the loss of each step."""
        if not self.arm.trained:
            windows = self._scaled(self._windows(own, roles.train)).numpy()
            # Untrained layers have 0 and 1: a baseline that is not what an untrained network can do.
            estimate_batch_norm(self.encoder, [windows[at : at + _BLOCK] for at in range(0, len(windows), _BLOCK)])
            return []
        wardrobe = self._wardrobe(roles, own, signature)
        stop, device = self._stop(roles.train), roles.of(roles.train)
        spec = OptimiserSpec(lr=self.settings.lr)
        rates = Optimiser([*self.encoder.named_parameters(), *self.objective.named_parameters()], spec, _CPU)
        self.encoder.train()
        losses = []
        for step, plan in enumerate(islice(_plans(self._sampler(roles)), self.settings.steps)):
            rates.at_step(rates.torch.param_groups, step, self.settings.steps)
            parts = device[plan.rows[:, 0]] if self.arm.statistics == "device" else None
            loss = self._loss(self._cut(wardrobe, plan, stop, step), plan, parts, step)
            rates.torch.zero_grad(set_to_none=True)
            loss.backward()
            rates.torch.step()
            # A teacher follows the weights that the step has just made.
            self.objective.after_step(self.encoder, step, self.settings.steps)
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise TrainingDiverged(f"{self.cell.key}: the loss of step {step} is {losses[-1]}. Lower the rate.")
        return losses

    def _cut(self, wardrobe: list[Strips], plan: "BatchPlan", stop: Places, step: int) -> Tensor:
        """Cut the windows of a batch, each from one of the renderings: (pair, view, lead, time) in mV."""
        length, worn = self.input.length, self._drawn_devices(plan.rows.shape, len(wardrobe), step)
        beside = self.pairing == "adjacent"
        # Two neighbours are placed as one stretch.
        offsets, stretch = (plan.offsets[:, :1], 2 * length) if beside else (plan.offsets, length)
        starts = window_starts(offsets, np.zeros_like(plan.rows), stop[plan.rows], stretch)
        starts = starts + beside * np.array([0, length])
        taken = [
            [wardrobe[which][row, :, first : first + length] for which, row, first in zip(*one, strict=True)]
            for one in zip(worn.tolist(), plan.rows.tolist(), starts.tolist(), strict=True)
        ]
        return self._scaled(np.array(taken))

    def _loss(self, signal: Tensor, plan: "BatchPlan", parts: Places | None, step: int) -> Tensor:
        """Return the loss of a batch. parts: whose statistics each pair is normalised with; None: those of all."""
        generator = torch.Generator().manual_seed(derive_seed(self.cell.seed, "views", step))
        shape = cast(views.Shape, tuple(signal.shape))
        signal = views.apply(self.views, signal, views.draw(self.views, shape, generator))
        group = torch.from_numpy(plan.patients)
        if self.objective.needs.views == 1:
            # The same windows as for two views, so that every method sees as many.
            signal, group = signal.flatten(0, 1).unsqueeze(1), group.repeat_interleave(2)
            parts = None if parts is None else parts.repeat(2)
        batch = ViewBatch(
            signal=signal,
            valid=torch.full(signal.shape[:2], shape[-1]),
            group=group,
            cohort=plan.cohort,
            step=step,
            total_steps=self.settings.steps,
            generator=generator,
        )
        # Heads too: a projector's statistics would tell how far a row lies from those of other devices.
        everything = nn.ModuleList([self.encoder, self.objective])
        dropout = seeded(derive_seed(self.cell.seed, "forward", step), _CPU)
        with normalised_per_group(everything, parts), dropout:
            return cast(Tensor, self.objective(self.encoder, batch).total)

    def _wardrobe(self, roles: _Roles, own: Strips, signature: Signature) -> list[Strips]:
        """Return the renderings that a view may be cut from: one, or one for each device."""
        n, own_devices = len(roles.train), roles.of(roles.train)
        worn: list[tuple[Places, Places | None]]
        if self.arm.on_top:
            worn = [(own_devices, np.full(n, other)) for other in range(len(DEVICES))]
        elif self.arm.drawn_per == "view":
            worn = [(np.full(n, device), None) for device in range(len(DEVICES))]
        else:
            return [own]
        return [self.material.render(roles.train, devices, signature, on_top) for devices, on_top in worn]

    def _drawn_devices(self, shape: tuple[int, ...], n: int, step: int) -> Places:
        generator = np.random.Generator(np.random.PCG64(derive_seed(self.cell.seed, "devices", step)))
        return generator.integers(0, n, shape)

    def _sampler(self, roles: _Roles) -> "BatchPlanner":
        """Plan batches over places in the training part."""
        seed, pairs = derive_seed(self.cell.seed, "batches"), self.settings.pairs * self.arm.times_pairs
        patients = np.arange(len(roles.train))
        if self.arm.batches == "mixed":
            if pairs > len(patients):
                raise Unanswerable(
                    f"found {len(patients)} training patients, expected {pairs} for a batch. Take a larger cohort, or fewer pairs."
                )
            return ec.PatientPairSampler.from_arrays(patients=patients, pairs=pairs, seed=seed, singles="self")
        group = roles.of(roles.train)
        if self.arm.batches == "random_groups":
            group = np.random.Generator(np.random.PCG64(derive_seed(self.cell.seed, "groups"))).permutation(group)
        return ec.InDistributionBatchSampler.from_arrays(
            patients=patients, cohorts=group, pairs=pairs, seed=seed, singles="self"
        )

    def _stop(self, places: Places) -> Places:
        """Return where the rendered strips of patients end."""
        material = self.material
        stop = material.stop[places] * (material.recipe.rate_hz / material.store_recipe.rate_hz)
        return np.minimum(np.ceil(stop - 1e-6).astype(np.int64), material.recipe.strip_samples)

    def _windows(self, strips: Strips, places: Places) -> Strips:
        """Return the middle window of each strip."""
        stop = self._stop(places)
        starts = window_starts(np.full(len(places), 0.5), np.zeros_like(stop), stop, self.input.length)
        length = self.input.length
        return np.array([strip[:, first : first + length] for strip, first in zip(strips, starts, strict=True)])

    def embed(self, strips: Strips, places: Places) -> NDArray[np.float32]:
        """Embed the middle windows of strips."""
        return features(self.encoder, self._scaled(self._windows(strips, places)).numpy())

    def _scaled(self, stored: Strips) -> Tensor:
        return self.input.scaled(torch.from_numpy(stored), self.material.recipe.lsb_uv)


def _plans(sampler: "BatchPlanner") -> "Iterator[BatchPlan]":
    """Yield batch plans, epoch after epoch, without end."""
    for epoch in count():
        for step in range(sampler.steps(epoch)):
            yield sampler.plan(epoch, step)


def _asked(
    learner: _Learner,
    roles: _Roles,
    own: Strips,
    signature: Signature,
    losses: list[float],
    begun: tuple[float, float],
) -> Trial:
    """Embed and ask heads and probe."""
    material, test = learner.material, roles.test
    train = learner.embed(own, roles.train)
    worn, n = roles.signature(signature), len(test)
    renderings = RENDERINGS if roles.is_made_up else ()
    tested = [learner.embed(material.render(test, [number] * n, worn), test) for number in range(len(renderings))]
    home, device = roles.of(roles.train), roles.of(test)
    if roles.is_made_up:
        # What a patient's own device recorded is one of the renderings already.
        whole = np.stack(tested)
        seen = whole[device, np.arange(n)]
    else:
        whole, seen = (
            np.zeros((0, n, train.shape[1]), np.float32),
            learner.embed(material.render(test, device, worn), test),
        )
    age, sex = material.age, material.sex
    answers = heads.answer(
        train, home, len(DEVICES) if roles.is_made_up else 0, age[roles.train], sex[roles.train], whole
    )
    scores = heads.device_scores(seen, device, len(roles.names), derive_seed(learner.cell.seed, "probe"))
    some = max(1, len(losses) // _TENTH)
    facts = Facts(
        seconds=time.perf_counter() - begun[0],
        cpu_seconds=time.process_time() - begun[1],
        steps=len(losses),
        loss_start=float(np.mean(losses[:some])) if losses else None,
        loss_end=float(np.mean(losses[-some:])) if losses else None,
        parameters=sum(parameter.numel() for parameter in learner.encoder.parameters()),
        dead_units=int((train == 0).all(axis=0).sum()),
        train_patients=len(train),
        left_out=len(material) - len(train) - n,
        age_patients=answers.age_patients,
        sex_patients=answers.sex_patients,
        devices=roles.names,
        renderings=renderings,
    )
    return Trial(
        cell=learner.cell,
        made_with=made_with(material, learner.settings),
        facts=facts,
        patient=test,
        age=age[test],
        sex=sex[test],
        device=device,
        age_years=answers.age_years,
        sex_score=answers.sex_score,
        constant_age=answers.constant_age,
        device_score=scores,
        largest_z=answers.largest_z,
    )
