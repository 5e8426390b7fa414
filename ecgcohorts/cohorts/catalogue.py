"""Search the presets, and say which cohorts hold the same recordings. All of it stands in the presets themselves."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ecgcohorts.cohorts.spec import KIND, CohortSpec
from ecgcohorts.plugins import load, names


@dataclass(frozen=True)
class _Shared:
    """Two cohorts that hold some of the same recordings, under the names they have in a store."""

    one: str
    other: str
    what: str  # how many, and how the copies differ
    found: bool  # whether ingest finds the copies

    def __str__(self) -> str:
        advice = (
            "Copies are stored once, in the cohort ingested first."
            if self.found
            else "Copies are not recognised: never train on one and test on the other."
        )
        return f"{self.one} and {self.other} share recordings ({self.what}). {advice}"


def _presets() -> dict[str, CohortSpec]:
    """Load every preset, by name."""
    return {name: load(KIND, name).SPEC for name in names(KIND)}


def shared_recordings(cohorts: Collection[str] | None = None, more: Iterable[CohortSpec] = ()) -> list[_Shared]:
    """List the pairs of cohorts that share recordings; with `cohorts`, those of which both are among them.

    more: descriptions beside the presets.
    """
    found: dict[frozenset[str], _Shared] = {}
    for spec in (*more, *_presets().values()):
        for overlap in spec.overlaps:
            pair = _Shared(overlap.of or spec.name, overlap.cohort, overlap.what, overlap.found)
            if cohorts is None or {pair.one, pair.other} <= {*cohorts}:
                found.setdefault(frozenset((pair.one, pair.other)), pair)  # both may say so, in their own words
    return list(found.values())


def search(
    words: Iterable[str] = (), access: str | None = None, records: int = 0, repeated: int = 0
) -> list[dict[str, Any]]:
    """Return what presets say, as JSON has it: those that hold every word, and at least as many records and patients.

    words: parts of a name, title, country, licence, source, access or label, or of the name of a cohort inside or of one
    that shares recordings; the name of a preset alone finds that one. repeated: patients with two or more recordings. An
    unknown number is none.
    """
    wanted = [word.casefold() for word in words]
    everything = _presets()
    if len(wanted) == 1 and wanted[0] in everything:
        return [_facts(everything[wanted[0]])]
    return [
        _facts(spec)
        for spec in everything.values()
        if (access is None or spec.about.access == access)
        and (spec.about.records or 0) >= records
        and (spec.about.repeated_patients or 0) >= repeated
        and all(any(word in text.casefold() for text in _said(spec)) for word in wanted)
    ]


def _said(spec: CohortSpec) -> Iterator[str]:
    yield from (spec.name, spec.title, spec.licence, spec.citation, spec.about.country, spec.about.access or "")
    yield from spec.label_names
    for cohort in spec.cohorts:
        yield from (cohort.name, cohort.title)
    for pair in shared_recordings():
        if {pair.one, pair.other} & {*spec.cohort_names}:
            yield from (pair.one, pair.other)


def _facts(spec: CohortSpec) -> dict[str, Any]:
    names = {*spec.cohort_names}
    return {
        "cohort": spec.name,
        "title": spec.title,
        "licence": spec.licence,
        "citation": spec.citation,
        **spec.about.model_dump(mode="json"),
        "cohorts": list(spec.cohort_names) if spec.cohorts else [],
        "layouts": {layout.name: list(layout.files.include) for layout in spec.layouts},
        "readers": sorted({layout.reader for layout in spec.layouts}),
        "labels": list(spec.label_names),
        "shares_with": [
            {"cohort": other, "of": own, "what": pair.what, "found": pair.found}
            for pair in shared_recordings()
            for own, other in ((pair.one, pair.other), (pair.other, pair.one))
            if own in names
        ],
    }
