"""Verify that a weight folder is what was published: files, digests, schema, tensors and the golden output."""

from dataclasses import dataclass
from pathlib import Path

from capezoo.zoo.create import load
from capezoo.zoo.files import GOLDEN, SIZE_LIMITS, problems_of, read_card
from capezoo.zoo.golden import GoldenOutput
from capezoo.zoo.listing import locate
from ecgcohorts.errors import EcgError


@dataclass(frozen=True)
class Verification:
    """Result of `verify`. `problems` is empty if the folder is whole."""

    folder: Path
    name: str
    files: int
    golden_difference: float  # largest absolute difference over the largest expected value; NaN if not reached
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(weights: str | Path, offline: bool = False, *, device: str = "cpu") -> Verification:
    """Check published weights given as "encoder.tag", folder, or "hf-hub:org/repo@revision".

    Bytes first: nothing is parsed or run unless every digest is right. offline: take Hub weights from the cache only.
    device: cpu, auto, cuda or cuda:N, which must give the golden output. Raises SpecError if there are no such weights.
    """
    folder = locate(weights, offline)
    problems = problems_of(folder)
    if problems:
        return Verification(folder, folder.name, 0, float("nan"), tuple(problems))
    card = read_card(folder)
    assert card.golden is not None  # a card without one is a problem above
    from capezoo.devices import _device_named  # loads torch, which damaged weights never need

    there = str(_device_named(device))
    try:
        golden = GoldenOutput.read(folder / GOLDEN, card.input, card.embedding_dim)
        difference = golden.difference(load(folder), card.input, there)
    except EcgError as error:
        return Verification(folder, folder.name, 0, float("nan"), (str(error),))
    # Written this way round, NaN fails as well.
    if not difference <= card.golden.tolerance:
        problems.append(
            f"{GOLDEN}: the output differs by {difference:.2e} of its largest value, expected at most "
            f"{card.golden.tolerance:.0e}. Do not use these weights with this installation."
        )
    files = sum((folder / name).is_file() for name in SIZE_LIMITS)
    return Verification(folder, f"{card.name} {card.version}", files, difference, tuple(problems))
