"""CODE-style HDF5: ids or rows, zero padding, and files that reach for others or declare what they do not hold."""

import time
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

import ecgcohorts as ec
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import code_hdf5
from ecgcohorts.readers._shared import hdf5 as _hdf5
from ecgcohorts.readers._shared.units import NOT_FINITE
from ecgcohorts.recording import Recording


def one(path: Path, entry: str) -> Recording:
    (recording,) = code_hdf5.read(path, [entry])
    return recording


def refused(path: Path, entry: str | None = None) -> UnreadableRecording:
    start = time.perf_counter()
    with pytest.raises(UnreadableRecording) as caught:
        list(code_hdf5.read(path, None if entry is None else [entry]))
    assert time.perf_counter() - start < 1
    return caught.value


@pytest.fixture
def part(hdf5_files: ModuleType, tmp_path: Path) -> Path:
    """Three exams out of order, one that begins and ends with zeros, and the dummy of zeros at the end."""
    inner = hdf5_files.exam(2800, 3)
    inner[[0, 1, 5]] = [[0] * 12, [0] * 12, [0] * 12]
    inner[2, 1:] = 0
    exams = [(hdf5_files.exam(2934, 1), 581), (hdf5_files.exam(4096, 2), 0), (inner, 700)]
    rows = [hdf5_files.padded(*exam) for exam in exams] + [np.zeros((4096, 12), np.float32)]
    return hdf5_files.write_exams(tmp_path / "exams_part3.hdf5", np.stack(rows), [902, 17, 44, 0])


def test_exams_are_found_by_id_and_not_by_row(part: Path, hdf5_files: ModuleType) -> None:
    recording = one(part, "17")
    assert recording.recording_id == "17"
    assert recording.leads == hdf5_files.LEADS
    assert recording.rate_hz == 400.0
    np.testing.assert_array_equal(recording.analog_mv, hdf5_files.exam(4096, 2).T)
    assert recording.fields == {"row": "1", "exam_id": "17"}
    assert [r.recording_id for r in code_hdf5.read(part, ["44", "902"])] == ["44", "902"]
    for unknown in ("1", "18", "17.0", " 17", "", "-1"):
        assert refused(part, unknown).reason is Reason.MISSING_FILE


def test_zero_padding_is_cut_at_both_ends_and_nowhere_else(part: Path, hdf5_files: ModuleType) -> None:
    recording = one(part, "44")
    expected = hdf5_files.exam(2800, 3)[2:]
    expected[0, 1:] = 0  # one lead that is not zero keeps the row
    expected[3] = 0  # zeros inside are signal
    np.testing.assert_array_equal(recording.analog_mv, expected.T)
    assert one(part, "902").n_samples == 2934


def test_an_exam_of_zeros_is_empty_when_asked_for_and_left_out_otherwise(part: Path) -> None:
    assert refused(part, "0").reason is Reason.EMPTY
    assert [recording.recording_id for recording in ec.read(part)] == ["902", "17", "44"]
    assert [recording.source.entry for recording in code_hdf5.scan(part)] == ["902", "17", "44", "0"]
    assert {recording.n_samples for recording in code_hdf5.scan(part)} == {4096}


def test_a_file_of_zeros_only_is_empty(hdf5_files: ModuleType, tmp_path: Path) -> None:
    assert (
        refused(hdf5_files.write_exams(tmp_path / "x.h5", np.zeros((2, 99, 12), "f4"), [1, 2])).reason is Reason.EMPTY
    )


def test_files_without_ids_go_by_row(hdf5_files: ModuleType, tmp_path: Path) -> None:
    rows = np.stack([hdf5_files.padded(hdf5_files.exam(2934, seed), 581) for seed in range(3)])
    path = hdf5_files.write_exams(tmp_path / "exams.hdf5", rows)
    scanned = list(code_hdf5.scan(path))
    assert [recording.source.entry for recording in scanned] == ["0", "1", "2"]
    assert [recording.recording_id for recording in scanned] == ["exams-0", "exams-1", "exams-2"]
    assert scanned[2].fields == {"row": "2"}
    np.testing.assert_array_equal(one(path, "2").analog_mv, hdf5_files.exam(2934, 2).T)
    assert refused(path, "3").reason is Reason.MISSING_FILE


