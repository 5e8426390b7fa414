"""Which patients a run trains on and which it keeps back, and the batches of both."""

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

import ecgcohorts as ec
from capezoo.specs import RunConfig, SamplerSpec, derive_seed, parse
from capezoo.specs.scaling import lead_statistics
from ecgcohorts import plugins
from ecgcohorts.errors import PlanImpossible, SpecError
from ecgcohorts.index.cohort_index import draw_ids
from ecgcohorts.index.rules import IdentityMap, Nested, People
from ecgcohorts.loading.loader import read_ahead
from ecgcohorts.samplers import RampSampler, window_starts
from ecgcohorts.store.splits import load_split

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.loading.loader import Batch, Loader, Memory
    from ecgcohorts.preprocess.steps import Recipe
    from ecgcohorts.samplers import BatchPlan
    from ecgcohorts.samplers.planner import BatchPlanner
    from ecgcohorts.store.reader import AnyStore

log = logging.getLogger(__name__)

PROBE_BLOCK = 256  # windows read and embedded at a time: 11 MB at 8 x 2800
_AHEAD = 2  # held-out batches; as many as the loader of training makes
SMALLEST_HELD_OUT = 2  # groups: with one pair there is nothing to tell apart, and the loss is 0


@dataclass(frozen=True, eq=False)
class TrainingData:
    """One rank's view of a run's data. No patient is in both `train` and `held_out`."""

    store: "AnyStore"
    config: RunConfig
    train: "CohortIndex"
    held_out: "CohortIndex | None"
    sampler: "BatchPlanner"
    rank: int
    world_size: int

    @classmethod
    def prepare(cls, store: "AnyStore", config: RunConfig, rank: int = 0, world_size: int = 1) -> Self:
        """Choose cohorts, hold patients out, build the sampler.

        Raises SpecError for an unknown cohort or strips too short for neighbours, PlanImpossible if patients do not fill a batch.
        """
        views, length, strip = config.sampler.views, config.input.length, store.recipe.strip_samples
        if config.sampler.pairing == "adjacent" and views * length > strip:
            raise SpecError(f"sampler.pairing=adjacent puts {views} windows of {length} samples side by side, and the store "
                            f"has strips of {strip}. Set input.length to {strip // views} or less.")  # fmt: skip
        index = store.index.where(cohort=config.cohorts) if config.cohorts else store.index
        if config.sampler.pairing == "adjacent":
            long_enough = index["valid_stop"] - index["valid_start"] >= views * length
            # Of a shorter one the last window would hold nothing, and be drawn to the first all the same.
            if not long_enough.all():
                log.warning("left out: %d recordings shorter than %d windows of %d samples side by side",
                            (~long_enough).sum(), views, length)  # fmt: skip
                index = index.take(long_enough)
        held_out = None
        if config.held_out.split is not None:
            split = load_split(store, config.held_out.split)
            parts = split.of(index)
            if "train" not in parts:
                raise SpecError(
                    f"held_out.split: found parts {', '.join(parts)} in {split.name!r}, expected train among them."
                )
            index, held_out = parts["train"], parts.get("val")
        elif config.held_out.fraction > 0:
            shares = {"held_out": config.held_out.fraction, "train": 1 - config.held_out.fraction}
            parts = index.split_by_patient(shares, config.held_out.salt)
            index, held_out = parts["train"], parts["held_out"]
        if config.held_out.train_percent < 100:
            rule = Nested(percent=(config.held_out.train_percent,), seed=config.held_out.salt)
            index = index.take(rule.codes(index, People.of(index, IdentityMap.of(()))) == 0)
        try:
            sampler = _sampler(config.sampler, index, config.seed).on_rank(rank, world_size)
        except PlanImpossible as error:
            # The sampler speaks of its own arguments, which have other names in a run.
            raise PlanImpossible(
                f"{error} In a run: sampler.groups={config.sampler.groups} (pairs), sampler.singles, sampler.small_groups."
            ) from None
        return cls(store, config, index, held_out, sampler, rank, world_size)

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Names of the cohorts with training patients."""
        return tuple(name for code, name in enumerate(self.train.cohorts) if (self.train["cohort"] == code).any())

    @cached_property
    def steps_per_epoch(self) -> int:
        return self.sampler.steps(0)

    @property
    def total_steps(self) -> int:
        steps = self.config.epochs * self.steps_per_epoch
        return min(steps, self.config.max_steps or steps)

    def batches(self, memory: "Memory | None" = None) -> Generator["Batch", None, None]:
        """Training batches of this rank from the sampler's position on, epoch after epoch, without end."""
        return ec.Loader(self.store, self.sampler, window=self.config.input.length, memory=memory).endless()

    def held_out_batches(self, memory: "Memory | None" = None) -> Generator[tuple[str, "Batch"], None, None]:
        """Held-out batches, the same every time, made ahead: of one cohort each, as large as in training where patients allow."""

        def made() -> Iterator[tuple[str, "Batch"]]:
            for name, loader in self._held_out_loaders.items():
                loader.memory = memory or loader.memory
                for step in range(min(len(loader), self.config.held_out.batches_per_cohort)):
                    yield name, loader.load(0, step)

        # One thread across all cohorts: one for each would begin each with a wait.
        return read_ahead(made(), _AHEAD, self.store.refuse_removed)

    @cached_property
    def probed(self) -> "CohortIndex | None":
        """Held-out patients for probes, one record each: of every cohort those whose pseudonyms hash lowest.

        As with `held_out`, who is in it depends on no other patient, cohort or order, but on how many there are.
        """
        spec = self.config.probes
        if self.held_out is None or not spec.patients:
            return None
        draws = draw_ids(self.held_out.patient_ids, f"{self.config.held_out.salt} probes")
        order = np.lexsort((draws, self.held_out.patient_cohort))
        cohort = self.held_out.patient_cohort[order]
        place = np.arange(len(order)) - np.searchsorted(cohort, cohort)  # within the patient's cohort
        chosen = np.sort(order[place < spec.patients])
        return self.held_out.take(self.held_out.patient_ptr[chosen])  # each one's first record

    def parts(self, plan: "BatchPlan") -> NDArray[np.int32] | None:
        """Return the cohort of each group of a mixed batch, if BatchNorm is to tell them apart."""
        if self.config.compute.batch_norm != "per_cohort" or plan.cohort is not None:
            return None
        return self.store.index["cohort"][self._entry_of_row[plan.rows[:, 0]]]

    def lead_statistics(self, rows: NDArray[np.int64]) -> "tuple[NDArray[np.float32], NDArray[np.float32]] | None":
        """Return mean and deviation in mV, each (..., lead), of rows of the store; None if the scaling needs none."""
        if self._statistics is None:
            return None
        entries = self._entry_of_row[rows]
        return self._statistics[0][entries], self._statistics[1][entries]

    def probe_windows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int16]]]:
        """Rows of `probed`, in its order, and their central windows, unaltered: int16 (record, lead, time), in blocks."""
        if self.probed is None:
            return
        length = self.config.input.length
        for first in range(0, len(self.probed), PROBE_BLOCK):
            entries = np.arange(first, min(first + PROBE_BLOCK, len(self.probed)))
            begin, end = (self.probed[f"valid_{edge}"][entries] for edge in ("start", "stop"))
            starts = window_starts(np.full(len(entries), 0.5), begin, end, length)
            windows = np.empty((len(entries), len(self.store.recipe.leads), length), np.int16)
            present = np.minimum(starts + length, end) - starts
            rows = self.probed["row"][entries]
            self.store.read_windows(rows, starts, present, windows)
            yield rows, windows

    def summary(self) -> dict[str, Any]:
        """What data.json holds."""
        return {
            "store_fingerprint": self.store.fingerprint,
            "total_steps": self.total_steps,
            "sampler": self.sampler.describe(),
            "cohorts": _uses(self._used),
            "held_out": [] if self.held_out is None else _uses(self.held_out),
            "crop_slack_samples": self._crop_slack(),
        }

    def _crop_slack(self) -> dict[str, dict[str, int]]:
        """By how many samples recordings of each cohort are longer than a window: least and median."""
        # Two crops of a short recording are nearly the same window: pairs of such a cohort are easier than others.
        slack = self._used["valid_stop"] - self._used["valid_start"] - self.config.input.length
        by_cohort = {name: slack[self._used["cohort"] == code] for code, name in enumerate(self._used.cohorts)}
        return {
            name: {"least": int(part.min()), "median": int(np.median(part))}
            for name, part in by_cohort.items()
            if len(part)
        }

    def digests(self) -> NDArray[np.uint8]:
        """(record, 16) waveform digests of the records that batches can draw from."""
        return self._used["waveform_digest"]

    @cached_property
    def _statistics(self) -> "tuple[NDArray[np.float32], NDArray[np.float32]] | None":
        """Of every entry of the store: a cohort's are those of all its recordings, whoever is held out."""
        index = self.store.index
        spec = self.config.input
        return lead_statistics(index, np.arange(len(index)), spec.leads, spec.normalisation)

    @cached_property
    def _entry_of_row(self) -> NDArray[np.int64]:
        rows = self.store.index["row"]
        entry = np.full(int(rows.max()) + 1, -1, np.int64)
        entry[rows] = np.arange(len(rows))
        return entry

    @cached_property
    def _used(self) -> "CohortIndex":
        """Training records that batches can hold."""
        in_batches = [name for name in self.train.cohorts if name not in self.sampler.left_out]
        return _drawn_from(self.train.where(cohort=in_batches), self.config.sampler)

    @cached_property
    def _held_out_loaders(self) -> dict[str, "Loader"]:
        """One per cohort with enough patients for a batch."""
        loaders: dict[str, Loader] = {}
        if self.held_out is None:
            return loaders
        spec = self.config.sampler
        for name in self.held_out.cohorts:
            cohort = _drawn_from(self.held_out.where(cohort=name), spec)
            units = cohort.n_patients if spec.pairing == "patient" else len(cohort)
            groups = min(spec.groups, units) // self.world_size * self.world_size
            # As large as in training where patients allow: the loss of pairs grows with the batch, and would not compare.
            if groups >= max(SMALLEST_HELD_OUT, self.world_size):
                seed = derive_seed(self.config.seed, "held_out")
                sampler = _mixed(spec, cohort, groups, seed)
                loaders[name] = ec.Loader(
                    self.store, sampler.on_rank(self.rank, self.world_size), self.config.input.length
                )
        return loaders


