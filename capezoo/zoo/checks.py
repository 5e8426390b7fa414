"""Is a folder a whole weight folder? Names, digests, schema and tensors' layout; nothing is run."""

from pathlib import Path

from capezoo.specs import WeightCard
from capezoo.zoo.files import (
    CARD,
    DIGEST_BYTES,
    DIGESTS,
    REQUIRED,
    SUMS,
    TOLERATED,
    WEIGHTS,
    read_architecture,
    read_card,
    read_header,
    read_sums,
)
from ecgcohorts.errors import EcgError
from ecgcohorts.io.durable import sha256_of


def problems_of(folder: Path) -> list[str]:
    """What is wrong with a weight folder; empty if nothing is. Bytes first: nothing is parsed unless every digest is right."""
    try:
        return _check_files(folder) or _check_card(folder, read_card(folder))
    except EcgError as error:
        return [str(error)]


def _check_files(folder: Path) -> list[str]:
    """Exactly the known files are there, each with its digest."""
    present = {path.name for path in folder.iterdir()} - set(TOLERATED)
    allowed = {*REQUIRED, DIGESTS}
    problems = [f"{name}: missing. Fetch the folder again." for name in REQUIRED if name not in present]
    problems += [f"{name}: unexpected file, and never read. Remove it." for name in sorted(present - allowed)]
    if problems:
        return problems
    sums = read_sums(folder)
    problems += [f"{name}: not listed in {SUMS}." for name in sorted(present - set(sums) - {SUMS})]
    for name, digest in sums.items():
        if name not in present:
            problems.append(f"{name}: listed in {SUMS}, but not there.")
        elif sha256_of(folder / name) != digest:
            problems.append(f"{name}: sha256 differs from {SUMS}. Fetch it again.")
    return problems


def _check_card(folder: Path, card: WeightCard) -> list[str]:
    """Card, config, header and files tell one story."""
    architecture, header = read_architecture(folder), read_header(folder / WEIGHTS)
    problems = []
    if (card.encoder, card.input) != (architecture.encoder, architecture.input):
        problems.append(f"{CARD}: another architecture or input than config.json.")
    if header.architecture != architecture:
        problems.append(f"{WEIGHTS}: another architecture than config.json.")
    if header.is_half != (card.half_cosine is not None):
        problems.append(f"{CARD}: another precision than {WEIGHTS} has.")
    for name, digest in card.sha256.items():
        if not (folder / name).is_file() or Path(name).name != name or sha256_of(folder / name) != digest:
            problems.append(f"{CARD}: another sha256 for {name} than the file has.")
    if WEIGHTS not in card.sha256 or card.golden is None:
        problems.append(f"{CARD}: does not name the weights and a golden output.")
    if (folder / DIGESTS).is_file() and (folder / DIGESTS).stat().st_size % DIGEST_BYTES:
        problems.append(f"{DIGESTS}: not a whole number of {DIGEST_BYTES}-byte digests.")
    return problems
