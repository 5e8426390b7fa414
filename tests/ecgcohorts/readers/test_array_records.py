"""Files of many recordings: rows of one array, with ids, scales and lengths of their own; one array for each lead."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

import ecgcohorts as ec
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.ingest import ingest
from ecgcohorts.preprocess.recipes import CAPE_V1
from ecgcohorts.preprocess.strip import make_strip
from ecgcohorts.readers import Reader, open_reader
from ecgcohorts.readers.arrays.description import ArrayDescription

UV = np.arange(3 * 2 * 40).reshape(3, 2, 40) - 100  # (record, lead, time)
KINDS = ("npy", "npz", "npz stored", "hdf5", "hdf5 chunked")
KNOWN = {"rate_hz": 500, "unit": "uV", "leads": ("I", "II"), "axes": "record_lead_time"}


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def save(path: Path, kind: str, **arrays: NDArray) -> dict[str, Any]:
    """Write arrays as one kind, the samples as `x`; what their description must say beside the axes."""
    if kind == "npy":
        with path.open("wb") as file:
            np.save(file, arrays["x"])
        return {"kind": "npy"}
    if kind.startswith("npz"):
        with path.open("wb") as file:
            (np.savez if "stored" in kind else np.savez_compressed)(file, **arrays)
        return {"kind": "npz", "name": "x"}
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (2, *array.shape[1:]) if "chunked" in kind else None
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip" if chunks else None)
    return {"kind": "hdf5", "name": "x"}


def reader(**keys: Any) -> Reader:
    return open_reader("arrays", ArrayDescription.model_validate(KNOWN | keys))


def refused(call: Callable[[], object]) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<i2", ">i4", "<f4"])
@pytest.mark.parametrize("axes", [
    "record_lead_time", "record_time_lead", "record_one_time_lead", "record_lead_time_one", "record_one_lead_one_time",
])  # fmt: skip
def test_every_order_of_axes(kind: str, dtype: str, axes: str, tmp_path: Path) -> None:
    """EchoNext has (record, 1, time, lead), IKEM (record, time, lead), Nightingale (record, lead, time)."""
    sizes = {"record": "r", "lead": "l", "time": "t"}
    letters = "".join(sizes[word] for word in axes.split("_") if word in sizes)
    array = np.einsum(f"rlt->{letters}", UV)
    for place, word in enumerate(axes.split("_")):
        array = np.expand_dims(array, place) if word == "one" else array
    keys = save(tmp_path / "x", kind, x=np.ascontiguousarray(array, dtype)) | {"axes": axes}
    recordings = list(reader(**keys).read(tmp_path / "x"))
    assert [recording.source.entry for recording in recordings] == ["0", "1", "2"]
    assert [recording.recording_id for recording in recordings] == ["x-0", "x-1", "x-2"]
    assert [recording.fields for recording in recordings] == [{"row": "0"}, {"row": "1"}, {"row": "2"}]
    for recording, uv in zip(recordings, UV, strict=True):
        np.testing.assert_array_equal(recording.signal_mv, uv / 1000)
    (last,) = reader(**keys).read(tmp_path / "x", ["2"])
    np.testing.assert_array_equal(last.signal_mv, UV[2] / 1000)
    assert [header.n_samples for header in reader(**keys).scan(tmp_path / "x")] == [40, 40, 40]
    for entry in ("3", "-1", "", "x", "00"):
        assert refused(lambda entry=entry: list(reader(**keys).read(tmp_path / "x", [entry]))).reason is (
            Reason.MISSING_FILE
        )


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("ids", [
    np.array([70, 8, 9], "<u4"), np.array([[70], [8], [9]]), np.array([b"70", b"8", b"9"]), np.array([b"70 ", b" 8", b"9"]),
])  # fmt: skip
def test_ids_of_the_records(kind: str, ids: NDArray, tmp_path: Path) -> None:
    keys = save(tmp_path / "x", kind, x=UV, exam=ids) | {"ids": "exam"}
    found = list(reader(**keys).scan(tmp_path / "x"))
    assert [header.source.entry for header in found] == [header.recording_id for header in found] == ["70", "8", "9"]
    (recording,) = reader(**keys).read(tmp_path / "x", ["8"])
    np.testing.assert_array_equal(recording.signal_mv, UV[1] / 1000)
    assert recording.fields == {"row": "1"}


def test_ids_as_texts_of_any_length(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x", "w") as file:
        file["x"] = UV
        file.create_dataset("exam", data=["a", "bü", "c" * 60], dtype=h5py.string_dtype())
    keys = {"kind": "hdf5", "name": "x", "ids": "exam"}
    assert [one.recording_id for one in reader(**keys).read(tmp_path / "x")] == ["a", "bü", "c" * 60]
    np.savez(tmp_path / "x.npz", x=UV, exam=np.array(["a", "bü", "c"]))
    assert [one.recording_id for one in reader(kind="npz", name="x", ids="exam").read(tmp_path / "x.npz")] == [
        "a",
        "bü",
        "c",
    ]


@pytest.mark.parametrize("ids", [
    np.array([1.0, 2.0, 3.0]), np.array([b"a", b"", b"c"]), np.array([b"a", b"b#1", b"c"]), np.array([b"a", b"b" * 65, b"c"]),
    np.array([1, 2]), np.array([b"a", b"b\x07b", b"c"]), np.arange(6).reshape(3, 2),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_ids_that_are_none(kind: str, ids: NDArray, tmp_path: Path) -> None:
    keys = save(tmp_path / "x", kind, x=UV, exam=ids) | {"ids": "exam"}
    assert refused(lambda: list(reader(**keys).scan(tmp_path / "x"))).reason is Reason.HEADER


def test_an_id_that_stands_twice_names_no_record(tmp_path: Path) -> None:
    keys = save(tmp_path / "x", "hdf5", x=UV, exam=np.array([5, 6, 5])) | {"ids": "exam"}
    assert next(reader(**keys).read(tmp_path / "x", ["6"])).recording_id == "6"
    assert refused(lambda: list(reader(**keys).read(tmp_path / "x", ["5"]))).reason is Reason.MISSING_FILE
    assert len(list(reader(**keys).scan(tmp_path / "x"))) == 3


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
@pytest.mark.parametrize("dtype", ["<i2", "<f8"])
@pytest.mark.parametrize("scale", [np.array([1.0, 4.88, -2.5]), np.array([[1.0, 2.0], [4.88, 5.0], [0.5, 1e-3]])])
def test_each_record_has_its_own_scale(kind: str, dtype: str, scale: NDArray, tmp_path: Path) -> None:
    """Units per step, of a record or of each of its leads."""
    keys = save(tmp_path / "x", kind, x=UV.astype(dtype), step=scale) | {"scale": "step"}
    for number, recording in enumerate(reader(**keys).read(tmp_path / "x")):
        expected = UV[number] * np.broadcast_to(scale[number], 2)[:, None] / 1000
        np.testing.assert_allclose(recording.signal_mv, expected, rtol=1e-12)
        assert (recording.digital is not None) is (dtype == "<i2")  # integers stay integers, with a gain
        if recording.digital is not None:
            np.testing.assert_array_equal(recording.digital, UV[number])


@pytest.mark.parametrize("scale", [[1, 0, 1], [1, np.nan, 1], [1, np.inf, 1], [1, 2]])
def test_a_scale_that_is_none(scale: list[float], tmp_path: Path) -> None:
    keys = save(tmp_path / "x", "npz", x=UV, step=np.array(scale, float)) | {"scale": "step"}
    assert refused(lambda: list(reader(**keys).read(tmp_path / "x"))).reason in (Reason.UNIT, Reason.HEADER)


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_padding_behind_the_true_length_is_cut(kind: str, tmp_path: Path) -> None:
    keys = save(tmp_path / "x", kind, x=UV, real_lengths=np.array([40, 7, 0])) | {"lengths": "real_lengths"}
    assert [header.n_samples or 0 for header in reader(**keys).scan(tmp_path / "x")] == [40, 7, 0]
    first, second = reader(**keys).read(tmp_path / "x", ["0", "1"])
    assert (first.n_samples, second.n_samples) == (40, 7)
    np.testing.assert_array_equal(second.signal_mv, UV[1, :, :7] / 1000)
    assert refused(lambda: list(reader(**keys).read(tmp_path / "x", ["2"]))).reason is Reason.EMPTY


@pytest.mark.parametrize("lengths", [[40, -1, 40], [40, 41, 40], [40.0, 40.0, 40.0]])
def test_lengths_that_are_none(lengths: list[float], tmp_path: Path) -> None:
    keys = save(tmp_path / "x", "hdf5", x=UV, n=np.array(lengths)) | {"lengths": "n"}
    assert refused(lambda: list(reader(**keys).scan(tmp_path / "x"))).reason is Reason.HEADER


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
@pytest.mark.parametrize("axes", ["time", "time_one", "record_time", "record_one_time"])
def test_an_array_for_each_lead(kind: str, axes: str, tmp_path: Path) -> None:
    samples = UV if "record" in axes else UV[:1]
    leads = {}
    for number, name in enumerate(("one", "two")):
        array = samples[:, number] if "record" in axes else samples[0, number]
        leads[name] = np.expand_dims(array, axes.split("_").index("one")) if "one" in axes else array
    keys = save(tmp_path / "x", kind, **leads) | {"axes": axes}
    for order in (("one", "two"), ("two", "one")):
        rows = [("one", "two").index(name) for name in order]
        found = list(reader(**(keys | {"name": order})).read(tmp_path / "x"))
        assert len(found) == len(samples)
        for recording, uv in zip(found, samples, strict=True):
            np.testing.assert_array_equal(recording.signal_mv, uv[rows] / 1000)


def test_a_variable_or_a_field_for_each_lead_of_matlab(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "1.mat", {"I": UV[0, 0], "II": UV[0, 1], "ECG": {"a": UV[0, 0], "b": UV[0, 1]}})
    for names in (("I", "II"), ("ECG.a", "ECG.b")):
        (recording,) = reader(kind="matlab", axes="one_time", name=names).read(tmp_path / "1.mat")
        np.testing.assert_array_equal(recording.signal_mv, UV[0] / 1000)


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_leads_that_differ_are_no_recording(kind: str, tmp_path: Path) -> None:
    keys = {"axes": "record_time", "name": ("one", "two")}
    for two in (UV[:, 1, :39], UV[:2, 1], UV[:, 1].astype("f4")):
        kinds = save(tmp_path / "x", kind, one=UV[:, 0], two=two)
        assert refused(lambda kinds=kinds: list(reader(**(kinds | keys)).read(tmp_path / "x"))).reason is Reason.LEADS


@pytest.mark.parametrize(("keys", "said"), [
    ({"kind": "npy", "axes": "time_record_lead"}, "record_"), ({"kind": "npy", "axes": "lead_time_lead"}, "order of"),
    ({"kind": "npy", "axes": "record_lead"}, "order of"), ({"kind": "npy", "axes": "time-lead"}, "order of"),
    ({"kind": "npy", "axes": "one_one_one_lead_time"}, "order of"), ({"kind": "npy", "axes": "time"}, "as many names"),
    ({"kind": "npy", "ids": "x"}, "only npz and hdf5"), ({"kind": "csv"}, "lead_time or time_lead"),
    ({"kind": "csv", "axes": "one_lead_time"}, "lead_time or time_lead"), ({"kind": "matlab", "name": "x"}, "one recording"),
    ({"kind": "npz"}, "name"), ({"kind": "npz", "name": ("a", "b")}, "without lead"),
    ({"kind": "npz", "name": "a", "axes": "time"}, "without lead"), ({"kind": "npz", "name": ("a",), "axes": "time"}, "as many names"),
    ({"kind": "hdf5", "name": "a", "scale": "b", "steps_per_unit": 2}, "give one"),
    ({"kind": "hdf5", "name": "a", "scale": "b", "axes": "lead_time"}, "many records"),
])  # fmt: skip
def test_descriptions_that_contradict_themselves(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ArrayDescription.model_validate(KNOWN | keys)


def test_a_description_survives_json() -> None:
    for keys in ({"kind": "hdf5", "name": "x", "ids": "i"}, {"kind": "npz", "name": ["a", "b"], "axes": "record_time"}):
        description = ArrayDescription.model_validate(KNOWN | keys)
        assert ArrayDescription.model_validate_json(description.model_dump_json()) == description


def test_records_scattered_over_the_file_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(UV))
    assert refused(lambda: list(reader(kind="npy").scan(tmp_path / "x.npy"))).reason is Reason.UNSUPPORTED


def test_a_flipped_byte_of_an_archive_is_noticed(files: ModuleType, tmp_path: Path) -> None:
    for packed in (True, False):
        data = bytearray(files.npz_of(packed, x=UV))
        data[len(data) // 2 if packed else data.index(UV[1].tobytes())] ^= 1
        (tmp_path / "x.npz").write_bytes(data)
        error = refused(lambda: list(reader(kind="npz", name="x").read(tmp_path / "x.npz")))
        assert error.reason in (Reason.CHECKSUM, Reason.HEADER)


def test_an_object_array_of_an_archive_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=UV, exam=np.array([print, 1, "a"], dtype=object))
    keys = {"kind": "npz", "name": "x", "ids": "exam"}
    assert refused(lambda: list(reader(**keys).scan(tmp_path / "x.npz"))).reason is Reason.UNSUPPORTED


def test_an_archive_is_read_again_once_it_changed(tmp_path: Path) -> None:
    path, keys = tmp_path / "x.npz", {"kind": "npz", "name": "x", "ids": "exam"}
    np.savez(path, x=UV, exam=np.array([1, 2, 3]))
    assert [one.recording_id for one in reader(**keys).read(path)] == ["1", "2", "3"]
    np.savez(path, x=UV[:2] + 1, exam=np.array([10, 20]))
    found = list(reader(**keys).read(path))
    assert [one.recording_id for one in found] == ["10", "20"]
    np.testing.assert_array_equal(found[1].signal_mv, (UV[1] + 1) / 1000)


def test_archives_that_are_none(files: ModuleType, tmp_path: Path) -> None:
    path, keys = tmp_path / "x.npz", {"kind": "npz", "name": "x"}
    path.write_bytes(b"PK\x03\x04 nothing")
    assert refused(lambda: list(reader(**keys).read(path))).reason is Reason.HEADER
    path.write_bytes(files.npz_of(y=UV))
    assert refused(lambda: list(reader(**keys).read(path))).reason is Reason.FORMAT
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("x.npy", files.npy_of(UV))
    assert refused(lambda: list(reader(**keys).read(path))).reason is Reason.HEADER


def test_a_manifest_names_records_behind_a_hash(files: ModuleType, tmp_path: Path) -> None:
    np.savez(tmp_path / "a#b.npz", x=UV, exam=np.array([7, 8, 9]))
    np.savez(tmp_path / "c.npz", x=UV[:1] + 5, exam=np.array([7]))
    (tmp_path / "d.npz").write_bytes(b"damaged")
    keys = {"kind": "npz", "name": "x", "ids": "exam", "axes": "record_lead_time"}
    path = files.manifest(tmp_path / "arrays.yaml", files="['*.npz']", **keys)
    entries = [one.source.entry for one in open_reader("arrays").scan(path)]
    assert entries == ["a#b.npz#7", "a#b.npz#8", "a#b.npz#9", "c.npz#7", "d.npz"]
    found = list(open_reader("arrays").read(path, entries[:4]))
    np.testing.assert_array_equal(found[3].signal_mv, (UV[0] + 5) / 1000)
    assert [one.source.entry for one in found] == entries[:4]
    assert refused(lambda: list(open_reader("arrays").read(path, ["d.npz"]))).reason is Reason.HEADER
    assert refused(lambda: list(open_reader("arrays").read(path, ["c.npz#8"]))).reason is Reason.MISSING_FILE
    assert refused(lambda: list(open_reader("arrays").read(path, ["c.npz"]))).reason is Reason.MISSING_FILE


def test_rows_take_their_ids_from_the_column_of_a_table(files: ModuleType, tmp_path: Path) -> None:
    """As EchoNext is published: rows of a .npy match the rows of a table, which has the ids and the patients."""
    raw, store = tmp_path / "raw", tmp_path / "store.zarr"
    raw.mkdir()
    uv = np.stack([files.beats(8, 5000, seed) for seed in range(4)])
    np.save(raw / "waveforms.npy", uv.transpose(0, 2, 1)[:, None].astype("f4") / 1000)
    table = "ecg_key,patient_key,age,sex\n" + "".join(f"e{n},p{n // 2},{40 + n},male\n" for n in range(4))
    (raw / "metadata.csv").write_text(table)
    (tmp_path / "cohort.yaml").write_text("""\
name: rows
title: Rows of one array
licence: CC0-1.0
citation: made for a test
mains_hz: 60
layouts:
  - reader: arrays
    files: {include: ["*.npy"]}
    arrays:
      kind: npy
      rate_hz: 500
      unit: mV
      leads: [I, II, V1, V2, V3, V4, V5, V6]
      axes: record_one_time_lead
    tables:
      - {file: metadata.csv, match: row}
    recording: {column: ecg_key}
    patient: {column: patient_key}
    age: {column: age}
    sex: {column: sex}
""")
    report = ingest(raw, store, str(tmp_path / "cohort.yaml"))
    assert report.total.stored == report.total.inputs == 4
    index = ec.open(store).index
    assert index.n_patients == 2
    # Age is the number of the row plus 40, so it tells whose samples a row of the store should hold.
    recordings = list(
        open_reader("arrays", CohortSpec.load(str(tmp_path / "cohort.yaml")).layouts[0].arrays).read(
            raw / "waveforms.npy"
        )
    )
    for row, age in zip(index["row"], index["age"], strict=True):
        strip = make_strip(recordings[round(float(age)) - 40], CAPE_V1, 60)
        np.testing.assert_array_equal(ec.open(store).read([row])[0], strip.samples)
