"""From a finished run to a weight folder that checks itself."""

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.specs import CohortUse, Golden, InputSpec, Metric, Training, WeightCard
from capezoo.zoo.files import (
    CARD,
    CONFIG,
    DIGESTS,
    GOLDEN,
    LICENCE,
    METADATA_KEY,
    README,
    SUMS,
    WEIGHTS,
    Architecture,
    read_card,
    resolved,
)
from capezoo.zoo.forward import features
from capezoo.zoo.hub import push
from ecgcohorts.errors import SpecError
from ecgcohorts.io.durable import sha256_of, sync_folder, write_file

if TYPE_CHECKING:
    from torch import nn

    from ecgcohorts.store.reader import AnyStore

WEIGHTS_LICENCE = "Apache-2.0"
THIS_FOLDER = "THIS_FOLDER"  # to be replaced by who copies the example
GOLDEN_SIGNALS = 4  # different in rate, size and lead weights, so that a swapped lead or a lost scale shows
HALF_COSINE = 0.9999  # our default; rounding to 11 bits alone gives about 0.9999999
GOLDEN_SEED = 20250912  # of the golden noise; any number would do


@dataclass(frozen=True)
class About:
    """What only a person knows about the weights. metrics: measured after training."""

    version: str = "1"
    summary: str = ""
    intended_use: str = ""
    known_failures: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    command: str = ""  # that trained them
    commit: str = ""
    data_licences: Mapping[str, str] | None = None  # cohort -> licence; see `licences_of`
    where: str = THIS_FOLDER  # how the README's example names the weights


def publish(
    run: str | Path, out: str | Path, about: About = About(), name: str | None = None, half: bool = False
) -> Path:
    """Write the newest checkpoint of a run as a weight folder, and return it.

    The card states what the run folder knows: configuration, cohorts, steps, store fingerprint, versions.
    half: store numbers in half precision, if embeddings stay the same (HALF_COSINE).
    Raises SourceError if `run` is no run or has no checkpoint, SpecError if `out` exists or half is not enough.
    """
    from capezoo.training.loop import trained
    from capezoo.training.run_folder import RunFolder

    folder = RunFolder(Path(run))
    model, config, state = trained(folder.path)
    data, encoder = folder.data(), resolved(config.encoder)
    digests = folder.path / "training_digests.bin"
    training = Training(
        run=config,
        cohorts=_cohorts(data, about.data_licences or {}),
        store_fingerprint=str(data["store_fingerprint"]),
        record_digests=sha256_of(digests) if digests.is_file() else None,
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
        weights_licence=WEIGHTS_LICENCE,
        data_licences={cohort.name: cohort.licence for cohort in training.cohorts},
        metrics=about.metrics,
        intended_use=about.intended_use,
        known_failures=about.known_failures,
    )
    return write_weights(out, model, card, digests if digests.is_file() else None, half, about.where)


def publish_to_hub(
    run: str | Path, target: str, about: About = About(), name: str | None = None, half: bool = False
) -> str:
    """The same to a repository "hf-hub:ORG/NAME"; returns its address with the commit that was made. See `hub.push`."""
    with tempfile.TemporaryDirectory(prefix="capezoo-") as place:
        folder = publish(run, Path(place) / "weights", replace(about, where=f"{target}@COMMIT"), name, half)
        card = read_card(folder)
        return push(folder, target, f"{card.name} {card.version}")


def licences_of(store: "AnyStore") -> dict[str, str]:
    """Licence of the data of each cohort, as its description gave it at ingest."""
    return {segment.cohort: segment.licence for segment in store.segments if segment.licence}


