"""Splits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ecgcohorts.cli.console import Answer
from ecgcohorts.cli.parameters import FILE, REAL, STORE, Name, OneOf, argument, option, within
from ecgcohorts.cli.program import command
from ecgcohorts.errors import SpecError

ORDER = 4
_MOST_VALUES = 10_000  # of a label in one range: more is a slip of the keyboard
_RULE_OPTIONS = ("part", "column", "label", "cohort", "percent")
# rule -> options it takes, and those of them that it needs
_OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "patient": (("part",), ("part",)),
    "time": (("part", "column"), ("part",)),
    "label": (("part", "label"), ("part", "label")),
    "ptb-xl-folds": ((), ()),
    "leave-cohort-out": (("cohort", "part"), ("cohort",)),
    "nested": (("percent",), ()),
}


@command(
    "split",
    "ecgcohorts split store.zarr study-1 --by patient --part train=0.8 --part val=0.1 --part test=0.1",
    "ecgcohorts split store.zarr folds --by label --label strat_fold --part train=1-8 --part test=9,10",
    "ecgcohorts split store.zarr",
)
@argument("store", STORE, "store")
@argument("name", Name("NAME"), "name of the split; for random ones also their seed", required=False)
@option("--by", type=OneOf(*_OPTIONS, metavar="RULE"), help=f"the rule: {', '.join(_OPTIONS)}")
@option(
    "--part",
    type=Name("NAME=VALUE"),
    multiple=True,
    help="a part and its share, the end of its time (`end` for the last), or its label values (1-8,10); repeat for each",
)
@option("--column", type=Name("NAME"), help="by time: the clock, `days` (the default) or a label such as label_year")
@option("--label", type=Name("NAME"), help="by label: which")
@option("--cohort", type=Name("NAME"), help="leave-cohort-out: the one to test on")
@option("--percent", type=REAL, multiple=True, help="nested: a share of the patients; repeat, ascending")
@within
@option("--like", type=STORE, help="take the split of that name from another store of the same source, by id")
@option("--same", type=FILE, help="CSV: two pseudonyms of one person a line")
@option("--also", type=STORE, multiple=True, help="another store to split together with the first; repeat for more")
@option("--replace", is_flag=True, help="overwrite the split of that name")
def _split(*, store: str, name: str | None, also: tuple[str, ...], replace: bool, **rule: Any) -> Answer:
    """Split a store by a rule and keep the split, or list the splits.

    Without a name, the splits are listed. No person is on two sides: that is checked before anything is kept.
    """
    from ecgcohorts.store.reader import open_store
    from ecgcohorts.store.splits import save_split
    from ecgcohorts.store.union import open_named
    from ecgcohorts.store.upkeep.info import describe, splits_table

    opened = open_named([store, *also])
    # click gives None, or an empty tuple, for what was not typed: a rule is told only what was.
    given = {one: value for one, value in rule.items() if value not in (None, ())}
    if name is None:
        unused = [*given, *(["replace"] if replace else [])]
        if unused:
            raise SpecError(f"--{unused[0]} needs the name of a split: ecgcohorts split STORE NAME --by RULE")
        found = describe(opened)["splits"]
        return Answer(found, splits_table(found) if found else f"{opened.path}: no splits")
    made = _made(opened, name, given)
    for path in (store, *also):
        save_split(path, made.on(open_store(path).index), replace=replace)
    facts = [made.facts(opened.index)]
    return Answer(facts, splits_table(facts))


def _made(store: Any, name: str, given: Mapping[str, Any]) -> Any:
    from ecgcohorts.index.splits import make_split
    from ecgcohorts.store.reader import open_store
    from ecgcohorts.store.splits import part_of, split_like

    if "like" in given:
        beside = [one for one in given if one != "like"]
        if beside:
            raise SpecError(f"found --{beside[0]} beside --like: the other store has the rule. Leave one of them away.")
        return split_like(store, open_store(given["like"]), name)
    index = part_of(store, given["within"]) if "within" in given else store.index
    same = _read_pairs(given["same"]) if "same" in given else ()
    return make_split(index, name, _rule(name, given), same)


def _rule(name: str, given: Mapping[str, Any]) -> dict[str, object]:
    """Return the rule as JSON has it. Raises SpecError for an option that is missing, or of another rule."""
    if "by" not in given:
        raise SpecError(f"found no rule for split {name!r}, expected one: --by patient --part train=0.8 ...")
    used, needed = _OPTIONS[given["by"]]
    for one in _RULE_OPTIONS:
        if one in given and one not in used:
            raise SpecError(f"found --{one} with --by {given['by']}, expected {_list(used)}.")
        if one not in given and one in needed:
            raise SpecError(f"found no --{one} with --by {given['by']}, expected one. See: ecgcohorts split --help")
    return _RULES[given["by"]](name, given)


def _list(options: tuple[str, ...]) -> str:
    return "only " + ", ".join(f"--{option}" for option in options) if options else "no option"


def _by_folds(name: str, given: Mapping[str, Any]) -> dict[str, object]:
    from ecgcohorts.index.splits import PTB_XL_FOLDS

    return {"kind": "label", "label": "strat_fold", "values": {part: tuple(v) for part, v in PTB_XL_FOLDS.items()}}


# The name of a split is its seed: the same name and rule give the same parts on every machine.
def _by_nested(name: str, given: Mapping[str, Any]) -> dict[str, object]:
    from ecgcohorts.index.splits import NESTED_PERCENT

    return {"kind": "nested", "percent": given.get("percent", NESTED_PERCENT), "seed": name}


_RULES: dict[str, Callable[[str, Mapping[str, Any]], dict[str, object]]] = {
    "patient": lambda name, given: {"kind": "patient", "fractions": _parts(given, float), "seed": name},
    "time": lambda name, given: {"kind": "time", "column": given.get("column", "days"), "until": _parts(given, _end)},
    "label": lambda name, given: {"kind": "label", "label": given["label"], "values": _parts(given, _values)},
    "ptb-xl-folds": _by_folds,
    "leave-cohort-out": lambda name, given: {
        "kind": "cohort",
        "cohort": given["cohort"],
        "fractions": _parts(given, float) or {"train": 1.0},
        "seed": name,
    },
    "nested": _by_nested,
}


def _parts(given: Mapping[str, Any], value_of: Callable[[str], object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in given.get("part", ()):
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found:
            raise SpecError(f"found --part {text!r}, expected NAME=VALUE, each name once.")
        try:
            found[name] = value_of(value)
        except ValueError:
            raise SpecError(f"found --part {text!r}, expected a number after the sign (see --help).") from None
    return found


def _end(text: str) -> float | None:
    return None if text == "end" else float(text)


def _values(text: str) -> tuple[float, ...]:
    """Return the numbers of `1-3,9`: 1, 2, 3 and 9."""
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
    """Read an identity map: pairs of pseudonyms, none of which is repeated in messages."""
    import csv

    pairs = []
    try:
        # Excel writes UTF-8 with a mark at the beginning, which would be part of the first pseudonym.
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
