"""Encode one strip as an inner chunk and decode it. `docs/store.md` describes the bytes.

Decoding goes by memory addresses: blosc's own function, which the extension of numcodecs exports, is called on memory that
this module made. numcodecs' Python function does the same in five microseconds more, all of them under the interpreter
lock, and two threads then decode hardly faster than one; it is used where a build does not export the symbol.
"""

import ctypes
import struct
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, get_args

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from ecgcohorts.errors import SpecError, install_line

Codec = Literal["lz4", "pcodec"]
CODECS: tuple[Codec, ...] = get_args(Codec)

CRC_BYTES = 4
CRC32C_RESIDUE = 0x48674BC7  # crc32c of any bytes followed by their own crc32c (little endian)
BLOSC_HEADER = struct.Struct("<4sIII")  # versions and flags, raw bytes, block bytes, compressed bytes
OVERHEAD_BYTES = BLOSC_HEADER.size + CRC_BYTES  # blosc stores what does not shrink behind its header

_LZ4_LEVEL = 5  # blosc's default
# Second differences pack filtered ECGs best: 17.6 kB a strip against 21.2 with first and 17.8 with third ones, and choosing
# anew for each strip gains nothing and takes twice as long. Level 8 is pcodec's default.
_PCODEC_LEVEL, _PCODEC_DELTAS = 8, 2

# Inner codecs as they stand in `zarr.json`.
CODEC_METADATA: dict[Codec, list[dict[str, Any]]] = {
    "lz4": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {
            "name": "blosc",
            "configuration": {
                "typesize": 2,
                "cname": "lz4",
                "clevel": _LZ4_LEVEL,
                "shuffle": "bitshuffle",
                "blocksize": 0,
            },
        },
        {"name": "crc32c"},
    ],
    "pcodec": [
        {
            "name": "numcodecs.pcodec",
            "configuration": {
                "level": _PCODEC_LEVEL,
                "mode_spec": "classic",
                "delta_spec": "try_consecutive",
                "delta_encoding_order": _PCODEC_DELTAS,
            },
        },
        {"name": "crc32c"},
    ],
}


def with_crc(data: bytes) -> bytes:
    """Append the crc32c of bytes to them, little endian as Zarr's codec writes it."""
    return data + int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def pack(values: NDArray, name: bytes) -> bytes:
    """Pack values by blosc with bitshuffle, then append crc32c."""
    # On one thread, whatever the process is set to: with several, blosc's blocks land in the order in which they finish,
    # and equal content would give different bytes.
    before = blosc.use_threads
    blosc.use_threads = False
    try:
        packed: bytes = blosc.compress(values, name, _LZ4_LEVEL, blosc.BITSHUFFLE)
    finally:
        blosc.use_threads = before
    return with_crc(packed)


def encode_chunk(strip: NDArray[np.int16], codec: Codec = "lz4") -> bytes:
    """Encode a strip, int16 (lead, time), as one inner chunk. Raises SpecError if the codec's package is not installed."""
    # Little endian whatever the machine, as zarr.json says.
    values = np.ascontiguousarray(strip, "<i2")
    if codec == "lz4":
        return pack(values, b"lz4")
    pcodec = _pcodec()
    config = pcodec.ChunkConfig(
        compression_level=_PCODEC_LEVEL,
        mode_spec=pcodec.ModeSpec.classic(),
        delta_spec=pcodec.DeltaSpec.try_consecutive(_PCODEC_DELTAS),
    )
    return with_crc(pcodec.standalone.simple_compress(values.ravel(), config))


class Block:
    """A C-contiguous array with its address in memory, of which item i begins at address + i * step bytes."""

    __slots__ = ("address", "array", "step", "view")

    def __init__(self, array: NDArray) -> None:
        self.array, self.view = array, array.data
        self.address, self.step = array.ctypes.data, array.strides[0]


# (encoded bytes, first byte, one past its checksum, strips, place): False if the bytes are not what the array declares
Decoder = Callable[[Block, int, int, Block, int], bool]


def decoder(kind: str) -> Decoder:
    """Return the decoder called "blosc", "plain" or "pcodec". Raises SpecError if its package is not installed."""
    if kind == "pcodec":
        _pcodec()
        return _decode_pcodec
    return _decode_blosc if kind == "blosc" else _decode_plain


def _decode_blosc(data: Block, start: int, stop: int, strips: Block, place: int) -> bool:
    if stop - start < OVERHEAD_BYTES:
        return False
    _, raw_bytes, _, packed_bytes = BLOSC_HEADER.unpack_from(data.view, start)
    if raw_bytes != strips.step or packed_bytes != stop - start - CRC_BYTES:
        return False  # the C decoder trusts these two
    return _decompress(data, start, stop, strips, place)


def _decode_plain(data: Block, start: int, stop: int, strips: Block, place: int) -> bool:
    if stop - start - CRC_BYTES != strips.step:
        return False
    strip = strips.array[place]
    strip[...] = data.array[start : stop - CRC_BYTES].view("<i2").reshape(strip.shape)
    return True


def _decode_pcodec(data: Block, start: int, stop: int, strips: Block, place: int) -> bool:
    strip = strips.array[place].reshape(-1)
    # Into our own memory, so a frame that declares more than a strip cannot allocate it.
    try:
        found = _pcodec().standalone.simple_decompress_into(data.array[start : stop - CRC_BYTES].tobytes(), strip)
    except (RuntimeError, TypeError):
        return False
    return bool(found.n_processed == strip.size and found.finished)


def _by_address() -> Callable[[Block, int, int, Block, int], bool]:
    # ctypes releases the interpreter lock for the call, so threads decode side by side.
    function = ctypes.CDLL(blosc.__file__).blosc_decompress_ctx  # int(src, dest, dest size, threads)
    function.argtypes, function.restype = (
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        ctypes.c_int,
    )

    def decompress(data: Block, start: int, _stop: int, strips: Block, place: int) -> bool:
        size = strips.step
        return bool(function(data.address + start, strips.address + place * size, size, 1) == size)

    return decompress


def _by_numcodecs(data: Block, start: int, stop: int, strips: Block, place: int) -> bool:
    try:
        blosc.decompress(data.array[start:stop], strips.array[place])
    except (RuntimeError, ValueError):
        return False
    return True


try:
    _decompress = _by_address()
except (AttributeError, OSError):  # a build that hides the symbol
    _decompress = _by_numcodecs


# On first use: an extra, which stores of the default codec do not need.
@cache
def _pcodec() -> Any:
    try:
        import pcodec
    except ImportError:
        raise SpecError(
            f"found no pcodec here, which reads and writes compact signals. Run: {install_line('compact')}"
        ) from None
    return pcodec