def write_weights(
    out: str | Path,
    model: "nn.Module",
    card: WeightCard,
    digests: Path | None = None,
    half: bool = False,
    where: str = THIS_FOLDER,
) -> Path:
    """Write a weight folder whole: beside its place first, then renamed. Returns it.

    model: built from `card.encoder`. digests: file with the waveform digests of all training recordings.
    Raises SpecError if `out` exists, or if half precision changes embeddings.
    """
    from safetensors.torch import save

    target = Path(out)
    if target.exists():
        raise SpecError(f"{target}: found something there, expected a new folder. Name another, or remove it.")
    architecture = Architecture(encoder=resolved(card.encoder), input=card.input)
    if half:
        rounded = halved(model)
        card = card.model_copy(update={"half_cosine": _require_same_embeddings(model, rounded, card.input)})
        model = rounded
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        write_file(aside / WEIGHTS, save(state, {METADATA_KEY: architecture.to_text()}))
        write_file(aside / CONFIG, (architecture.model_dump_json(indent=2) + "\n").encode())
        write_file(aside / GOLDEN, golden_file(model, card.input))
        write_file(aside / LICENCE, files("capezoo.zoo").joinpath("apache-2.0.txt").read_bytes())
        if digests is not None:
            write_file(aside / DIGESTS, digests.read_bytes())
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
    """A copy whose numbers are rounded to half precision, as weights stored so are when they are loaded."""
    copy = deepcopy(model)
    tensors = model.state_dict().items()
    copy.load_state_dict({key: t.half().float() if t.is_floating_point() else t for key, t in tensors})
    return copy


def _require_same_embeddings(model: "nn.Module", rounded: "nn.Module", spec: InputSpec) -> float:
    """The least cosine between embeddings of the golden signals. Raises SpecError below HALF_COSINE."""
    signal = golden_signal(spec)
    one, two = (golden_embedding(each, signal).astype(np.float64) for each in (model, rounded))
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # infinite or dead embeddings end as NaN, which is refused
        cosine = float(((one * two).sum(axis=1) / sizes).min())
    if not cosine >= HALF_COSINE:
        raise SpecError(f"found embeddings that differ in half precision (cosine {cosine:.6f}), expected at least "
                        f"{HALF_COSINE}. Publish without half.")  # fmt: skip
    return min(cosine, 1.0)


def render(card: WeightCard, where: str = THIS_FOLDER) -> str:
    """The card as Markdown, with the front matter that the Hub reads. where: how the weights are named in its example."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_plain)
    template = environment.from_string(files("capezoo.zoo").joinpath("card.md.jinja").read_text("utf-8"))
    return re.sub(r"\n{3,}", "\n\n", template.render(card=card, where=where))


def _plain(value: object) -> str:
    """Text that stays text inside a Markdown table: one line, no bars, no tags."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def golden_signal(spec: InputSpec) -> NDArray[np.int16]:
    """Fixed synthetic ECGs in whole microvolts: (GOLDEN_SIGNALS, lead, length).

    The file holds the numbers themselves: this is how they were made, not how they are checked.
    """
    n_leads, length = len(spec.leads), spec.length
    generator = np.random.Generator(np.random.PCG64(GOLDEN_SEED))
    signal = generator.integers(-12, 13, (GOLDEN_SIGNALS, n_leads, length))  # noise, microvolts
    for number in range(GOLDEN_SIGNALS):
        period, offset = round(spec.rate_hz * (0.6 + 0.15 * number)), 40 + 60 * number
        weight = generator.integers(-1500, 1501, n_leads)  # R wave, microvolts
        for start in range(offset, length, period):
            for place, width, share in ((0, 12, 8), (5 * period // 16, 40, 2)):  # QRS and T as triangles
                for step in range(-width, width + 1):
                    if 0 <= start + place + step < length:
                        signal[number, :, start + place + step] += weight * share * (width - abs(step)) // (8 * width)
    return signal.astype(np.int16)


def golden_file(model: "nn.Module", spec: InputSpec) -> bytes:
    """golden.npz: `signal_uv` int16 and the `embedding` float32 that the model gives for it. Same input, same bytes."""
    signal = golden_signal(spec)
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # np.savez would write the time of day
        for name, array in (("signal_uv", signal), ("embedding", golden_embedding(model, signal))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def golden_embedding(model: "nn.Module", signal_uv: NDArray[np.int16]) -> NDArray[np.float32]:
    """(signal, unit)."""
    return features(model, signal_uv.astype(np.float32) / np.float32(1000))


def _cohorts(data: Mapping[str, Any], licences: Mapping[str, str]) -> tuple[CohortUse, ...]:
    """The cohorts of data.json with the licences of their data."""
    return tuple(CohortUse(**part, licence=licences.get(part["name"]) or "unknown") for part in data["cohorts"])


def _versions(path: Path) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()} if path.is_file() else {}
