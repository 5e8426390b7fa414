"""The rules of splits. A rule gives every recording of an index a part, or none, and can be written as JSON.

All rules put a person into one part only, except `ByLabel`, which takes the labels as the cohort gives them.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ecgcohorts.errors import SpecError, needs_extra
from ecgcohorts.index.cohort_index import LABEL, CohortIndex, _share_out, draw_ids, number_ids

UNASSIGNED = -1
_ID_BYTES = 16

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]  # also a folder in a store


def _as_part(name: str) -> str:
    # Exports name files after parts, and commands print them.
    if not 0 < len(name) <= 100 or name.startswith(".") or set(name) & {"/", "\\"} or not name.isprintable():
        raise ValueError(f"a name of 1 to 100 characters, without a slash or a leading dot, not {name[:80]!r}")
    return name


_Part = Annotated[str, AfterValidator(_as_part)]
MAX_PARTS = 127  # codes are int8
_Parts = Field(max_length=MAX_PARTS)


@dataclass(frozen=True, eq=False)
class IdentityMap:
    """Pairs of pseudonyms that are known to be one person."""

    pairs: NDArray[np.uint8]  # (pair, 2, 16)

    @classmethod
    def of(cls, same: Iterable[tuple[str | bytes, str | bytes]]) -> Self:
        """Make a map of pairs, given as hexadecimal text or 16 bytes. Raises SpecError for others."""
        try:
            found = [[bytes.fromhex(one) if isinstance(one, str) else bytes(one) for one in pair] for pair in same]
        except ValueError:
            found = [[]]
        if any(len(pair) != 2 or any(len(one) != _ID_BYTES for one in pair) for pair in found):
            raise SpecError(
                f"The identity map must hold pairs of pseudonyms: {_ID_BYTES} bytes, or {2 * _ID_BYTES} hexadecimal "
                "digits, each."
            )
        return cls(np.frombuffer(b"".join(one for pair in found for one in pair), np.uint8).reshape(-1, 2, _ID_BYTES))

    @property
    def digest(self) -> str | None:
        """SHA-256 of the pairs, whatever their order; None without any."""
        if not len(self.pairs):
            return None
        lines = sorted({b"".join(sorted(one.tobytes() for one in pair)) for pair in self.pairs})
        return hashlib.sha256(b"".join(lines)).hexdigest()

    def join(self, ids: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the person of each of (id, 16) ids as a number, and the lowest id of each person, (person, 16).

        Equal ids are one person, and so are ids linked by pairs over any number of steps. Persons that only the pairs name
        are numbered too.
        """
        every = np.concatenate([ids, self.pairs.reshape(-1, _ID_BYTES)])
        number = number_ids(every)
        _, first = np.unique(number, return_index=True)
        if not len(self.pairs):
            return number, every[first]
        # Here, because scipy is slow to load and only identity maps need it.
        with needs_extra("ingest"):
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components

        one, other = number[len(ids) :].reshape(-1, 2).T
        graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(first), len(first)))
        _, person = connected_components(graph, directed=False)
        _, lowest = np.unique(person, return_index=True)  # ids are numbered in their own order
        return person.astype(np.int64)[number[: len(ids)]], every[first[lowest]]


@dataclass(frozen=True, eq=False)
class People:
    """The persons of an index: its patients, joined where an identity map says that two of them are one."""

    of_patient: NDArray[np.int64]  # [patient]
    of_record: NDArray[np.int64]  # [record]
    first_id: NDArray[np.uint8]  # [person, 16] the lowest pseudonym; some are known to the map only

    @classmethod
    def of(cls, index: CohortIndex, known: IdentityMap) -> "People":
        person, first_id = known.join(index.patient_ids)
        return cls(person, person[index["patient"]], first_id)

    @property
    def count(self) -> int:
        return len(self.first_id)

    def draws(self, seed: str) -> NDArray[np.float64]:
        """Draw a number in [0, 1) for each person."""
        return draw_ids(self.first_id, seed)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _shares(fractions: dict[str, float]) -> str:
    return ", ".join(f"{part} {share:g}" for part, share in fractions.items())


class ByPatient(_Model):
    """A person's part follows from a hash of the pseudonym and `seed`; it stays when recordings are added."""

    kind: Literal["patient"] = "patient"
    fractions: dict[_Part, float] = _Parts
    seed: str

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.fractions)

    @property
    def words(self) -> str:
        """The rule in words, for people. Every rule has this."""
        return f"patients at random: {_shares(self.fractions)}"

    def codes(self, index: CohortIndex, people: People) -> NDArray[np.int64]:
        """Return the part of each record as its number in `parts`, int64 [record], -1 if in no part. Every rule has this."""
        return _share_out(people.draws(self.seed), self.fractions)[people.of_record]


