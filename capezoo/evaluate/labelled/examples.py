"""Features and labels brought together: rows of tables that `capezoo embed` wrote, and of a table of one's own."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from capezoo.embedding.tables import as_given
from ecgcohorts.errors import NothingMatched, SourceError, SpecError, did_you_mean

Kind = Literal["binary", "classes", "number"]
_FEATURE = "feature_"
# Of a target or covariate; our default, far above what is measured of a person.
_HIGHEST = 1e12
# Our default; more values of a number are a quantity.
_MOST_CLASSES = 20
_READERS: Mapping[str, Callable[..., pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".tsv": lambda path, **how: pd.read_csv(path, sep="\t", **how),
    ".parquet": pd.read_parquet,
}
# Texts that tables write for two classes; the second of each is the positive one.
_WORDS = (("no", "yes"), ("false", "true"), ("negative", "positive"), ("female", "male"), ("f", "m"), ("0", "1"))


@dataclass(frozen=True, eq=False)
class Labelled:
    """Recordings with a known answer, the same for every table of features, in one order.

    features: by table, (record, unit). covariates: (record, covariate), NaN where unknown. target: (record,), numbers; of
    classes, their place in `classes`, of which the last of two is the positive one. patient: (record,), equal for one person.
    """

    features: Mapping[str, NDArray[np.float32]]
    covariates: NDArray[np.float64]
    covariate_names: tuple[str, ...]
    target: NDArray[np.float64]
    kind: Kind
    classes: tuple[str, ...]
    patient: NDArray[np.int64]
    file: tuple[str, ...]
    unlabelled: int  # recordings with features and no answer
    unmatched: int  # labelled rows without a recording
    has_patients: bool  # else every recording counts as a person of its own
    trained_on: Mapping[str, int]  # by table: recordings known to have trained its encoder


def read_labelled(
    tables: Mapping[str, str | Path],
    labels: str | Path,
    target: str,
    *,
    key: str = "file",
    patient: str | None = None,
    covariates: Sequence[str] = (),
    kind: Kind | None = None,
    unseen: bool = False,
) -> Labelled:
    """Bring tables of features and one of labels together.

    tables: written by `embed_files`, by name. labels: .csv, .tsv or .parquet with a row for each file. key: its column of
    files; names match whole, else without folders, else without suffix as well. patient: its column of ids; without one
    every recording counts as a person of its own. covariates: columns of numbers, or of sex, to add to the features.
    kind: binary, classes or number; else told from the values. unseen: leave out everybody of whom a recording is known to
    have trained an encoder. Raises SpecError for a column that is not there or holds no such values, SourceError for a
    table that cannot be read or names a file twice, NothingMatched if no file of the labels has features.
    """
    known = _read_keyed(Path(labels), key, patient)
    wanted = [key, target, *covariates, *([patient] if patient else [])]
    _require_columns(known, wanted, labels)
    known = known[known[target].notna() & known[key].notna()].reset_index(drop=True)
    read = {name: _features(Path(path)) for name, path in tables.items()}
    first = next(iter(read.values()))
    files = _full_names(first)
    at = _matched(first, known[key].astype(str), str(labels))
    # What one encoder takes and another refuses would compare them on different recordings.
    for other in read.values():
        at = np.where(files.isin(_full_names(other)), at, -1)
    there = at >= 0
    _require_some(there, known[key], files, key, labels)
    _require_ids(known, patient, labels)
    unlabelled, unmatched = int((~there).sum()), len(known) - len(set(at[there].tolist()))
    met = {name: _trained_on(table, files) & there for name, table in read.items()}
    people = at if patient is None else np.where(there, pd.factorize(known[patient])[0][at], -1)
    if unseen:
        there = _strangers(there, people, list(met.values()), labels)
        met = dict.fromkeys(met, np.zeros(len(files), bool))
    rows, chosen, people = known.iloc[at[there]].reset_index(drop=True), files[there], people[there]
    features = {name: _of_files(table, chosen) for name, table in read.items()}
    values, found, classes = _target(rows[target], kind, f"{labels}: column {target!r}")
    return Labelled(
        features=features,
        covariates=_covariates(rows, covariates, str(labels)),
        covariate_names=tuple(covariates),
        target=values,
        kind=found,
        classes=classes,
        patient=people.astype(np.int64),
        file=tuple(chosen),
        unlabelled=unlabelled,
        unmatched=unmatched,
        has_patients=patient is not None,
        trained_on={name: int(seen.sum()) for name, seen in met.items()},
    )


def _strangers(
    there: NDArray[np.bool_], people: NDArray[np.int64], met: Sequence[NDArray[np.bool_]], labels: str | Path
) -> NDArray[np.bool_]:
    """Leave out everybody whom some encoder has met. Raises NothingMatched if nobody is left."""
    # People, not recordings: whoever trained an encoder is no stranger to it in another recording either.
    left = there & ~np.isin(people, people[np.logical_or.reduce(list(met))])
    if not left.any():
        raise NothingMatched(f"{labels}: found nobody whom no encoder was trained on. Label others.")
    return left


def _require_some(there: NDArray[np.bool_], keys: pd.Series, files: pd.Series, key: str, labels: str | Path) -> None:
    if not there.any():
        raise NothingMatched(
            f"{labels}: found no file of column {key!r} among {len(files):,} recordings with features, such as "
            f"{str(keys.iloc[0]) if len(keys) else 'none'!r} and {files.iloc[0]!r}. Name the column of files: --key."
        )


def _require_ids(known: pd.DataFrame, patient: str | None, labels: str | Path) -> None:
    if patient and known[patient].isna().any():
        raise SpecError(
            f"{labels}: found rows without {patient!r}, expected an id in each. Fill them in, or leave them out."
        )


def _require_columns(table: pd.DataFrame, wanted: Sequence[str], where: str | Path) -> None:
    for column in wanted:
        if column not in table:
            remedy = did_you_mean(column, list(map(str, table))) or " Name a column of the table."
            raise SpecError(f"{where}: found no column {column!r} among {', '.join(map(str, table))}.{remedy}")


def _read(path: Path, text: Collection[str | None] = ()) -> pd.DataFrame:
    """Read a table. text: columns of names: as numbers, 007 and 7 would be one."""
    if path.suffix not in _READERS:
        raise SpecError(f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(_READERS)}.")
    how = {} if path.suffix == ".parquet" else {"dtype": {name: str for name in text if name}}
    try:
        return _READERS[path.suffix](path, **how)
    except OSError as error:
        raise SourceError(
            f"{path}: found no file that can be read ({error.strerror or error}), expected a table. Check the path."
        ) from None
    except (ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"{path}: found no table ({error}). Check the file.") from None


def _read_keyed(path: Path, *keys: str | None) -> pd.DataFrame:
    """Read a table of one's own, with the blanks around its keys taken away."""
    found = _read(path, text=keys)
    for name in keys:
        if name in found:
            # `P1` and `P1 ` are one person, who must not be on both sides of a fold.
            found[name] = found[name].map(lambda one: one.strip() or None if isinstance(one, str) else one)
    return found


