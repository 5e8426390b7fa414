"""Bare arrays: every kind, orientation and type, manifests with their files, descriptions without one."""

import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, SpecError, UnreadableRecording
from ecgcohorts.readers import Reader, open_reader
from ecgcohorts.readers._shared.units import NOT_FINITE
from ecgcohorts.readers.arrays import reader as arrays
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording

ROWS = np.array([[1, -2], [30, 400], [-5, 6]])  # (time, lead)


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def described(**keys: Any) -> Reader:
    known = {"kind": "csv", "rate_hz": 500, "unit": "uV", "leads": ("I", "II"), "axes": "time_lead"}
    return arrays.described(ArrayDescription.model_validate(known | keys))


def one(path: Path, **keys: Any) -> Recording:
    (recording,) = described(**keys).read(path)
    return recording


def text(folder: Path, content: str | bytes, **keys: Any) -> Recording:
    path = folder / "1.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return one(path, **keys)


def refused(call: Callable[[], object]) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        call()
    return caught.value


def save(files: ModuleType, path: Path, kind: str, array: np.ndarray) -> dict[str, Any]:
    """Write an array as one kind; what its description must say beside the kind."""
    if kind == "npy":
        path.write_bytes(files.npy_of(array))
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            file["a/b"] = array
    elif kind == "csv":
        path.write_bytes(files.text_of(array))
    else:
        makers = {"mat4": files.mat4_of, "mat5": files.mat5_of, "mat5 raw": lambda v: files.mat5_of(packed=False, v=v)}
        path.write_bytes(makers[kind](v=array))
    names = {"hdf5": "a/b", "mat4": "v", "mat5": "v", "mat5 raw": "v"}
    return {"kind": "matlab" if kind.startswith("mat") else kind, **({"name": names[kind]} if kind in names else {})}


@pytest.mark.parametrize("axes", ["lead_time", "time_lead"])
@pytest.mark.parametrize(("kind", "dtype"), [
    *(("npy", dtype) for dtype in ("<i2", ">i2", "|i1", "<u2", "<i4", ">i8", "<f2", "<f4", ">f8")),
    *(("hdf5", dtype) for dtype in ("<i2", ">i4", "<f4", "<f8")), ("csv", "<i8"), ("csv", "<f8"),
    *(("mat4", dtype) for dtype in ("<i2", "<i4", "|u1", "<f4", "<f8")),
    *((kind, dtype) for kind in ("mat5", "mat5 raw") for dtype in ("|i1", "<u2", "<i8", "<f4", "<f8")),
])  # fmt: skip
def test_every_kind_type_and_orientation(kind: str, dtype: str, axes: str, files: ModuleType, tmp_path: Path) -> None:
    uv = np.abs(files.beats(2, 40)) % 100
    array = np.ascontiguousarray(uv if axes == "lead_time" else uv.T, dtype)
    path = tmp_path / "x.bin"
    keys = save(files, path, kind, array) | {"axes": axes}
    recording = one(path, **keys)
    is_integer = np.dtype(dtype).kind != "f"
    assert (recording.digital is not None) is is_integer
    np.testing.assert_array_equal(recording.signal_mv, uv / 1000)
    assert (recording.leads, recording.rate_hz, recording.n_samples) == (("I", "II"), 500.0, 40)
    if is_integer:
        assert recording.digital.dtype == np.int32
        assert recording.gain_per_mv.tolist() == [1000, 1000]
        assert recording.missing is None
    (header,) = described(**keys).scan(path)
    assert (header.n_samples, header.analog_mv.shape) == (40, (2, 0))
    assert refused(
        lambda: one(path, **(keys | {"axes": {"lead_time": "time_lead"}.get(axes, "lead_time")}))
    ).reason in (
        Reason.LEADS,
        Reason.LIMIT,
    )


def test_numpy_files_of_numpy_itself(files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 30)
    for array in (uv.astype("i2"), np.asfortranarray(uv, "f4"), uv.astype(">i4")):
        np.save(tmp_path / "1.npy", array)
        np.testing.assert_array_equal(one(tmp_path / "1.npy", kind="npy", axes="lead_time").signal_mv, uv / 1000)
    for version in ((2, 0), (3, 0)):
        with (tmp_path / "1.npy").open("wb") as file:
            np.lib.format.write_array(file, uv, version, allow_pickle=False)
        assert one(tmp_path / "1.npy", kind="npy", axes="lead_time").n_samples == 30


