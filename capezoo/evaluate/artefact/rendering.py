"""One cohort as the control needs it, and its recordings as other devices would have made them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from capezoo.evaluate.artefact.signatures import Signal, Signature
from ecgcohorts import plugins
from ecgcohorts.cohorts.spec import KIND as PRESETS
from ecgcohorts.cohorts.values import AGE_CAP_YEARS
from ecgcohorts.errors import RecipeMismatch
from ecgcohorts.preprocess import quality
from ecgcohorts.preprocess.filter import resample_and_filter
from ecgcohorts.preprocess.recipes import CAPE_V1, load_recipe
from ecgcohorts.preprocess.steps import CheckRate, Cut, Notch, Recipe, Resample, SubtractMedian
from ecgcohorts.preprocess.strip import LARGEST
from ecgcohorts.recording import MISSING

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.store.reader import AnyStore

# At which a signature is made for a store that has no raw signals left; the rate of most sources.
_SOURCE_HZ = 500.0

Strips = NDArray[np.int16]  # (recording, lead, time) in steps of the recipe, MISSING where there is no signal
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Material:
    """One recording of each patient of a cohort, in an order that depends on the recordings alone, and on no key.

    strips: int16 (patient, lead, time) as the store has them. stop: (patient,) end of the signal in them. is_raw: no
    filter has seen them, so any signature can be put on them; else only what is added, filtered by itself. notch_hz:
    (patient,) what the recipe takes out, NaN for nothing. age: NaN if unknown or 90 and more. sex: 0 male, 1 female,
    NaN unknown. device: place in `devices`, -1 unknown.
    """

    cohort: str
    recipe: Recipe
    store_recipe: Recipe
    strips: Strips
    stop: NDArray[np.int64]
    notch_hz: NDArray[np.float64]
    digest: NDArray[np.uint8]
    age: NDArray[np.float64]
    sex: NDArray[np.float64]
    device: NDArray[np.int64]
    devices: tuple[str, ...]
    is_raw: bool

    @classmethod
    def of(
        cls,
        store: "AnyStore",
        cohort: str,
        recipe: str | Path | Recipe | None = None,
        *,
        patients: int | None = None,
        mains_hz: float | None = None,
    ) -> Self:
        """Read a cohort, at most `patients` of it.

        recipe: of the encoder's input; None: the store's own if it filters, else cape-v1. mains_hz: what its notch takes
        out of raw strips; None: what the cohort's preset says, and for a cohort without one what its recordings show.
        Raises SpecError for an unknown cohort, RecipeMismatch for a store whose strips cannot become the recipe's.
        """
        is_raw = all(isinstance(step, Resample | Cut) for step in store.recipe.after_cut)
        wanted = recipe or (CAPE_V1 if is_raw else store.recipe)
        wanted = wanted if isinstance(wanted, Recipe) else load_recipe(wanted)
        _require_renderable(store, wanted, is_raw)
        index = store.index.where(cohort=cohort)
        samples = index["valid_stop"] * (wanted.rate_hz / store.recipe.rate_hz)
        index = index.take((samples >= wanted.window_samples) & (index["valid_start"] == 0))
        chosen = _first_of_each(index)[:patients]
        leads = [store.recipe.leads.index(lead) for lead in wanted.leads]
        age = index["age"][chosen].astype(np.float64)
        sex = index["sex"][chosen].astype(np.float64)
        return cls(
            cohort=cohort,
            recipe=wanted,
            store_recipe=store.recipe,
            strips=np.ascontiguousarray(store.read(index["row"][chosen])[:, leads]),
            stop=index["valid_stop"][chosen].astype(np.int64),
            notch_hz=_notches(index, cohort, wanted, is_raw, mains_hz)[chosen],
            digest=index["waveform_digest"][chosen],
            age=np.where(age < AGE_CAP_YEARS, age, np.nan),
            sex=np.where(sex >= 0, sex, np.nan),
            device=index["device"][chosen].astype(np.int64),
            devices=index.devices,
            is_raw=is_raw,
        )

    def __len__(self) -> int:
        return len(self.strips)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a trial depends on; two stores of one cohort under two keys have the same."""
        digest = hashlib.sha256(f"{self.cohort} {self.recipe.digest} {self.store_recipe.digest}".encode())
        names = np.array([*self.devices, ""])[self.device]
        for one in (self.strips, self.stop, self.notch_hz, self.digest, self.age, self.sex, names):
            digest.update(np.ascontiguousarray(one).tobytes())
        return digest.hexdigest()

    def refuse(self, signature: Signature) -> None:
        """Raise RecipeMismatch for a signature that cannot be put on what the store has."""
        if not (self.is_raw or signature.is_added):
            raise RecipeMismatch(
                f"found a store of recipe {self.store_recipe.name}, which filters; expected raw signals for the signature "
                f"{signature.kind}. Make a store of an unfiltered recipe: ecgcohorts ingest SOURCE STORE --recipe plain-500."
            )

    def render(
        self, places: Places, devices: Sequence[int] | Places, signature: Signature, on_top: Places | None = None
    ) -> Strips:
        """Return recordings as devices would have made them, after the recipe: int16 (place, lead, time).

        devices: one for each place. on_top: a second device, whose signature comes on top of the first.
        """
        self.refuse(signature)
        out = np.full((len(places), len(self.recipe.leads), self.recipe.strip_samples), MISSING, np.int16)
        seconds = [None] * len(places) if on_top is None else on_top.tolist()
        for number, (place, device, second) in enumerate(zip(places, devices, seconds, strict=True)):
            worn = [(int(device), "own")] + ([] if second is None else [(second, "on top")])
            mv = self._rendered(int(place), worn, signature)
            steps = np.clip(np.rint(mv * (1000 / self.recipe.lsb_uv)), -LARGEST, LARGEST)
            out[number, :, : steps.shape[1]] = steps
        return out

    def _rendered(self, place: int, worn: list[tuple[int, str]], signature: Signature) -> NDArray[np.float64]:
        recording = self.digest[place].tobytes()
        stored = self.strips[place, :, : self.stop[place]].astype(np.float64)
        strip_mv: Signal = stored * (self.store_recipe.lsb_uv / 1000)
        if self.is_raw:
            rate_hz = self.store_recipe.rate_hz
            for device, use in worn:
                strip_mv = signature.applied(strip_mv, rate_hz, device, recording, use)
            return self._filtered(strip_mv, rate_hz, place)
        # Filters are linear: what is added to the raw signal and filtered with it may be filtered alone.
        rate_hz = max(_SOURCE_HZ, self.recipe.rate_hz)
        shape = len(self.recipe.leads), int(self.stop[place] * rate_hz / self.recipe.rate_hz)
        for device, use in worn:
            added_mv = self._filtered(signature.added(shape, rate_hz, device, recording, use), rate_hz, place)
            strip_mv = strip_mv + added_mv
        return strip_mv

    def _filtered(self, raw_mv: NDArray[np.float64], rate_hz: float, place: int) -> NDArray[np.float64]:
        """Run the recipe's filters, (lead, time) in mV."""
        recipe = self.recipe
        if recipe.cuts_first:
            longest = int(recipe.strip_s * rate_hz + 1e-6)
            first = max(raw_mv.shape[1] - longest, 0) // 2 if recipe.required(Cut).keep == "centre" else 0
            raw_mv = raw_mv[:, first : first + longest]
        most = recipe.required(CheckRate).max_denominator
        ratio = Fraction(rate_hz / recipe.required(Resample).rate_hz).limit_denominator(most)
        notch_hz = None if np.isnan(self.notch_hz[place]) else float(self.notch_hz[place])
        filtered_mv = resample_and_filter(raw_mv, rate_hz, (ratio.denominator, ratio.numerator), recipe, notch_hz)
        return filtered_mv[:, : recipe.strip_samples]