def _features(path: Path) -> pd.DataFrame:
    table = _read(path, text=("file", "entry"))
    names = [name for name in table if str(name).startswith(_FEATURE)]
    if not names or "file" not in table:
        raise SpecError(f"{path}: found no columns file and {_FEATURE}0, expected a table that `capezoo embed` wrote.")
    table["entry"] = table["entry"].fillna("").astype(str) if "entry" in table else ""
    if path.suffix != ".parquet":
        table = table.assign(file=as_given(table["file"].astype(str)), entry=as_given(table["entry"]))
    if table[["file", "entry"]].duplicated().any():
        raise SourceError(f"{path}: found a recording twice, expected a row for each. Embed the files again.")
    return table


def _full_names(table: pd.DataFrame) -> pd.Series:
    return table["file"] + np.where(table["entry"] == "", "", "#" + table["entry"])


def _trained_on(table: pd.DataFrame, files: pd.Series) -> NDArray[np.bool_]:
    """Tell which files are known to have trained the encoder of a table; of tables that do not say, none."""
    if "trained_on" not in table:
        return np.zeros(len(files), bool)
    here = table[table["trained_on"].astype(str).str.casefold() == "true"]
    return files.isin(_full_names(here)).to_numpy(bool)


def _of_files(table: pd.DataFrame, files: pd.Series) -> NDArray[np.float32]:
    place = pd.Index(_full_names(table)).get_indexer(files)
    names = [name for name in table if str(name).startswith(_FEATURE)]
    return table[names].to_numpy(np.float32)[place]


def _matched(table: pd.DataFrame, keys: pd.Series, where: str) -> NDArray[np.int64]:
    """Return the row of the labels for each recording, -1 if there is none: by the whole name, without folders, or without suffix.

    table: columns file and entry. Raises SourceError if a row fits two files, or two rows fit one.
    """
    files = _full_names(table)
    for short in (lambda name: name, lambda name: name.rpartition("/")[2], lambda name: Path(name).stem):
        here, there = files.map(short), pd.Index(keys.map(short))
        if not here.isin(there).any():
            continue
        wanted = there[there.isin(here)]
        if wanted.has_duplicates:
            twice = wanted[wanted.duplicated()][0]
            raise SourceError(f"{where}: found {twice!r} in two rows, expected one for each file. Remove one of them.")
        # Of `a/1.xml` and `b/1.xml` a label for `1.xml` would be given to both, and to the wrong person.
        meant = pd.DataFrame({"name": here, "file": table["file"]})[here.isin(there)].drop_duplicates()
        if meant["name"].duplicated().any():
            one, two = meant["file"][meant["name"] == meant["name"][meant["name"].duplicated()].iloc[0]].iloc[:2]
            raise SourceError(
                f"{where}: found a row that fits {one!r} and {two!r}, expected one for each. Write the folders into the labels."
            )
        return np.asarray(there.get_indexer(here), np.int64)
    return np.full(len(files), -1)


