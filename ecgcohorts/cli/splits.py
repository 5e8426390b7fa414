"""The command `split`: make a split by a rule of `splits`, check that nobody is on two sides, and keep it by name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import CliPositionalArg

from ecgcohorts.cli.console import Command, StoreNames, output
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.store import AnyStore

_MOST_VALUES = 10_000  # of a label in one range: more is a slip of the keyboard
_out = output()


def _whole_parts(words: list[str]) -> list[str]:
    """pydantic-settings cuts `test=9,10` in two: what has no name belongs to what stands before it.

    >>> _whole_parts(["train=1-8", "test=9", "10"])
    ['train=1-8', 'test=9,10']
    """
    whole: list[str] = []
    for word in words:
        if whole and "=" not in word:
            whole[-1] += f",{word}"
        else:
            whole.append(word)
    return whole


class Split(Command):
    """Make a split by a rule and keep it in the store by name. Without a name: list those there are."""

    store: CliPositionalArg[str]
    name: CliPositionalArg[str | None] = Field(None, description="of the split; for random ones also their seed")
    by: Literal["patient", "time", "label", "ptb-xl-folds", "leave-cohort-out", "nested"] | None = Field(
        None, description="the rule"
    )
    part: Annotated[list[str], AfterValidator(_whole_parts)] = Field(
        [], description="NAME=share, NAME=end of its time (the last: NAME=end), or NAME=label values (1-8,10); repeat"
    )
    column: str = Field("days", description="by time: the clock, `days` or a label column such as label_year")
    label: str | None = Field(None, description="by label: which")
    cohort: str | None = Field(None, description="leave-cohort-out: the one to test on")
    percent: list[float] = Field([], description="nested: shares of the patients, such as 1,10,100")
    within: str | None = Field(None, description="SPLIT=PART: of the recordings of that part only")
    like: str | None = Field(None, description="another store of the same source: take its split of that name, by id")
    same: Path | None = Field(None, description="CSV: two pseudonyms of one person a line")
    also: StoreNames = Field([], description="another store to split together with the first; may be repeated")
    replace: bool = Field(False, description="overwrite the split of that name")

    def cli_cmd(self) -> None:
        from ecgcohorts.store import open_named, open_store, save_split
        from ecgcohorts.store.upkeep.info import describe_split, list_splits, splits_table

        store = open_named([self.store, *self.also])
        if self.name is None:
            self._refuse_options()
            found = list_splits(store)
            _out.print(splits_table(found) if found else f"{store.path}: no splits")
            return
        split = self._made(store)
        for path in (self.store, *self.also):
            save_split(path, split.on(open_store(path).index), replace=self.replace)
        _out.print(splits_table([describe_split(store, split)]))

    def _refuse_options(self) -> None:
        given = self.model_fields_set - {"store", "also"}
        if given:
            raise SpecError(
                f"found --{min(given)} but no name for a split, expected: ecgcohorts split STORE NAME --by RULE"
            )

    def _refuse_beside_like(self) -> None:
        beside = self.model_fields_set - {"store", "name", "like", "also", "replace"}
        if beside:
            raise SpecError(
                f"found --{min(beside)} beside --like, expected neither rule nor map: the other store has them."
            )

    def _made(self, store: Any) -> Any:
        from ecgcohorts.index.splits import make_split
        from ecgcohorts.store import open_store, split_like

        if self.like is not None:
            self._refuse_beside_like()
            return split_like(store, open_store(self.like), str(self.name))
        index = store.index if self.within is None else part_of(store, self.within)
        return make_split(index, str(self.name), self._rule(), _read_pairs(self.same) if self.same else ())

    def _rule(self) -> dict[str, object]:
        """The rule as JSON has it. Raises SpecError for an option that is missing, or of another rule."""
        if self.by is None:
            raise SpecError(f"found no rule for split {self.name!r}, expected one: --by patient --part train=0.8 ...")
        used, needed = _OPTIONS[self.by]
        for option in ("part", "column", "label", "cohort", "percent"):
            given = option in self.model_fields_set
            if given and option not in used:
                raise SpecError(f"found --{option} with --by {self.by}, expected {_list(used)}.")
            if not given and option in needed:
                raise SpecError(f"found no --{option} with --by {self.by}, expected {_list(used)}.")
        return {name: value for name, value in _RULES[self.by](self).items() if value is not None}


def part_of(store: "AnyStore", words: str) -> "CohortIndex":
    """The recordings of SPLIT=PART. Raises SpecError where there is no such part."""
    from ecgcohorts.store import load_split

    name, _, part = words.partition("=")
    parts = load_split(store, name).of(store.index)
    if part not in parts:
        raise SpecError(f"found no part {part!r} in split {name!r}, expected one of {', '.join(parts)}.")
    return parts[part]


def _list(options: tuple[str, ...]) -> str:
    return "only " + ", ".join(f"--{option}" for option in options) if options else "no option"


# rule -> options it takes, and those of them that it needs
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "patient": (("part",), ("part",)),
    "time": (("part", "column"), ("part",)),
    "label": (("part", "label"), ("part", "label")),
    "ptb-xl-folds": ((), ()),
    "leave-cohort-out": (("cohort", "part"), ("cohort",)),
    "nested": (("percent",), ()),
}


def _by_folds(asked: Split) -> dict[str, object]:
    from ecgcohorts.index.splits import PTB_XL_FOLDS

    return {"kind": "label", "label": "strat_fold", "values": {part: tuple(v) for part, v in PTB_XL_FOLDS.items()}}


def _by_nested(asked: Split) -> dict[str, object]:
    from ecgcohorts.index.splits import NESTED_PERCENT

    return {"kind": "nested", "percent": tuple(asked.percent) or NESTED_PERCENT, "seed": asked.name}


_RULES: dict[str, Callable[[Split], dict[str, object]]] = {
    "patient": lambda asked: {"kind": "patient", "fractions": _parts(asked, _number), "seed": asked.name},
    "time": lambda asked: {"kind": "time", "column": asked.column, "until": _parts(asked, _end)},
    "label": lambda asked: {"kind": "label", "label": asked.label, "values": _parts(asked, _values)},
    "ptb-xl-folds": _by_folds,
    "leave-cohort-out": lambda asked: {
        "kind": "cohort",
        "cohort": asked.cohort,
        "fractions": _parts(asked, _number) or {"train": 1.0},
        "seed": asked.name,
    },
    "nested": _by_nested,
}


def _parts(asked: Split, value_of: Callable[[str], object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in asked.part:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found:
            raise SpecError(f"found --part {text!r}, expected NAME=VALUE, each name once.")
        try:
            found[name] = value_of(value)
        except ValueError:
            raise SpecError(f"found --part {text!r}, expected a number after the sign (see --help).") from None
    return found


def _number(text: str) -> float:
    return float(text)


def _end(text: str) -> float | None:
    return None if text == "end" else float(text)


def _values(text: str) -> tuple[float, ...]:
    """`1-3,9` is 1, 2, 3 and 9."""
    found: list[float] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if first and dash:
            span = range(int(first), int(last) + 1)
            if not 0 < len(span) <= _MOST_VALUES:
                raise ValueError
            found += map(float, span)
        else:
            found.append(float(piece))
    return tuple(found)


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    """An identity map: pairs of pseudonyms. Nothing of it is repeated in messages."""
    import csv

    pairs = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, line in enumerate(csv.reader(file, strict=True), 1):
                if len(line) != 2:
                    raise SpecError(f"{path}: found {len(line)} cells in line {number}, expected two pseudonyms.")
                pairs.append((line[0].strip(), line[1].strip()))
    except OSError as error:
        raise SpecError(f"{path}: found no readable file ({error.strerror}), expected a CSV of pseudonyms.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(
            f"{path}: found text that is no CSV in UTF-8 ({type(error).__name__}). Save it as such."
        ) from None
    return pairs
