"""Ask one or several questions of weights and a store: a folder with results.json, pictures and embeddings.

OUT/results.json                   Study
OUT/figures/<question>/*.svg       the pictures of the report, one a file
OUT/embeddings/<weights>/          kept: the next question about the same weights and store reads them
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.distributed import _require_alone
from capezoo.embedding.folder import weights_digest
from capezoo.errors import Unanswerable
from capezoo.evaluate.measure.parts import Parts, Tested
from capezoo.evaluate.questions import KIND, Context
from capezoo.evaluate.results import RESULTS, Answer, EvaluatedWeights, Provenance, Study, file_name
from capezoo.evaluate.rows import (
    NEVER_TRAINED,
    BatchNorms,
    Embedder,
    Planned,
    Progress,
    Row,
    _part_of,
    never_trained,
    with_norms,
)
from capezoo.specs.base import Spec, parse
from capezoo.zoo.create import load
from capezoo.zoo.digests import trained_on
from capezoo.zoo.files import CARD, read_card
from capezoo.zoo.listing import locate
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError
from ecgcohorts.io.durable import sha256_of, write_file
from ecgcohorts.privacy.pseudonyms import load_key

if TYPE_CHECKING:
    from ecgcohorts.index.cohort_index import CohortIndex
    from ecgcohorts.store.union import AnyStore


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
    batch_norm: BatchNorms = "running",
) -> Study:
    """Embed the store with each of `weights`, ask the questions, and return the study, which `out` then holds.

    weights: names or folders of published weights, or "random", "random-raw" or "measurements". questions: name -> values of
    its `Config`. A folder of an earlier study of the same weights, store and seed keeps its other answers. A question that
    the store cannot answer is listed in `left_out`, or, asked alone, raises Unanswerable. check: as for `capezoo.load`; what
    unchecked weights say of their training recordings is not believed. digest_key: file of the key of keyed training digests.
    device: that embeds, auto, cpu, cuda or cuda:N; None: the CPU. batch_norm: running statistics, those of each cohort's own
    recordings, or a row for each of these.
    Raises EcgError with the remedy for whatever does not fit together, and for test patients that pretraining has seen.
    """
    _require_alone(
        "evaluate", "Embed with them first: torchrun ... -m capezoo.cli embed WEIGHTS STORE -o OUT/embeddings/NAME."
    )
    folder = Path(out)
    # Settings first: a wrong key is refused before weights are loaded and the store is embedded.
    asked = {name: _config(name, values) for name, values in sorted(questions.items())}
    key = load_key(digest_key, for_new_store=False) if digest_key else None
    rows = _rows(weights, seed, check, lambda folder: trained_on(folder, store.index, key))
    found = with_norms(rows, batch_norm)
    # Embedding takes minutes to hours; what cannot be tested is refused before it.
    _require_testable(asked, found, store, seed)
    asking = Study(seed=seed, store_fingerprint=store.fingerprint, weights=tuple(one.evaluated for one in found))
    made = _continued(folder, asking)
    embedder = Embedder(store, folder, progress, device)
    for name, config in asked.items():
        module: Any = plugins.load(KIND, name)
        answer, refusal = None, ""
        try:
            subjects = embedder.subjects(found, _trains_on(config, store, seed), getattr(module, "EMBEDS", True))
            result = module.run(Context(subjects, seed, _part_of(progress, name), store, device), config)
            answer = Answer(config=config, result=result, provenance=Provenance.now(command))
        except Unanswerable as error:
            # Of several, the others still have answers; alone, there would be a study of nothing.
            if len(asked) == 1:
                raise
            refusal = str(error)
        # Read anew: another process may have answered another question meanwhile.
        made = _answered(_continued(folder, asking), name, answer or refusal)
        # After every answer: whoever stops a long study keeps those it has.
        made.write(folder)
        if answer:
            _draw(folder / "figures" / name, module.figures(answer.result))
    return made


def _answered(earlier: Study, name: str, told: Answer | str) -> Study:
    """Return a study with an answer to a question, or why there is none, in the place of what it said before."""
    answers, left_out = dict(earlier.answers), dict(earlier.left_out)
    for before in (answers, left_out):
        before.pop(name, None)
    if isinstance(told, Answer):
        answers[name] = told
    else:
        left_out[name] = told
    return earlier.model_copy(update={"answers": dict(sorted(answers.items())), "left_out": left_out})


def _config(name: str, values: Mapping[str, Any]) -> Spec:
    module: Any = plugins.load(KIND, name)
    config: Spec = parse(module.Config, values, f"question {name}")
    return config


def _trains_on(config: Spec, store: "AnyStore", seed: int) -> NDArray[np.int64]:
    """Entries on which a question trains, and on whose signals untrained rows may look; all of a question without a home."""
    if isinstance(config, Tested):
        return config.parts(store.index, seed, store).train
    return np.arange(len(store.index))


def _require_testable(asked: Mapping[str, Spec], rows: "Sequence[Row | Planned]", store: "AnyStore", seed: int) -> None:
    """Raise SpecError, before the long part, for what the store does not know, or test patients that pretraining has seen.

    asked: settings of each question. Raises Unanswerable for a question, asked alone, about weights other than `rows`.
    """
    index = store.index
    for question, config in asked.items():
        if require := getattr(config, "require", None):
            require(index)
        if isinstance(config, Tested):
            parts = config.parts(index, seed, store)
            for row in () if config.allow_seen else rows:
                _require_unseen(row.name, index, parts, row.trained_on)
        # Of several questions, the others still have answers.
        if len(asked) == 1 and (require := getattr(plugins.load(KIND, question), "require_weights", None)):
            require(index, rows)


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
            "expected none. Test on others: see capezoo overlap, or pretrain with --set held_out.split=NAME and "
            "give the same --split NAME here. To evaluate nevertheless: --allow-seen."
        )


def _continued(folder: Path, made: Study) -> Study:
    """The study that the folder holds, or `made`. Raises SpecError unless it is of the same weights, store and seed."""
    if not (folder / RESULTS).is_file():
        return made
    earlier = Study.read(folder)
    # Numbers of other weights, another store or another split side by side would look comparable.
    differing = [
        name for name in ("seed", "store_fingerprint", "weights") if getattr(earlier, name) != getattr(made, name)
    ]
    if not differing:
        return earlier
    others = {"seed": "another seed", "store_fingerprint": "another store"}
    found = [others[one] for one in differing if one in others]
    # Untrained networks are drawn by the seed: with another one they differ as a matter of course.
    if "weights" in differing and (told := _told_apart(earlier.weights, made.weights, earlier.seed == made.seed)):
        found.append(f"other weights ({told})")
    raise SpecError(
        f"{folder / RESULTS}: found a study of {' and '.join(found)}. Name another folder, or remove this one."
    )


def _told_apart(found: Sequence[EvaluatedWeights], asked: Sequence[EvaluatedWeights], same_seed: bool) -> str:
    """Say how the weights of a study differ from those it is asked for; nothing if only the seed makes the difference."""
    names, wanted = ([one.name for one in rows] for rows in (found, asked))
    if names != wanted:
        return f"{', '.join(names)}; asked for {', '.join(wanted)}"
    changed = [one.name for one, other in zip(found, asked, strict=True) if one != other]
    if trained := [name for name in changed if name.split(",")[0] not in NEVER_TRAINED]:
        return f"others named {', '.join(trained)}"
    # Whoever comes back to an old study has changed nothing, and the rows have the same name.
    return f"{', '.join(changed)}, as another version of capezoo makes it" if same_seed else ""


def _rows(
    weights: Sequence[str], seed: int, check: bool, trained_on: Callable[[Path], NDArray[np.uint8] | None]
) -> list[Row]:
    """Load weights in the order given. Their names are those of the cards, with the folder where two are equal."""
    if again := sorted({name for name in weights if weights.count(name) > 1}):
        raise SpecError(f"weights: found {', '.join(again)} more than once, expected each once.")
    folders = {name: locate(name) for name in weights if name not in NEVER_TRAINED}
    labels = _labels(folders)
    found = []
    for name in weights:
        if name in NEVER_TRAINED:
            found.append(never_trained(name, list(folders.values()), seed))
            continue
        folder, model = folders[name], load(folders[name], check=check)
        evaluated = EvaluatedWeights(name=labels[name], weights=weights_digest(model), card=sha256_of(folder / CARD))
        # After loading: the digests are those of a folder that was found whole.
        told = (trained_on(folder), read_card(folder).training) if check else (None, None)
        found.append(Row(evaluated, (model,), told[0], training=told[1]))
    return found


def _labels(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return the name of each card, with as much of its folder as tells it from others of that name."""
    names = {word: read_card(folder).name for word, folder in folders.items()}
    # Not resolved: a link may be called what its user calls the weights.
    places = {word: Path(os.path.abspath(folder)).parts for word, folder in folders.items()}
    labels = {}
    for word, own in places.items():
        same = [places[other] for other in folders if other != word and names[other] == names[word]]
        if own in same:
            raise SpecError(f"{word}: found these weights more than once, expected each once.")
        depth = next(depth for depth in range(1, len(own) + 1) if all(one[-depth:] != own[-depth:] for one in same))
        # Two cards may have one name, and nothing may pass for what was never trained.
        is_clear = not same and names[word] not in NEVER_TRAINED
        labels[word] = names[word] if is_clear else f"{names[word]} ({'/'.join(own[-depth:])})"
    return labels


def _draw(folder: Path, figures: Sequence[Any]) -> None:
    # The answer before may have had pictures of other names.
    shutil.rmtree(folder, ignore_errors=True)
    for figure in figures:
        write_file(folder / f"{file_name(figure.title)}.svg", figure.svg.encode())
