"""The files of a weight folder: their names and limits, how to read them, and whether they are whole.

The folder may be hostile. Every size is checked against the file before anything is allocated, links, pipes and devices
are refused, and nothing here unpickles or runs anything.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from capezoo.specs.base import Spec, parse, read_json
from capezoo.specs.card import WeightCard
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from ecgcohorts.errors import EcgError, SourceError, SpecError, UnreadableRecording
from ecgcohorts.io.durable import sha256_of
from ecgcohorts.io.regular import open_regular, read_bounded, size_of

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "card.json"
README = "README.md"
LICENCE = "LICENSE"
GOLDEN = "golden.npz"
DIGESTS = "training_digests.bin"
SUMS = "SHA256SUMS"
REQUIRED = (WEIGHTS, CONFIG, CARD, README, LICENCE, GOLDEN, SUMS)
# What a Hub download adds by itself; it is never read.
TOLERATED = (".gitattributes", ".gitignore", ".huggingface", ".cache")

DIGEST_BYTES = 16  # of a waveform digest
# Bytes of each text file; a card has about 10 kB, the longest licences some 40 kB.
_TEXT_LIMIT = 1 << 20
# Bytes of the safetensors header; ours has about 10 kB, the format itself allows 100 MB.
_HEADER_LIMIT = 1 << 20
# Bytes that each file of a weight folder may have; there are no other files. 4 GiB: a billion numbers. 64 MiB: our
# golden.npz has about 200 kB. 1 GiB: 67 million training recordings.
SIZE_LIMITS = dict.fromkeys(REQUIRED, _TEXT_LIMIT) | {WEIGHTS: 4 << 30, GOLDEN: 64 << 20, DIGESTS: 1 << 30}
# One key only: the order of several in the header, and so the file's digest, would not be fixed.
METADATA_KEY = "capezoo"

HALF = "F16"
_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class Architecture(Spec):
    """config.json: what it takes to build the encoder and to feed it."""

    format: Literal["capezoo-weights"] = "capezoo-weights"
    format_version: Literal[1] = 1
    encoder: EncoderSpec
    input: InputSpec

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read config.json of a weight folder. Raises SourceError or SpecError."""
        return parse(cls, _read_text(folder / CONFIG), str(folder / CONFIG))

    def to_text(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


@dataclass(frozen=True)
class _Header:
    """The header of a safetensors file: tensor name -> (dtype, shape), and the architecture it carries."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    architecture: Architecture

    @property
    def is_half(self) -> bool:
        """Whether numbers are stored in half precision."""
        return any(dtype == HALF for dtype, _ in self.tensors.values())


@contextmanager
def _of_weights() -> Iterator[None]:
    """Turn what `ecgcohorts.io` says of links, pipes and long files into an error about weights."""
    try:
        yield
    except UnreadableRecording as error:
        raise SourceError(f"{error} Fetch the weights again, or copy them without links: cp -rL.") from None


def _require_regular(folder: Path) -> None:
    """Raise SourceError if a file of a weight folder is a link, a pipe or a device, or larger than such a file may be."""
    for name, limit in SIZE_LIMITS.items():
        path = folder / name
        # A broken link does not exist, and is refused all the same.
        if path.exists() or path.is_symlink():
            with _of_weights():
                size = size_of(path)[0]
            if size > limit:
                raise SourceError(f"{path}: found {size} bytes, expected at most {limit}. Fetch the weights again.")


def _read_text(path: Path) -> str:
    """Return a text file of at most 1 MiB. Raises SourceError if it is missing, larger, a link or not UTF-8."""
    if not path.exists():
        raise SourceError(f"{path}: found no such file, expected a weight folder with {', '.join(REQUIRED)}.")
    with _of_weights():
        data = read_bounded(path, _TEXT_LIMIT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: found bytes that are not UTF-8, expected text. Fetch it again.") from None


def read_card(folder: Path) -> WeightCard:
    """Return the card of a weight folder. Raises SourceError or SpecError."""
    return parse(WeightCard, _read_text(folder / CARD), str(folder / CARD))


def read_header(path: Path) -> _Header:
    """Return the header of a safetensors file without touching the tensors.

    Raises SourceError if the file is not exactly what its header declares.
    """
    with _of_weights():
        size = size_of(path)[0]
    with open_regular(path) as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        # The length is the file's own claim: hold it against the file before reading so much.
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise SourceError(
                f"{path}: found a header of {length} bytes in a file of {size}, expected safetensors with a header of "
                f"at most {_HEADER_LIMIT}. Fetch it again."
            )
        text = file.read(length)
    try:
        values = read_json(text, "header", _HEADER_LIMIT)
        metadata = dict(values.pop("__metadata__", {}))
        tensors = {name: (str(entry["dtype"]), tuple(entry["shape"])) for name, entry in values.items()}
        ranges = sorted(tuple(entry["data_offsets"]) for entry in values.values())
    except (SpecError, ValueError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{path}: found a header that is not safetensors. Fetch it again.") from None
    _check_layout(path, tensors, ranges, size - 8 - length)
    if set(metadata) != {METADATA_KEY} or not isinstance(metadata[METADATA_KEY], str):
        raise SourceError(
            f"{path}: found metadata {sorted(metadata)!r:.80}, expected {METADATA_KEY!r}. Publish it again."
        )
    return _Header(tensors, parse(Architecture, metadata[METADATA_KEY], f"{path} (header)"))


def _check_layout(
    path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], ranges: list[tuple[int, ...]], payload: int
) -> None:
    """Raise SourceError unless the tensors cover the payload exactly: no gap, no overlap, bytes as their shapes need."""
    # A gap could hide bytes that no digest of a tensor covers; an overlap, one tensor inside another.
    needed = 0
    for name, (dtype, shape) in tensors.items():
        # No side of a tensor is longer than the file; a short shape keeps the product below it short, too.
        if dtype not in _BYTES_OF or len(shape) > 8 or not all(_counts(side, payload) for side in shape):
            raise SourceError(
                f"{path}: found tensor {name!r:.80} of {dtype:.20} {shape!r:.80}, expected plain numbers."
            )
        # Python's integers do not overflow, as numpy's product of a hostile shape would.
        cells = 1
        for side in shape:
            cells *= side
        needed += cells * _BYTES_OF[dtype]
    if any(len(span) != 2 or not all(_counts(edge, payload) for edge in span) for span in ranges):
        raise SourceError(f"{path}: found tensors outside its {payload} bytes. Fetch it again.")
    stops = [0, *(stop for _, stop in ranges)]
    if needed != payload or stops[-1] != payload or [start for start, _ in ranges] != stops[:-1]:
        raise SourceError(
            f"{path}: found {payload} bytes of tensors, expected {needed} without gap or overlap. Fetch it again."
        )


def _counts(value: object, most: int) -> bool:
    """Whether a value of JSON is a whole number from 0 to `most`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _read_sums(folder: Path) -> dict[str, str]:
    """Return SHA256SUMS as file name -> digest. Raises SourceError for a line that is not `digest  name`, once a name."""
    sums: dict[str, str] = {}
    for line in _read_text(folder / SUMS).splitlines():
        digest, _, name = line.partition("  ")
        bare = Path(name).name == name and name.isprintable() and name not in sums
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or not bare:
            raise SourceError(
                f"{folder / SUMS}: found line {line!r:.90}, expected `sha256  file`, a bare name, each once. "
                "Fetch it again."
            )
        sums[name] = digest
    return sums


def problems_of(folder: Path, alone: bool = True) -> list[str]:
    """List what is wrong with a weight folder: names, digests, schema, layout of tensors. Nothing in it is run.

    alone: other files are a problem, too. They are never read, but a careless tool might load them.
    """
    # Bytes first: nothing is parsed unless every digest is right.
    try:
        _require_regular(folder)
        sums = _read_sums(folder)
        return _check_files(folder, sums, alone) or _check_card(folder, sums, read_card(folder))
    except EcgError as error:
        return [str(error)]


def _require_whole(folder: Path) -> None:
    """Raise SourceError unless every file of a weight folder is what was published. Files beside them do not matter."""
    if problems := problems_of(folder, alone=False):
        raise SourceError(
            f"{folder}: found damaged weights, expected whole ones. {problems[0]} To load them as they are: --unchecked, "
            "in Python check=False."
        )


def _check_files(folder: Path, sums: Mapping[str, str], alone: bool) -> list[str]:
    """Check that the known files are there, each with its digest, and no others if `alone`."""
    present = {path.name for path in folder.iterdir()} - set(TOLERATED)
    problems = [f"{name}: missing. Fetch the folder again." for name in REQUIRED if name not in present]
    if alone:
        others = sorted(present - set(SIZE_LIMITS))
        problems += [f"{name}: unexpected file, and never read. Remove it." for name in others]
    if problems:
        return problems
    present &= set(SIZE_LIMITS)
    problems += [f"{name}: not listed in {SUMS}." for name in sorted(present - set(sums) - {SUMS})]
    for name, digest in sums.items():
        if name not in present:
            problems.append(f"{name}: listed in {SUMS}, but not there.")
        elif sha256_of(folder / name) != digest:
            problems.append(f"{name}: sha256 differs from {SUMS}. Fetch it again.")
    return problems


def _check_card(folder: Path, sums: Mapping[str, str], card: WeightCard) -> list[str]:
    """Check that card, config, header and files agree. sums: digests of the files as they are."""
    architecture, header = Architecture.read(folder), read_header(folder / WEIGHTS)
    problems = []
    if (card.encoder, card.input) != (architecture.encoder, architecture.input):
        problems.append(f"{CARD}: architecture or input differs from config.json.")
    if header.architecture != architecture:
        problems.append(f"{WEIGHTS}: architecture differs from config.json.")
    if header.is_half != (card.half_cosine is not None):
        problems.append(f"{CARD}: precision differs from {WEIGHTS}.")
    for name, digest in card.sha256.items():
        if sums.get(name) != digest:
            problems.append(f"{CARD}: sha256 of {name!r:.80} differs from the file.")
    if WEIGHTS not in card.sha256 or card.golden is None:
        problems.append(f"{CARD}: does not name the weights and a golden output.")
    if (folder / DIGESTS).is_file() and (folder / DIGESTS).stat().st_size % DIGEST_BYTES:
        problems.append(f"{DIGESTS}: not a whole number of {DIGEST_BYTES}-byte digests.")
    return problems
