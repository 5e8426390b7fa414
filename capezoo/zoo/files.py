"""What stands in a weight folder, read with bounds and never executed.

Every size is checked against the file before anything is allocated. Nothing here unpickles.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from capezoo.specs import EncoderSpec, InputSpec, Spec, WeightCard, parse
from ecgcohorts.errors import SourceError, SpecError

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
TEXT_LIMIT = 4 << 20  # bytes of config.json, card.json, SHA256SUMS; a card is about 10 kB
HEADER_LIMIT = 1 << 20  # bytes of the safetensors header; ours is about 10 kB, the format itself allows 100 MB
GOLDEN_LIMIT = 64 << 20  # bytes; ours has about 200 kB
# Bytes of each file that may stand in a weight folder; a whole one has no other. 4 GiB: a billion numbers. 1 GiB: 67
# million training recordings.
SIZE_LIMITS = dict.fromkeys(REQUIRED, TEXT_LIMIT) | {WEIGHTS: 4 << 30, GOLDEN: GOLDEN_LIMIT, DIGESTS: 1 << 30}
METADATA_KEY = "capezoo"  # one key only: the header's order, and so the file's digest, is then fixed

HALF = "F16"
_BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class Architecture(Spec):
    """config.json: everything needed to build the encoder and to feed it."""

    format: Literal["capezoo-weights"] = "capezoo-weights"
    format_version: Literal[1] = 1
    encoder: EncoderSpec
    input: InputSpec

    def to_text(self) -> str:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: tensor name -> (dtype, shape), and the architecture it carries."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    architecture: Architecture

    @property
    def is_half(self) -> bool:
        """Are numbers stored in half precision?"""
        return any(dtype == HALF for dtype, _ in self.tensors.values())


def read_text(path: Path) -> str:
    """Return a text file of at most TEXT_LIMIT bytes. Raises SourceError if it is missing, larger or not UTF-8."""
    if not path.is_file():
        raise SourceError(f"{path}: found no such file, expected a weight folder with {', '.join(REQUIRED)}.")
    if path.stat().st_size > TEXT_LIMIT:
        raise SourceError(f"{path}: found {path.stat().st_size} bytes, expected at most {TEXT_LIMIT}. Fetch it again.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SourceError(f"{path}: found bytes that are not UTF-8, expected text. Fetch it again.") from None


def read_card(folder: Path) -> WeightCard:
    """Return the card of a weight folder. Raises SourceError or SpecError."""
    return parse(WeightCard, read_text(folder / CARD), str(folder / CARD))


def read_architecture(folder: Path) -> Architecture:
    """Return config.json of a weight folder. Raises SourceError or SpecError."""
    return parse(Architecture, read_text(folder / CONFIG), str(folder / CONFIG))


def read_header(path: Path) -> Header:
    """Return the header of a safetensors file without touching the tensors.

    Raises SourceError if the file is not exactly what its header declares.
    """
    if not path.is_file():
        raise SourceError(f"{path}: found no such file, expected safetensors weights. Fetch the folder again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
        if not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise SourceError(
                f"{path}: found a header of {length} bytes in a file of {size}, expected safetensors with a header of "
                f"at most {HEADER_LIMIT}. Fetch it again."
            )
        text = file.read(length)
    try:
        values = json.loads(text)
        metadata = values.pop("__metadata__", {})
        tensors = {name: (str(entry["dtype"]), tuple(entry["shape"])) for name, entry in values.items()}
        ranges = sorted(tuple(entry["data_offsets"]) for entry in values.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SourceError(f"{path}: found a header that is not safetensors. Fetch it again.") from None
    _check_layout(path, tensors, ranges, size - 8 - length)
    if set(metadata) != {METADATA_KEY}:
        raise SourceError(f"{path}: found metadata {sorted(metadata)}, expected {METADATA_KEY!r}. Publish it again.")
    return Header(tensors, parse(Architecture, metadata[METADATA_KEY], f"{path} (header)"))


def _check_layout(
    path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], ranges: list[tuple[int, ...]], payload: int
) -> None:
    """Tensors must cover the payload exactly, without gap or overlap, and have the bytes their shapes need."""
    needed = 0
    for name, (dtype, shape) in tensors.items():
        if dtype not in _BYTES_OF or any(not isinstance(side, int) or side < 0 for side in shape):
            raise SourceError(f"{path}: found tensor {name!r} of {dtype} {shape}, expected plain numbers.")
        cells = 1
        for side in shape:
            cells *= side
        needed += cells * _BYTES_OF[dtype]
    stops = [0, *(stop for _, stop in ranges)]
    if needed != payload or stops[-1] != payload or [start for start, _ in ranges] != stops[:-1]:
        raise SourceError(
            f"{path}: found {payload} bytes of tensors, expected {needed} without gap or overlap. Fetch it again."
        )


def read_sums(folder: Path) -> dict[str, str]:
    """SHA256SUMS as file name -> digest. Raises SourceError for a line that is not `digest  name`."""
    sums = {}
    for line in read_text(folder / SUMS).splitlines():
        digest, gap, name = line.partition("  ")
        if len(digest) != 64 or set(digest) - set("0123456789abcdef") or not gap or not name or Path(name).name != name:
            raise SourceError(f"{folder / SUMS}: found line {line!r:.80}, expected `sha256  file`. Fetch it again.")
        sums[name] = digest
    return sums


def resolved(spec: EncoderSpec) -> EncoderSpec:
    """The spec with every default written out, so that a later change of defaults changes no published weights."""
    from ecgcohorts import plugins

    module = plugins.load("capezoo.encoders", spec.name)
    config = parse(module.Config, spec.config, f"encoder {spec.name}")
    if not isinstance(config, BaseModel):
        raise SpecError(f"encoder {spec.name}: Config is no pydantic model, expected one.")
    return EncoderSpec(name=spec.name, config=config.model_dump(mode="json"))
