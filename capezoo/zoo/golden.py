"""The golden output of a weight folder: fixed synthetic ECGs and the embeddings they must give, in golden.npz."""

import zipfile
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from capezoo.specs.input import InputSpec
from capezoo.specs.scaling import OF_STATISTICS, scaled
from capezoo.zoo.files import SIZE_LIMITS
from capezoo.zoo.forward import features
from ecgcohorts.errors import EcgError, SourceError
from ecgcohorts.io.regular import read_bounded

if TYPE_CHECKING:
    from torch import nn

# They differ in rate, size and lead weights, so that a swapped lead or a lost scale shows.
_SIGNALS = 4
_SEED = 20250912  # of the noise; any number would do
# Of a file that others made: signals that `verify` embeds, and bytes of the archive's directory (ours has 120).
_MOST, _DIRECTORY_BYTES = 64, 4096


@dataclass(frozen=True, eq=False)
class GoldenOutput:
    """Signals in microvolts, int16 (signal, lead, length), and the embeddings they must give, float32 (signal, unit)."""

    signal_uv: NDArray[np.int16]
    embedding: NDArray[np.float32]

    @classmethod
    def of(cls, model: "nn.Module", spec: InputSpec) -> Self:
        """Embed the fixed synthetic ECGs with a model."""
        signal = _signal(spec)
        return cls(signal, _embedding(model, signal, spec))

    @classmethod
    def read(cls, path: Path, spec: InputSpec, width: int) -> Self:
        """Read golden.npz and check the size and type of its arrays. Raises SourceError."""
        try:
            signal, embedding = _arrays(read_bounded(path, SIZE_LIMITS[path.name]))
            n = len(signal)
            if signal.dtype != np.int16 or signal.shape != (n, len(spec.leads), spec.length) or not 0 < n <= _MOST:
                raise ValueError(f"signal_uv {signal.dtype} {signal.shape}")
            if embedding.dtype != np.float32 or embedding.shape != (n, width) or not np.isfinite(embedding).all():
                raise ValueError(f"embedding {embedding.dtype} {embedding.shape}")
        # Of a hostile archive the library raises what it runs into.
        except (EcgError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise SourceError(f"{path}: found {error}, expected the golden input and output. Fetch it again.") from None
        return cls(signal, embedding)

    def to_bytes(self) -> bytes:
        """Return golden.npz, the same bytes for the same numbers."""
        buffer = BytesIO()
        # np.savez writes the time of day into the archive; the same weights must give the same bytes.
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for name, array in (("signal_uv", self.signal_uv), ("embedding", self.embedding)):
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        return buffer.getvalue()

    def difference(self, model: "nn.Module", spec: InputSpec, device: str | None = None) -> float:
        """Return how far a model's embeddings are from these: the largest difference over the largest value."""
        found = _embedding(model, self.signal_uv, spec, device)
        # The signals of the file, not today's: weights stay checkable if the way they are made changes.
        scale = float(np.abs(self.embedding).max()) or 1.0
        return float(np.abs(found - self.embedding).max()) / scale


def _arrays(data: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the two arrays of golden.npz, whose headers are held against its bytes. Raises ValueError, KeyError."""
    # The last 22 bytes of an archive without comment, which say how long its directory is: the library reads one of a
    # million entries whole before it tells how many there are.
    if (
        data[-22:-18] != b"PK\5\6"
        or int.from_bytes(data[-10:-6], "little") > _DIRECTORY_BYTES
        or b"PK\6\7" in data[-42:]
    ):
        raise ValueError("no archive of two arrays")
    with zipfile.ZipFile(BytesIO(data)) as archive:
        # Stored, not compressed: an entry cannot grow beyond the file.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed entries")
        signal, embedding = (_array(archive.read(f"{name}.npy")) for name in ("signal_uv", "embedding"))
    return signal, embedding


def _array(data: bytes) -> NDArray[Any]:
    """Return the array of an .npy file in memory. Raises ValueError unless it has as many bytes as it declares."""
    stream = BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    # Compared before numpy allocates what the header asks for, which may be terabytes.
    if dtype.hasobject:
        raise ValueError("Object arrays, which are pickles")
    if by_columns or prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array {dtype} {shape!r:.80} in {len(data)} bytes")
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)


def _signal(spec: InputSpec) -> NDArray[np.int16]:
    """Return fixed synthetic ECGs in whole microvolts: (signal, lead, length).

    The file holds the numbers themselves: this is how they were made, not how they are checked.
    """
    n_leads, length = len(spec.leads), spec.length
    generator = np.random.Generator(np.random.PCG64(_SEED))
    signal = generator.integers(-12, 13, (_SIGNALS, n_leads, length))  # noise, microvolts
    for number in range(_SIGNALS):
        period, offset = round(spec.rate_hz * (0.6 + 0.15 * number)), 40 + 60 * number
        weight = generator.integers(-1500, 1501, n_leads)  # R wave, microvolts
        for start in range(offset, length, period):
            for place, width, share in ((0, 12, 8), (5 * period // 16, 40, 2)):  # QRS and T as triangles
                for step in range(-width, width + 1):
                    if 0 <= start + place + step < length:
                        signal[number, :, start + place + step] += weight * share * (width - abs(step)) // (8 * width)
    return signal.astype(np.int16)


def _embedding(
    model: "nn.Module", signal_uv: NDArray[np.int16], spec: InputSpec, device: str | None = None
) -> NDArray[np.float32]:
    """Embed signals in microvolts, scaled as `spec` says: (signal, unit).

    Each signal is a recording and a cohort of its own where a scaling asks for their statistics.
    """
    normalisation = "window_lead_z" if spec.normalisation in OF_STATISTICS else spec.normalisation
    return features(model, scaled(signal_uv.astype(np.float32) / np.float32(1000), normalisation), device)
