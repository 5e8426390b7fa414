"""One command's worth of evaluation: weights and a store in, a folder with results.json, maps and embeddings out.

OUT/results.json              StudyResult
OUT/maps/<name>.json, .svg    EmbeddingMap
OUT/embeddings/<name>/        kept: a second study of the same weights and store reads them
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.embed import Embeddings, embed_store, open_embeddings, spec_of, weights_digest
from capezoo.encoders import build
from capezoo.evaluate.contamination import require_unseen
from capezoo.evaluate.questions.map import embedding_map
from capezoo.evaluate.questions.ood import Candidate, evaluate_ood, split_records
from capezoo.evaluate.questions.separability import Separability, SeparabilityConfig, separability
from capezoo.evaluate.results import OodConfig, StudyResult, file_name, provenance, write_result
from capezoo.specs import EncoderSpec, InputSpec, derive_seed
from capezoo.zoo import load, locate
from capezoo.zoo.files import CARD, DIGEST_BYTES, read_architecture, read_card
from capezoo.zoo.overlap import training_digests
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.io.durable import sha256_of, write_file

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store import AnyStore

RANDOM = "random"  # in place of weights: the architecture of the first published ones, never trained
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, eq=False)
class Contender:
    """Weights under evaluation, by the name they have in tables."""

    name: str
    model: "nn.Module"
    card: str | None = None  # SHA-256 of card.json
    trained_on: NDArray[np.uint8] | None = None  # (record, 16); None: unknown


def ood_study(
    weights: Sequence[str],
    store: "AnyStore",
    out: str | Path,
    config: OodConfig,
    command: str = "",
    progress: Progress | None = None,
) -> StudyResult:
    """Embed the store with each of `weights`, evaluate out of distribution, measure and draw how cohorts separate.

    weights: names or folders of published weights, or "random". The result is returned and written to `out`.
    Raises EcgError with the remedy for whatever does not fit together, and for test patients that pretraining has seen.
    """
    folder = Path(out)
    store.index.cohort_code(config.train_cohort)  # before the long part: is there such a cohort?
    found = contenders(weights, config.seed)
    if not config.allow_seen:
        tests = split_records(store.index, config).tests
        for one in found:
            require_unseen(one.name, store.index, tests, one.trained_on)
    candidates = [Candidate(_embeddings(one, store, folder, progress), one.trained_on) for one in found]
    source = provenance(command, config.seed, store.fingerprint)
    scored = evaluate_ood(candidates, config, source, _part(progress, "heads"))
    measured: dict[str, Separability] = {}
    for place, candidate in enumerate(candidates):
        made = candidate.embeddings
        cohort = np.array(made.index.cohorts)[made.index["cohort"]].tolist()
        drawn = embedding_map(candidate.name, made.embedding, cohort, made.index["row"], config.seed)
        write_result(folder / "maps" / f"{file_name(candidate.name)}.json", drawn)
        write_file(folder / "maps" / f"{file_name(candidate.name)}.svg", drawn.svg().encode())
        if _two_cohorts(made):
            measured[candidate.name] = separability(made.embedding, cohort, made.index["patient"], config.seed)
        if progress:
            progress("maps", place + 1, len(candidates))
    result = StudyResult(ood=scored, separability=measured)
    write_result(folder / "results.json", result)
    return result


def contenders(weights: Sequence[str], seed: int) -> list[Contender]:
    """Load weights in the order given; names in tables are those of the cards, made different if they are not."""
    folders = {name: locate(name) for name in weights if name != RANDOM}
    names = {name: read_card(folder).name for name, folder in folders.items()}
    found = []
    for name in weights:
        if name == RANDOM:
            found.append(
                Contender(RANDOM, _random(list(folders.values()), seed), None, np.zeros((0, DIGEST_BYTES), np.uint8))
            )
            continue
        folder = folders[name]
        label = names[name]
        if label == RANDOM or list(names.values()).count(label) > 1:
            label = f"{label} ({folder.name})"
        found.append(Contender(label, load(folder), sha256_of(folder / CARD), training_digests(folder)))
    return found


def _random(folders: Sequence[Path], seed: int) -> "nn.Module":
    """An encoder nobody trained, so that every other row can be read against it."""
    if folders:
        architecture = read_architecture(folders[0])
        encoder, spec = architecture.encoder, architecture.input
    else:
        encoder, spec = EncoderSpec(), InputSpec()
    model = build(encoder, derive_seed(seed, "random-encoder"))
    model.spec = spec  # type: ignore[assignment]
    return model.eval()


def _embeddings(one: Contender, store: "AnyStore", folder: Path, progress: Progress | None) -> Embeddings:
    """Embeddings of an earlier study if they are of these very weights and this very store, else new ones."""
    path = folder / "embeddings" / file_name(one.name)
    if path.exists():
        try:
            made = open_embeddings(path)
        except (StoreError, SpecError):  # damaged, or written by an earlier version
            made = None
        wanted = (one.name, weights_digest(one.model), store.fingerprint, spec_of(one.model))
        if made and (made.info.name, made.info.weights, made.info.store_fingerprint, made.info.input) == wanted:
            return made
        shutil.rmtree(path)
    return embed_store(one.model, store, path, one.name, one.card, _part(progress, f"embed {one.name}"))


def _two_cohorts(made: Embeddings) -> bool:
    """Whether two cohorts at least have patients enough to be told apart."""
    sizes = np.bincount(made.index.patient_cohort, minlength=len(made.index.cohorts))
    return bool((sizes >= SeparabilityConfig().min_patients).sum() >= 2)


def _part(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
