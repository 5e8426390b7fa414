"""Embeddings while they are made: parts of a store on disk, so that a killed embedding goes on where it was.

WORK/claim.json       what makes these embeddings; parts of anything else are dropped
WORK/parts/NUMBER     float32, little-endian, of `RECORDS` recordings; their CRC-32 behind them
WORK/lock             held by the process that leads; the other ranks of torchrun need none
"""

import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capezoo.zoo.forward import BATCH
from ecgcohorts.io.durable import write_file

RECORDS = 4 * BATCH  # of a part: 23 s of a killed embedding at 44 ECGs a second; our default
_CRC_BYTES = 4


def claim(work: Path, made_of: Mapping[str, Any]) -> bool:
    """Drop the parts in a work folder unless they are of the same making. Returns whether there were some of another."""
    place, parts = work / "claim.json", work / "parts"
    claimed = json.dumps(made_of, sort_keys=True).encode()
    if place.is_file() and place.read_bytes() == claimed:
        return False
    foreign = parts.is_dir()
    shutil.rmtree(parts, ignore_errors=True)
    write_file(place, claimed)
    return foreign


class _Parts:
    """The parts of some embeddings (records, width), in a folder of their own."""

    def __init__(self, work: Path, records: int, width: int) -> None:
        self._folder, self._width = work / "parts", width
        # Whole blocks: a part has the bits that it has in one pass over the store.
        self.ranges = [range(first, min(first + RECORDS, records)) for first in range(0, records, RECORDS)]

    def missing(self) -> list[int]:
        """Return the numbers of parts that are not there whole."""
        return [number for number in range(len(self.ranges)) if self._read(number) is None]

    def write(self, numbers: Iterable[int], blocks: Iterator[NDArray[np.float32]], told: Callable[[int], None]) -> None:
        """Write parts from the blocks of their records, as they come. told: how many records have come."""
        for number in numbers:
            found: list[NDArray[np.float32]] = []
            while sum(map(len, found)) < len(self.ranges[number]):
                found.append(next(blocks))
                told(len(found[-1]))
            data = np.concatenate(found).astype("<f4").tobytes()
            write_file(self._path(number), data + zlib.crc32(data).to_bytes(_CRC_BYTES, "little"))

    def read(self, number: int) -> NDArray[np.float32]:
        """Return a part. Raises ValueError if it is not there whole."""
        part = self._read(number)
        if part is None:
            raise ValueError(f"part {number} is damaged")
        return part

    def _read(self, number: int) -> NDArray[np.float32] | None:
        shape = len(self.ranges[number]), self._width
        try:
            data = self._path(number).read_bytes()
        except FileNotFoundError:
            return None
        values, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if len(values) != 4 * shape[0] * shape[1] or zlib.crc32(values).to_bytes(_CRC_BYTES, "little") != crc:
            return None
        return np.frombuffer(values, "<f4").reshape(shape).astype(np.float32, copy=False)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}"
