"""What became of the tables and texts of a cohort: rows and recordings that found each other, and cells that say nothing.

Neither a row without a recording nor a cell such as `weiblich` is an error, because published tables have both. They are
counted, so that a person sees whether a description fits its tables.
"""

from pydantic import BaseModel, ConfigDict

from ecgcohorts.cohorts.schema import Where

_MOST_OF_AN_EXAMPLE = 24  # our default, characters: enough to see a notation, too little for a comment about a person
# Texts by which sources say that a value is not known: nothing is lost with them.
_SAYS_NOTHING = {
    *("", "?", "-", "--", ".", "u", "na", "n/a", "<na>", "nan", "nat", "nil", "none", "null", "unk", "unknown"),
    *("not available", "unspecified", "missing"),
}
# Fact -> what to write into the description, where a cell states it in a notation that is not understood.
_REMEDIES = {
    "age": "State age_unit or age_codes; for dates of birth: age: {constant: 0} and age_at",
    "age_at": "State time_format, which is that of acquired_at as well",
    "sex": "Name each such text in sex_codes",
    "acquired_at": "State time_format",
}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableAccount(_Frozen):
    """How the rows of one table and the recordings of a source found each other."""

    table: str  # its name in the description
    file: str
    found: bool  # False: an optional table that is not there
    rows_matched: int = 0
    rows_unmatched: int = 0
    recordings_matched: int = 0
    recordings_unmatched: int = 0
    listed: bool = False  # a bare list of recordings: to be in none of it is normal
    way: str = ""  # how the description finds the row of a recording
    similar: str = ""  # a file of nearly this name, where the table is not there

    @property
    def matches_nothing(self) -> bool:
        """Say whether a table is there, but speaks of other recordings altogether."""
        # Of lists that grade recordings, any may be empty or about others.
        return self.found and not self.listed and not self.recordings_matched and self.recordings_unmatched > 0

    def __str__(self) -> str:
        if not self.found:
            question = f" Did you mean {self.similar}?" if self.similar else ""
            return f"{self.file}: this optional table is not there.{question}"
        return (
            f"{self.file}: {self.rows_matched:,} rows matched, {self.rows_unmatched:,} without recording; "
            f"{self.recordings_matched:,} recordings matched, {self.recordings_unmatched:,} without row"
        )

    @property
    def complaint(self) -> str:
        """What is wrong with a table that matches nothing, and what to do."""
        return (
            f"{self.file}: found none of {self.recordings_unmatched:,} recordings in its {self.rows_unmatched:,} rows, "
            f"expected some. Correct {self.way} in the description, or take the table out of it."
        )


class CellAccount(_Frozen):
    """Texts of one place that do not say what a rule looks for there."""

    fact: str  # such as sex, or a label's name
    where: str  # such as "persons.csv, column sex"
    count: int  # 0: a header key that no recording has
    example: str  # the first one, cut; of a key that no recording has, the most similar one that is there

    @classmethod
    def place_of(cls, place: Where, file: str, text: str) -> str:
        """Return where a text without the meaning that a rule looks for stands; "" if it says that nothing is known.

        file: of the table, if the place is a column.
        """
        if text.strip().casefold() in _SAYS_NOTHING:
            return ""
        if place.header is not None:
            return f"header {place.header}"
        return f"{file}, column {place.column}" if place.column is not None else "path" if place.path else "constant"

    @classmethod
    def of(cls, fact: str, where: str, count: int, first: str) -> "CellAccount":
        """Give the account of one place. Of all texts only the first is told: they are facts about persons."""
        return cls(fact=fact, where=where, count=count, example=" ".join(first.split())[:_MOST_OF_AN_EXAMPLE])

    def __str__(self) -> str:
        if not self.count:
            near = f" Did you mean {self.example}?" if self.example else " Correct the description."
            return f"{self.where}: no recording has this key, so it says nothing about {self.fact}.{near}"
        remedy = f". {_REMEDIES[self.fact]}" if self.fact in _REMEDIES else ""
        text = "text" if self.count == 1 else "texts"
        return (
            f"{self.where}: {self.count:,} {text} not understood as {self.fact}, for example {self.example!r}{remedy}"
        )
