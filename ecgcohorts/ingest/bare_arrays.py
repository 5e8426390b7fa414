"""What a file of bare numbers leaves open, as the lines of an `arrays` block for a person to fill in.

Rate, unit and names of leads are never guessed, except names that stand above the numbers. A placeholder is no valid
value of its field, so a block that was not filled in is refused.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ecgcohorts.ingest import text_files
from ecgcohorts.ingest.classify import unpacked_head
from ecgcohorts.leads import canonical
from ecgcohorts.readers import HEAD_BYTES
from ecgcohorts.readers._shared.files import read_head

Mark = Literal["", "guess", "unknown"]
FILL_IN = "FILL_IN"  # no valid value of any field it is written to
MAX_LEADS_OF_A_GUESS = 24  # our default: a longer side of an array is time

# What `classify` calls a kind of array -> what the reader `arrays` calls it.
ARRAY_KINDS = {
    "numbers as text": "csv",
    "numbers as text, gzipped": "csv",
    "NumPy": "npy",
    "HDF5 of no known layout": "hdf5",
    "MATLAB 4": "matlab",
    "MATLAB 5": "matlab",
    "MATLAB 7.3": "matlab",
}


class Question(NamedTuple):
    """One line of the block: what is filled in already, and how sure that is."""

    key: str
    value: Any
    mark: Mark = ""
    why: str = ""


def open_questions(example: Path, kind: str) -> Iterator[Question]:
    """The lines for files like `example`. kind: a value of ARRAY_KINDS."""
    head = read_head(example, HEAD_BYTES)
    is_packed = head.startswith(b"\x1f\x8b")
    content = unpacked_head(head) if is_packed else head
    text = text_files.decode(content) if kind == "csv" else None
    numbers = (
        text_files.find_numbers(text, whole=len(head) < HEAD_BYTES and not is_packed) if text is not None else None
    )
    yield Question("kind", kind)
    if kind in ("hdf5", "matlab"):
        what = "path of the dataset" if kind == "hdf5" else "name of the variable"
        yield Question("name", [FILL_IN], "unknown", f"fill in the {what}, as text")
    yield Question("rate_hz", FILL_IN, "unknown", "fill in the samples a second")
    yield Question(
        "unit", FILL_IN, "unknown", "fill in nV, uV, mV or V; add steps_per_unit for integers of another step"
    )
    places = [place for place, name in enumerate(numbers.names if numbers else ()) if canonical(name)]
    if numbers and places:
        leads = [numbers.names[place] for place in places]
        yield Question("leads", leads, "guess", "by the line above the numbers")
    else:
        yield Question("leads", FILL_IN, "unknown", "fill in a list of names, in the order of the array")
    yield _axes((numbers.rows, numbers.columns) if numbers else _npy_shape(content) if kind == "npy" else ())
    if numbers:
        yield from _text_facts(numbers, places)


def _axes(shape: tuple[int, ...]) -> Question:
    if len(shape) == 2 and min(shape) <= MAX_LEADS_OF_A_GUESS < max(shape):
        of_time = shape[1] < shape[0]
        why = f"{min(shape)} {'columns' if of_time else 'rows'}"
        return Question("axes", "time_lead" if of_time else "lead_time", "guess", why)
    return Question("axes", FILL_IN, "unknown", "fill in lead_time (one row per lead) or time_lead")


def _text_facts(numbers: text_files.Numbers, places: list[int]) -> Iterator[Question]:
    why = "as in the first file"
    if not places and numbers.columns > 1:
        yield Question(
            "columns", None, "unknown", f"{numbers.columns} columns; list those with leads, from 0, if not all"
        )
    elif places and len(places) < numbers.columns:
        yield Question("columns", places, "guess", "those with names of leads")
    if numbers.skip_lines:
        yield Question("skip_lines", numbers.skip_lines, "guess", why)
    yield Question("separator", numbers.separator, "guess", why)
    if numbers.decimal != ".":
        yield Question("decimal", numbers.decimal, "guess", why)


def _npy_shape(head: bytes) -> tuple[int, ...]:
    """Shape of an NPY file by its header; empty if there is none."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = read(stream)[0]
    except ValueError:
        return ()
    return shape
