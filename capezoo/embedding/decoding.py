"""Portions of raw files on their way to a table: read and filtered here, in processes that load no torch.

WORK/claim.json        what makes the table; portions of anything else are dropped
WORK/windows/NUMBER    what the encoder is to see, until it has
WORK/parts/NUMBER      features, facts and refusals of a portion
"""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capezoo.embedding.listing import Item, Listing, Refusal
from capezoo.embedding.raw import RawWindows
from ecgcohorts.errors import EcgError, Reason, RecordingError, UnreadableRecording, is_of_machine
from ecgcohorts.io.durable import write_file
from ecgcohorts.preprocess.flags import Flag
from ecgcohorts.recording import Recording
from ecgcohorts.sources.windows import at_hand

# What a damaged archive raises depends on where the damage lies.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Part:
    """What became of a portion: features (record, unit) or, before them, windows; a fact for each; and refusals."""

    signals: NDArray[np.float32]
    facts: list[dict[str, Any]]
    refused: list[Refusal]


class Portions:
    """Portions on disk, by number."""

    def __init__(self, work: Path, width: int) -> None:
        self._work, self._width = work, width

    def keep(self, number: int, part: Part, kind: str) -> None:
        """Write a portion, whole or not at all. kind: windows or parts."""
        words = json.dumps({"facts": part.facts, "refused": part.refused})
        buffer = io.BytesIO()
        np.savez(buffer, signals=part.signals, words=np.array(words))
        write_file(self._place(number, kind), buffer.getvalue())

    def read(self, number: int, kind: str) -> Part | None:
        """Return a portion; None if it is not there whole."""
        try:
            # Read whole: of a damaged archive numpy leaves the file open.
            with np.load(io.BytesIO(self._place(number, kind).read_bytes()), allow_pickle=False) as arrays:
                signals, words = arrays["signals"], json.loads(str(arrays["words"]))
            refused = [Refusal(*one) for one in words["refused"]]
        except _DAMAGE:
            return None
        whole = len(signals) == len(words["facts"]) and (kind == "windows" or signals.shape[1:] == (self._width,))
        return Part(signals, words["facts"], refused) if whole else None

    def drop(self, number: int, kind: str) -> None:
        self._place(number, kind).unlink(missing_ok=True)

    def _place(self, number: int, kind: str) -> Path:
        return self._work / kind / f"{number:08d}"


class Decoder:
    """Reads and filters portions, in whatever process it is called. What goes wrong with a file is a refusal."""

    def __init__(self, found: Listing, windows: RawWindows, portions: Portions, with_header: bool) -> None:
        self.found, self.portions, self.with_header = found, portions, with_header
        self.tasks = found.tasks
        self._windows = windows

    def __call__(self, number: int) -> None:
        """Write the windows of a portion."""
        spec = self._windows.spec
        signals, facts, refused = [], [], []
        for item, entry, made in self._made(self.tasks[number]):
            if isinstance(made, RecordingError):
                refused.append(Refusal.by(made, self.found.file(item), entry))
            else:
                signals.append(made[0])
                facts.append(made[1])
        shape = (0, len(spec.leads), spec.length)
        stacked = np.stack(signals) if signals else np.empty(shape, np.float32)
        self.portions.keep(number, Part(stacked, facts, refused), "windows")

    def _made(
        self, items: Sequence[Item]
    ) -> Iterator[tuple[Item, str, tuple[NDArray[np.float32], dict[str, Any]] | RecordingError]]:
        """Yield each recording of the items: file, entry, and window and fact, or why there are none."""
        for _, run in groupby(items, lambda item: (item.source, item.reader, item.is_described)):
            same = list(run)
            source, reader, beside = (
                self.found.sources[same[0].source],
                self.found.reader(same[0]),
                self.found.beside(same[0]),
            )
            with closing(at_hand(source, ((item.path, item.entries) for item in same), beside)) as files:
                for item, file in zip(same, files, strict=True):
                    entry = ""
                    try:
                        if isinstance(file, UnreadableRecording):
                            raise file
                        for recording in reader.read(file, item.entries):
                            entry = recording.source.entry if recording.source else ""
                            yield item, entry, self._one(item, entry, recording)
                    except Exception as error:
                        yield item, entry, _as_refusal(error)

    def _one(
        self, item: Item, entry: str, recording: Recording
    ) -> tuple[NDArray[np.float32], dict[str, Any]] | RecordingError:
        try:
            window, quality = self._windows.of(recording, with_quality=True)
        except Exception as error:
            return _as_refusal(error)
        fact: dict[str, Any] = {
            "file": self.found.file(item),
            "entry": entry,
            "format": item.reader,
            "rate_hz": recording.rate_hz,
            "duration_s": recording.duration_s,
            "adapted": "; ".join(self._windows.plan(recording).steps(self._windows.spec)),
            "digest": recording.waveform_digest.hex(),
            "flags": ",".join(flag.name.lower() for flag in Flag if flag & quality.flags and flag.name),
        }
        if self.with_header:
            when = recording.acquired_at
            fact |= {
                "patient_id": recording.patient_id,
                "age_years": recording.age_years,
                "sex": recording.sex,
                "acquired_at": when.isoformat() if when else None,
                "device": recording.device,
            }
        return window, fact


def _as_refusal(error: Exception) -> RecordingError:
    """Return why a file is refused. Raises what says nothing of the file: a full disk, weights that fit no file."""
    if isinstance(error, RecordingError):
        return error
    # One strange file must not end the work on all others.
    if isinstance(error, EcgError) or is_of_machine(error):
        raise error
    remedy = "This is a defect of the reader: report it."
    return UnreadableRecording(Reason.UNEXPECTED, type(error).__name__, "a recording", remedy)
