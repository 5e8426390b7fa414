"""Is a weight folder what was published? Files, digests, schema, tensors and the golden output."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capezoo.specs import InputSpec, WeightCard
from capezoo.zoo.create import load
from capezoo.zoo.files import (
    CARD,
    DIGESTS,
    GOLDEN,
    REQUIRED,
    SUMS,
    TOLERATED,
    WEIGHTS,
    read_architecture,
    read_card,
    read_header,
    read_sums,
)
from capezoo.zoo.listing import locate
from capezoo.zoo.publish import golden_embedding
from ecgcohorts.errors import EcgError, SourceError
from ecgcohorts.store.durable import sha256_of

GOLDEN_LIMIT = 64 << 20  # bytes; ours has about 200 kB
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Verification:
    """What was found. `problems` is empty if the folder is whole."""

    folder: Path
    name: str
    files: int
    golden_difference: float  # largest absolute difference over the largest expected value; NaN if not reached
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(weights: str | Path) -> Verification:
    """Check published weights given as "encoder.tag", folder, or "hf-hub:org/repo@revision".

    Bytes first: nothing is parsed or run unless every digest is right. Raises SpecError if there are no such weights.
    """
    folder = locate(weights)
    try:
        problems = _check_files(folder)
        if problems:
            return Verification(folder, folder.name, 0, float("nan"), tuple(problems))
        card = read_card(folder)
        problems = _check_card(folder, card)
        difference = float("nan") if problems else _golden_difference(folder, card)
        if not problems and not difference <= (card.golden.tolerance if card.golden else 0):
            problems.append(
                f"{GOLDEN}: found an output {difference:.2e} off (of its largest value), expected at most "
                f"{card.golden.tolerance if card.golden else 0:.0e}. Do not use these weights with this installation."
            )
        return Verification(
            folder, f"{card.name} {card.version}", len(read_sums(folder)) + 1, difference, tuple(problems)
        )
    except EcgError as error:
        return Verification(folder, folder.name, 0, float("nan"), (str(error),))


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
    for name, digest in card.sha256.items():
        if not (folder / name).is_file() or Path(name).name != name or sha256_of(folder / name) != digest:
            problems.append(f"{CARD}: another sha256 for {name} than the file has.")
    if WEIGHTS not in card.sha256 or card.golden is None:
        problems.append(f"{CARD}: does not name the weights and a golden output.")
    if (folder / DIGESTS).is_file() and (folder / DIGESTS).stat().st_size % DIGEST_BYTES:
        problems.append(f"{DIGESTS}: not a whole number of {DIGEST_BYTES}-byte digests.")
    return problems


def _golden_difference(folder: Path, card: WeightCard) -> float:
    signal_uv, wanted = read_golden(folder / GOLDEN, card.input, card.embedding_dim)
    found = golden_embedding(load(folder), signal_uv)
    scale = float(np.abs(wanted).max()) or 1.0
    return float(np.abs(found - wanted).max()) / scale


def read_golden(path: Path, spec: InputSpec, width: int) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The two arrays of golden.npz, after their size and type were checked. Raises SourceError."""
    size = path.stat().st_size
    try:
        if size > GOLDEN_LIMIT:
            raise ValueError(f"{size} bytes")
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Stored, not compressed: an entry cannot grow beyond the file.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed entries")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            signal, embedding = arrays["signal_uv"], arrays["embedding"]
        n = len(signal)
        if signal.dtype != np.int16 or signal.shape != (n, len(spec.leads), spec.length) or not n:
            raise ValueError(f"signal_uv {signal.dtype} {signal.shape}")
        if embedding.dtype != np.float32 or embedding.shape != (n, width) or not np.isfinite(embedding).all():
            raise ValueError(f"embedding {embedding.dtype} {embedding.shape}")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: found {error}, expected the golden input and output. Fetch it again.") from None
    return signal, embedding
