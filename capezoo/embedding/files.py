"""Embed raw files of any format, as they lie in folders and archives, into one table: a row for each recording.

No store is made. Files are read and filtered in processes of their own, a portion at a time, while the encoder computes.
What is done stays on the disk beside the table's place, so that a killed run goes on there: See `decoding` for the files.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.adapt import Mains, MissingLeads
from capezoo.embedding.decoding import Decoder, Part, Portions
from capezoo.embedding.folder import weights_digest
from capezoo.embedding.listing import Item, Listing, Refusal, listing
from capezoo.embedding.parts import claim
from capezoo.embedding.raw import RawWindows
from capezoo.embedding.tables import harmless, require_table, write_table
from capezoo.specs.input import InputSpec
from capezoo.zoo.forward import features
from ecgcohorts.errors import MachineError, RecordingError, SpecError
from ecgcohorts.ingest.runners import InProcess, ProcessPool, WorkerDied
from ecgcohorts.io.durable import make_folder, write_file
from ecgcohorts.store.commit import writer_lock

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from ecgcohorts.readers.arrays.description import ArrayDescription

    Instead = Callable[[pd.DataFrame, NDArray[np.float32]], pd.DataFrame]

log = logging.getLogger(__name__)

# Told what is being done, how much of it is done, and how much there is (0: unknown).
Tell = Callable[[str, int, int], None]
_TEXT = ("file", "entry", "format", "adapted", "flags")
_NUMBERS = ("rate_hz", "duration_s")
_HEADER_TEXT, _HEADER_NUMBERS = ("patient_id", "sex", "acquired_at", "device"), ("age_years",)


@dataclass(frozen=True)
class FilesEmbedded:
    """What became of some files. adapted: what was done to recordings before the encoder saw them, and to how many."""

    table: Path
    records: int
    width: int
    refused: int
    refused_list: Path | None
    trained_on: int = 0  # recordings that are known to have trained the weights
    reasons: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)  # files that are no recordings, by what they are
    adapted: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused_fraction(self) -> float:
        return self.refused / max(1, self.refused + self.records)


def embed_files(
    model: "nn.Module",
    sources: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    name: str = "weights",
    card: str | None = None,
    mains_hz: Mains = "auto",
    missing_leads: MissingLeads = "refuse",
    arrays: "ArrayDescription | None" = None,
    with_header: bool = False,
    workers: int = 1,
    device: str | None = None,
    progress: Tell | None = None,
    trained_on: NDArray[np.uint8] | None = None,
    instead: "Instead | None" = None,
) -> FilesEmbedded:
    """Embed every recording in files, folders, archives and buckets; write a table with a row for each.

    out: .parquet, .csv, .npz or .zarr. Its columns are file, entry (in a file of several recordings), format, rate_hz,
    duration_s, adapted (what was done), flags (of quality, see docs/preprocessing.md), and feature_0 and following; .npz
    and .zarr have one array `features` in place of these. with_header: also patient_id, age_years, sex, acquired_at and
    device as the file states them; such a table names people. Beside it stand NAME.json, which says how it was made, and,
    if there are any, NAME.refused.csv, the files and recordings without a row, and why.
    name, card: of the weights, for the record. mains_hz, missing_leads, device: as for `embed`. arrays: how to read .npy
    files that no manifest describes. workers: processes that read and filter beside this one. progress: told of files
    looked at and recordings done. trained_on: waveform digests (record, 16) of the recordings that the weights were trained on,
    for a column `trained_on`. instead: given the facts of some recordings and their features, returns the columns to
    write in place of these. Called again after a kill, it goes on there and ends with the same table.
    Raises SpecError if `out` exists or has another suffix, or what stands beside it is not ours, SourceError if there is no recording, LockHeld if another
    process writes there, MachineError if a process dies.
    """
    target = Path(out)
    require_table(target)
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    spec, width = InputSpec.of_model(model), int(model.num_features)  # type: ignore[arg-type]
    with ExitStack() as held:
        found = listing(given, held, arrays, (lambda done: progress("look at files", done, 0)) if progress else None)
        _require_ours(target)
        work = target.with_name(f".{target.name}.part")
        held.enter_context(writer_lock(work, "folder"))
        made_of = {
            "name": name,
            "card": card,
            "weights": weights_digest(model),
            "input": spec.model_dump(mode="json"),
            "mains_hz": mains_hz,
            "missing_leads": missing_leads,
            "with_header": with_header,
            "arrays": arrays and arrays.model_dump(mode="json"),
            "versions": {each: version(each) for each in ("ecgcohorts", "torch")},
        }
        if claim(work, {**made_of, "files": _digest(found)}):
            log.warning("%s: dropped what was left of another table, which was never finished.", target)
        portions = Portions(work, width)
        decoder = Decoder(found, RawWindows(spec, mains_hz, missing_leads), portions, with_header)
        _embed(model, decoder, workers, device, progress)
        return _finished(target, decoder, made_of, width, _Columns(with_header, trained_on, instead))


def _embed(model: "nn.Module", decoder: Decoder, workers: int, device: str | None, progress: Tell | None) -> None:
    """Make the portions that are not there yet."""
    portions, tasks = decoder.portions, decoder.tasks
    missing = [number for number in range(len(tasks)) if portions.read(number, "parts") is None]
    sizes = [sum(len(item.entries or "1") for item in task) for task in tasks]
    done, total = sum(sizes) - sum(sizes[number] for number in missing), sum(sizes)
    # A single portion is done before another process has started.
    runner = ProcessPool(workers) if workers > 1 or len(missing) > 1 else InProcess()
    try:
        with closing(runner.run(iter(missing), decoder)) as ready:  # type: ignore[type-var]
            for number in ready:
                part = portions.read(number, "windows")
                if part is None:
                    raise MachineError(
                        f"{decoder.portions}: a file just written is damaged. Check the disk, run again."
                    )
                made = features(model, part.signals, device)
                portions.keep(number, Part(made, part.facts, part.refused), "parts")
                portions.drop(number, "windows")
                done += sizes[number]
                if progress:
                    progress("embed", done, total)
    except WorkerDied as died:
        first, last = (decoder.found.file(tasks[died.task][at]) for at in (0, -1))
        raise MachineError(
            f"a process that read files from {first} to {last} {died.how}. Run the same command again, with fewer "
            "processes (-j): what is done is kept."
        ) from None


def _require_ours(target: Path) -> None:
    """Raise SpecError if a file that will be replaced was not made by us: x.json beside x.csv may hold somebody's labels."""
    for path, mark in (
        (target.with_suffix(".json"), b'"trained_on": '),
        (target.with_suffix(".refused.csv"), ",".join(Refusal._fields).encode()),
    ):
        if path.exists() and not (path.is_file() and mark in path.read_bytes()):
            raise SpecError(
                f"{path}: found a file that would be replaced, expected none. Name another table, or move it."
            )


