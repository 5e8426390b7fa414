"""What a store holds, as plain facts and as a table."""

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecgcohorts.store.reader import AnyStore, Member
from ecgcohorts.store.schema import Accounting


def describe(store: AnyStore) -> dict[str, Any]:
    """Facts about a store, or several opened as one, as JSON-ready values. `stores` has what each folder is."""
    rejects = store.rejects()
    stores = [_member(member) for member in store.members]
    return {
        "path": str(store.path),
        "stores": stores,
        "fingerprint": store.fingerprint,
        "recipe": store.recipe.name,
        "leads": list(store.recipe.leads),
        "rate_hz": store.recipe.rate_hz,
        "lsb_uv": store.lsb_uv,
        "recordings": len(store.index),
        "patients": store.index.n_patients,
        "bytes": sum(one["bytes"] for one in stores),
        "labels": store.index.labels,
        "cohorts": [_cohort(store, name, account) for name, account in sorted(store.accounts().items())],
        "rejects": {str(reason): int(count) for reason, count in rejects["reason"].value_counts().sort_index().items()},
    }


def _member(member: Member) -> dict[str, Any]:
    return {
        "path": str(member.path),
        "format_version": member.manifest.format_version,
        "fingerprint": member.fingerprint,
        "generation": member.manifest.generation,
        "bytes": sum(entry.size for entry in member.manifest.files.values()),
    }


def _cohort(store: AnyStore, name: str, account: Accounting) -> dict[str, Any]:
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
    """The facts of `describe` for a terminal."""
    head = Text(
        f"{facts['path']}: {facts['recordings']} recordings of {facts['patients']} patients, recipe {facts['recipe']}, "
        f"{facts['bytes'] / 1e6:.1f} MB, fingerprint {facts['fingerprint'][:16]}"
    )
    table = Table(box=None)
    for column in ("cohort", "inputs", "stored", "duplicates", "rejected", "patients", "with >= 2", "licence"):
        table.add_column(
            column, justify="left" if column in ("cohort", "licence") else "right", no_wrap=column == "cohort"
        )
    for one in facts["cohorts"]:
        numbers = (one[key] for key in ("inputs", "stored", "duplicates", "rejected", "patients", "patients_with_two"))
        table.add_row(one["name"], *(str(number) for number in numbers), one["licence"])
    lines = [head, *(Text(_member_line(one)) for one in facts["stores"] if len(facts["stores"]) > 1), table]
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejects"].items()) or "nothing"
    return Group(*lines, Text(f"not stored: {reasons}"))


def _member_line(one: dict[str, Any]) -> str:
    return f"  {one['path']}: generation {one['generation']}, fingerprint {one['fingerprint'][:16]}"