class ByTime(_Model):
    """Parts follow each other in time. A person is in the part of their last recording, with the recordings of that time.

    until: part -> its end (exclusive), in the units of the column, ascending; None for a last part without end.
    """

    kind: Literal["time"] = "time"
    column: str
    until: dict[_Part, float | None] = _Parts

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.until)

    @property
    def words(self) -> str:
        ends = (f"{part} {'to the end' if end is None else f'before {end:g}'}" for part, end in self.until.items())
        return f"last recording by {self.column}: {', '.join(ends)}"

    def codes(self, index: CohortIndex, people: People) -> NDArray[np.int64]:
        ends = [np.inf if end is None else end for end in self.until.values()]
        if any(late <= early for early, late in pairwise(ends)):
            raise SpecError(
                f"found parts ending at {list(self.until.values())}, expected each later than the one before."
            )
        # An index has no dates: `days` counts from each patient's first recording, and only a label can hold a year.
        if self.column != "days" and not self.column.startswith(LABEL):
            raise SpecError(f"found column {self.column!r} for a split by time, expected `days` or a label column.")
        time = index[self.column]
        code = np.searchsorted(ends, time, side="right")
        code[(code == len(ends)) | np.isnan(time)] = UNASSIGNED
        # A person's earlier recordings are in no part: in the earlier part, the model would train on test patients.
        last = np.full(people.count, UNASSIGNED)
        np.maximum.at(last, people.of_record, code)
        return np.where(code == last[people.of_record], code, UNASSIGNED)


class ByLabel(_Model):
    """A part holds the recordings whose label has one of its values. Others, and those without the label, are in no part."""

    kind: Literal["label"] = "label"
    label: str
    values: dict[_Part, tuple[float, ...]] = _Parts

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def words(self) -> str:
        parts = (f"{part} {' '.join(f'{value:g}' for value in values)}" for part, values in self.values.items())
        return f"label {self.label}: {', '.join(parts)}"

    def codes(self, index: CohortIndex, people: People) -> NDArray[np.int64]:
        column = index[LABEL + self.label]
        code = np.full(len(index), UNASSIGNED)
        for number, wanted in enumerate(self.values.values()):
            code[np.isin(column, np.array(wanted, column.dtype))] = number
        return code


class LeaveCohortOut(_Model):
    """One cohort is the last part. The others share the persons who have no recording in it."""

    kind: Literal["cohort"] = "cohort"
    cohort: str
    fractions: dict[_Part, float] = _Parts
    seed: str
    left_out: _Part = "test"

    @property
    def parts(self) -> tuple[str, ...]:
        return (*self.fractions, self.left_out)

    @property
    def words(self) -> str:
        return f"cohort {self.cohort} is {self.left_out}; others: {_shares(self.fractions)}"

    def codes(self, index: CohortIndex, people: People) -> NDArray[np.int64]:
        # A person with recordings in the cohort left out is in no other part: the identity map may join people of
        # several cohorts.
        is_out = index["cohort"] == index.cohort_code(self.cohort)
        met = np.zeros(people.count, bool)
        met[people.of_record[is_out]] = True
        code = _share_out(people.draws(self.seed), self.fractions)[people.of_record]
        code[met[people.of_record]] = UNASSIGNED
        code[is_out] = len(self.fractions)
        return code


class Nested(_Model):
    """Shares of the persons, each containing all smaller ones. A person's code is that of their smallest share."""

    kind: Literal["nested"] = "nested"
    percent: tuple[float, ...] = _Parts
    seed: str

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(f"{share:g}%" for share in self.percent)

    @property
    def words(self) -> str:
        return "shares of the patients, each with all smaller ones"

    def codes(self, index: CohortIndex, people: People) -> NDArray[np.int64]:
        edges = np.array(self.percent) / 100
        if not len(edges) or edges[0] <= 0 or edges[-1] > 1 or (np.diff(edges) <= 0).any():
            raise SpecError(f"found shares {self.percent} %, expected ascending ones above 0 and up to 100.")
        # With the seed of `by_patient`, the training part of a split of that name would be a nested share already.
        code = np.searchsorted(edges, people.draws(f"{self.seed}\0nested"), side="right")
        return np.where(code < len(edges), code, UNASSIGNED)[people.of_record]


Rule = Annotated[ByPatient | ByTime | ByLabel | LeaveCohortOut | Nested, Field(discriminator="kind")]


class SplitDefinition(_Model):
    """The name and the rule of a split. Equal after a round trip through JSON."""

    name: Name
    rule: Rule
    identities: str | None = None  # SHA-256 of the identity map it was made with

    @property
    def parts(self) -> tuple[str, ...]:
        return self.rule.parts
