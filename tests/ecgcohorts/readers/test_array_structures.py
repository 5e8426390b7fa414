"""Fields of MATLAB structures, as CPSC2018 publishes its recordings: `ECG.data` beside the age and sex of the patient."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.leads import TWELVE_LEADS
from ecgcohorts.readers import open_reader
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.recording import Recording


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def one(path: Path, name: str = "ECG.data", **keys: Any) -> Recording:
    known = {"kind": "matlab", "rate_hz": 500, "unit": "mV", "leads": ("I", "II"), "axes": "lead_time", "name": name}
    description = ArrayDescription.model_validate(known | keys)
    (header,) = open_reader("arrays", description).scan(path)
    (recording,) = open_reader("arrays", description).read(path)
    assert header.n_samples == recording.n_samples
    return recording


def refused(path: Path, name: str = "ECG.data", **keys: Any) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        one(path, name, **keys)
    return caught.value


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1", "i8"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_structure_as_cpsc2018_has_it(dtype: str, packed: bool, files: ModuleType, tmp_path: Path) -> None:
    """Written by scipy: 12 leads in the field `data`, beside texts and single numbers."""
    from scipy.io import savemat

    data = (np.abs(files.beats(12, 700)) % 100).astype(dtype)
    content = {"before": np.ones((2, 2)), "ECG": {"sex": "Male", "age": 52, "data": data}, "after": "text"}
    savemat(tmp_path / "A0001.mat", content, do_compression=packed)
    recording = one(tmp_path / "A0001.mat", leads=TWELVE_LEADS)
    np.testing.assert_array_equal(recording.signal_mv, data.astype(np.float64))
    assert (recording.digital is None) is (dtype[0] == "f")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_structure_in_a_structure(order: str, packed: bool, files: ModuleType, tmp_path: Path) -> None:
    """And scipy, the oracle, reads what the writer of these tests makes."""
    from scipy.io import loadmat

    data = files.beats(2, 40).astype("f8")
    content = files.mat5_structure_of(order, packed, "val", a=np.ones((1, 1)), b={"c": data, "d": np.ones((3, 3))})
    (tmp_path / "1.mat").write_bytes(content)
    np.testing.assert_array_equal(one(tmp_path / "1.mat", "val.b.c").signal_mv, data)
    np.testing.assert_array_equal(loadmat(io.BytesIO(content))["val"][0, 0]["b"][0, 0]["c"], data)


@pytest.mark.parametrize(("name", "reason"), [
    ("ECG", Reason.FORMAT), ("ECG.dat", Reason.FORMAT), ("ECG.data.x", Reason.FORMAT), ("ECG.", Reason.FORMAT), ("X.data", Reason.FORMAT),
    ("plain.data", Reason.FORMAT), ("several.data", Reason.FORMAT), ("cell.data", Reason.FORMAT), ("ECG.sex", Reason.UNSUPPORTED),
    ("ECG.complex", Reason.UNSUPPORTED), ("ECG.empty", Reason.LEADS), ("ECG.cube", Reason.HEADER), ("ECG.more", Reason.FORMAT),
])  # fmt: skip
def test_what_is_no_field_of_numbers(name: str, reason: Reason, tmp_path: Path) -> None:
    from scipy.io import savemat

    data = np.ones((2, 40))
    fields = {"sex": "Male", "data": data, "complex": 1j * data, "empty": np.ones((0, 0)), "cube": np.ones((2, 2, 2))}
    several = np.array([(data,), (data,)], [("data", object)])
    cell = np.empty(1, object)
    cell[0] = data
    content = {"ECG": fields | {"more": {"data": data}}, "plain": data, "several": several, "cell": cell}
    savemat(tmp_path / "1.mat", content)
    assert refused(tmp_path / "1.mat", name).reason is reason
    assert one(tmp_path / "1.mat", "ECG.more.data").n_samples == 40


def test_a_structure_without_a_field_says_how_to_name_one(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "1.mat", {"ECG": {"data": np.ones((2, 40))}})
    assert "ECG.data" in str(refused(tmp_path / "1.mat", "ECG"))


def test_a_file_of_version_4_has_no_structures(files: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "1.mat").write_bytes(files.mat4_of(ECG=np.ones((2, 40))))
    assert refused(tmp_path / "1.mat").reason is Reason.FORMAT


def test_fields_that_reach_beyond_their_structure(files: ModuleType, tmp_path: Path) -> None:
    """The sizes of the outer and the inner element contradict each other."""
    content = files.mat5_structure_of(packed=False, data=files.beats(2, 40).astype("f8"))
    place = content.rindex(struct.pack("<2I", 14, 8 * 80 + 48))  # tag of the field
    for size in (8 * 80 + 56, 8 * 80 + 40, 8, 1 << 31):
        (tmp_path / "1.mat").write_bytes(
            content[:place] + struct.pack("<2I", 14, size & 0xFFFFFFFF) + content[place + 8 :]
        )
        assert refused(tmp_path / "1.mat").reason in (Reason.HEADER, Reason.UNSUPPORTED, Reason.TRUNCATED)


def test_the_published_layout(shared: Path) -> None:
    """The case that showed the need: 12 leads of 2,500 samples in a structure of three fields."""
    from scipy.io import loadmat

    path = shared.parent / "cases" / "formats" / "21_cpsc2018_struct.mat"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the real recordings")
    recording = one(path, leads=TWELVE_LEADS, rate_hz=250)
    assert recording.signal_mv.shape == (12, 2500)
    np.testing.assert_array_equal(recording.signal_mv, loadmat(path)["ECG"][0, 0]["data"].astype(float))