@pytest.mark.parametrize("header", [
    "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 30)}", '{"shape":(2,30),"fortran_order":False,"descr":"<i2"}',
])  # fmt: skip
def test_npy_headers_of_other_writers(header: str, files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 30).astype("<i2")
    (tmp_path / "1.npy").write_bytes(files.npy_of(uv, 1, header))
    np.testing.assert_array_equal(one(tmp_path / "1.npy", kind="npy", axes="lead_time").digital, uv)


@pytest.mark.parametrize(("header", "reason"), [
    ("{'descr': '|O', 'fortran_order': False, 'shape': (2, 30), }", Reason.UNSUPPORTED),
    ("{'descr': '<U2', 'fortran_order': False, 'shape': (2, 30), }", Reason.UNSUPPORTED),
    ("{'descr': '<c8', 'fortran_order': False, 'shape': (2, 30), }", Reason.UNSUPPORTED),
    ("{'descr': '|b1', 'fortran_order': False, 'shape': (2, 30), }", Reason.UNSUPPORTED),
    ("{'descr': '<f16', 'fortran_order': False, 'shape': (2, 30), }", Reason.UNSUPPORTED),
    ("{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (2, 30), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (60,), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (1, 2, 30), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (2, 31), }", Reason.TRUNCATED),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (2, 29), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (3, 20), }", Reason.LEADS),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (2, -30), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (0, 2), }", Reason.LEADS),
    ("{'descr': '<i2', 'fortran_order': False, }", Reason.HEADER),
    ("{'descr': '<i2', 'descr': '<i2', 'fortran_order': False, 'shape': (2, 30), }", Reason.HEADER),
    ("{'descr': '<i2', 'fortran_order': False, 'shape': (2, 30), 'x': 1}", Reason.HEADER), ("", Reason.HEADER), ("{", Reason.HEADER),
])  # fmt: skip
def test_npy_headers_that_are_refused(header: str, reason: Reason, files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 30).astype("<i2")
    (tmp_path / "1.npy").write_bytes(files.npy_of(uv, 1, header or " "))
    assert refused(lambda: one(tmp_path / "1.npy", kind="npy", axes="lead_time")).reason is reason


def test_a_pickle_in_an_npy_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.array([[print, print]], dtype=object), allow_pickle=True)
    assert refused(lambda: one(tmp_path / "1.npy", kind="npy", axes="time_lead")).reason is Reason.UNSUPPORTED


SCIPY = [
    (dtype, options)
    for dtype in ("i1", "u1", "i2", "u2", "i4", "f4", "f8", "i8")
    for options in ({}, {"do_compression": True}, {"format": "4"}, {"oned_as": "row"})
    if "format" not in options or dtype not in ("i1", "i8")  # MATLAB 4 has no such types
]


@pytest.mark.parametrize(("dtype", "options"), SCIPY)
def test_matlab_files_of_scipy(dtype: str, options: dict[str, Any], files: ModuleType, tmp_path: Path) -> None:
    """And scipy, the oracle, reads what the writer of these tests makes."""
    from scipy.io import loadmat, savemat

    array = (np.abs(files.beats(2, 30)) % 100).astype(dtype)
    savemat(
        tmp_path / "1.mat", {"a_first": np.ones((3, 3)), "val": array, "x": "text", "z": 1j * np.ones(2)}, **options
    )
    recording = one(tmp_path / "1.mat", kind="matlab", name="val", axes="lead_time")
    np.testing.assert_array_equal(recording.signal_mv, array.astype(np.float64) / 1000)
    for name in ("x", "z"):
        assert refused(lambda name=name: one(tmp_path / "1.mat", kind="matlab", name=name)).reason is Reason.UNSUPPORTED
    for content in (files.mat5_of(val=array), files.mat5_of(">", packed=False, val=array)):
        np.testing.assert_array_equal(loadmat(io.BytesIO(content))["val"], array)


