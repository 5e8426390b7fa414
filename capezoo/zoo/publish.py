"""Publish a run: a weight folder that says what it is and can be verified."""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from capezoo.specs.base import parse
from capezoo.specs.card import CohortUse, Golden, Metric, Training, WeightCard
from capezoo.specs.input import InputSpec
from capezoo.specs.run import EncoderSpec
from capezoo.zoo.digests import _keyed
from capezoo.zoo.files import (
    CARD,
    CONFIG,
    DIGEST_BYTES,
    DIGESTS,
    GOLDEN,
    LICENCE,
    METADATA_KEY,
    README,
    SUMS,
    WEIGHTS,
    Architecture,
    read_card,
)
from capezoo.zoo.golden import GoldenOutput
from capezoo.zoo.hub import push
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError
from ecgcohorts.io.durable import sha256_of, sync_folder, write_file
from ecgcohorts.privacy.pseudonyms import load_key

if TYPE_CHECKING:
    from torch import nn

    from capezoo.training.run_folder import RunFolder
    from ecgcohorts.store.reader import AnyStore

log = logging.getLogger(__name__)
_LICENCE_OF_WEIGHTS = "Apache-2.0"
_UNKNOWN = "unknown"  # licence of data
# Stands for the folder in the README's example until its reader puts a path there.
_THIS_FOLDER = "THIS_FOLDER"
# Our default for half precision; rounding to 11 bits alone gives about 0.9999999.
_HALF_COSINE = 0.9999


@dataclass(frozen=True)
class About:
    """What a run folder does not know about its weights. metrics: measured after training."""

    version: str = "1"
    summary: str = ""
    intended_use: str = ""
    known_failures: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    command: str = ""  # that trained them
    commit: str = ""
    data_licences: Mapping[str, str] | None = None  # cohort -> licence; see `licences_of`
    where: str = _THIS_FOLDER  # how the README's example names the weights


def publish(
    run: str | Path,
    out: str | Path,
    about: About = About(),
    name: str | None = None,
    half: bool = False,
    *,
    digests: Literal["plain", "none"] | Path,
    force: bool = False,
) -> Path:
    """Write the newest checkpoint of a run as a weight folder, and return it.

    The card states what the run folder knows: configuration, cohorts, steps, store fingerprint, versions.
    half: store numbers in half precision, if embeddings stay the same (cosine 0.9999). digests: of training recordings;
    "plain" ones tell everybody who holds a recording whether it was trained on, those keyed by a key file only the holder
    of that key, and with "none" nobody finds an overlap with a test set. force: publish a collapsed run, or
    weights that give the golden signals NaN or equal features; the card then says so.
    Raises SourceError if `run` is no run or has no checkpoint, SpecError if `out` exists, half is not enough, or for what
    `force` allows.
    """
    from capezoo.training.checkpoint import trained
    from capezoo.training.run_folder import RunFolder

    folder = RunFolder(Path(run))
    model, config, state = trained(folder.path)
    faults = _faults(folder, model, config.input)
    if faults and not force:
        raise SpecError(f"{folder.path}: {faults[0]} Train again. To publish it with this in its card: --force.")
    data, encoder = folder.data(), _resolved(config.encoder)
    rows, key = _published_digests(folder.path / "training_digests.bin", digests)
    training = Training(
        run=config,
        cohorts=_cohorts(data, about.data_licences or {}),
        store_fingerprint=str(data["store_fingerprint"]),
        record_digests=sha256(rows).hexdigest() if rows is not None else None,
        digest_key=key,
        steps=int(state["step"]),
        command=about.command,
        commit=about.commit,
        versions=_versions(folder.path / "env.json"),
    )
    card = WeightCard(
        name=name or config.name,
        version=about.version,
        summary=about.summary,
        encoder=encoder,
        input=config.input,
        objective=config.objective,
        parameters=sum(p.numel() for p in model.parameters()),
        embedding_dim=int(model.num_features),  # type: ignore[arg-type]
        training=training,
        weights_licence=_LICENCE_OF_WEIGHTS,
        data_licences={cohort.name: cohort.licence for cohort in training.cohorts},
        metrics=about.metrics,
        intended_use=about.intended_use,
        known_failures=(*faults, *about.known_failures),
    )
    return write_weights(out, model, card, rows, half, about.where)


