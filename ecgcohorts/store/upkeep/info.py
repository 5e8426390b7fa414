"""Describe what a store holds, as plain facts and as a table."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ecgcohorts.cohorts.catalogue import shared_recordings
from ecgcohorts.errors import StoreError
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.store.reader import AnyStore, Member
from ecgcohorts.store.schema import Accounting
from ecgcohorts.store.splits import load_split, split_names

_NUMBERS = {
    "inputs": "inputs",
    "stored": "stored",
    "duplicates": "duplicates",
    "rejected": "rejected",
    "patients": "patients",
    "with >= 2": "patients_with_two",
}
_SCALED = int(Flag.EQUAL_SPANS | Flag.UNIT_VARIANCE)
_LEAST_LICENCE = 9  # characters that are left for it, as in CC BY 4.0


def describe(store: AnyStore) -> dict[str, Any]:
    """Return facts about a store, or several opened as one, as JSON-ready values. `stores` describes each place."""
    rejects = store.rejects()
    stores = [_member(member) for member in store.members]
    return {
        "path": str(store.path),
        "stores": stores,
        "fingerprint": store.fingerprint,
        "recipe": store.recipe.name,
        "leads": list(store.recipe.leads),
        "rate_hz": store.recipe.rate_hz,
        "unit": store.recipe.unit,
        "lsb_uv": store.lsb_uv if store.recipe.unit == "mV" else None,
        "recordings": len(store.index),
        "look_scaled": int((store.index["quality"] & _SCALED != 0).sum()),
        "patients": store.index.n_patients,
        "bytes": sum(one["bytes"] for one in stores),
        "labels": store.index.labels,
        "cohorts": [_cohort(store, name, account) for name, account in sorted(store.accounts().items())],
        "splits": _list_splits(store),
        # Known from publications, also where no digest sees it: other gains, other integers.
        "overlaps": [str(pair) for pair in shared_recordings(list(store.accounts()))],
        "rejects": {str(reason): int(count) for reason, count in rejects["reason"].value_counts().sort_index().items()},
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "path": str(member.path),
        "format_version": member.manifest.format_version,
        "fingerprint": member.fingerprint,
        "generation": member.manifest.generation,
        "codec": member.manifest.codec,
        "earlier_generations": member.earlier_generations,
        "bytes": sum(entry.size for entry in member.manifest.files.values()),
    }


def _list_splits(store: AnyStore) -> list[dict[str, Any]]:
    """Return facts about all splits kept; for one that cannot be loaded, the `problem`."""
    found: list[dict[str, Any]] = []
    for name in split_names(store):
        try:
            found.append(load_split(store, name).facts(store.index))
        except StoreError as error:
            found.append({"name": name, "problem": str(error)})
    return found


def _cohort(store: AnyStore, name: str, account: Accounting) -> dict[str, Any]:
    # A cohort of which everything was refused has segments, but does not stand in the index.
    licences = [segment.licence for segment in store.segments if segment.cohort == name]
    part = store.index.where(cohort=name) if name in store.index.cohorts else None
    return {
        "name": name,
        "licence": licences[-1],
        "inputs": account.inputs,
        "stored": account.stored,
        "duplicates": account.duplicates,
        "rejected": sum(account.rejected.values()),
        "patients": part.n_patients if part else 0,
        "patients_with_two": int((part.patient_ptr[1:] - part.patient_ptr[:-1] > 1).sum()) if part else 0,
    }


def render(facts: dict[str, Any]) -> Group:
    """Lay out the facts of `describe` for a terminal."""
    head = Text(
        f"{facts['path']}: {facts['recordings']} recordings of {facts['patients']} patients, recipe {facts['recipe']}, "
        f"{'' if facts['unit'] == 'mV' else 'numbers without a unit, '}"
        f"codec {' and '.join(sorted({one['codec'] for one in facts['stores']}))}, "
        f"{facts['bytes'] / 1e6:.1f} MB, fingerprint {facts['fingerprint'][:16]}"
    )
    lines: list[RenderableType] = [head]
    if len(facts["stores"]) > 1:
        lines += [Text(_member_line(one)) for one in facts["stores"]]
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejects"].items()) or "nothing"
    lines += [_Cohorts(facts["cohorts"]), Text(f"not stored: {reasons}"), *(Text(pair) for pair in facts["overlaps"])]
    if facts["look_scaled"]:
        lines.append(
            Text(
                f"{facts['look_scaled']} of {facts['recordings']} recordings look scaled (flags equal_spans, unit_variance) and "
                "may be no millivolts. If so, say unit: none in their description."
            )
        )
    for one in facts["stores"]:
        if one["earlier_generations"]:
            earlier = ", ".join(str(number) for number in one["earlier_generations"])
            lines.append(Text(f"{one['path']}: snapshots before this one, until `ecgcohorts gc`: {earlier}"))
    return Group(*lines, *([splits_table(facts["splits"])] if facts["splits"] else []))


@dataclass(frozen=True)
class _Cohorts:
    """A table with a line for each cohort; where long names leave no room for numbers, with the name above its numbers."""

    cohorts: list[dict[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        numbers = [[str(one[key]) for key in _NUMBERS.values()] for one in self.cohorts]
        headings = [max(heading.rsplit("with ", 1), key=len) for heading in _NUMBERS]  # `with` stands above the rest
        widths = [max(map(len, column)) for column in zip(headings, *numbers, strict=True)]
        names, licences = ([one[key] for one in self.cohorts] for key in ("name", "licence"))
        rows = [[*row, licence] for row, licence in zip(numbers, licences, strict=True)]
        room = options.max_width - sum(widths) - 2 * (len(widths) + 1) - _LEAST_LICENCE
        if max(map(len, names), default=0) <= room:
            table = _table(widths, name_too=True)
            for name, row in zip(names, rows, strict=True):
                table.add_row(name, *row)
            yield table
            return
        for name, row in zip(names, rows, strict=True):
            yield Text(name, overflow="fold")
            table = _table(widths, name_too=False)
            table.show_header = name == names[0]
            table.add_row(*row)
            yield table


def _table(widths: list[int], name_too: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    if name_too:
        table.add_column("cohort", no_wrap=True)
    for column, width in zip(_NUMBERS, widths, strict=True):
        table.add_column(column, justify="right", min_width=width, width=None if name_too else width)
    table.add_column("licence", overflow="fold")
    return table


def splits_table(splits: list[dict[str, Any]]) -> Table:
    """Lay out splits as `describe` gives them, one line a part."""
    table = Table(box=None)
    for column in ("split", "part", "recordings", "patients", "rule"):
        table.add_column(column, justify="right" if column in ("recordings", "patients") else "left", overflow="fold")
    for split in splits:
        if "problem" in split:
            table.add_row(split["name"], "", "", "", split["problem"])
            continue
        first = (split["name"], split["words"])
        for part in split["parts"]:
            table.add_row(first[0], part["name"], str(part["recordings"]), str(part["patients"]), first[1])
            first = ("", "")
        table.add_row("", "in no part", str(split["in_no_part"]))
    return table


def _member_line(one: dict[str, Any]) -> str:
    return f"  {one['path']}: generation {one['generation']}, fingerprint {one['fingerprint'][:16]}"