def test_an_id_that_stands_twice_is_refused_and_the_others_read(hdf5_files: ModuleType, tmp_path: Path) -> None:
    rows = np.stack([hdf5_files.padded(hdf5_files.exam(900, seed), 0) for seed in range(3)])
    path = hdf5_files.write_exams(tmp_path / "x.h5", rows, [5, 6, 5])
    assert refused(path, "5").reason is Reason.MISSING_FILE
    assert one(path, "6").n_samples == 900
    assert len(list(code_hdf5.scan(path))) == 3  # every row is counted


def test_a_file_that_changes_is_looked_up_again(hdf5_files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    rows = np.stack([hdf5_files.padded(hdf5_files.exam(900, seed), 0) for seed in range(2)])
    hdf5_files.write_exams(path, rows, [5, 6])
    assert one(path, "5").fields["row"] == "0"
    hdf5_files.write_exams(path, rows, [6, 5])
    assert one(path, "5").fields["row"] == "1"


def test_missing_and_infinite_samples_are_nan(hdf5_files: ModuleType, tmp_path: Path) -> None:
    samples = hdf5_files.exam(900, 1)
    samples[3, 2], samples[5, 1], samples[6, 0] = np.nan, np.inf, -np.inf
    path = hdf5_files.write_exams(tmp_path / "x.h5", samples[None], [5])
    recording = one(path, "5")
    assert np.isnan(recording.signal_mv).sum() == 3
    assert recording.notes == (NOT_FINITE,)


@pytest.mark.parametrize("options", [
    {"chunks": (1, 900, 12), "compression": "gzip"}, {"chunks": (2, 100, 12), "compression": "lzf", "shuffle": True},
    {"chunks": (1, 900, 12), "fletcher32": True}, {"dtype": "f8"}, {"dtype": ">f4"},
])  # fmt: skip
def test_every_storage_h5py_has_built_in(options: dict[str, object], hdf5_files: ModuleType, tmp_path: Path) -> None:
    samples = np.stack([hdf5_files.exam(900, seed) for seed in range(2)])
    path = hdf5_files.write_exams(tmp_path / "x.h5", samples, [5, 6], **options)
    np.testing.assert_array_equal(one(path, "6").analog_mv, samples[1].T)


@pytest.mark.parametrize(("shape", "dtype"), [
    ((3, 900, 8), "f4"), ((3, 12, 900), "f4"), ((900, 12), "f4"), ((3, 900, 12), "i2"), ((3, 900, 12), "f2"),
    ((3, 900, 12), "S4"), ((3, 900, 12, 1), "f4"), ((), "f4"),
])  # fmt: skip
def test_another_layout_is_another_format(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("tracings", data=np.ones(shape).astype(dtype))
    assert refused(tmp_path / "x.h5").reason is Reason.FORMAT


@pytest.mark.parametrize("ids", [np.arange(2), np.zeros((3, 1), int), np.arange(3.0), np.array([b"a", b"b", b"c"])])
def test_ids_of_another_shape_or_type_are_refused(ids: np.ndarray, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["tracings"] = np.ones((3, 9, 12), "f4")
        file["exam_id"] = ids
    assert refused(tmp_path / "x.h5").reason is Reason.FORMAT


def test_an_hdf5_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["other"] = [1]
        file.create_group("tracings")
    assert refused(tmp_path / "x.h5").reason is Reason.FORMAT
    (tmp_path / "y.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(900))
    assert refused(tmp_path / "y.h5").reason is Reason.HEADER


@pytest.mark.parametrize("kind", ["external storage", "virtual", "soft link", "external link", "ids"])
def test_nothing_outside_the_file_is_read(kind: str, hdf5_files: ModuleType, tmp_path: Path) -> None:
    secret = hdf5_files.write_exams(tmp_path / "secret.h5", np.ones((2, 900, 12), "f4"), [5, 6])
    (tmp_path / "raw").write_bytes(bytes(2 * 900 * 12 * 4))
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        if kind == "external storage":
            outside = [(str(tmp_path / "raw"), 0, 2 * 900 * 12 * 4)]
            file.create_dataset("tracings", (2, 900, 12), "f4", external=outside)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 900, 12), "f4")
            layout[:] = h5py.VirtualSource(secret, "tracings", (2, 900, 12))
            file.create_virtual_dataset("tracings", layout)
        elif kind == "soft link":
            file["inner"] = np.ones((2, 900, 12), "f4")
            file["tracings"] = h5py.SoftLink("/inner")
        elif kind == "external link":
            file["tracings"] = h5py.ExternalLink(str(secret), "tracings")
        else:
            file["tracings"] = np.ones((2, 900, 12), "f4")
            file["exam_id"] = h5py.ExternalLink(str(secret), "exam_id")
    assert refused(path).reason is Reason.PATH
    with pytest.raises(UnreadableRecording):
        list(code_hdf5.scan(path))


@pytest.mark.parametrize("shape", [(20_000, 4096, 12), (1, 10_000_000, 12), (1 << 40, 1, 12), (1 << 50, 4096, 12)])
def test_a_small_file_that_declares_gigabytes_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("tracings", shape, "f4", chunks=(1, 1, 12))
    assert (tmp_path / "x.h5").stat().st_size < 20_000
    assert refused(tmp_path / "x.h5").reason is Reason.LIMIT


def test_more_exams_longer_ones_and_larger_chunks_than_any_are_refused(
    monkeypatch: pytest.MonkeyPatch, hdf5_files: ModuleType, tmp_path: Path
) -> None:
    path = hdf5_files.write_exams(tmp_path / "x.h5", np.ones((3, 900, 12), "f4"), chunks=(3, 900, 12))
    for limit, value in (("MAX_EXAMS", 2), ("MAX_SAMPLES", 899), ("MAX_CHUNK_BYTES", 3 * 900 * 12 * 4 - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(_hdf5 if hasattr(_hdf5, limit) else code_hdf5, limit, value)
            assert refused(path).reason is Reason.LIMIT
    assert one(path, "0").n_samples == 900


def test_a_filter_that_would_load_a_library_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 90, 12))
        properties.set_filter(305, h5py.h5z.FLAG_OPTIONAL, ())  # an unregistered number nobody has installed
        space = h5py.h5s.create_simple((1, 90, 12))
        h5py.h5d.create(file.id, b"tracings", h5py.h5t.IEEE_F32LE, space, properties)
    assert refused(tmp_path / "x.h5").reason in (Reason.UNSUPPORTED, Reason.LIMIT)


def test_a_cut_file_is_refused(part: Path) -> None:
    data = part.read_bytes()
    for length in (9, 100, 2000, len(data) // 2, len(data) - 1):
        part.write_bytes(data[:length])
        assert refused(part).reason is Reason.HEADER


def limb_leads(exam: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """(time, 12) with the limb leads of Einthoven and Goldberger in an order, and 10 uV of noise."""
    one, two = exam[:, 0], exam[:, 1]
    leads = {"DIII": two - one, "AVR": -(one + two) / 2, "AVL": one - two / 2, "AVF": two - one / 2}
    made = exam.copy()
    for place in (2, 3, 4, 5):
        made[:, place] = leads[order[place]]
    return made + np.random.default_rng(0).normal(0, 0.01, made.shape).astype(np.float32)


@pytest.mark.parametrize("n_exams", [1, 3, 40])
@pytest.mark.parametrize("of_test", [True, False])
def test_the_order_of_code_test_is_seen_in_the_signals(
    hdf5_files: ModuleType, tmp_path: Path, of_test: bool, n_exams: int
) -> None:
    order = code_hdf5.CODE_TEST_LEADS if of_test else hdf5_files.LEADS
    exams = [limb_leads(hdf5_files.beats(2934, seed), order) for seed in range(n_exams)]
    rows = np.stack([hdf5_files.padded(exam, 581) for exam in exams])
    path = hdf5_files.write_exams(tmp_path / "ecg_tracings.hdf5", rows)
    found = one(path, "0")
    assert found.leads == order
    assert (code_hdf5.CODE_TEST_ORDER in found.notes) is of_test
    assert {recording.leads for recording in code_hdf5.scan(path)} == {order}
    # By name, aVR is what Goldberger says, whichever column it stood in.
    limb = found.leads_mv(("I", "II", "aVR"))
    np.testing.assert_allclose(limb[2], -(limb[0] + limb[1]) / 2, atol=0.08)


def test_files_with_ids_and_signals_that_fit_no_order_keep_the_published_one(
    hdf5_files: ModuleType, tmp_path: Path
) -> None:
    exam = limb_leads(hdf5_files.beats(2934, 1), code_hdf5.CODE_TEST_LEADS)
    with_ids = hdf5_files.write_exams(tmp_path / "ids.h5", hdf5_files.padded(exam, 581)[None], [7])
    assert one(with_ids, "7").leads == hdf5_files.LEADS
    for name, odd in (("noise", hdf5_files.exam(400, 3)), ("nan", np.full((400, 12), np.nan, np.float32))):
        path = hdf5_files.write_exams(tmp_path / f"{name}.h5", odd[None])
        assert one(path, "0").leads == hdf5_files.LEADS
