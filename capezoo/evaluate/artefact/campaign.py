"""A campaign of the artefact control: which trials to run, what they cost, and how far they are.

One process and one thread. Every finished trial is a file of its own, so a campaign may be killed at any time, and the same
call goes on. Processes with different seeds may share a folder.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from capezoo.errors import Unanswerable
from capezoo.evaluate.artefact.arms import ARMS, arm_named
from capezoo.evaluate.artefact.methods import require_norm
from capezoo.evaluate.artefact.outcome import Outcome, in_words
from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.run import made_with, run
from capezoo.evaluate.artefact.signatures import Signature
from capezoo.evaluate.artefact.trial import Cell, Settings, Trial
from capezoo.evaluate.artefact.verdict import Findings
from capezoo.evaluate.results import RESULTS, Provenance
from capezoo.specs.base import parse
from ecgcohorts.errors import SpecError

TRIALS = "trials"  # folder of finished trials, a file each
# Steps of the two short trials that are timed: their difference is what a step costs, the rest what a trial costs anyway.
# Thirty apart: a step takes .04 s, and the machine's noise on a difference is multiplied by some eight.
_TIMED = (2, 32)

Tell = Callable[[str, int, int], None]  # what, done, total
Say = Callable[[str], None]


def plan(
    kind: str, strengths: Iterable[float], arms: Iterable[str], positives: str, seeds: Iterable[int]
) -> tuple[Cell, ...]:
    """List the trials of a campaign, all of one seed before the next, so that a campaign cut short is one of fewer seeds.

    Raises SpecError for an unknown kind, strength or arm.
    """
    values = [
        # Recordings with the devices of their store wear no signature, so there is one strength for them.
        {
            "kind": kind,
            "strength_uv": 0.0 if arm_named(arm).own_devices else strength,
            "arm": arm,
            "positives": positives,
        }
        for strength in dict.fromkeys(strengths)
        for arm in dict.fromkeys(arms)
    ]
    found = [parse(Cell, one | {"seed": seed}, "trial") for seed in dict.fromkeys(seeds) for one in values]
    for cell in found:
        Signature(cell.kind, cell.strength_uv, cell.seed)
    return tuple({cell.key: cell for cell in found}.values())


class Campaign:
    """Trials of one cohort in a folder: those that are there, and those of `cells` that are not."""

    def __init__(
        self, material: Material, cells: Sequence[Cell], folder: Path, settings: Settings | None = None
    ) -> None:
        """Look at the folder. Raises SpecError if it has trials of other recordings or with other settings, or results of
        something else or an arm that the encoder cannot have, SourceError if a trial is damaged, RecipeMismatch if the
        material cannot wear a signature of `cells`."""
        if (folder / RESULTS).exists() and not Outcome.is_in(folder):
            raise SpecError(
                f"{folder / RESULTS}: found results of something else, expected those of an artefact control, or none. Name "
                "another folder with -o."
            )
        self.material, self.cells, self.folder = material, tuple(cells), folder
        self.settings = settings or Settings()
        self._made_with = made_with(material, self.settings)
        self._timed: tuple[float, float] | None = None
        for cell in cells:
            require_norm(cell.arm, self.settings)
            material.refuse(Signature(cell.kind, cell.strength_uv, cell.seed))
        self.kept = {trial.cell.key: trial for trial in map(self._whole, sorted((folder / TRIALS).glob("*.npz")))}

    @property
    def left(self) -> tuple[Cell, ...]:
        """The trials that are still to be run, in their order."""
        return tuple(cell for cell in self.cells if cell.key not in self.kept)

    def projected_s(self) -> float:
        """Estimate the seconds of all trials that are left; without a trial of the same arm, two short ones are timed."""
        return sum(map(self._cost_s, self.left))

    def run(self, budget_s: float = float("inf"), say: Say = lambda text: None, tell: Tell = lambda *_: None) -> None:
        """Run what is left, and stop before a trial that would not end within the budget."""
        begun = time.perf_counter()
        left = self.left
        for place, cell in enumerate(left):
            spent = time.perf_counter() - begun
            if spent + self._cost_s(cell) > budget_s:
                say(f"stopped at the budget: {len(left) - place} of {len(self.cells)} trials are left")
                return
            tell("trials", len(self.cells) - len(left) + place, len(self.cells))
            trial = self._run(cell)
            trial.save(self.folder / TRIALS / f"{cell.key}.npz")
            self.kept[cell.key] = trial
            done = len(self.cells) - len(left) + place + 1
            tell("trials", done, len(self.cells))
            say(
                f"{done}/{len(self.cells)} {cell.key}: {trial.facts.seconds:.0f} s; {in_words(self.projected_s())} left"
            )

    def outcome(self, store_fingerprint: str, command: str = "") -> Outcome:
        """Judge all trials of the folder. Raises SpecError if there are none."""
        if not self.kept:
            raise SpecError(f"{self.folder}: found no finished trial, expected one at least. Allow a larger budget.")
        # By key and not as they came: a campaign that was resumed has the same results, to the last digit.
        trials = [self.kept[key] for key in sorted(self.kept)]
        left, cpu = tuple(cell.key for cell in self.left), [trial.facts.cpu_seconds for trial in trials]
        return Outcome(
            state="incomplete" if left else "complete",
            left=left,
            cohort=self.material.cohort,
            patients=len(self.material),
            recipe=self.material.recipe.name,
            store_recipe=self.material.store_recipe.name,
            store_fingerprint=store_fingerprint,
            made_with=self._made_with,
            settings=self.settings,
            seconds=round(sum(trial.facts.seconds for trial in trials), 1),
            cpu_seconds=round(sum(cpu), 1) if all(cpu) else None,
            findings=Findings.of(trials),
            provenance=Provenance.now(command),
        )

    def _run(self, cell: Cell) -> Trial:
        try:
            return run(self.material, cell, self.settings)
        # Whether a small cohort has enough people on every device depends on the seed.
        except Unanswerable as error:
            raise Unanswerable(f"{cell.key}: {error} Or begin at another --seed.") from None

    def _whole(self, path: Path) -> Trial:
        trial = Trial.load(path)
        # Numbers from other recordings or settings would be averaged with these, and nobody would see it.
        if trial.made_with != self._made_with or path.stem != trial.cell.key:
            raise SpecError(
                f"{path}: found a trial of other recordings, settings or code, expected those of this command. Name another "
                "folder with -o, or remove this one."
            )
        return trial

    def _cost_s(self, cell: Cell) -> float:
        same = [trial.facts.seconds for trial in self.kept.values() if trial.cell.arm == cell.arm]
        if same:
            return median(same)
        if self._timed is None:
            # Once for nothing: the first trial of a process takes 1.5 s more, as much as the steps that are to be timed.
            self._short_s(cell, 1)
            few, more = (self._short_s(cell, steps) for steps in _TIMED)
            step_s = max(more - few, 0.0) / (_TIMED[1] - _TIMED[0])
            self._timed = max(few - _TIMED[0] * step_s, 0.0), step_s
        # A machine that is busier now than it was for the short trials is so for all arms.
        slower = [trial.facts.seconds / self._modelled_s(trial.cell.arm, self._timed) for trial in self.kept.values()]
        return self._modelled_s(cell.arm, self._timed) * (median(slower) if slower else 1.0)

    def _modelled_s(self, arm: str, timed: tuple[float, float]) -> float:
        return timed[0] + timed[1] * self.settings.steps * ARMS[arm].times_pairs * ARMS[arm].trained

    def _short_s(self, cell: Cell, steps: int) -> float:
        # Mixed batches: the other arms' costs follow from them, whichever of them is asked for first. With the cohort's own
        # devices there may be patients enough where there are too few for four made-up ones.
        short = cell if ARMS[cell.arm].own_devices else cell.model_copy(update={"arm": "mixed"})
        return run(self.material, short, self.settings.model_copy(update={"steps": steps})).facts.seconds