def _sampler(spec: SamplerSpec, index: "CohortIndex", seed: int) -> "BatchPlanner":
    if spec.name != "in_distribution":
        return _mixed(spec, index, spec.groups, seed)
    sampler = _in_distribution(spec, index, seed)
    return RampSampler(sampler, spec.in_distribution_share) if spec.in_distribution_share else sampler


def _in_distribution(spec: SamplerSpec, index: "CohortIndex", seed: int) -> "BatchPlanner":
    if spec.pairing == "patient":
        return ec.InDistributionBatchSampler(
            index,
            pairs=spec.groups,
            seed=seed,
            views=spec.views,
            singles=spec.singles,
            small_groups=spec.small_groups,
            temperature=spec.cohort_temperature,
        )
    return ec.RandomBatchSampler(
        index,
        spec.groups,
        seed,
        by="cohort",
        views=spec.views,
        adjacent=spec.pairing == "adjacent",
        small_groups=spec.small_groups,
    )


def _mixed(spec: SamplerSpec, index: "CohortIndex", groups: int, seed: int) -> "BatchPlanner":
    """Batches from all of an index, whatever cohorts are in it."""
    if spec.pairing == "patient":
        return ec.PatientPairSampler(index, pairs=groups, seed=seed, views=spec.views, singles=spec.singles)
    return ec.RandomBatchSampler(index, groups, seed, views=spec.views, adjacent=spec.pairing == "adjacent")


