"""Split recordings into parts, such as training and test, by rules that can be written down.

A Split holds the outcome of a rule under a name. It finds recordings by their id, so a split made once also serves a part
of its index, a store that has grown, several stores opened as one, and embeddings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from ecgcohorts.errors import SpecError, expectation
from ecgcohorts.index.cohort_index import CohortIndex, number_ids
from ecgcohorts.index.rules import MAX_PARTS, UNASSIGNED, IdentityMap, Nested, People, Rule, SplitDefinition

# Recommended by the authors: Wagner 2020, "Cross-validation folds".
PTB_XL_FOLDS = {"train": range(1, 9), "val": (9,), "test": (10,)}
# Our default: about even steps on a logarithmic axis.
NESTED_PERCENT = (1, 2, 5, 10, 20, 50, 100)
_ALL_TRAIN: Mapping[str, float] = MappingProxyType({"train": 1.0})

Same = Iterable[tuple[str | bytes, str | bytes]]  # pseudonyms of one person, as hexadecimal text or 16 bytes


@dataclass(frozen=True, eq=False)
class Split:
    """Recordings by part, under a name. The functions of this module make it; `save_split` keeps it in a store."""

    definition: SplitDefinition
    recording_id: NDArray[np.uint8] = field(repr=False)  # [recording, 16], those in a part
    codes: NDArray[np.int8] = field(repr=False)  # [recording], number in `parts`

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def parts(self) -> tuple[str, ...]:
        return self.definition.parts

    @property
    def is_nested(self) -> bool:
        """Whether each part contains those before it."""
        return isinstance(self.definition.rule, Nested)

    def column(self, index: CohortIndex) -> NDArray[np.int8]:
        """Return the part of each record of an index as its number in `parts`, int8 [record].

        -1 stands for recordings in no part and for those added later. Of nested parts, the smallest one is given.
        """
        # Numbered together, so that ids of both are compared by one sort and no dictionary is made.
        number = number_ids(np.concatenate([self.recording_id, index["recording_id"]]))
        known = np.full(number.max(initial=-1) + 1, UNASSIGNED, np.int8)
        known[number[: len(self.codes)]] = self.codes
        return known[number[len(self.codes) :]]

    def names(self, index: CohortIndex) -> NDArray[np.object_]:
        """Return the name of the part of each record of an index, or None."""
        return np.array([*self.parts, None], object)[self.column(index)]

    def of(self, index: CohortIndex) -> dict[str, CohortIndex]:
        """Return the parts of an index by name. A nested part includes all smaller ones. Parts may be empty."""
        code = self.column(index)
        if self.is_nested:
            return {name: index.take((code >= 0) & (code <= number)) for number, name in enumerate(self.parts)}
        return {name: index.take(code == number) for number, name in enumerate(self.parts)}

    def on(self, index: CohortIndex) -> "Split":
        """Return the split of the recordings of one index only, as `save_split` requires."""
        code = self.column(index)
        return Split(self.definition, index["recording_id"][code >= 0], code[code >= 0])

    def summary(self, index: CohortIndex) -> pd.DataFrame:
        """Count patients and recordings, one line per cohort and part. A nested part includes all smaller ones."""
        lines = [
            (cohort, name, part.where(cohort=cohort).n_patients, len(part.where(cohort=cohort)))
            for name, part in self.of(index).items()
            for cohort in index.cohorts
        ]
        return pd.DataFrame(lines, columns=["cohort", "part", "patients", "recordings"]).sort_values(
            "cohort", kind="stable", ignore_index=True
        )

    def facts(self, index: CohortIndex) -> dict[str, Any]:
        """Return what the split does to an index, as JSON-ready values. A nested part includes all smaller ones."""
        return {
            "name": self.name,
            "rule": self.definition.rule.model_dump(mode="json"),
            "words": self.definition.rule.words,
            "parts": [
                {"name": part, "recordings": len(one), "patients": one.n_patients}
                for part, one in self.of(index).items()
            ],
            "in_no_part": int((self.column(index) == UNASSIGNED).sum()),
        }

    def assert_disjoint(self, index: CohortIndex, same: Same = ()) -> None:
        """Raise SpecError if a patient, a person of the identity map or a waveform is in two parts.

        Of a nested part, only what it adds to the smaller ones is compared.
        """
        code = self.column(index)
        assert_disjoint({name: index.take(code == number) for number, name in enumerate(self.parts)}, same)


def by_patient(index: CohortIndex, fractions: Mapping[str, float], name: str, same: Same = ()) -> Split:
    """Divide the patients at random: {"train": 0.8, "val": 0.1, "test": 0.1}. The name is the seed.

    A patient's part depends on no other patient, so it stays when patients are added; the fractions hold on average only.
    same: pairs of pseudonyms known to be one person. Raises SpecError for a rule that cannot be applied, as all functions
    here do.
    """
    return make_split(index, name, {"kind": "patient", "fractions": dict(fractions), "seed": name}, same)


def by_time(
    index: CohortIndex, until: Mapping[str, float | None], name: str, column: str = "days", same: Same = ()
) -> Split:
    """Train on the past, test on the future: {"train": 365, "test": None} cuts at 365 of the column's units.

    column: `days` since the patient's first recording, the only clock that every index has, or a label column with
    calendar time, such as `label_year`, if the cohort's description has one. A patient belongs to the part of their last
    recording. Their recordings of other times, and recordings of unknown time, are in no part.
    """
    return make_split(index, name, {"kind": "time", "column": column, "until": dict(until)}, same)


def by_label(
    index: CohortIndex, label: str, values: Mapping[str, Iterable[float]], name: str, same: Same = ()
) -> Split:
    """Split by the values of a label column, such as published folds: {"train": range(1, 9), "test": [10]}.

    Raises SpecError if the folds cut a patient in two.
    """
    listed = {part: tuple(wanted) for part, wanted in values.items()}
    return make_split(index, name, {"kind": "label", "label": label, "values": listed}, same)


def ptb_xl_folds(index: CohortIndex, name: str = "strat_fold") -> Split:
    """Split by the folds recommended with PTB-XL: 1-8 train, 9 val, 10 test. Other cohorts are in no part."""
    return by_label(index, "strat_fold", PTB_XL_FOLDS, name)


def leave_cohort_out(
    index: CohortIndex,
    cohort: str,
    name: str,
    fractions: Mapping[str, float] = _ALL_TRAIN,
    same: Same = (),
) -> Split:
    """Test on one cohort; divide the patients of all others by `fractions`.

    Persons of the cohort left out who have recordings in other cohorts, by the identity map, are in no other part.
    """
    rule = {"kind": "cohort", "cohort": cohort, "fractions": dict(fractions), "seed": name}
    return make_split(index, name, rule, same)


def nested(index: CohortIndex, name: str, percent: Sequence[float] = NESTED_PERCENT, same: Same = ()) -> Split:
    """Choose 1, 2, 5, 10, 20, 50 and 100 % of the patients, each set containing the smaller: parts "1%", "2%" ...

    For shares of a training part, pass that part as the index: `nested(parts["train"], "curve")`.
    """
    return make_split(index, name, {"kind": "nested", "percent": tuple(percent), "seed": name}, same)


def make_split(index: CohortIndex, name: str, rule: Rule | Mapping[str, object], same: Same = ()) -> Split:
    """Apply a rule to an index: a new rule, or that of an older split (`old.definition.rule`) to a store that has grown.

    Raises SpecError for an invalid rule or name, and if a person or a waveform would be in two parts.
    """
    # Rules put a person into one part, but copies of a recording may be under two patients: the outcome is checked.
    known = IdentityMap.of(same)
    definition = _define(name, rule, known.digest)
    code = definition.rule.codes(index, People.of(index, known)).astype(np.int8)
    _refuse_shared({part: index.take(code == number) for number, part in enumerate(definition.parts)}, known)
    return Split(definition, index["recording_id"][code >= 0], code[code >= 0])


def _define(name: str, rule: Rule | Mapping[str, object], identities: str | None) -> SplitDefinition:
    try:
        definition = SplitDefinition.model_validate({"name": name, "rule": rule, "identities": identities})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        # Parts are named by the caller, and some texts move the cursor of a terminal.
        where = ascii(".".join(str(piece) for piece in first["loc"] if piece != "[key]"))[1:-1][:80]
        raise SpecError(
            f"split {name!r}: found {str(first['input'])[:80]!r} at {where}, expected: {expectation(first)}."
        ) from None
    if not 0 < len(set(definition.parts)) == len(definition.parts) <= MAX_PARTS:
        raise SpecError(
            f"split {name!r}: found parts {definition.parts}, expected 1 to {MAX_PARTS}, each of its own name."
        )
    return definition


def assert_disjoint(parts: Mapping[str, CohortIndex], same: Same = ()) -> None:
    """Raise SpecError if a patient, a person of the identity map or a waveform is in two of these parts.

    Parts may come from different stores: `{"train": a.index, "test": b.index}`. Waveforms are compared by their digest,
    patients by their pseudonym. Pseudonyms of one person differ between stores of different keys and between cohorts of
    different names, so there only `same` can tell.
    """
    _refuse_shared(parts, IdentityMap.of(same))


def identities(index: CohortIndex, same: Same) -> NDArray[np.int64]:
    """Return the person of each patient as a number, int64 [patient], as samplers take it (`identities=`)."""
    return People.of(index, IdentityMap.of(same)).of_patient


def _refuse_shared(parts: Mapping[str, CohortIndex], known: IdentityMap) -> None:
    indexes = list(parts.values())
    person, _ = known.join(np.concatenate([index.patient_ids for index in indexes]))
    waveform = number_ids(np.concatenate([index["waveform_digest"] for index in indexes]))
    names = ", ".join(parts)
    for what, number, counts, remedy in (
        ("patients", person, [index.n_patients for index in indexes], "Split by patient, with their identity map."),
        ("waveforms", waveform, [len(index) for index in indexes], "Leave copies out: ec.open([a, b]) does."),
    ):
        shared = _in_two(number, np.repeat(np.arange(len(indexes)), counts))
        if shared:
            raise SpecError(f"found {shared} {what} in more than one of {names}, expected none. {remedy}")


def _in_two(number: NDArray[np.int64], part: NDArray[np.int64]) -> int:
    """Count the numbers that are in more than one part."""
    last = np.zeros(number.max(initial=-1) + 1, np.int64)
    last[number] = part  # of equal numbers, the last one stays
    return len(np.unique(number[part != last[number]]))
