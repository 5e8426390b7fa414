"""Say what a dry run can know of a run: what headers refuse already, and of a sample what decoding would refuse.

A plan reads headers and tables only. A sample of its recordings is decoded with the steps of a run, and nothing is kept.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

from ecgcohorts.cohorts.files import Found, SourceItem
from ecgcohorts.cohorts.schema import Mains
from ecgcohorts.ingest._cost import _Cost
from ecgcohorts.ingest.again import _Steps, _Told
from ecgcohorts.ingest.plan import DUPLICATE_ID, Plan
from ecgcohorts.io.texts import decoded
from ecgcohorts.readers import files_beside
from ecgcohorts.sources.windows import at_hand
from ecgcohorts.store.upkeep.lookup import REMOVED

_GENERAL = {
    DUPLICATE_ID: ("the id of an earlier recording", "an id of its own", "Correct `recording` in the description."),
    REMOVED: ("a patient who was removed from the store", "", "Nothing: the recording stays out."),
}


@dataclass(frozen=True)
class _Refusals:
    """Recordings that are refused for one cause, and one of them."""

    reason: str
    count: int
    path: str = ""  # of the example, with its entry
    found: str = ""
    expected: str = ""
    what_to_do: str = ""

    def __str__(self) -> str:
        text = f"  {self.count:,} {self.reason}"
        if not self.found:
            return text
        where = f", such as {self.path}" if self.path else ""
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{text}{where}: found {self.found}{expected}. {self.what_to_do}"


@dataclass(frozen=True)
class Trial:
    """What is known of a run before it."""

    astray: str  # the complaint about a table that matches nothing
    inputs: int  # that the store has not met
    headers_refuse: tuple[_Refusals, ...]  # with an example each if a sample was asked for
    to_decode: int
    sampled: int  # recordings decoded
    folders: int  # of the sample
    decoding_refuses: tuple[_Refusals, ...]  # of the sample
    cost: _Cost

    @classmethod
    def of(cls, plan: Plan, files: Found, n: int, limit: int | None) -> Self:
        """Decode `n` recordings of a plan, spread over cohorts, folders and suffixes; the same ones for the same plan."""
        header = plan.header
        reasons = Counter(one.reason for cohort in header.cohorts for one in plan.refused(cohort.name))
        chosen = sorted(_chosen(plan, n))
        steps = _Steps(Found.reader_of(files.layout), header.spec, header.recipe)
        return cls(
            header.astray(limit),
            header.n_inputs,
            tuple(_with_examples(files, reasons) if n else _without(reasons)),
            header.n_rows,
            len(chosen),
            len({one.path.rpartition("/")[0] for one in chosen}),
            tuple(_decoding(files, chosen, steps)),
            _Cost.of(header, files),
        )

    @property
    def n_refused_by_headers(self) -> int:
        return sum(one.count for one in self.headers_refuse)

    @property
    def expected_fraction(self) -> float:
        """The share of the inputs that a run would refuse, were all recordings like those of the sample."""
        of_sample = sum(one.count for one in self.decoding_refuses) / self.sampled if self.sampled else 0.0
        return (self.n_refused_by_headers + of_sample * self.to_decode) / self.inputs if self.inputs else 0.0

    def lines(self) -> Iterator[str]:
        """Yield what a person reads."""
        if self.headers_refuse:
            yield f"headers and ids refuse {self.n_refused_by_headers:,} of {self.inputs:,} new inputs:"
            yield from map(str, self.headers_refuse)
        if self.sampled:
            refused = sum(one.count for one in self.decoding_refuses)
            folders = f"{self.folders:,} folder{'' if self.folders == 1 else 's'}"
            yield (
                f"decoded {self.sampled:,} of {self.to_decode:,} recordings ({self.sampled / self.to_decode:.1%}, from "
                f"{folders}): {refused:,} would be refused{':' if refused else ''}"
            )
            yield from map(str, self.decoding_refuses)
        if self.to_decode:
            yield str(self.cost)


class _Chosen(NamedTuple):
    path: str
    entry: str
    cohort: str
    mains_hz: Mains


def _groups(plan: Plan) -> Iterator[tuple[tuple[str, bytes, bytes], _Chosen]]:
    """Yield cohort, folder and suffix of every recording, and the recording."""
    for partition in plan.header.partitions:
        # A partition at a time: the paths of millions of recordings would not fit beside the plan.
        rows = plan.rows(partition, ["path", "entry", "mains"]).to_pydict()
        for path, entry, mains in zip(rows["path"], rows["entry"], rows["mains"], strict=True):
            folder, _, name = path.rpartition(b"/")
            group = (partition.cohort, folder, name.rpartition(b".")[2])
            yield group, _Chosen(decoded(path), decoded(entry), partition.cohort, plan.header.mains[mains])


def _chosen(plan: Plan, n: int) -> list[_Chosen]:
    """Choose `n` recordings: an equal share of each group, and what small groups leave for the others."""
    if not n:
        return []
    sizes = Counter(group for group, _ in _groups(plan))
    shares: dict[tuple[str, bytes, bytes], int] = {}
    # More groups than recordings to decode: some groups, at equal distances.
    names = sorted(sizes)
    names = [names[at * len(names) // n] for at in range(n)] if len(names) > n else names
    left = n
    for number, group in enumerate(sorted(names, key=lambda name: (sizes[name], name))):
        shares[group] = min(sizes[group], -(-left // (len(names) - number)))
        left -= shares[group]
    places = {group: {at * sizes[group] // share for at in range(share)} for group, share in shares.items()}
    met: Counter[tuple[str, bytes, bytes]] = Counter()
    found = []
    for group, one in _groups(plan):
        if met[group] in places.get(group, ()):
            found.append(one)
        met[group] += 1
    return found


def _decoding(files: Found, chosen: list[_Chosen], steps: _Steps) -> Iterator[_Refusals]:
    """Decode the chosen recordings and yield what refuses them, the commonest cause first."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, _Told]] = {}
    beside = files_beside(files.layout.reader, files.layout.arrays)
    at = at_hand(files.source, ((one.path, [one.entry]) for one in chosen), beside)
    for one, file in zip(chosen, at, strict=True):
        told = _Told.of(partial(steps.decode, file, one.entry, one.cohort, one.mains_hz))
        if told is not None:
            counts[told.cause] += 1
            first.setdefault(told.cause, (SourceItem(one.path, one.entry).location, told))
    for cause, count in counts.most_common():
        path, told = first[cause]
        yield _Refusals(told.reason, count, path, *told[1:])


def _without(reasons: Counter[str]) -> Iterator[_Refusals]:
    yield from (_Refusals(reason, count) for reason, count in reasons.most_common())


def _with_examples(files: Found, reasons: Counter[str]) -> Iterator[_Refusals]:
    """Yield the refusals of a plan with an example each: a plan keeps codes only, so headers are read again."""
    wanted = set(reasons) - set(_GENERAL)
    first: dict[str, tuple[str, str, str, str]] = {}
    for item in files.scan() if wanted else ():
        error = item.error
        if error is not None and (reason := str(error.reason)) in wanted:
            first[reason] = (item.location, *_Told.by(error)[1:])
            wanted.remove(reason)
            if not wanted:
                break
    for reason, count in reasons.most_common():
        yield _Refusals(reason, count, *first.get(reason, ("", *_GENERAL.get(reason, ("", "", "")))))