def _target(column: pd.Series, kind: Kind | None, what: str) -> tuple[NDArray[np.float64], Kind, tuple[str, ...]]:
    """Return the answers as numbers, their kind, and the names of classes."""
    as_numbers = pd.to_numeric(column, errors="coerce")
    # A date is none, though pandas turns it into nanoseconds.
    is_date = pd.api.types.is_datetime64_any_dtype(column)
    is_numeric, distinct = bool(as_numbers.notna().all()) and not is_date, column.nunique()
    whole = is_numeric and bool((as_numbers == as_numbers.round()).all())
    if kind is None:
        few = distinct <= _MOST_CLASSES and (not is_numeric or whole)
        kind = "binary" if distinct == 2 else "classes" if few else "number"
    if kind == "number":
        if not is_numeric:
            bad = str(column[as_numbers.isna() | is_date].iloc[0])
            raise SpecError(f"{what}: found {bad!r}, expected numbers. Correct it, or say --kind classes.")
        return _reasonable(as_numbers, what), kind, ()
    # 17 digits: with fewer, two long codes that a missing cell has turned into floats would be one class.
    texts = column.map(lambda value: f"{value:.17g}" if isinstance(value, float) else str(value)).str.strip()
    numbers = pd.to_numeric(pd.Series(texts.unique()), errors="coerce").fillna(np.inf)
    # Texts by the alphabet: the order of rows must not say which of two classes is the positive one.
    names = [text for _, text in sorted(zip(numbers, texts.unique(), strict=True))]
    if distinct < 2 or (kind == "binary" and len(names) != 2) or len(names) > _MOST_CLASSES:
        raise SpecError(
            f"{what}: found {len(names)} values, expected {'2' if kind == 'binary' else f'2 to {_MOST_CLASSES}'} for {kind}."
        )
    for pair in _WORDS:
        if kind == "binary" and {name.casefold() for name in names} == set(pair):
            names.sort(key=lambda name: pair.index(name.casefold()))
    place = {name: number for number, name in enumerate(names)}
    return texts.map(place).to_numpy(np.float64), kind, tuple(names)


def _covariates(rows: pd.DataFrame, names: Sequence[str], where: str) -> NDArray[np.float64]:
    found = np.empty((len(rows), len(names)))
    for place, name in enumerate(names):
        column = rows[name]
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.isna().sum() > column.isna().sum():
            sexes = column.astype(str).str.strip().str.casefold().map({"male": 0, "m": 0, "female": 1, "f": 1, "w": 1})
            if sexes.isna().sum() > column.isna().sum():
                raise SpecError(f"{where}: found texts in {name!r}, expected numbers, or male and female.")
            numbers = sexes
        found[:, place] = _reasonable(numbers, f"{where}: column {name!r}")
    return found


def _reasonable(numbers: pd.Series, what: str) -> NDArray[np.float64]:
    """Return numbers, NaN where unknown. Raises SpecError for one that no mean or square of it could hold."""
    found = numbers.to_numpy(np.float64, na_value=np.nan)
    if (np.abs(found) > _HIGHEST).any():
        bad = found[np.abs(found) > _HIGHEST][0]
        raise SpecError(f"{what}: found {bad:g}, expected numbers within {_HIGHEST:g}. Correct it, or leave it empty.")
    return found


@dataclass(frozen=True, eq=False)
class _Covariates:
    """Further columns for files, by name of the file."""

    keys: pd.Series
    values: NDArray[np.float64]
    where: str

    def of(self, facts: pd.DataFrame) -> NDArray[np.float64]:
        """Return the covariates of recordings (columns file and entry), NaN where the table has no row."""
        at = _matched(facts, self.keys, self.where)
        return np.where((at >= 0)[:, None], self.values[at], np.nan)


def read_covariates(path: Path, key: str, names: Sequence[str]) -> _Covariates:
    """Read a table of covariates. Raises SpecError for a column that is not there or holds no numbers."""
    table = _read_keyed(path, key)
    _require_columns(table, [key, *names], path)
    table = table[table[key].notna()].reset_index(drop=True)
    return _Covariates(table[key].astype(str), _covariates(table, names, str(path)), str(path))
