"""Object stores by URL: S3 and what speaks like it, Google Cloud Storage, Azure.

A thin layer over obstore, which reads endpoint, region and credentials from the usual environment variables
(`AWS_...`, `GOOGLE_...`, `AZURE_...`); nothing of these is kept or printed here. `file:` URLs are not taken: folders
have paths. Conditional writes are what commits rest on: an object is made only if it is not there, or replaced only if
nobody else has replaced it.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ecgcohorts.errors import ObjectStoreError, SpecError, install_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "azure")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")  # of S3's and Azure's XML answers
_STATUS = re.compile(r"status code: (\d{3})")
_BLOCK_BYTES = 8 << 20
_process: int | None = None  # that first used an object store
_SHA256 = "sha256"  # an object's metadata: what was put, as whoever put it saw it

Tag = tuple[tuple[str, str], ...]  # stores tell versions apart by one of two things, or both


class Stamp(NamedTuple):
    """By this a listing and a later answer show that they speak of the same object. Entity tags do not: not every
    store spells them alike in both."""

    size: int
    modified: int  # UNIX time in whole seconds: listings tell more digits than answers


def is_url(text: str) -> bool:
    """Does this name a place in an object store, rather than a path?

    >>> is_url("s3://bucket/raw"), is_url("/data/raw"), is_url("C:/raw")
    (True, False, False)
    """
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


class Bucket:
    """The objects below one URL. Names are relative to it, with slashes. Picklable; every call may be made by a thread.

    Raises SpecError for a URL that is none, ObjectStoreError where the store does not answer or refuses, and
    FileNotFoundError for an object that is not there, as a folder would.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not is_url(url) or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise SpecError(
                "found no URL of an object store, expected for example s3://bucket/folder, without password or query: "
                "credentials stand in the environment."
            )
        self.url = url.rstrip("/")
        self._connection = _connect(self.url)

    @property
    def client(self) -> "ObjectStore":
        """For libraries that read through obstore themselves. Raises ObjectStoreError in a forked process."""
        _refuse_forked()
        return self._connection

    def __repr__(self) -> str:
        return f"Bucket({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str]]:
        return Bucket, (self.url,)

    def each(self, below: str = "") -> Iterator[tuple[str, Stamp]]:
        """Name and stamp of every object, in the store's own order, as the listing goes on.

        below: only those whose path begins with these folders.
        """
        import obstore

        try:
            for chunk in obstore.list(self.client, prefix=below or None):
                for one in chunk:
                    if not one["path"].endswith("/"):  # what some consoles make when asked for a folder
                        yield one["path"], _stamp(one)
        except Exception as error:
            raise self._failed(error) from None

    def sizes(self, below: str = "") -> dict[str, int]:
        """Size in bytes of every object, by name, sorted. below: only those whose path begins with these folders."""
        return {name: stamp.size for name, stamp in self.stamps(below).items()}

    def stamps(self, below: str = "") -> dict[str, Stamp]:
        """What the listing shows of every object, by name, sorted."""
        return dict(sorted(self.each(below)))

    def size(self, name: str) -> int:
        """Size of one object in bytes."""
        return int(self._head(name)["size"])

    def tag(self, name: str) -> Tag | None:
        """What changes whenever the object does; None if it is not there. For `replace`."""
        try:
            head = self._head(name)
        except FileNotFoundError:
            return None
        return tuple((key, head[key]) for key in ("e_tag", "version") if head[key] is not None)

    def get(self, name: str, limit: int | None = None) -> bytes:
        """The whole of an object. Raises ObjectStoreError for more than `limit` bytes, before they are fetched."""
        import obstore

        try:
            answer = obstore.get(self.client, name)
            size = answer.meta["size"]
            if limit is None or size <= limit:
                return bytes(answer.bytes())
        except Exception as error:
            raise self._failed(error, name) from None
        raise _too_large(f"{self.url}/{name}", size, limit)

    def blocks(self, name: str, limit: int | None = None) -> Iterator[memoryview]:
        """The whole of an object, piece by piece, in bounded memory; each comes before a slow line runs out of time.

        Raises ObjectStoreError for more than `limit` bytes, and if the object is replaced meanwhile.
        """
        size = self.size(name)
        if limit is not None and size > limit:
            raise _too_large(f"{self.url}/{name}", size, limit)
        first: Stamp | None = None
        for start in range(0, size, _BLOCK_BYTES):
            block, stamp = self.get_range(name, start, min(start + _BLOCK_BYTES, size))
            first = first or stamp
            if stamp != first or stamp.size != size:
                raise ObjectStoreError(f"{self.url}/{name}: found another object than a moment ago. Try again.")
            yield block

    def fetch(self, name: str, path: Path, limit: int | None = None) -> None:
        """Write an object into a new file, in bounded memory. Raises ObjectStoreError for more than `limit` bytes."""
        with path.open("xb") as file:
            for block in self.blocks(name, limit):
                file.write(block)

    def get_range(self, name: str, start: int, stop: int) -> tuple[memoryview, Stamp]:
        """Part of an object, in one request, and of what object. Short if the object ends before."""
        import obstore

        try:
            answer = obstore.get(self.client, name, options={"range": (start, stop)})
            return memoryview(answer.bytes()), _stamp(answer.meta)
        except Exception as error:
            raise self._failed(error, name) from None

    def put(self, name: str, content: bytes | Path, sha256: str | None = None) -> None:
        """Make or replace an object. Nobody sees half of it. sha256: noted beside it, for `noted_sha256`."""
        self._put(name, content, None, sha256)

    def noted_sha256(self, name: str) -> str | None:
        """The SHA-256 that whoever put the object gave for its content, if any."""
        import obstore

        try:
            noted = obstore.get(self.client, name, options={"head": True}).attributes.get(_SHA256)
        except Exception as error:
            raise self._failed(error, name) from None
        return None if noted is None else str(noted)

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Make an object, unless there is one of that name: then False, and it stays as it is."""
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, tag: Tag | None) -> bool:
        """Replace an object if it still is what `tag` told; make it if that was None. False if somebody was faster."""
        return self._put(name, content, "create" if tag is None else dict(tag))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already do not matter."""
        import obstore

        doomed = list(names)
        try:
            if doomed:
                obstore.delete(self.client, doomed)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._failed(error) from None

    def _head(self, name: str) -> Any:
        import obstore

        try:
            return obstore.head(self.client, name)
        except Exception as error:
            raise self._failed(error, name) from None

    def _put(self, name: str, content: bytes | Path, mode: Any, sha256: str | None = None) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        # A condition can be put on one request only, not on an upload in parts.
        options = {} if mode is None else {"mode": mode, "use_multipart": False}
        if sha256 is not None:
            options["attributes"] = {_SHA256: sha256}
        try:
            obstore.put(self.client, name, content, **options)
        except (AlreadyExistsError, PreconditionError):
            return False
        except Exception as error:
            raise self._failed(error, name) from None
        return True

    def _failed(self, error: Exception, name: str = "") -> Exception:
        if isinstance(error, ObjectStoreError):
            return error
        where = f"{self.url}/{name}" if name else self.url
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{where}: no such object")
        return ObjectStoreError(
            f"{where}: the object store does not give or take this ({_reason(error)}). Check the URL, and endpoint, "
            "region and credentials in the environment."
        )


def _too_large(where: str, size: int, limit: int) -> ObjectStoreError:
    return ObjectStoreError(f"{where}: found {size} bytes, expected at most {limit}.")


def _refuse_forked() -> None:
    """obstore's threads do not survive a fork, and a child that waits for them waits for ever."""
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise ObjectStoreError(
            "found a process forked from one that has used an object store, expected one of its own. Start workers by "
            "spawn or forkserver."
        )


def _connect(url: str) -> "ObjectStore":
    try:
        from obstore.store import from_url
    except ImportError:
        raise SpecError(
            f"{url}: found no obstore here, which reaches object stores. Run: {install_line('objects')}"
        ) from None
    try:
        return from_url(url)
    except Exception as error:
        raise SpecError(
            f"{url}: found a URL that cannot be used ({_reason(error)}), expected for example s3://bucket/folder."
        ) from None


def _stamp(meta: Any) -> Stamp:
    return Stamp(int(meta["size"]), int(meta["last_modified"].timestamp()))


def _reason(error: Exception) -> str:
    """The kind of an error in a few words: its text may hold addresses, signatures and headers."""
    text = str(error)
    found = [type(error).__name__, *_STATUS.findall(text)[:1], *_CODE.findall(text)[:1]]
    return " ".join(found)
