"""results.json of an artefact control: what its trials say, and how far they are."""

from pathlib import Path
from typing import Literal, Self

from capezoo.evaluate.artefact.trial import Settings
from capezoo.evaluate.artefact.verdict import Findings
from capezoo.evaluate.results import RESULTS, Provenance
from capezoo.specs.base import Spec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.io.durable import write_file

# Bytes of results.json: five hundred trials make about 1 MB.
_LIMIT = 64 << 20


class Outcome(Spec):
    """results.json of an artefact control."""

    format: Literal["capezoo-artefact"] = "capezoo-artefact"
    format_version: Literal[1] = 1
    state: Literal["complete", "incomplete"]
    left: tuple[str, ...]  # trials that were asked for and have not been run
    cohort: str
    patients: int
    recipe: str
    store_recipe: str
    store_fingerprint: str
    made_with: str  # fingerprint of settings and recordings
    settings: Settings
    seconds: float  # of all trials together
    cpu_seconds: float | None  # None: of an older trial nobody knows it
    findings: Findings
    provenance: Provenance

    def write(self, folder: Path) -> None:
        """Write results.json whole."""
        write_file(folder / RESULTS, (self.model_dump_json(indent=1) + "\n").encode())

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether the results of a folder are those of an artefact control, by their first words."""
        try:
            with (folder / RESULTS).open("rb") as file:
                return b'"capezoo-artefact"' in file.read(100)
        except OSError:
            return False

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read results.json of a folder. Raises SourceError if it is missing, SpecError if it is something else."""
        path = folder / RESULTS
        if not path.is_file() or path.stat().st_size > _LIMIT:
            raise SourceError(f"{path}: found no result, expected a file written by `capezoo evaluate artefact`.")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            first = str(error).splitlines()[0]
            raise SpecError(
                f"{path}: found {first}, expected a file written by `capezoo evaluate artefact`. Run it again."
            ) from None


def in_words(seconds: float) -> str:
    """Return a time that is an estimate as a person says it."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
