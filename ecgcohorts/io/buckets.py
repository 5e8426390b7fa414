"""Object stores by URL: S3 and what speaks like it, Google Cloud Storage, Azure.

A thin layer over obstore, which reads endpoint, region and credentials from the usual environment variables
(`AWS_...`, `GOOGLE_...`, `AZURE_...`); nothing of these is kept or printed here. A request without an answer is repeated
with growing pauses, for as many seconds as `ECGCOHORTS_RETRY_SECONDS` says. `file:` URLs are not taken: folders
have paths. Commits rest on conditional writes: an object is made only if it is not there, or replaced only if nobody
else has replaced it.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from ecgcohorts.errors import ObjectStoreError, SpecError, StoreError, install_line
from ecgcohorts.io._complaints import _NO_ANSWER, _complaint, _reason

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "azure")
_RETRY_SECONDS = "ECGCOHORTS_RETRY_SECONDS"
_MOST_RETRY_SECONDS = 86_400  # a day
_FIRST_BACKOFF = 0.1  # seconds; our default
_MOST_BACKOFF = 5.0  # seconds; our default
_NO_LIMIT = 1_000_000
_BLOCK_BYTES = 8 << 20
_MOST_OBJECTS = 1 << 25  # below one URL; our default, six times the files of the largest published cohort
_process: int | None = None  # that first used an object store
_SHA256 = "sha256"  # an object's metadata: what was put, as the sender saw it

_Answer = TypeVar("_Answer")
Tag = tuple[tuple[str, str], ...]  # stores tell versions apart by one of two things, or both


class _Stamp(NamedTuple):
    """Size and time of an object: equal in a listing and in a later answer if both speak of the same object.

    Entity tags do not serve: not every store spells them alike in both.
    """

    size: int
    modified: int  # UNIX time in whole seconds: listings tell more digits than answers


def is_url(text: str) -> bool:
    """Say whether a text names a place in an object store, rather than a path.

    >>> is_url("s3://bucket/raw"), is_url("/data/raw"), is_url("C:/raw")
    (True, False, False)
    """
    return text.partition("://")[0].lower() in SCHEMES and "://" in text


class Bucket:
    """The objects below one URL, with the methods of `place.Folder`. Picklable; any thread may call any method.

    Raises SpecError for a text that is no such URL, ObjectStoreError where the store does not answer or refuses, and
    FileNotFoundError for an object that is not there, as a folder would.
    """

    gap_bytes = 256 * 1024  # a request takes as long as some hundred KiB do, so gaps are read through
    threads = 32  # requests under way at once: each waits some 20 ms for its first byte, not for us
    records_per_part = 2  # a pair
    linked: frozenset[str] = frozenset()  # what a folder has of this name: a bucket holds objects only

    # Checked before anything else sees the URL: a password in it would end up in messages and plans.
    def __init__(self, url: str, pinned: Mapping[str, _Stamp] | None = None) -> None:
        parts = urlsplit(url)
        if not is_url(url) or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise SpecError(
                "this is no URL of an object store. Write for example s3://bucket/folder, without password or query: "
                "credentials are read from the environment."
            )
        self.path = url.rstrip("/")
        self._connection = _connect(self.path)
        self._pinned = pinned

    @property
    def client(self) -> "ObjectStore":
        """The connection, for libraries that read through obstore too. Raises ObjectStoreError in a forked process."""
        _refuse_forked()
        return self._connection

    def __repr__(self) -> str:
        return f"Bucket({self.path!r})"

    def __str__(self) -> str:
        return self.path

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str, Mapping[str, _Stamp] | None]]:
        return Bucket, (self.path, self._pinned)

    @property
    def name(self) -> str:
        """The last part of the URL, as a title."""
        return self.path.rpartition("/")[2]

    def names(self, below: str = "") -> Iterator[str]:
        """Yield the objects that are not hidden, in the store's own order, which is that of their names.

        below: only those whose path begins with these folders.
        """
        return (name for name, _ in self.names_and_stamps(below))

    def names_and_stamps(self, below: str = "") -> Iterator[tuple[str, "_Stamp"]]:
        """Yield what `names` yields, each with what changes if the object does."""
        # As in a folder, where hidden folders are not entered.
        return (one for one in self._each(below) if not one[0].startswith(".") and "/." not in one[0])

    def everything(self) -> Iterator[str]:
        """Yield every object, sorted."""
        return iter(self.stamps())

    def links(self) -> Iterator[str]:
        """Answer for a folder's method of this name: a bucket holds objects only."""
        return iter(())

    def sizes(self, names: Iterable[str] | None = None) -> dict[str, int]:
        """Sizes in bytes of the named objects, or of all, that are there. One listing, however many are named."""
        found = self.stamps()
        return {name: found[name].size for name in (found if names is None else names) if name in found}

    def stamps(self) -> dict[str, _Stamp]:
        """Stamps of all objects by name, sorted."""
        return dict(sorted(self._each()))

    def pin(self, names: Iterable[str]) -> dict[str, int]:
        """`sizes`; and from here on, `size` and `read_into` know these objects alone, as they are now."""
        found = self.stamps()
        self._pinned = {name: found[name] for name in names if name in found}
        return {name: stamp.size for name, stamp in self._pinned.items()}

    def stamp(self, name: str) -> "_Stamp":
        """Stamp of one object, as it is now."""
        return _stamp(self._head(name))

    def size(self, name: str) -> int:
        """Size of one object in bytes; of a pinned one without asking."""
        return int(self._head(name)["size"]) if self._pinned is None else self._pin_of(name).size

    def tag(self, name: str) -> Tag | None:
        """Return what changes whenever the object does, for `replace`; None if it is not there."""
        try:
            head = self._head(name)
        except FileNotFoundError:
            return None
        return tuple((key, head[key]) for key in ("e_tag", "version") if head[key] is not None)

    def get(self, name: str, limit: int | None = None) -> bytes:
        """Fetch a whole object. Raises StoreError for more than `limit` bytes, before they are fetched."""
        import obstore

        def ask() -> bytes | int:
            answer = obstore.get(self.client, name)
            size = answer.meta["size"]
            # The body is fetched here: an answer alone is only the headers.
            return bytes(answer.bytes()) if limit is None or size <= limit else size

        found = self._asked(ask, name)
        if isinstance(found, bytes):
            return found
        raise StoreError(f"{self.path}/{name}: found {found} bytes, expected at most {limit}. Restore it from a copy.")

    def blocks(self, name: str, limit: int | None = None) -> Iterator[memoryview]:
        """Yield an object piece by piece, in bounded memory; each piece comes before a slow line runs out of time.

        Raises ObjectStoreError for more than `limit` bytes, and if the object is replaced meanwhile.
        """
        return (block for block, _ in self._blocks_of(name, limit) if block)

    def _blocks_of(self, name: str, limit: int | None) -> Iterator[tuple[memoryview, _Stamp]]:
        # In ranges: one answer of a hundred MB would run into a time limit on a slow line. The first one tells the size, too:
        # most objects are small, and to ask before would double their requests.
        start, expected = 0, None
        while expected is None or start < expected.size:
            try:
                block, stamp = self.get_range(name, start, start + _BLOCK_BYTES)
            except ObjectStoreError:  # an empty object has no range
                if start or (stamp := self.stamp(name)).size:
                    raise
                block = memoryview(b"")
            if limit is not None and stamp.size > limit:
                raise ObjectStoreError(f"{self.path}/{name}: found {stamp.size} bytes, expected at most {limit}.")
            if stamp != (expected or stamp) or (not block and start < stamp.size):
                raise ObjectStoreError(f"{self.path}/{name}: replaced while it was being read. Try again.")
            start, expected = start + len(block), stamp
            yield block, stamp

    def fetch(self, name: str, path: Path, limit: int | None = None) -> "_Stamp":
        """Write an object into a new file, in bounded memory, and return its stamp.

        Raises ObjectStoreError for more than `limit` bytes.
        """
        with path.open("xb") as file:
            for block, told in self._blocks_of(name, limit):
                file.write(block)
                stamp = told
        return stamp

    @contextlib.contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Give the object as a file of this machine, for as long as the context lasts."""
        with tempfile.TemporaryDirectory(prefix="ecgcohorts-") as scratch:
            path = Path(scratch) / "object"
            self.fetch(name, path)
            yield path

    def get_range(self, name: str, start: int, stop: int) -> tuple[memoryview, _Stamp]:
        """Fetch part of an object in one request, and the object's stamp. The part is short if the object ends before."""
        import obstore

        def ask() -> tuple[memoryview, _Stamp]:
            answer = obstore.get(self.client, name, options={"range": (start, stop)})
            return memoryview(answer.bytes()), _stamp(answer.meta)

        return self._asked(ask, name)

    def read_into(self, name: str, start: int, out: memoryview) -> int:
        """Fill `out` from an object in one request. Return how many bytes there were: fewer if the object ends before.

        Raises StoreError if a pinned object is gone or replaced.
        """
        # The answer says of which object it is, so that a replaced one is noticed without another request.
        seen = None if self._pinned is None else self._pin_of(name)
        try:
            data, stamp = self.get_range(name, start, start + len(out))
        except FileNotFoundError:
            if seen is None:
                raise
            stamp = None
        if seen is not None and stamp != seen:
            what = "is gone" if stamp is None else "has been replaced"
            raise StoreError(f"{self.path}/{name}: {what} since the store was opened. Open the store again.")
        out[: len(data)] = data
        return len(data)

    def _pin_of(self, name: str) -> _Stamp:
        try:
            return (self._pinned or {})[name]
        except KeyError:
            raise FileNotFoundError(2, "no such object in the manifest") from None

    def in_memory(self, name: str, at: int) -> bool:
        """Answer for a folder's method of this name: nothing of a bucket can be had without waiting."""
        return False

    def let_go(self) -> None:
        """Answer for a folder's method of this name: nothing stays open."""

    def put(self, name: str, content: bytes | Path, sha256: str | None = None) -> None:
        """Make or replace an object. Nobody sees half of it. sha256: noted beside it, for `noted_sha256`."""
        self._put(name, content, None, sha256)

    def sha256_of(self, name: str) -> str:
        """SHA-256 of an object, in hexadecimal, in bounded memory: reads all of it."""
        digest = hashlib.sha256()
        for block in self.blocks(name):
            digest.update(block)
        return digest.hexdigest()

    def noted_sha256(self, name: str) -> str | None:
        """Return the SHA-256 that the sender of the object gave for its content, if any."""
        import obstore

        noted = self._asked(
            lambda: obstore.get(self.client, name, options={"head": True}).attributes.get(_SHA256), name
        )
        return None if noted is None else str(noted)

    def put_new(self, name: str, content: bytes | Path) -> bool:
        """Make an object and return True; if there is one of that name, leave it as it is and return False."""
        return self._put(name, content, "create")

    def replace(self, name: str, content: bytes, tag: Tag | None) -> bool:
        """Replace an object that still is what `tag` told, or make it if that was None. False if it has changed."""
        return self._put(name, content, "create" if tag is None else dict(tag))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects. What is gone already does not matter."""
        import obstore

        doomed = list(names)  # `names` may be listing this very bucket
        try:
            if doomed:
                obstore.delete(self.client, doomed)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise self._failed(error) from None

    def zarr(self) -> Any:
        """Return what zarr-python opens to read here."""
        from zarr.storage import ObjectStore

        return ObjectStore(self.client, read_only=True)

    def _each(self, below: str = "") -> Iterator[tuple[str, _Stamp]]:
        """Yield name and stamp of every object, as the listing goes on. Raises ObjectStoreError for one without an end."""
        import obstore

        met: set[str] = set()
        count = 0
        try:
            for chunk in obstore.list(self.client, prefix=below or None):
                # A server that gives the same page again and again would be listened to for ever. Hashing the first name of
                # fifty finds that out after one round.
                count += len(chunk)
                first = chunk[0]["path"] if chunk else ""
                if first in met or count > _MOST_OBJECTS:
                    what = f"more than {_MOST_OBJECTS} objects" if count > _MOST_OBJECTS else "the same objects again"
                    raise ObjectStoreError(
                        f"{self.path}: the listing does not end (found {what}). Name a folder further below, or another "
                        "object store."
                    )
                met.add(first)
                for one in chunk:
                    if not one["path"].endswith("/"):  # what some consoles make when asked for a folder
                        yield one["path"], _stamp(one)
        except Exception as error:
            raise self._failed(error) from None

    def _head(self, name: str) -> Any:
        import obstore

        return self._asked(lambda: obstore.head(self.client, name), name)

    def _asked(self, ask: Callable[[], _Answer], name: str) -> _Answer:
        """Read something, and again where the answer breaks off, for as long as requests without an answer are repeated."""
        # obstore repeats a request that gets no answer. One that breaks off in the middle it gives up, at once.
        until, pause = time.monotonic() + _retry_seconds(), _FIRST_BACKOFF
        while True:
            try:
                return ask()
            except Exception as error:
                if not _NO_ANSWER.search(str(error)) or time.monotonic() + pause > until:
                    raise self._failed(error, name) from None
            time.sleep(pause)
            pause = min(2 * pause, _MOST_BACKOFF)

    def _put(self, name: str, content: bytes | Path, mode: Any, sha256: str | None = None) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        # A condition can be put on one request only, not on an upload in parts, so conditional objects go in one piece.
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
        where = f"{self.path}/{name}" if name else self.path
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f"{where}: no such object")
        return ObjectStoreError(f"{where}: {_complaint(error, _retry_seconds())}")


def _refuse_forked() -> None:
    # obstore's threads do not survive a fork, and a child that waits for them waits for ever.
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise ObjectStoreError(
            "this process was forked from one that has used an object store, which would wait for ever. Start workers "
            "by spawn or forkserver."
        )


def _connect(url: str) -> "ObjectStore":
    try:
        from obstore.store import from_url
    except ImportError:
        raise SpecError(
            f"{url}: found no obstore here, which reaches object stores. Run: {install_line('objects')}"
        ) from None
    retries = _retries()
    try:
        return from_url(url, retry_config=retries)
    except Exception as error:
        raise SpecError(
            f"{url}: this URL cannot be used ({_reason(error)}), expected for example s3://bucket/folder."
        ) from None


def _retries() -> "RetryConfig":
    """Return how obstore repeats a request that gets no answer, or one of a server in trouble."""
    seconds = _retry_seconds()
    # By time, not by number: obstore's default of ten tries is through after two seconds where nobody listens.
    return {
        "max_retries": _NO_LIMIT if seconds else 0,
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=_FIRST_BACKOFF),
            "max_backoff": timedelta(seconds=_MOST_BACKOFF),
            "base": 2,
        },
    }


def _retry_seconds() -> float:
    text = os.environ.get(_RETRY_SECONDS, "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= _MOST_RETRY_SECONDS:
        raise SpecError(f"{_RETRY_SECONDS}: found {text!r}, expected seconds, from 0 to {_MOST_RETRY_SECONDS}.")
    return seconds


def _stamp(meta: Any) -> _Stamp:
    return _Stamp(int(meta["size"]), int(meta["last_modified"].timestamp()))
