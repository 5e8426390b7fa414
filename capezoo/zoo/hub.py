"""Fetch weights from a Hugging Face Hub, and publish them there.

A download is whole and checked before anything can load it; a publication is one commit.

CACHE/hub/ORG--REPO/COMMIT/         a weight folder, complete and checked
CACHE/hub/ORG--REPO/refs.json       revision -> commit, as the Hub last said
CACHE/hub/ORG--REPO/.COMMIT.part/   an unfinished download: nothing loads it, the next attempt keeps its whole files

The Hub is asked only for what is not in the cache, and never when HF_HUB_OFFLINE is set.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capezoo.zoo.files import REQUIRED, SIZE_LIMITS, TOLERATED, problems_of
from ecgcohorts.errors import EcgError, SourceError, SpecError, is_of_machine, machine_error
from ecgcohorts.io.durable import make_folder, sync_folder, write_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "hf-hub:"
# No `--`, which separates organisation and repository in the cache, and no `..`.
_PART = r"[A-Za-z0-9_](?:[.-]?[A-Za-z0-9_])*"
_ADDRESS = re.compile(rf"{HUB}(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}(?:/{_PART})*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What huggingface_hub takes for yes.
_YES = {"1", "ON", "YES", "TRUE"}
_REFS = "refs.json"
# Packages of their errors: the transport has changed twice.
_THEIRS = {"huggingface_hub", "httpx", "httpx2", "requests"}


@dataclass(frozen=True)
class _Address:
    """A repository, and one state of it."""

    repo: str
    revision: str

    @property
    def home(self) -> Path:
        return cache_folder() / "hub" / self.repo.replace("/", "--")

    def __str__(self) -> str:
        return f"{HUB}{self.repo}@{self.revision}"


def cache_folder() -> Path:
    """Return where downloaded weights live: CAPEZOO_CACHE, or capezoo/weights in the user's cache. It is not created."""
    if chosen := os.environ.get("CAPEZOO_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capezoo" / "weights"


def fetch(text: str, offline: bool = False) -> Path:
    """Return the folder of the weights at "hf-hub:ORG/REPO@REVISION", downloaded and checked unless cached.

    Without a revision it is the branch `main`; `address_of` the folder names the commit that this meant. A commit, 40 hexadecimal digits, is looked up in the cache first. Any other revision can move: the Hub is asked for
    its commit every time; offline, it is the commit of the last answer. Raises SpecError for another form, SourceError
    if there is nothing to fetch or it is not a weight folder, MachineError for a full disk.
    """
    address = _parse(text)
    quiet = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES
    commit = _commit_of(address, quiet)
    done = address.home / commit
    if done.is_dir():
        return done
    if quiet:
        raise SourceError(f"{address}: not in the cache, and offline. Fetch it on a machine with a network: "
                          f"capezoo pull {address} --to DIR")  # fmt: skip
    with _answers(address):
        return _download(address, commit)


def cached() -> list[str]:
    """List the addresses of all complete downloads in the cache, by commit."""
    folders = (cache_folder() / "hub").glob("*--*/*")
    return sorted(address for path in folders if path.is_dir() and (address := address_of(path)))


def address_of(folder: Path) -> str | None:
    """Return the address, with its commit, of a folder that `fetch` returned; None for any other folder."""
    home = folder.parent
    if home.parent != cache_folder() / "hub" or not _COMMIT.fullmatch(folder.name):
        return None
    return f"{HUB}{home.name.replace('--', '/', 1)}@{folder.name}"


def push(folder: Path, target: str, message: str) -> str:
    """Put a weight folder on the Hub at "hf-hub:ORG/REPO" in one commit, and return its address with that commit.

    A new repository is private until its owner opens it. The same commit deletes files of an earlier publication that
    this one lacks. Raises SpecError for another form, SourceError if the Hub refuses.
    """
    match = _ADDRESS.fullmatch(target)
    if not match or match["revision"]:
        raise SpecError(f"found {target!r}, expected {HUB}ORG/REPO without revision: publishing makes one.")
    with _answers(target):
        api = _api()
        api.create_repo(match["repo"], private=True, exist_ok=True)
        made = api.upload_folder(repo_id=match["repo"], folder_path=folder, commit_message=message, delete_patterns="*")
    return f"{HUB}{match['repo']}@{made.oid}"


def _parse(text: str) -> _Address:
    match = _ADDRESS.fullmatch(text)
    if not match:
        raise SpecError(f"found {text}, expected {HUB}ORG/REPO@REVISION, best with a commit: a branch can move.")
    return _Address(match["repo"], match["revision"] or "main")


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _commit_of(address: _Address, offline: bool) -> str:
    """Return the commit of a revision; if the Hub was asked, note the answer for offline use."""
    if _COMMIT.fullmatch(address.revision):
        return address.revision
    refs = _known_refs(address.home / _REFS)
    if offline:
        if address.revision not in refs:
            raise SourceError(
                f"{address}: the Hub was never asked for this revision, and this is offline. Give a commit that "
                "is in the cache: capezoo list"
            )
        return refs[address.revision]
    with _answers(address):
        commit = str(_api().model_info(address.repo, revision=address.revision).sha)
    if not _COMMIT.fullmatch(commit):
        raise SourceError(
            f"{address}: found commit {commit!r:.60}, expected 40 hexadecimal digits. Do not use this Hub."
        )
    # Written only when it moved: many processes that load the same weights must not rewrite it.
    if refs.get(address.revision) != commit:
        refs[address.revision] = commit
        write_file(address.home / _REFS, json.dumps(refs, indent=1, sort_keys=True).encode())
    return commit


def _known_refs(path: Path) -> dict[str, str]:
    """Return the revisions asked for before; none if the file is missing or damaged: it only serves offline use."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: commit for name, commit in pairs if isinstance(commit, str) and _COMMIT.fullmatch(commit)}


def _download(address: _Address, commit: str) -> Path:
    """Download every file into a folder aside, check all of them, then rename it once."""
    from huggingface_hub.utils import WeakFileLock

    stage, done = address.home / f".{commit}.part", address.home / commit
    make_folder(address.home)
    with WeakFileLock(address.home / f".{commit}.lock"):
        # Another process may have fetched it while this one waited for the lock.
        if done.is_dir():
            return done
        api = _api()
        sizes = _listed(api, address, commit)
        # huggingface_hub skips the files that an earlier attempt finished.
        for name in sizes:
            api.hf_hub_download(address.repo, name, revision=commit, local_dir=stage)
        # The notes of huggingface_hub are not part of the weights.
        shutil.rmtree(stage / ".cache", ignore_errors=True)
        found = {path.name: path.stat().st_size for path in stage.iterdir()}
        wrong = [f"{name}: found {found.get(name)} bytes, expected {size}." for name, size in sizes.items()
                 if found.get(name) != size] or problems_of(stage)  # fmt: skip
        if wrong:
            shutil.rmtree(stage)
            raise SourceError(f"{address}: refused, nothing kept. {wrong[0]}")
        for path in stage.iterdir():
            # The rename must not reach the disk before the bytes do, or a power cut leaves half a file under the final name.
            with path.open("rb") as file:
                os.fsync(file.fileno())
        os.rename(stage, done)
        sync_folder(address.home)
    return done


def _listed(api: "HfApi", address: _Address, commit: str) -> dict[str, int]:
    """List names and sizes of the files to fetch. Raises SourceError unless they are exactly a weight folder."""
    # Refused before the first byte is fetched: a repository of another kind may be huge.
    tree = {entry.path: getattr(entry, "size", None) for entry in api.list_repo_tree(
        address.repo, revision=commit, recursive=True)}  # fmt: skip
    given = {path: size for path, size in tree.items() if path.split("/")[0] not in TOLERATED}
    for name in REQUIRED:
        if name not in given:
            raise SourceError(f"{address}: found no {name}, expected published weights: {', '.join(REQUIRED)}.")
    sizes: dict[str, int] = {}
    for path, size in given.items():
        if path not in SIZE_LIMITS:
            raise SourceError(f"{address}: refused, nothing fetched. Found {path!r:.80}, expected only files of a weight "
                              "folder. Use a repository made by capezoo publish.")  # fmt: skip
        if not isinstance(size, int) or not 0 <= size <= SIZE_LIMITS[path]:
            raise SourceError(f"{address}: refused, nothing fetched. Found {path} of {size} bytes, expected at most "
                              f"{SIZE_LIMITS[path]}.")  # fmt: skip
        sizes[path] = size
    return sizes


@contextmanager
def _answers(what: object) -> Iterator[None]:
    """Turn whatever the Hub, its library or the network raise into one line."""
    try:
        yield
    except EcgError:
        raise
    except Exception as error:
        if isinstance(error, OSError | MemoryError) and is_of_machine(error):
            raise machine_error(str(what), error) from None
        theirs = type(error).__module__.partition(".")[0] in _THEIRS
        if not theirs and not isinstance(error, OSError | ValueError | LookupError | TypeError):  # of a wrong answer
            raise
        # Their messages run over many lines; the first says what failed.
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise SourceError(f"{what}: the Hub refused or failed ({reason:.200}). Check name, revision, network and login "
                          "(hf auth login), or give a folder.") from None  # fmt: skip