def test_a_double_stored_in_bytes_is_a_double(files: ModuleType, tmp_path: Path) -> None:
    """MATLAB packs whole numbers into the smallest type; the class of the variable says what it is."""
    array = np.arange(-60.0, 60).reshape(2, 60)
    (tmp_path / "1.mat").write_bytes(files.mat5_of(stored="i1", val=array))
    recording = one(tmp_path / "1.mat", kind="matlab", name="val", axes="lead_time")
    assert recording.digital is None
    np.testing.assert_array_equal(recording.signal_mv, array / 1000)


@pytest.mark.parametrize("order", ["<", ">"])
def test_matlab_of_both_byte_orders(order: str, files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 3).astype("i2")
    for content in (
        files.mat4_of(order, val=uv),
        files.mat5_of(order, val=uv),
        files.mat5_of(order, packed=False, val=uv),
    ):
        (tmp_path / "1.mat").write_bytes(content)
        np.testing.assert_array_equal(one(tmp_path / "1.mat", kind="matlab", name="val", axes="lead_time").digital, uv)


def test_matlab_files_that_are_refused(files: ModuleType, tmp_path: Path) -> None:
    uv = files.beats(2, 30)
    whole = files.mat5_of(packed=False, val=uv)
    twice = whole + whole[128:]
    flipped = bytearray(files.mat5_of(val=uv))
    flipped[-1] ^= 1
    for content, reason in (
        (twice, Reason.HEADER),
        (bytes(flipped), Reason.CHECKSUM),
        (files.mat5_of(other=uv), Reason.FORMAT),
        (whole[:-1], Reason.TRUNCATED),
        (whole[:130], Reason.TRUNCATED),
        (whole[:12], Reason.TRUNCATED),
        (whole[:124] + b"\0\3IM" + whole[128:], Reason.UNSUPPORTED),
        (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", Reason.UNSUPPORTED),
        (b"1,2\n" * 100, Reason.FORMAT),
        (bytes(400), Reason.HEADER),
    ):
        (tmp_path / "1.mat").write_bytes(content)
        error = refused(lambda: one(tmp_path / "1.mat", kind="matlab", name="val", axes="lead_time"))
        assert error.reason is reason, content[:20]


def test_matlab_7_3_is_read_as_the_hdf5_it_is(files: ModuleType, tmp_path: Path) -> None:
    """512 bytes of MATLAB's own come first; a matrix of (lead, time) lies there as (time, lead)."""
    uv = files.beats(2, 30)
    with h5py.File(tmp_path / "1.mat", "w", userblock_size=512) as file:
        file["val"] = uv.T.astype("f8")
    with (tmp_path / "1.mat").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    np.testing.assert_array_equal(one(tmp_path / "1.mat", kind="hdf5", name="val").signal_mv, uv / 1000)
    error = refused(lambda: one(tmp_path / "1.mat", kind="matlab", name="val"))
    assert "hdf5" in error.expected


@pytest.mark.parametrize("name", ["none", "a", "a/none", "a/b/c", "/a/b", "a//b", "a/./b", "../a/b", ""])
def test_a_dataset_is_named_as_it_is_stored(name: str, files: ModuleType, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["a/b"] = files.beats(2, 30)
    assert refused(lambda: one(tmp_path / "1.h5", kind="hdf5", name=name, axes="lead_time")).reason is Reason.FORMAT


def test_a_group_behind_a_link_is_refused(files: ModuleType, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file["a/b"] = files.beats(2, 30)
        file["s"] = h5py.SoftLink("/a")
    assert refused(lambda: one(tmp_path / "1.h5", kind="hdf5", name="s/b", axes="lead_time")).reason is Reason.PATH


def test_missing_values_are_those_stated(tmp_path: Path) -> None:
    assert text(tmp_path, "1,-9\n-9,2\n", missing=-9).missing.tolist() == [[False, True], [True, False]]
    np.testing.assert_array_equal(
        text(tmp_path, "1.0,-9\n-9,2\n", missing=-9).signal_mv, [[0.001, np.nan], [np.nan, 0.002]]
    )
    single = np.array([[0.1, 0.2], [0.3, 0.1]], "f4")  # 0.1 is not 0.1 in single precision
    np.save(tmp_path / "1.npy", single)
    recording = one(tmp_path / "1.npy", kind="npy", missing=0.1)
    assert np.isnan(recording.signal_mv).tolist() == [[True, False], [False, True]]
    assert not text(tmp_path, "1,-9\n", missing=0.5).missing.any()


def test_infinite_samples_are_marked_missing_with_a_note(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.array([[1.0, np.inf], [np.nan, 2.0]]))
    recording = one(tmp_path / "1.npy", kind="npy")
    assert np.isnan(recording.signal_mv).sum() == 2
    assert recording.notes == (NOT_FINITE,)


def test_a_manifest_names_its_files_and_entries_choose_among_them(files: ModuleType, tmp_path: Path) -> None:
    path, expected = files.write(tmp_path)
    (tmp_path / "traces" / ".hidden.csv").write_text("no")
    (tmp_path / "other.csv").write_text("no")
    entries = [known["entry"] for known in expected]
    assert [recording.source.entry for recording in ec.read(path)] == entries
    assert [recording.recording_id for recording in ec.read(path)] == [files.CANARIES[0], "2"]
    for entry in (
        "other.csv",
        "traces/.hidden.csv",
        "../x.csv",
        "traces/../other.csv",
        "/etc/passwd",
        "",
        "traces",
        "a\0b",
    ):
        assert refused(lambda entry=entry: list(arrays.read(path, [entry]))).reason is Reason.MISSING_FILE
    (tmp_path / "traces" / "3.csv").symlink_to(tmp_path / "other.csv")
    assert refused(lambda: list(arrays.read(path, ["traces/3.csv"]))).reason is Reason.PATH
    assert len(list(arrays.scan(path))) == 3  # it is counted, and refused when read


def test_one_damaged_file_hides_no_others_from_a_scan(files: ModuleType, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").write_bytes(b"1,2\n3,4\n" if name != "b" else b"1,2")
    path = files.manifest(tmp_path / "arrays.yaml")
    assert [(header.source.entry, header.n_samples) for header in arrays.scan(path)] == [
        ("a.csv", 2),
        ("b.csv", 0),
        ("c.csv", 2),
    ]
    assert next(arrays.read(path, ["c.csv"])).n_samples == 2
    assert refused(lambda: list(arrays.read(path, ["b.csv"]))).reason is Reason.TRUNCATED


@pytest.mark.parametrize(("glob", "found"), [
    ("*.csv", ["1.csv", "[x].csv"]), ("**/*.csv", ["1.csv", "[x].csv", "a/2.csv", "a/b/3.csv"]), ("a/*.csv", ["a/2.csv"]),
    ("*/?.csv", ["a/2.csv"]), ("**/b/*", ["a/b/3.csv"]), ("[x].csv", ["[x].csv"]), ("*/*/*.csv", ["a/b/3.csv"]),
])  # fmt: skip
def test_globs_stay_in_their_folders(glob: str, found: list[str], files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.csv", "[x].csv", "a/2.csv", "a/b/3.csv"):
        (tmp_path / name).write_bytes(b"1,2\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    path = files.manifest(tmp_path / "arrays.yaml", files=f"['{glob}']")
    assert [recording.source.entry for recording in arrays.scan(path)] == found
    assert [recording.source.entry for recording in arrays.read(path)] == found


def test_a_manifest_is_not_its_own_data(files: ModuleType, tmp_path: Path) -> None:
    path = files.manifest(tmp_path / "arrays.yaml", files="['*']")
    assert refused(lambda: list(arrays.scan(path))).reason is Reason.MISSING_FILE


def test_a_description_of_a_cohort_needs_no_manifest(files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(files.text_of(ROWS))
    description = described(samples=3).description
    reader = open_reader("arrays", description)
    (recording,) = reader.read(tmp_path / "1.csv", [""])
    assert (recording.source.entry, recording.source.path, recording.recording_id) == ("", tmp_path / "1.csv", "1")
    np.testing.assert_array_equal(recording.digital, ROWS.T)
    assert [header.n_samples for header in reader.scan(tmp_path / "1.csv")] == [3]
    assert refused(lambda: list(reader.read(tmp_path / "1.csv", ["x"]))).reason is Reason.MISSING_FILE
    assert refused(lambda: list(reader.scan(tmp_path / "2.csv"))).reason is Reason.MISSING_FILE
    with pytest.raises(SpecError, match="arrays"):
        open_reader("wfdb", description)


def test_numbers_without_a_manifest_are_explained(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("1,2\n")
    assert "manifest" in refused(lambda: ec.read(tmp_path / "1.csv")).remedy
