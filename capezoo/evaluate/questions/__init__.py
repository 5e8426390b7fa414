"""Evaluation questions, one a file. A question is a module of this package, or an entry point of the group KIND, with

Config             a spec; one that trains on one cohort inherits `measure.parts.Home`
                   `require(index)`, optional, raises SpecError, before anything is embedded, for names the store lacks
Result             a spec: what was found, to JSON and back
require_weights    optional, (index, weights with name, training and trained_on); raises, before anything is embedded, for weights
                   that cannot be compared
run                (Context, Config) -> Result; raises Unanswerable if the store has not what it takes
tables, figures    Result -> what the report shows
EXAMPLES           commands for the help of `capezoo evaluate NAME`
headline           optional, Result -> weights -> measure -> number: what stands in "In short"
paired             optional, the same: the measures compared over several studies, if there are more than those
card_metrics       optional, (Result, weights) -> metrics for the card of these weights
over_seeds         optional, results of several studies -> tables of what they say together, if each is of another seed
ON_REQUEST         optional, true: it takes so long that `capezoo evaluate all` leaves it out
EMBEDS             optional, false: it asks models and signals alone, so the store is not embedded before it

Its docstring begins `Title: one sentence.`, the heading in the report and the help of `capezoo evaluate NAME`. Study,
report, results.json and command line collect questions from the registry: a new file is all that a new question needs.
torch, scikit-learn and scipy are imported where they are used, so that help is quick.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from capezoo.embedding.folder import Embeddings
    from capezoo.specs.card import Training
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.store.reader import AnyStore

# The name of this package is the group name of entry points of other distributions.
KIND = "capezoo.evaluate.questions"


@dataclass(frozen=True, eq=False)
class Subject:
    """One set of weights under evaluation: the embeddings of the store, and what pretraining has met, if known."""

    embeddings: "Embeddings"
    trained_on: NDArray[np.uint8] | None = None  # (record, 16) waveform digests
    others: tuple["Embeddings", ...] = ()  # of further initialisations: an untrained encoder is several networks
    models: tuple["nn.Module", ...] = ()  # of each initialisation one, for questions that train them further
    estimated: bool = False  # their BatchNorm statistics are to be those of the recordings that a question trains on
    training: "Training | None" = None  # what their card says of it

    @property
    def name(self) -> str:
        """Name in tables."""
        return self.embeddings.info.name

    @property
    def features(self) -> NDArray[np.float32]:
        """(entry of the index, unit); of several initialisations, the first."""
        return self.embeddings.embedding

    @property
    def initialisations(self) -> tuple[NDArray[np.float32], ...]:
        """Features of each initialisation: one for trained weights. A number is the mean of theirs."""
        return (self.features, *(other.embedding for other in self.others))


@dataclass(frozen=True, eq=False)
class Context:
    """What every question is given. Raises SpecError for no weights, equal names, or embeddings of different stores."""

    subjects: tuple[Subject, ...]
    seed: int
    progress: Callable[[int, int], None] = lambda done, total: None  # told steps done, and steps in all
    store: "AnyStore | None" = None  # that the embeddings are of, for splits kept in it and for signals
    device: str | None = None  # what computes, for questions that train encoders; None: the CPU

    def __post_init__(self) -> None:
        if not self.subjects:
            raise SpecError("found no weights, expected one set at least.")
        names = [subject.name for subject in self.subjects]
        if len(set(names)) < len(names):
            raise SpecError(f"found weights named {', '.join(names)}, expected different names.")
        first, *rest = (made for subject in self.subjects for made in (subject.embeddings, *subject.others))
        for other in rest:
            same = other.info.store_fingerprint == first.info.store_fingerprint
            if not same or not np.array_equal(other.index["row"], first.index["row"]):
                raise SpecError(
                    f"found embeddings of two stores ({first.info.name}: {first.info.store_fingerprint[:12]}, "
                    f"{other.info.name}: {other.info.store_fingerprint[:12]}), expected one. Embed the same store again."
                )

    @property
    def index(self) -> "CohortIndex":
        """Index of the store: labels and patients of each entry, the same for all subjects."""
        return self.subjects[0].embeddings.index

    @cached_property
    def cohorts(self) -> NDArray[np.str_]:
        """Name of each entry's cohort."""
        return np.array(self.index.cohorts)[self.index["cohort"]]


@dataclass(frozen=True, eq=False)
class Table:
    """One table of the report. A folded one opens on a click."""

    title: str
    rows: "pd.DataFrame"
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """One picture of the report, drawn by `ecgcohorts.report.charts`, which escapes every text."""

    title: str  # also the name of its file
    svg: str
    caption: str = ""


def about(name: str) -> tuple[str, str]:
    """Return title and sentence of a question, from its docstring. Raises SpecError if there is no such question."""
    module: Any = plugins.load(KIND, name)
    title, colon, sentence = str(module.__doc__ or "").partition("\n\n")[0].partition(": ")
    if not colon:
        raise SpecError(f"question {name}: found a docstring without title, expected `Title: one sentence.`")
    return title, sentence[:1].upper() + " ".join(sentence.split())[1:]
