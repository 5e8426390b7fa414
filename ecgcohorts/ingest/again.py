"""Read a recording again with the steps of a run, to say what a run would make of it, or why it refused it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ecgcohorts.cohorts.schema import Mains
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import Reason, RecordingError, UnreadableRecording, is_of_machine
from ecgcohorts.preprocess.steps import Recipe
from ecgcohorts.readers import Reader
from ecgcohorts.recording import Recording

if TYPE_CHECKING:
    from ecgcohorts.preprocess.strip import Strip


class _Steps(NamedTuple):
    """What becomes of a raw file in a run: everything but the compression."""

    reader: Reader
    spec: CohortSpec
    recipe: Recipe

    def decode(
        self, file: Path | UnreadableRecording, entry: str, cohort: str, mains_hz: Mains
    ) -> tuple[Recording, "Strip"]:
        """Decode one recording as ingest does, in its order. Raises RecordingError, or whatever a strange file causes."""
        from ecgcohorts.preprocess.strip import make_strip  # here, because `inspect` does without SciPy

        if isinstance(file, UnreadableRecording):  # the source could not deliver it
            raise file
        recording = self.spec.apply_rules(cohort, next(iter(self.reader.read(file, [entry]))))
        # Without quality measures: they refuse nothing, and take half of the time.
        return recording, make_strip(recording, self.recipe, mains_hz, with_quality=False)


class _Told(NamedTuple):
    """A refusal for the person who holds the file; may repeat text of a header."""

    reason: str
    found: str
    expected: str
    what_to_do: str

    @property
    def cause(self) -> str:
        """The same for refusals that differ in numbers and names only."""
        return re.sub(r"'[^']*'|\d+", "#", f"{self.reason}: {self.found}, {self.expected}")

    @classmethod
    def of(cls, work: Callable[[], object]) -> Self | None:
        """Do some work on a file and return why it refuses; None if it does not."""
        try:
            work()
        except RecordingError as error:
            return cls.by(error)
        # One strange file must not end the account of all others, but a full disk says nothing about it.
        except Exception as error:
            if is_of_machine(error):
                raise
            remedy = "This is a defect of the reader: report it."
            return cls(Reason.UNEXPECTED.value, type(error).__name__, "a recording", remedy)
        return None

    @classmethod
    def by(cls, error: RecordingError) -> Self:
        """Return what a refusal says."""
        # A recipe or description refuses what was read well: another file of it would be the same.
        is_file = isinstance(error, UnreadableRecording)
        remedy = str(error.remedy) or (
            "Fetch or export the file again."
            if is_file
            else "Choose a recipe that takes such recordings, or leave it out."
        )
        return cls(str(error.reason), str(error.found), str(error.expected), remedy)
