"""Find the manifest in force, and those before it; check each before anything in it is used."""

import hashlib
import os
import time

from pydantic import ValidationError

from ecgcohorts.errors import StoreError, expectation, is_of_machine, machine_error
from ecgcohorts.io.place import Folder, Place
from ecgcohorts.store.schema import CURRENT, Current, FileEntry, Manifest
from ecgcohorts.store.upgrade import upgraded

_CURRENT_LIMIT = 4096  # bytes; it has about 120
_MANIFEST_LIMIT = 1 << 30  # bytes; a manifest of 11 M records is about 1 MB
# Our default. A request for CURRENT takes a bucket some 20 ms: at most 2 % of the time of one that reads without a pause.
_BUCKET_ASKED_S = 1.0


def _current_bytes(place: Place) -> bytes | None:
    try:
        return place.get(CURRENT, _CURRENT_LIMIT)
    except (OSError, StoreError):
        return None


def _read_manifest(place: Place, generation: int | None = None) -> tuple[Manifest, str]:
    """Return a manifest, the one in force if no generation is asked for, and its SHA-256."""
    manifest, data = manifest_bytes(place)
    if generation in (None, manifest.generation):
        return manifest, hashlib.sha256(data).hexdigest()
    there = {one.generation: one for one in _still_there(place, manifest)}
    if generation not in there:
        known = ", ".join(str(number) for number in (manifest.generation, *there))
        raise StoreError(f"{place}: found no generation {generation}, expected one of {known}.")
    return _read_named(place, there[generation])[0], there[generation].sha256


def manifest_bytes(place: Place) -> tuple[Manifest, bytes]:
    """Return the manifest in force, and its bytes as stored."""
    try:
        current = Current.model_validate_json(place.get(CURRENT, _CURRENT_LIMIT))
    except OSError as error:
        if is_of_machine(error):
            raise machine_error(str(place), error) from None
        raise StoreError(
            f"{place}: found {_nothing_at(place)}, expected a store. Make one: ecgcohorts ingest SRC {place} --cohort NAME"
        ) from None
    except ValidationError:
        raise StoreError(f"{place}: CURRENT is damaged. Restore the store from a copy.") from None
    return _read_named(place, current)


def _earlier_manifests(place: Place, manifest: Manifest) -> list[Manifest]:
    """Return the manifests of earlier snapshots that are still there, latest first. Raises StoreError for a damaged one."""
    return [_read_named(place, one)[0] for one in _still_there(place, manifest)]


def _still_there(place: Place, manifest: Manifest) -> list[Current]:
    # `gc` deletes earlier snapshots and leaves the manifest in force as it is, so not all that it names are there.
    there = place.sizes([one.manifest for one in manifest.earlier]) if manifest.earlier else {}
    return [one for one in manifest.earlier if one.manifest in there]


def files_named(place: Place, manifest: Manifest) -> dict[str, FileEntry | None]:
    """Return all files of a snapshot and of the earlier ones that are still there, with what they must contain.

    None for manifests: CURRENT and later manifests hold their SHA-256.
    """
    named: dict[str, FileEntry | None] = {}
    for one in (*reversed(_earlier_manifests(place, manifest)), manifest):
        named |= {one.file_name: None, **one.files}
    return named


def _read_named(place: Place, named: Current) -> tuple[Manifest, bytes]:
    try:
        data = place.get(named.manifest, _MANIFEST_LIMIT)
        # Checked before it is parsed: CURRENT vouches for the manifest, and the manifest for everything else.
        if hashlib.sha256(data).hexdigest() != named.sha256:
            raise StoreError(
                f"{place}/{named.manifest}: manifest does not match CURRENT. Restore the store from a copy."
            )
        manifest = Manifest.model_validate_json(upgraded(place.path, data))
    except FileNotFoundError:
        raise StoreError(
            f"{place}: CURRENT names a manifest that is not there. Restore the store from a copy."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["loc"][:1] == ("recipe",):
            # Whole, but of a version with other steps or other rules: restoring a copy would not help.
            raise StoreError(
                f"{place}: this version does not accept the recipe of the store ({where}: {expectation(first)}). Upgrade "
                "ecgcohorts, or open the store with the version that made it."
            ) from None
        what = f" ({expectation(first)})" if first["type"] == "value_error" else ""
        raise StoreError(
            f"{place}: manifest is damaged at {_printable(where) or 'its start'}{what}. Restore the store from a copy."
        ) from None
    wrong = manifest.contradiction() if manifest.file_name == named.manifest else "another number than its name"
    if wrong:
        raise StoreError(f"{place}: manifest contradicts itself ({wrong}). Restore the store from a copy.")
    return manifest, data


class _Watch:
    """Notices, before a read, that a patient was removed from a store since a snapshot of it was opened."""

    def __init__(self, place: Place, manifest: Manifest, fingerprint: str) -> None:
        self._place, self._manifest, self._fingerprint = place, manifest, fingerprint
        self._seen: tuple[int, ...] | bytes | None = None  # CURRENT, when it was last found to remove nobody
        self._asked_s: float | None = None  # when a bucket was last asked for it

    # In another process the clock may be another, and so may the machine.
    def __reduce__(self) -> tuple[type["_Watch"], tuple[Place, Manifest, str]]:
        return _Watch, (self._place, self._manifest, self._fingerprint)

    def check(self, at_once: bool = False) -> None:
        """Raise StoreError if somebody was removed, or the store itself is gone.

        A folder is asked each time, a bucket at most every `_BUCKET_ASKED_S` seconds unless it must be at once.
        """
        if isinstance(self._place, Folder):
            self._ask()
            return
        now = time.monotonic()
        if not at_once and self._asked_s is not None and now - self._asked_s < _BUCKET_ASKED_S:
            return
        self._asked_s = now  # before the request: other threads go on meanwhile
        try:
            self._ask()
        except BaseException:
            self._asked_s = None  # the next read must not pass for the second that was not answered, or answered so
            raise

    def _ask(self) -> None:
        # Shards of the snapshot may be held open, and stay readable when their names are deleted; so does the index in
        # memory. CURRENT of a folder is another file after each commit: to look at it takes some us.
        while (seen := self._look()) != self._seen:
            if isinstance(seen, bytes) and self._fingerprint.encode() in seen:
                break  # the manifest that was opened: no need to fetch it again
            try:
                manifest, _ = manifest_bytes(self._place)
            except StoreError:
                if self._look() == seen:
                    raise
                continue  # replaced between CURRENT and the manifest that it named
            if not set(self._manifest.removed).issuperset(manifest.removed):
                self._place.let_go()
                raise StoreError(
                    f"{self._place}: a patient was removed from the store since you opened it, so that what you opened is "
                    "read no more. Open the store again; a training run begins again without that patient."
                )
            break
        self._seen = seen

    def _look(self) -> tuple[int, ...] | bytes:
        try:
            if not isinstance(self._place, Folder):
                # Its 120 bytes and not its stamp: a stamp has whole seconds, and all CURRENTs are of about one size.
                return self._place.get(CURRENT, _CURRENT_LIMIT)
            status = os.stat(self._place.path / CURRENT)
        except FileNotFoundError:
            self._place.let_go()
            raise StoreError(f"{self._place}: the store you opened is not there any more. Open another one.") from None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _printable(text: str) -> str:
    # Whoever wrote a manifest chose its names, and some texts move the cursor of a terminal.
    return "".join(one if one.isprintable() else "?" for one in text[:80])


def _nothing_at(place: Place) -> str:
    if isinstance(place.path, str):
        return "nothing there"
    return "a folder without a committed store" if place.path.exists() else "no such folder"
