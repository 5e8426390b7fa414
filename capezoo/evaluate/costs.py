"""What the trainings of a plan will take, from two short ones of each kind: their difference is what a step takes."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from capezoo.specs.base import fingerprint
from capezoo.specs.run import RunConfig
from capezoo.training.data import TrainingData
from capezoo.training.loop import pretrain

if TYPE_CHECKING:
    from ecgcohorts.store.reader import AnyStore

# As in the artefact control: thirty apart, or the noise of the machine would be multiplied too often.
_TIMED = (2, 32)
# What decides the time of a step; who is trained on, for how long and from which seed does not.
_DECISIVE = {"encoder", "objective", "input", "sampler", "views", "compute"}


class Costs:
    """Seconds of trainings on one store. Each kind of run is timed once, when it is first asked for."""

    def __init__(self, store: "AnyStore") -> None:
        self._store = store
        self._timed: dict[str, tuple[float, float]] = {}  # kind -> what a run takes anyway, and each step

    def of(self, config: RunConfig) -> float:
        """Estimate the seconds of a training."""
        steps = TrainingData.prepare(self._store, config).total_steps
        kind = fingerprint(config.model_dump(mode="json", include=_DECISIVE))
        if kind not in self._timed:
            # Once for nothing: the first training of a process takes longer.
            self._short_s(config, 1)
            few, more = (self._short_s(config, count) for count in _TIMED)
            step_s = max(more - few, 0.0) / (_TIMED[1] - _TIMED[0])
            self._timed[kind] = max(few - _TIMED[0] * step_s, 0.0), step_s
        fixed_s, step_s = self._timed[kind]
        # A short run looks at held-out patients once; that is most of what it takes beside its steps.
        return steps * step_s + fixed_s * (1 + steps // config.held_out.every_steps)

    def _short_s(self, config: RunConfig, steps: int) -> float:
        short = config.model_copy(update={"max_steps": steps, "curves": False})
        begun = time.perf_counter()
        with TemporaryDirectory() as folder:
            pretrain(self._store, short, Path(folder) / "run", progress=lambda report: None)
        return time.perf_counter() - begun