def _digest(found: Listing) -> str:
    """Return a digest of all files that are read, and of their state, as far as it shows without reading them."""
    digest = hashlib.sha256()
    for item in found.items:
        where = found.sources[item.source].address
        digest.update(json.dumps([where, found.file(item), item[1:], _states(found, item)]).encode())
    return digest.hexdigest()


def _states(found: Listing, item: Item) -> list[str]:
    """Return the states of a file and, in a folder, of those beside it that it names: a WFDB header rarely changes itself."""
    source = found.sources[item.source]
    states = [source.state(item.path, (source.folder or Path()) / item.path)]
    if source.folder is not None:
        below, beside = item.path[: item.path.rfind("/") + 1], found.beside(item)
        # A header that cannot be read names nothing, and a file that is not there has no state: reading will say so.
        with suppress(RecordingError):
            for name in beside(source.folder / item.path, item.entries):
                with suppress(OSError):
                    states.append(source.state(below + name, source.folder / (below + name)))
    return states


def _finished(
    target: Path, decoder: Decoder, made_of: dict[str, Any], width: int, columns: "_Columns"
) -> FilesEmbedded:
    """Put the portions together, and write what is to stand beside the table before it."""
    found, portions = decoder.found, decoder.portions
    refused, adapted, records, seen = list(found.unreadable), Counter[str](), 0, 0
    for number in range(len(decoder.tasks)):
        part = _whole(portions, number)
        refused += part.refused
        records += len(part.facts)
        adapted.update(fact["adapted"] for fact in part.facts)
        seen += sum(columns.trained_on(fact) for fact in part.facts)
    listed = target.with_suffix(".refused.csv") if refused else None
    counts: dict[str, dict[str, int]] = {
        "reasons": Counter(one.reason for one in refused),
        "others": found.others,
        "adapted": adapted,
    }
    # That of a table which was removed since would be taken for this one's.
    target.with_suffix(".refused.csv").unlink(missing_ok=True)
    if listed:
        import pandas as pd

        make_folder(target.parent)
        table = harmless(pd.DataFrame(refused, columns=list(Refusal._fields)))
        write_file(listed, table.to_csv(index=False).encode())
    said = {**made_of, "records": records, "width": width, "trained_on": seen, "refused": len(refused), **counts}
    write_file(target.with_suffix(".json"), json.dumps(said, indent=2).encode())
    write_table(target, (columns.of(_whole(portions, number)) for number in range(len(decoder.tasks))), records)
    shutil.rmtree(target.with_name(f".{target.name}.part"))
    return FilesEmbedded(target, records, width, len(refused), listed, seen, **counts)


class _Columns:
    """Turns the facts and features of a portion into columns and features of the table."""

    def __init__(self, with_header: bool, trained_on: NDArray[np.uint8] | None, instead: "Instead | None") -> None:
        self._text = [*_TEXT, *(_HEADER_TEXT if with_header else ())]
        self._numbers = [*_NUMBERS, *(_HEADER_NUMBERS if with_header else ())]
        self._known = None if trained_on is None else {row.tobytes().hex() for row in trained_on}
        self._instead = instead

    def trained_on(self, fact: Mapping[str, Any]) -> bool:
        """Whether the weights are known to have been trained on a recording."""
        return self._known is not None and fact["digest"] in self._known

    def of(self, part: Part) -> "tuple[pd.DataFrame, NDArray[np.float32]]":
        """Return columns, and features unless others take their place."""
        import pandas as pd

        facts = pd.DataFrame(part.facts, columns=[*self._text, *self._numbers])
        # The same types in every portion, also in one where nothing is known.
        facts = facts.astype(dict.fromkeys(self._text, "string") | dict.fromkeys(self._numbers, "float64"))
        if self._known is not None:
            facts["trained_on"] = np.array([self.trained_on(fact) for fact in part.facts], bool)
        if self._instead is None:
            return facts, part.signals
        return pd.concat([facts, self._instead(facts, part.signals)], axis=1), part.signals[:, :0]


def _whole(portions: Portions, number: int) -> Part:
    part = portions.read(number, "parts")
    if part is None:
        raise MachineError("a file that was written a moment ago is damaged. Check the disk, then run again.")
    return part
