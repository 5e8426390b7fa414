"""One trial of the artefact control, and its file: who was tested, and what every head said of every rendering."""

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from capezoo.specs.base import Spec, parse
from capezoo.specs.run import EncoderSpec, ObjectiveSpec
from ecgcohorts.errors import EcgError, SourceError
from ecgcohorts.io.durable import write_file

Floats = NDArray[np.float64]
Positives = Literal["hard", "easy"]
_NAME = r"^[a-z][a-z0-9_]*$"
# Arrays of a trial and their axes. Sizes of one name are equal; those of a number are that number.
_AXES: dict[str, tuple[str | int, ...]] = {
    "patient": ("test",),
    "age": ("test",),
    "sex": ("test",),
    "device": ("test",),
    "age_years": (2, "home", "rendering", "test"),
    "sex_score": (2, "home", "rendering", "test"),
    "constant_age": ("home",),
    "device_score": ("test", "device"),
    "largest_z": (2, "home", "rendering"),
}
# What a damaged archive raises depends on where the damage lies.
_DAMAGE = (EcgError, OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_WHOLE = ("patient", "device")  # integers; all else is float64


class Cell(Spec):
    """Which trial: one place in the table of everything that may be run."""

    kind: str = Field(pattern=_NAME, description="of signature")
    strength_uv: float = Field(ge=0, le=10_000, description="of the signature, in uV as its kind defines it")
    arm: str = Field(pattern=_NAME, description="what is done about it in training")
    positives: Positives = Field("hard", description="how unlike the two views of a patient are made")
    seed: int = Field(ge=0, lt=2**31)

    @property
    def key(self) -> str:
        """A name for files, different for every cell."""
        return f"{self.kind}-{self.strength_uv:g}uv-{self.arm}-{self.positives}-seed{self.seed}"


class Settings(Spec):
    """What all trials of a campaign share. The defaults were chosen before any result was looked at."""

    steps: int = Field(default=250, gt=0, description="of training")
    pairs: int = Field(default=32, gt=1, description="patients in a batch")
    test_share: float = Field(default=0.35, gt=0, lt=1, description="of patients")
    objective: ObjectiveSpec = Field(default=ObjectiveSpec(), description="what is minimised")
    encoder_name: str = Field(default=EncoderSpec().name, description="of the family of the encoder")
    encoder: dict[str, JsonValue] = Field(
        default={"widths": [8, 16, 24, 32], "embedding_dim": 48, "stem_stride": 8, "norm_momentum": 0.1},
        description="its settings; of cape_resnet: small enough for a core, and statistics that settle in 250 steps",
    )
    lr: float = Field(default=3e-3, gt=0, description="of Adam, falling to 0 along half a cosine")

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out objective and family where they are the first method's: trials made before there were others still fit."""
        fields: dict[str, Any] = serialise(self)
        if (self.objective, self.encoder_name) == (ObjectiveSpec(), EncoderSpec().name):
            del fields["objective"], fields["encoder_name"]
        return fields


class Facts(Spec):
    """What else is worth knowing of a trial."""

    seconds: float = Field(ge=0, description="that it took")
    cpu_seconds: float = Field(0.0, ge=0, description="of processor time")
    steps: int = Field(ge=0, description="of training")
    loss_start: float | None = Field(description="mean over its first tenth; none: nothing was trained")
    loss_end: float | None = Field(description="mean over its last tenth")
    parameters: int = Field(description="of the encoder")
    dead_units: int = Field(description="units of the embedding that are 0 for every training patient")
    train_patients: int
    left_out: int = Field(0, description="patients of the cohort whom this trial does not use")
    age_patients: tuple[int, ...] = Field(description="whom the age head of each home was fitted on")
    sex_patients: tuple[int, ...] = Field(description="whom the sex head of each home was fitted on")
    devices: tuple[str, ...] = Field(description="names of the devices of `device` and `device_score`")
    renderings: tuple[str, ...] = Field(description="names of the devices with which the test patients were rendered")


@dataclass(frozen=True, eq=False)
class Trial:
    """The answers of one trial, test patient by test patient. Axes of 2 are the plain and the guarded scaler.

    patient: (test,) int64, place in the cohort's canonical order. age: years, NaN if unknown or 90 and more. sex: 0 male,
    1 female, NaN unknown. device: (test,) int64, the patient's own. age_years, sex_score: (2, home, rendering, test),
    what the head fitted on device `home` says of the test patients when `rendering` has recorded them; the first
    renderings are the devices in their order, the last one is a device that neither pretraining nor heads have met.
    constant_age: (home,) median age of those the head was fitted on. device_score: (test, device), probabilities by a
    probe that has not seen the patient. largest_z: (2, home, rendering), largest absolute feature after scaling.
    made_with: fingerprint of settings and material. An arm without swapped devices has no homes and no renderings.
    """

    cell: Cell
    made_with: str
    facts: Facts
    patient: NDArray[np.int64]
    age: Floats
    sex: Floats
    device: NDArray[np.int64]
    age_years: Floats
    sex_score: Floats
    constant_age: Floats
    device_score: Floats
    largest_z: Floats

    def __post_init__(self) -> None:
        wrong = self._contradiction()
        if wrong:
            raise ValueError(f"trial {self.cell.key}: {wrong}")

    def save(self, path: Path) -> None:
        """Write the trial whole or not at all."""
        words = {
            "cell": self.cell.model_dump(mode="json"),
            "made_with": self.made_with,
            "facts": self.facts.model_dump(mode="json"),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, words=np.array(json.dumps(words)), **{name: getattr(self, name) for name in _AXES})
        write_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a trial. Raises SourceError for a file that is missing, damaged, or no trial."""
        try:
            # Read whole: of a damaged archive numpy leaves the file open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                arrays = {name: data[name] for name in _AXES}
                words = json.loads(str(data["words"]))
            return cls(
                parse(Cell, words["cell"], str(path)),
                str(words["made_with"]),
                parse(Facts, words["facts"], str(path)),
                **arrays,
            )
        except _DAMAGE as error:
            raise SourceError(
                f"{path}: found no whole trial ({error}). Delete the file; the trial is run again."
            ) from None

    def _contradiction(self) -> str | None:
        """Say in a few words which array does not fit; None if all do."""
        sizes: dict[str | int, int] = {"test": len(self.patient), "device": len(self.facts.devices)}
        sizes |= {"home": len(self.facts.age_patients), "rendering": len(self.facts.renderings)}
        for name, axes in _AXES.items():
            array, shape = getattr(self, name), tuple(sizes.get(axis, axis) for axis in axes)
            dtype = np.dtype(np.int64 if name in _WHOLE else np.float64)
            if array.shape != shape or array.dtype != dtype:
                return f"found {name} {array.dtype} {array.shape}, expected {dtype} {shape}"
        if len(self.device) and not 0 <= self.device.min() <= self.device.max() < len(self.facts.devices):
            return f"found device {self.device.max()} of {len(self.facts.devices)}"
        finite = (self.age_years, self.sex_score, self.device_score)
        return None if all(np.isfinite(one).all() for one in finite) else "found answers that are no numbers"
