"""What a store holds, as plain facts and as a table."""

from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ecgcohorts.store.reader import Store, earlier_manifests, open_store
from ecgcohorts.store.schema import Segment


def describe(path: str | Path) -> dict[str, Any]:
    """Facts about a store as JSON-ready values. Raises StoreError."""
    store = open_store(path)
    rejects = store.rejects()
    return {
        "path": str(path),
        "format_version": store.manifest.format_version,
        "fingerprint": store.fingerprint,
        "generation": store.manifest.generation,
        "earlier_generations": [one.generation for one in earlier_manifests(store.path, store.manifest)],
        "recipe": store.recipe.name,
        "leads": list(store.recipe.leads),
        "rate_hz": store.recipe.rate_hz,
        "lsb_uv": store.lsb_uv,
        "recordings": len(store.index),
        "patients": store.index.n_patients,
        "bytes": sum(entry.size for entry in store.manifest.files.values()),
        "labels": store.index.labels,
        "cohorts": [_cohort(store, name) for name in sorted({segment.cohort for segment in store.segments})],
        "rejects": {str(reason): int(count) for reason, count in rejects["reason"].value_counts().sort_index().items()},
    }


def _cohort(store: Store, name: str) -> dict[str, Any]:
    segments: list[Segment] = [segment for segment in store.segments if segment.cohort == name]
    part = store.index.where(cohort=name) if name in store.index.cohorts else None
    return {
        "name": name,
        "licence": segments[-1].licence,
        "inputs": sum(segment.accounting.inputs for segment in segments),
        "stored": len(part) if part else 0,
        "duplicates": sum(segment.accounting.duplicates for segment in segments),
        "rejected": sum(sum(segment.accounting.rejected.values()) for segment in segments),
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
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejects"].items()) or "nothing"
    lines = [f"not stored: {reasons}"]
    if facts["earlier_generations"]:
        earlier = ", ".join(str(number) for number in facts["earlier_generations"])
        lines.append(f"snapshots before this one, until `ecgcohorts gc`: {earlier}")
    return Group(head, table, *(Text(line) for line in lines))
