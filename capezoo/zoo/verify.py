"""Is a weight folder what was published? Files, digests, schema, tensors and the golden output."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capezoo.specs import InputSpec, WeightCard
from capezoo.zoo.checks import problems_of
from capezoo.zoo.create import load
from capezoo.zoo.files import GOLDEN, GOLDEN_LIMIT, read_card, read_sums
from capezoo.zoo.listing import locate
from capezoo.zoo.publish import golden_embedding
from ecgcohorts.errors import EcgError, SourceError


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


def verify(weights: str | Path, offline: bool = False) -> Verification:
    """Check published weights given as "encoder.tag", folder, or "hf-hub:org/repo@revision".

    Bytes first: nothing is parsed or run unless every digest is right. offline: take Hub weights from the cache only.
    Raises SpecError if there are no such weights.
    """
    folder = locate(weights, offline)
    problems = problems_of(folder)
    if problems:
        return Verification(folder, folder.name, 0, float("nan"), tuple(problems))
    card = read_card(folder)
    assert card.golden is not None  # or it would be a problem
    try:
        difference = _golden_difference(folder, card)
    except EcgError as error:
        return Verification(folder, folder.name, 0, float("nan"), (str(error),))
    if not difference <= card.golden.tolerance:
        problems.append(
            f"{GOLDEN}: found an output {difference:.2e} off (of its largest value), expected at most "
            f"{card.golden.tolerance:.0e}. Do not use these weights with this installation."
        )
    return Verification(folder, f"{card.name} {card.version}", len(read_sums(folder)) + 1, difference, tuple(problems))


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
