"""A compressed tar, unpacked once as a stream into a plain one in the scratch folder: its members cannot be had out of order."""

import bz2
import gzip
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ecgcohorts.errors import SourceError
from ecgcohorts.sources.members import MAX_RATIO, MAX_TOTAL_BYTES, is_bomb
from ecgcohorts.sources.scratch import no_room
from ecgcohorts.sources.tar_members import BLOCK, is_tar

_COPY_BYTES = 1 << 20


def _zstd(file: BinaryIO) -> Any:
    return importlib.import_module("compression.zstd").ZstdFile(file)  # Python 3.14 and later


_OPENERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def is_compressed(head: bytes) -> bool:
    return head.startswith(tuple(_OPENERS))


def check_compressed(path: Path) -> None:
    """Raises SourceError for what is no compressed tar, told from its first block."""
    with _opened(path) as (stream, _):
        if not is_tar(stream.read(BLOCK)):
            raise SourceError(
                f"{path}: found a compressed file that is no tar, expected a folder, a tar, a zip, or the URL of a bucket."
            )


def unpack_tar(path: Path, into: Path) -> None:
    """Raises SourceError for what is damaged, or unpacks to more than a tar of recordings does."""
    total = 0
    with _opened(path) as (stream, packed), into.open("xb") as plain:
        while block := stream.read(_COPY_BYTES):
            total += len(block)
            if total > MAX_TOTAL_BYTES or is_bomb(total, packed.tell()):
                raise SourceError(
                    f"{path}: found more than {MAX_RATIO} bytes for each packed one, expected recordings. Look into it."
                )
            try:
                plain.write(block)
            except OSError as error:
                raise no_room(error) from None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, BinaryIO]]:
    """A compressed file as a stream, and the file itself. Damage is a SourceError."""
    with path.open("rb") as packed:
        head = packed.read(16)
        packed.seek(0)
        opener = next(opener for magic, opener in _OPENERS.items() if head.startswith(magic))
        try:
            with opener(packed) as stream:
                yield stream, packed
        except ModuleNotFoundError:
            raise SourceError(
                f"{path}: found zstd, which this Python does not read. Unpack it first: zstd -d."
            ) from None
        except (EOFError, zlib.error, lzma.LZMAError) as error:
            raise _damaged(path, error) from None
        except OSError as error:
            if error.errno is None:  # how gzip and bz2 tell of damage
                raise _damaged(path, error) from None
            raise


def _damaged(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: found a compressed tar that is cut or damaged ({type(error).__name__}). Fetch it again."
    )