def publish_to_hub(
    run: str | Path,
    target: str,
    about: About = About(),
    name: str | None = None,
    half: bool = False,
    *,
    digests: Literal["plain", "none"] | Path,
    force: bool = False,
) -> str:
    """Publish to a repository "hf-hub:ORG/NAME" and return its address with the new commit. See `publish`, `hub.push`."""
    # The same folder as a local publication, so that what was uploaded can be verified in the same way.
    with tempfile.TemporaryDirectory(prefix="capezoo-") as place:
        about = replace(about, where=f"{target}@COMMIT")
        folder = publish(run, Path(place) / "weights", about, name, half, digests=digests, force=force)
        card = read_card(folder)
        return push(folder, target, f"{card.name} {card.version}")


def _published_digests(path: Path, digests: Literal["plain", "none"] | Path) -> tuple[bytes | None, str | None]:
    """Return what a weight folder says of its training recordings, and the fingerprint of the key, if there is one."""
    if digests == "none" or not path.is_file():
        return None, None
    if digests == "plain":
        return path.read_bytes(), None
    key = load_key(Path(digests), for_new_store=False)
    rows = _keyed(np.fromfile(path, np.uint8).reshape(-1, DIGEST_BYTES), key)
    # Sorted anew: in the order of the plain digests, each would be known by its place.
    return np.unique(rows, axis=0).tobytes(), key.fingerprint


def _faults(folder: "RunFolder", model: "nn.Module", spec: InputSpec) -> tuple[str, ...]:
    """Say in sentences why nobody should use these weights: none for most runs."""
    from torch import from_numpy

    from capezoo.training.monitor import COLLAPSED, spread

    found = []
    if folder.has_status and folder.last_status()["state"] == "collapsed":
        found.append("The run collapsed: all held-out recordings have the same features.")
    features = GoldenOutput.of(model, spec).embedding
    if not np.isfinite(features).all():
        found.append("The weights give the golden signals features that are no finite numbers.")
    elif spread(from_numpy(features)) < COLLAPSED:
        found.append("The weights give all golden signals the same features.")
    return tuple(found)


def licences_of(store: "AnyStore", run: str | Path | None = None) -> dict[str, str]:
    """Return the licence of each cohort's data, as its description gave it at ingest.

    run: raise SpecError for a store that lacks a cohort which this run was trained on.
    """
    if run is not None:
        from capezoo.training.run_folder import RunFolder

        used = [part["name"] for part in RunFolder(Path(run)).data()["cohorts"]]
        if lacking := [name for name in used if name not in store.index.cohorts]:
            raise SpecError(
                f"{store.path}: found no cohort {', '.join(lacking)}, expected the store that {run} was trained on, with "
                f"{', '.join(used)}. Name that one."
            )
    return {segment.cohort: segment.licence for segment in store.segments if segment.licence}