def _require_renderable(store: "AnyStore", recipe: Recipe, is_raw: bool) -> None:
    """Raise RecipeMismatch for a store whose strips cannot become the recipe's."""
    own = store.recipe
    missing = set(recipe.leads) - set(own.leads)
    if {own.unit, recipe.unit} != {"mV"}:
        what = "numbers without a unit"
    elif not is_raw and own != recipe:
        what = f"recipe {own.name}, which filters"
    elif missing:
        what = f"no lead {' '.join(sorted(missing))}"
    elif not is_raw and any(isinstance(step, SubtractMedian) for step in recipe.steps):
        what = f"recipe {own.name}, whose running median is not linear"
    else:
        return
    raise RecipeMismatch(
        f"{store.path}: found {what}, expected raw signals for recipe {recipe.name}. Make a store of an unfiltered recipe "
        "with these leads: ecgcohorts ingest SOURCE STORE --recipe plain-500."
    )


def _first_of_each(index: "CohortIndex") -> Places:
    """Return an entry of each patient, in the order of their waveforms' digests.

    Rows and pseudonyms follow the key of a store. The digest is the recording's own under any key.
    """
    keys = [bytes(one) for one in index["waveform_digest"]]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    _, first = np.unique(index["patient"][order], return_index=True)
    return order[np.sort(first)]


def _notches(
    index: "CohortIndex", cohort: str, recipe: Recipe, is_raw: bool, mains_hz: float | None
) -> NDArray[np.float64]:
    """Return for each recording what the recipe's notch takes out, NaN for nothing."""
    if not is_raw:
        return index["q_notch_hz"].astype(np.float64)
    notch = recipe.step(Notch)
    if notch is None or notch.hz != "mains":
        return np.full(len(index), np.nan if notch is None else notch.hz)
    known = mains_hz if mains_hz is not None else _mains_of(cohort)
    if known is not None:
        return np.full(len(index), float(known))
    scores = np.stack([index[f"q_mains_{hz:.0f}_before_db"] for hz in quality.MAINS_HZ])
    loudest = np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=0)
    found = np.nan_to_num(scores, nan=-np.inf).max(axis=0) >= quality.MAINS_DB
    return np.where(found, np.array(quality.MAINS_HZ)[loudest], np.nan)


def _mains_of(cohort: str) -> float | None:
    """Return the mains frequency that a preset states for a cohort; None if none does."""
    for name in plugins.names(PRESETS):
        spec = plugins.load(PRESETS, name).SPEC
        if cohort in spec.cohort_names:
            stated = spec.cohort(cohort).mains_hz
            return stated if isinstance(stated, float) else None
    return None
