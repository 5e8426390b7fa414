"""Lock a store in a bucket for one writer: an object is there while it works.

Conditional writes alone would keep a commit whole, but not what comes before and after it. Two writers of one generation
put shards under the same names, so that the slower one would overwrite files the faster has committed; and clearing away
what no manifest names would delete what another writer is sending. Hence the lock, which rests on conditional writes
itself: every writer first makes sure that this object store keeps them.

Nobody notices when the holder dies. Its own next run knows the lock by its token, anybody else removes it by command.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ecgcohorts.errors import EcgError, LockHeld, ObjectStoreError
from ecgcohorts.io.buckets import Bucket
from ecgcohorts.io.durable import write_file
from ecgcohorts.store.schema import LOCK

_NOTE_LIMIT = 4096  # bytes; a note has about 80
_TOKEN_BYTES = 16
_UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


class _Note(BaseModel):
    """Content of a lock. It does not tell who made it: names of machines and users do not go into a store."""

    model_config = ConfigDict(frozen=True, strict=True)

    token: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    # For people only: a lock does not expire.
    made: Annotated[int, Field(ge=0)]  # UNIX time, by the clock of its maker


class _BucketLock:
    """A lock that is held. Its holder calls `check` before everything that another writer must not meet."""

    def __init__(self, bucket: Bucket, token: str) -> None:
        self._bucket, self._token = bucket, token

    def check(self) -> None:
        """Raise LockHeld if the lock was taken away."""
        if _token_in(_content(self._bucket)) != self._token:
            raise LockHeld(
                f"{self._bucket}: this run's lock was removed while it was writing, so it stopped. Run the same command "
                "again once no other run is at work."
            )

    def release(self) -> None:
        """Remove the lock, unless it is another writer's by now."""
        if _token_in(_content(self._bucket)) == self._token:
            self._bucket.delete([LOCK])


@contextlib.contextmanager
def bucket_lock(bucket: Bucket, token_file: Path) -> Iterator[_BucketLock]:
    """Hold the one write lock of a store.

    token_file: where this run's token is kept, so that the next one with the same file knows the lock of a killed one.
    Raises LockHeld if another holds it, ObjectStoreError if the object store ignores conditions on writes.
    """
    # A lock with our own token is one that our last run left when it was killed: it is ours to go on with.
    token = _own_token(token_file)
    there = _content(bucket)
    if there is not None and _token_in(there) != token:
        raise LockHeld(held(bucket))
    _refuse_unconditional(bucket)
    note = _Note(token=token, made=int(time.time()))
    if not bucket.put_new(LOCK, note.model_dump_json().encode()) and _token_in(_content(bucket)) != token:
        raise LockHeld(held(bucket))
    lock = _BucketLock(bucket, token)
    try:
        yield lock
    except BaseException:
        with contextlib.suppress(EcgError, OSError):  # the first error is the one to tell
            lock.release()
        raise
    lock.release()


def held(bucket: Bucket) -> str:
    """Say that the lock is held, how long it has been, and what to do."""
    age = _age(_content(bucket))
    since = f"for {age}" if age else "since an unknown time"
    return (
        f"{bucket}: another run has held the write lock {since}. Wait for it; only if it is dead, remove its lock: "
        f"ecgcohorts unlock {bucket}"
    )


def unlock(url: str) -> str | None:
    """Remove the lock that a killed run left; return how old it was, or None if there was none.

    A holder that is alive after all stops before its next file. The file it is sending may still replace another writer's
    of the same name, which then reads as damaged: unlock only after a dead run.
    """
    bucket = Bucket(url)
    content = _content(bucket)
    if content is None:
        return None
    bucket.delete([LOCK])
    return _age(content) or "unknown age"


def _refuse_unconditional(bucket: Bucket) -> None:
    """Raise ObjectStoreError if this object store does not keep conditions on writes, on which lock and commit rest."""
    # Tried on an object of its own, because a server that ignores the headers answers as if it had kept them.
    name = f"probe.{secrets.token_hex(4)}.part"  # a file under way, to be cleared away if it is left
    try:
        made = bucket.put_new(name, b"first")
        made_again = bucket.put_new(name, b"second")
        tag = bucket.tag(name)
        replaced = bucket.replace(name, b"third", tag) if tag else False
        replaced_again = bucket.replace(name, b"fourth", tag) if tag else True
    finally:
        with contextlib.suppress(EcgError):
            bucket.delete([name])
    if (made, made_again, replaced, replaced_again) != (True, False, True, False):
        raise ObjectStoreError(
            f"{bucket}: this object store ignores conditions on writes (If-None-Match, If-Match), so that two writers "
            "cannot be told apart. Keep the store in a folder, or use another object store."
        )


def _own_token(path: Path) -> str:
    try:
        token = path.read_text("ascii").strip()
        return _Note(token=token, made=0).token
    except (OSError, UnicodeDecodeError, ValidationError):
        token = secrets.token_hex(_TOKEN_BYTES)
        # On disk before the lock is made: after a kill in between, the next run could not know its own lock.
        write_file(path, token.encode())
        return token


def _content(bucket: Bucket) -> bytes | None:
    try:
        return bucket.get(LOCK, _NOTE_LIMIT)
    except FileNotFoundError:
        return None


def _note(content: bytes | None) -> _Note | None:
    try:
        return None if content is None else _Note.model_validate_json(content)
    except ValidationError:
        return None


def _token_in(content: bytes | None) -> str | None:
    note = _note(content)
    return note.token if note else None


def _age(content: bytes | None) -> str:
    """Return the age of a lock in words; empty if nobody can tell."""
    note = _note(content)
    if note is None:
        return ""
    seconds = max(0, int(time.time()) - note.made)
    # From two units on, so that the plural is right.
    size, name = next(((size, name) for size, name in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{seconds // size} {name}"