def write_weights(
    out: str | Path,
    model: "nn.Module",
    card: WeightCard,
    digests: Path | bytes | None = None,
    half: bool = False,
    where: str = _THIS_FOLDER,
    *,
    licence: str | None = None,
) -> Path:
    """Write a weight folder and return it.

    model: built from `card.encoder`. digests: waveform digests of all training recordings, or their file. licence: text of
    LICENSE, by default that of Apache-2.0.
    Raises SpecError if `out` exists, or if half precision changes embeddings.
    """
    from safetensors.torch import save

    target = Path(out)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    architecture = Architecture(encoder=_resolved(card.encoder), input=card.input)
    if half:
        # Before anything is written, and the golden output from the rounded copy: it must describe what is stored.
        rounded = halved(model)
        card = card.model_copy(update={"half_cosine": _require_same_embeddings(model, rounded, card.input)})
        model = rounded
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    # Written beside its place and renamed at the end: the folder is whole or not there.
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write_file(aside / WEIGHTS, save(state, {METADATA_KEY: architecture.to_text()}))
        write_file(aside / CONFIG, (architecture.model_dump_json(indent=2) + "\n").encode())
        write_file(aside / GOLDEN, GoldenOutput.of(model, card.input).to_bytes())
        text = licence.encode() if licence else files("capezoo.zoo").joinpath("apache-2.0.txt").read_bytes()
        write_file(aside / LICENCE, text)
        if digests is not None:
            write_file(aside / DIGESTS, digests if isinstance(digests, bytes) else digests.read_bytes())
        # The licence is left out: it is the same text for all weights, and SHA256SUMS covers it.
        named = {path.name: sha256_of(path) for path in sorted(aside.iterdir()) if path.name != LICENCE}
        full = card.model_copy(update={"sha256": named, "golden": Golden(file=GOLDEN, sha256=named[GOLDEN])})
        write_file(aside / CARD, (full.model_dump_json(indent=2) + "\n").encode())
        write_file(aside / README, render(full, where).encode())
        sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(aside.iterdir()))
        write_file(aside / SUMS, sums.encode())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(aside, target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def halved(model: "nn.Module") -> "nn.Module":
    """Return a copy with all numbers rounded to half precision, as loading such weights gives them."""
    copy = deepcopy(model)
    tensors = model.state_dict().items()
    copy.load_state_dict({key: t.half().float() if t.is_floating_point() else t for key, t in tensors})
    return copy


def _require_same_embeddings(model: "nn.Module", rounded: "nn.Module", spec: InputSpec) -> float:
    """Return the least cosine between embeddings of the golden signals. Raises SpecError if it is below 0.9999."""
    one, two = (GoldenOutput.of(each, spec).embedding.astype(np.float64) for each in (model, rounded))
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    # Infinite or dead embeddings give NaN, which the comparison below refuses.
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = float(((one * two).sum(axis=1) / sizes).min())
    if not cosine >= _HALF_COSINE:
        raise SpecError(f"found embeddings that differ in half precision (cosine {cosine:.6f}), expected at least "
                        f"{_HALF_COSINE}. Publish without half.")  # fmt: skip
    return min(cosine, 1.0)


def render(card: WeightCard, where: str = _THIS_FOLDER) -> str:
    """Return the card as Markdown with the Hub's front matter. where: name of the weights in its example."""
    from jinja2 import Environment, StrictUndefined

    # Strict: a field that the template misspells must fail here and not leave a gap in a card.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_plain)
    environment.filters["code"] = _code
    template = environment.from_string(files("capezoo.zoo").joinpath("card.md.jinja").read_text("utf-8"))
    return re.sub(r"\n{3,}", "\n\n", template.render(card=card, where=where))


class _Code(str):
    """Text that stands between backticks or quotes of an example, where Markdown means nothing."""

    __slots__ = ()


def _code(value: object) -> _Code:
    """Make a value safe inside code: one line, and nothing that ends the code or begins a tag."""
    return _Code(" ".join(str(value).split()).replace("`", "'"))


def _plain(value: object) -> str:
    """Make a value safe in Markdown and its tables: one line, no bars, tags, links or code.

    A page renders the text of strangers: `[read this](javascript:...)` must stay what it is, text.
    """
    if isinstance(value, _Code):
        return value
    text = re.sub(r"[\\`\[\]|]", r"\\\g<0>", " ".join(str(value).split()))
    return text.replace("<", "&lt;")


def _resolved(spec: EncoderSpec) -> EncoderSpec:
    """Write every default of a spec out, so that a later change of defaults changes no published weights."""
    module = plugins.load("capezoo.encoders", spec.name)
    config = parse(module.Config, spec.config, f"encoder {spec.name}")
    return EncoderSpec(name=spec.name, config=config.model_dump(mode="json"))


def _cohorts(data: Mapping[str, Any], licences: Mapping[str, str]) -> tuple[CohortUse, ...]:
    """Join the cohorts of data.json with the licences of their data. Warns of those without."""
    uses = tuple(CohortUse(**part, licence=licences.get(part["name"]) or _UNKNOWN) for part in data["cohorts"])
    if unknown := [use.name for use in uses if use.licence == _UNKNOWN]:
        log.warning("the card says nothing of the licence of the data of %s. Name the store it was trained on, with --store; "
                    "if that does not know it either, write the licence into the cohort's description.",
                    ", ".join(unknown))  # fmt: skip
    return uses


def _versions(path: Path) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()} if path.is_file() else {}