def _drawn_from(index: "CohortIndex", spec: SamplerSpec) -> "CohortIndex":
    """Leave out patients with too few records, if the sampler does."""
    if spec.pairing != "patient" or spec.singles == "self":
        return index
    return index.take(np.diff(index.patient_ptr)[index["patient"]] >= spec.views)


def _uses(index: "CohortIndex") -> list[dict[str, Any]]:
    """Patients and records of each cohort that has any."""
    parts = {name: index.where(cohort=name) for name in index.cohorts}
    return [
        {"name": name, "patients": part.n_patients, "records": len(part)} for name, part in parts.items() if len(part)
    ]


def fitted(config: RunConfig, recipe: "Recipe") -> RunConfig:
    """Return the run with everything that follows from the store's recipe. Raises RecipeMismatch, naming what to set."""
    asked = config.input.bound(recipe)
    if asked.recipe != recipe.name:
        way = f"train on what the store holds: --set input.recipe={recipe.name}; leads, rate and length follow"
    else:
        keys = ", ".join(f"input.{name}" for name in asked.differences(recipe) if name != "recipe")
        way = f"drop {keys} from the settings: they follow the recipe" if keys else "train on another store"
    asked.require_recipe(recipe, or_else=way)
    encoder, leads = config.encoder, len(asked.leads)
    settings = parse(plugins.load("capezoo.encoders", encoder.name).Config, encoder.config, f"encoder {encoder.name}")
    takes = getattr(settings, "in_leads", leads)
    if takes != leads and "in_leads" in encoder.config:
        raise SpecError(f"encoder {encoder.name} takes {takes} leads (encoder.config.in_leads), and input.leads names {leads}. "
                        "Drop in_leads: it follows.")  # fmt: skip
    if takes != leads:
        # The first convolution must have as many inputs as the recipe has leads; nobody wants to type that.
        encoder = encoder.model_copy(update={"config": {**encoder.config, "in_leads": leads}})
    return config.model_copy(update={"input": asked, "encoder": encoder})
