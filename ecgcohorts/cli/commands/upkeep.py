"""Check, copy and tidy a store."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from ecgcohorts.cli.console import EXIT_DAMAGED, Answer, progress
from ecgcohorts.cli.parameters import COHORT, COUNT, SOURCE, STORE, TEXT, argument, key, option
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

ORDER = 6


class _Part(click.ParamType):
    """One of several parts, counted from 0."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        number, _, of = str(value).partition("/")
        if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
            raise click.BadParameter(
                f"found {str(value)!r}, expected the number of the part and of all, such as 0/16 to 15/16.", ctx, param
            )
        return int(number), int(of)


@command(
    "verify",
    "ecgcohorts verify store.zarr -j 4",
    "ecgcohorts verify store.zarr --partition 3/16",
    "ecgcohorts verify store.zarr --against ptb-xl/ --cohort ptb_xl -j 4",
)
@argument("store", STORE, "store")
@option("-j", "--workers", type=COUNT, default=1, help="processes")
@option(
    "--partition", type=_Part(), help="check part I of N only, from 0: for N jobs, on any machines, that share the work"
)
@option("--fingerprint", type=TEXT, help="64 digits that you noted elsewhere: is this the snapshot they name?")
@option("--against", type=SOURCE, help="raw recordings, as for ingest: decode them again, compare all")
@option("--cohort", type=COHORT, help="with --against: what they were ingested with; NAME#LAYOUT as for ingest")
@key
def _verify(
    *,
    store: str,
    workers: int,
    partition: tuple[int, int] | None,
    fingerprint: str | None,
    against: str | None,
    cohort: str | None,
    key: Path | None,
) -> Answer:
    """Check every byte of a store, and its index against its signals.

    With --against and --cohort, check both against the source as well. Exit code 4 if there is damage. The checksums lie in
    the store: who may write to it can change them too, which only --fingerprint shows.
    """
    from ecgcohorts.store.reader import open_store
    from ecgcohorts.store.upkeep.verify import verify

    if (against is None) != (cohort is None):
        raise SpecError("--against and --cohort must be given together.")
    if against is not None and partition is not None:
        raise SpecError("--against compares the whole source. Leave out --partition.")
    part = partition or (0, 1)
    # Before hours of reading; the bytes are checked against this manifest afterwards, so the two prove the whole.
    if fingerprint is not None and (found := open_store(store).fingerprint) != fingerprint.strip().lower():
        facts: dict[str, object] = {"store": store, "ok": False, "fingerprint": found}
        complaint = f"{store}: found fingerprint {found}, expected {fingerprint}: another snapshot, or a changed one."
        return _damaged(facts, (), complaint)
    # The store first: comparing a damaged one with its source would only repeat the news, hours later.
    with progress() as tell:
        report = verify(store, workers=workers, part=part, progress=partial(tell, "verify"))
    facts = {"store": store, "ok": report.ok, "files": report.files, "bytes": report.bytes,
             "recordings": report.recordings, "problems": report.problems}  # fmt: skip
    if not report.ok:
        return _damaged(facts, report.problems, f"{store}: {len(report.problems)} problems.")
    where = store if partition is None else f"{store}, part {part[0]} of {part[1]}"
    whole = (
        f"{where}: {report.files} files, {report.bytes / 1e6:.1f} MB, {report.recordings} recordings: all as committed."
    )
    if against is None or cohort is None:
        return Answer(facts, whole)
    return _compared(facts, whole, (store, against, cohort, key), workers)


def _compared(facts: dict[str, object], whole: str, asked: tuple[str, str, str, Path | None], workers: int) -> Answer:
    """Decode the source again, and add what that found to what is known of the store."""
    from ecgcohorts.ingest.against import verify_against

    store, against, cohort, key = asked
    with progress() as tell:
        report = verify_against(store, against, cohort, key, partial(tell, "compare"), workers)
    facts = facts | {"ok": report.ok, "against": report}
    if not report.ok:
        counts = f"{report.differing} differ, {report.gone} gone from the source, {report.unknown} never ingested"
        return _damaged(facts, (whole, *report.problems), f"{store}: {counts}.")
    refused = ", ".join(f"{count} {reason}" for reason, count in report.refused.items()) or "none"
    equal = f"{store}: {report.compared} recordings equal their source; not stored: {refused}"
    if report.elsewhere:
        equal += f"; not in this layout, hence not compared: {report.elsewhere}"
    return Answer(facts, f"{whole}\n{equal}")


def _damaged(facts: dict[str, object], lines: tuple[str, ...], complaint: str) -> Answer:
    return Answer(facts, "\n".join(lines), complaint, EXIT_DAMAGED)


@command(
    "copy",
    "ecgcohorts copy store.zarr s3://bucket/store.zarr",
    "ecgcohorts copy s3://bucket/store.zarr store.zarr --json",
)
@argument("store", STORE, "folder or URL")
@argument("target", STORE, "folder or URL: new, or with an earlier snapshot of this store")
def _copy(*, store: str, target: str) -> Answer:
    """Copy a store between folders and object stores, checked.

    Sends only what the target does not have.
    """
    from ecgcohorts.store.remote.copy import copy_store

    with progress() as tell:
        report = copy_store(store, target, progress=lambda done, total: tell("copy", done, total))
    if not report.written:
        return Answer(report, f"{target}: has this snapshot already. Nothing written.")
    text = (
        f"{target}: {report.files} of {report.of_files} files sent, {report.bytes / 1e6:.1f} MB; "
        f"fingerprint {report.fingerprint[:16]}"
    )
    return Answer(report, text)


@command("unlock", "ecgcohorts unlock s3://bucket/store.zarr", "ecgcohorts unlock gs://bucket/store.zarr --json")
@argument("store", STORE, "URL")
def _unlock(*, store: str) -> Answer:
    """Remove the write lock that a killed run left in an object store."""
    from ecgcohorts.store.remote.bucket_lock import unlock

    age = unlock(store)
    text = f"{store}: " + ("had no lock." if age is None else f"removed a lock made {age} ago.")
    return Answer({"store": store, "had_lock": age is not None, "age": age}, text)


@command("gc", "ecgcohorts gc store.zarr", "ecgcohorts gc store.zarr --json")
@argument("store", STORE, "store")
def _gc(*, store: str) -> Answer:
    """Delete the snapshots before the one in force.

    Until then they stay readable.
    """
    from ecgcohorts.store.upkeep.garbage import collect_garbage

    files, size = collect_garbage(store)
    return Answer(
        {"store": store, "files": files, "bytes": size}, f"{store}: {files} files, {size / 1e6:.1f} MB deleted"
    )
