"""Ask one or several questions of weights and a store: a folder with results.json, pictures and embeddings.

OUT/results.json                   Study
OUT/figures/<question>/*.svg       the pictures of the report, one a file
OUT/embeddings/<weights>/          kept: the next question about the same weights and store reads them
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from capezoo.distributed import _require_alone
from capezoo.embedding.folder import embed_store, open_embeddings, weights_digest
from capezoo.encoders import build
from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Home, Parts
from capezoo.evaluate.questions import KIND, Context, Subject
from capezoo.evaluate.results import RESULTS, Answer, EvaluatedWeights, Provenance, Study, file_name
from capezoo.specs.base import Spec, derive_seed, parse
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.create import load
from capezoo.zoo.digests import trained_on
from capezoo.zoo.files import CARD, DIGEST_BYTES, Architecture, read_card
from capezoo.zoo.forward import _has_batch_norm
from capezoo.zoo.listing import locate
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.io.durable import sha256_of, write_file
from ecgcohorts.privacy.pseudonyms import load_key

if TYPE_CHECKING:
    from torch import nn

    from capezoo.embedding.folder import EmbeddingInfo, Embeddings
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.store.union import AnyStore

RANDOM = "random"  # in place of weights: the architecture of the first published ones, never trained
Progress = Callable[[str, int, int], None]  # what, done, total
_BatchNorms = Literal["running", "per_cohort", "both"]


@dataclass(frozen=True, eq=False)
class _Contender:
    """Weights under evaluation, before anything is embedded."""

    evaluated: EvaluatedWeights
    model: "nn.Module"
    trained_on: NDArray[np.uint8] | None  # (record, 16); None: unknown

    @property
    def name(self) -> str:
        return self.evaluated.name


def study(
    weights: Sequence[str],
    store: "AnyStore",
    out: str | Path,
    seed: int,
    questions: Mapping[str, Mapping[str, Any]],
    *,
    command: str = "",
    progress: Progress | None = None,
    check: bool = True,
    digest_key: Path | None = None,
    device: str | None = None,
    batch_norm: _BatchNorms = "running",
) -> Study:
    """Embed the store with each of `weights`, ask the questions, and return the study, which `out` then holds.

    weights: names or folders of published weights, or "random". questions: name -> values of its `Config`. A folder of
    an earlier study of the same weights, store and seed keeps its other answers. A question that the store cannot
    answer is listed in `left_out`, or, asked alone, raises Unanswerable. check: as for `capezoo.load`; what unchecked
    weights say of their training recordings is not believed. digest_key: file of the key of keyed training digests. device: that
    embeds, auto, cpu, cuda or cuda:N; None: the CPU. batch_norm: statistics kept in training (running), or those of each
    cohort's own recordings (per_cohort), or a row for each of these (both); weights without BatchNorm have one row.
    Raises EcgError with the remedy for whatever does not fit together, and for test patients that pretraining has seen.
    """
    _require_alone(
        "evaluate", "Embed with them first: torchrun ... -m capezoo.cli embed WEIGHTS STORE -o OUT/embeddings/NAME."
    )
    folder = Path(out)
    # Settings first: a wrong key is refused before weights are loaded and the store is embedded.
    asked = {name: _config(name, values) for name, values in sorted(questions.items())}
    key = load_key(digest_key, for_new_store=False) if digest_key else None
    found = _contenders(weights, seed, check, lambda folder: trained_on(folder, store.index, key))
    found = _with_norms(found, batch_norm)
    # Embedding takes minutes to hours; what cannot be tested is refused before it.
    _require_testable(asked, found, store, seed)
    made = Study(seed=seed, store_fingerprint=store.fingerprint, weights=tuple(one.evaluated for one in found))
    if (folder / RESULTS).is_file():
        made = _continued(folder, made)
    embedded = [_embeddings(one, store, folder, _part(progress, f"embed {one.name}"), device) for one in found]
    subjects = tuple(Subject(made, one.trained_on) for made, one in zip(embedded, found, strict=True))
    for name, config in asked.items():
        module: Any = plugins.load(KIND, name)
        answers, left_out = dict(made.answers), dict(made.left_out)
        # A question asked again replaces its answer, and an answer its earlier refusal.
        for before in (answers, left_out):
            before.pop(name, None)
        try:
            result = module.run(Context(subjects, seed, _part(progress, name), store), config)
            answers[name] = Answer(config=config, result=result, provenance=Provenance.now(command))
        except Unanswerable as error:
            # Of several, the others still have answers; alone, there would be a study of nothing.
            if len(asked) == 1:
                raise
            left_out[name] = str(error)
        made = made.model_copy(update={"answers": dict(sorted(answers.items())), "left_out": left_out})
        # After every answer: whoever stops a long study keeps those it has.
        made.write(folder)
        if name in answers:
            _draw(folder / "figures" / name, module.figures(answers[name].result))
    return made


def _config(name: str, values: Mapping[str, Any]) -> Spec:
    module: Any = plugins.load(KIND, name)
    config: Spec = parse(module.Config, values, f"question {name}")
    return config


def _require_testable(asked: Mapping[str, Spec], found: Sequence[_Contender], store: "AnyStore", seed: int) -> None:
    """Raise SpecError, before the long part, for what the store does not know, or test patients that pretraining has seen."""
    index = store.index
    for config in asked.values():
        if require := getattr(config, "require", None):
            require(index)
        if isinstance(config, Home):
            parts = config.parts(index, seed, store)
            for one in () if config.allow_seen else found:
                _require_unseen(one.name, index, parts, one.trained_on)


def _require_unseen(name: str, index: "CohortIndex", parts: Parts, trained_on: NDArray[np.uint8] | None) -> None:
    """Raise SpecError if pretraining has seen a test patient, or if nobody knows. name: of the weights."""
    found = parts.tests_seen(index, trained_on)
    if found is None:
        raise SpecError(f"{name}: found no list of its training recordings, expected one: the test records may be among "
                        "them. A keyed list needs its key: --digest-key. To evaluate nevertheless: --allow-seen.")  # fmt: skip
    records, patients = found
    if any(patients.values()):
        where = ", ".join(f"{patients[cohort]} of {cohort}" for cohort in patients if patients[cohort])
        raise SpecError(
            f"{name}: found test patients it was pretrained on ({where}; {sum(records.values())} of the test records), "
            "expected none. Test on others: see capezoo overlap. To evaluate nevertheless: --allow-seen."
        )


def _continued(folder: Path, made: Study) -> Study:
    """The study that the folder holds. Raises SpecError unless it is of the same weights, store and seed."""
    earlier = Study.read(folder)
    # Numbers of other weights, another store or another split side by side would look comparable.
    differing = [
        name for name in ("seed", "store_fingerprint", "weights") if getattr(earlier, name) != getattr(made, name)
    ]
    if differing:
        what = " and ".join(name.replace("_fingerprint", "") for name in differing)
        raise SpecError(
            f"{folder / RESULTS}: found a study of another {what}. Name another folder, or remove this one."
        )
    return earlier


def _contenders(
    weights: Sequence[str], seed: int, check: bool, trained_on: Callable[[Path], NDArray[np.uint8] | None]
) -> list[_Contender]:
    """Load weights in the order given. Their names are those of the cards, with the folder where two are equal."""
    folders = {name: locate(name) for name in weights if name != RANDOM}
    names = {name: read_card(folder).name for name, folder in folders.items()}
    found = []
    for name in weights:
        if name == RANDOM:
            model = _random(list(folders.values()), seed)
            evaluated = EvaluatedWeights(name=RANDOM, weights=weights_digest(model), card=None)
            # Nothing was trained on, which is known: not None.
            found.append(_Contender(evaluated, model, np.zeros((0, DIGEST_BYTES), np.uint8)))
            continue
        folder, label = folders[name], names[name]
        # Two cards may have one name, and nothing may pass for the untrained encoder.
        if label == RANDOM or list(names.values()).count(label) > 1:
            label = f"{label} ({folder.name})"
        model = load(folder, check=check)
        evaluated = EvaluatedWeights(name=label, weights=weights_digest(model), card=sha256_of(folder / CARD))
        # After loading: the digests are those of a folder that was found whole.
        found.append(_Contender(evaluated, model, trained_on(folder) if check else None))
    return found


def _with_norms(found: Sequence[_Contender], batch_norm: _BatchNorms) -> list[_Contender]:
    """Return contenders with the statistics asked for, under a name that says so."""
    rows = []
    for one in found:
        has_choice = _has_batch_norm(one.model)
        if batch_norm != "per_cohort" or not has_choice:
            rows.append(one)
        if batch_norm != "running" and has_choice:
            changes = {"name": f"{one.name}, BatchNorm per cohort", "batch_norm": "per_cohort"}
            rows.append(replace(one, evaluated=one.evaluated.model_copy(update=changes)))
    return rows


def _random(folders: Sequence[Path], seed: int) -> "nn.Module":
    """Build an untrained encoder, so that every other row can be read against it."""
    # The architecture of the first weights: another one would differ in more than training.
    if folders:
        architecture = Architecture.read(folders[0])
        encoder, spec = architecture.encoder, architecture.input
    else:
        encoder, spec = EncoderSpec(), InputSpec()
    model = build(encoder, derive_seed(seed, "random-encoder"))
    model.spec = spec  # type: ignore[assignment]
    return model.eval()


def _embeddings(
    one: _Contender, store: "AnyStore", folder: Path, progress: Callable[[int, int], None], device: str | None
) -> "Embeddings":
    """Return the embeddings of an earlier study if weights and store are the same, else new ones."""
    path, norms = folder / "embeddings" / file_name(one.name), one.evaluated.batch_norm
    if path.exists():
        try:
            made = open_embeddings(path)
        except (StoreError, SpecError):
            # Damaged, or written by an earlier version: embedding again costs minutes, not results.
            made = None
        wanted = (one.name, one.evaluated.weights, store.fingerprint, InputSpec.of_model(one.model), norms)
        if made and _made_of(made.info) == wanted:
            return made
        shutil.rmtree(path)
    return embed_store(one.model, store, path, one.name, one.evaluated.card, progress, device=device, batch_norm=norms)


def _made_of(info: "EmbeddingInfo") -> tuple[Any, ...]:
    return (info.name, info.weights, info.store_fingerprint, info.input, info.batch_norm)


def _draw(folder: Path, figures: Sequence[Any]) -> None:
    # The answer before may have had pictures of other names.
    shutil.rmtree(folder, ignore_errors=True)
    for figure in figures:
        write_file(folder / f"{file_name(figure.title)}.svg", figure.svg.encode())


def _part(progress: Progress | None, what: str) -> Callable[[int, int], None]:
    return lambda done, total: None if progress is None else progress(what, done, total)
