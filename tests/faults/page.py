"""The table of docs/soak.md, from the results kept."""

import json
from pathlib import Path
from typing import Any

from live import ROWS

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / "docs" / "soak.md", ROOT / "docs" / "data" / "soak.json"
BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
WHEN = ("before", "during", "after")
# What each campaign shows: fault, what must hold.
TOLD = {
    "kill": (
        "`kill -9` before or in the middle of every write, flush, rename, link, deletion",
        "the snapshot before, or from the rename of `CURRENT` on the new one; the same command ends in the same bytes",
    ),
    "power loss": (
        "power fails at every such point; of what was not flushed, nothing, all names or a selection is left",
        "the same",
    ),
    "no space left": (
        "every call that may find the disk full, and all later ones",
        "an error of one line; the same command, with room again, ends in the same bytes",
    ),
    "disk error": (
        "every call fails once with an input/output error, opening of inputs included",
        "the same; no recording is refused for it",
    ),
    "too many open files": ("every opening of a file, and all later ones", "the same"),
    "real limits": ("a full disk, files that may not grow, few open files, by the system itself", "the same"),
    "writers": (
        "2 to 8 ingests at once; the one at work is killed every second time",
        "one writes, the others are told within 1 s",
    ),
    "readers": (
        "opening and reading all the time beside ingest, label, `gc` and remove",
        "whole snapshots only, never an earlier one again",
    ),
    "bit flips": (
        "one bit anywhere in a store, earlier snapshots included",
        "an error when it is read, or found by `verify`",
    ),
    "harmed files": (
        "every file missing, empty, one byte shorter or longer, doubled, swapped",
        "opening fails; a content of the same size is found by `verify`",
    ),
    **{
        f"live: {name}": (
            f"`kill -9` at a random time: {row.told}",
            "what shows as finished is whole; the same command ends in the same bytes"
            if name == next(iter(ROWS))
            else "the same",
        )
        for name, row in ROWS.items()
    },
    "weight flips": (
        "one bit anywhere in a folder of published weights",
        "loading is refused, and `capezoo verify` finds it",
    ),
    "checkpoint flips": (
        "one bit anywhere in a checkpoint or its digest",
        "the checkpoint is refused, and the one before it is gone on from",
    ),
}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| fault | must hold | tried | failed |", "|---|---|---|---|"]
    for name, one in results["campaigns"].items():
        fault, must = TOLD[name]
        lines.append(f"| {fault} | {must} | {one['tried']:,} | {len(one['failed'])} |")
    live = [one for name, one in results["campaigns"].items() if name.startswith("live: ")]
    if live:
        when = {word: sum(one["notes"].get(f"killed {word} its changes", 0) for one in live) for word in WHEN}
        lines += [
            "",
            f"Of the {sum(when.values()):,} kills at a random time, {when['before']:,} came before the command had changed "
            f"anything, {when['during']:,} in between, {when['after']:,} after its last change.",
        ]
    if results["every"] > 1:
        lines += ["", f"Of the points of each command, one in {results['every']} was tried."]
    about = f"`{results['command']}`, commit {results['commit']}, {results['date']}, {results['machine']}, {results['minutes']} minutes."
    return "\n".join([*lines, "", about])


def write_page() -> None:
    text = PAGE.read_text("utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table(json.loads(RESULTS.read_text('utf-8')))}\n{END}{after}", "utf-8")
