"""The format is found by content; what nobody knows is refused with a remedy."""

from pathlib import Path

import pytest

import ecgcohorts as ec
from ecgcohorts import plugins, readers
from ecgcohorts.errors import Reason, UnreadableRecording


def refused(path: Path) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        ec.read(path)
    return caught.value


@pytest.mark.parametrize(
    "content", [b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 5000, b"1,2,3\n4,5,6\n", b"\0" * 4096]
)
def test_a_file_of_no_format_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    error = refused(tmp_path / "file.bin")
    assert error.reason is Reason.FORMAT
    assert "wfdb" in str(error)
    assert "muse_xml" in str(error)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<?xml version='1.0'?><invoice/>", "a file that fits no reader: XML whose first element is invoice"),
        (
            b"<com.example.cart.Export><a/></com.example.cart.Export>",
            "a file that fits no reader: XML whose first element is com.example.cart.Export",
        ),
        (
            "<?xml version='1.0' encoding='UTF-16'?><facture/>".encode("utf-16-le"),
            "a file that fits no reader: XML whose first element is facture",
        ),
        (b"<ECG><NOTHING/></ECG>", "a file that fits no reader: XML whose first element is ECG"),
        (b"no XML at all", "a file that fits no reader"),
        (b"", "a file that fits no reader"),
    ],
)
def test_xml_that_nobody_knows_is_told_by_its_first_element(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_bytes(content)
    error = refused(tmp_path / "x.xml")
    assert (error.reason, error.found) == (Reason.FORMAT, found)


def test_a_signal_file_points_to_its_header(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(b"\1\2\3\4")
    (tmp_path / "r.hea").write_text("r 1 500 2\n")
    assert "r.hea" in refused(tmp_path / "r.dat").remedy


def test_a_damaged_file_is_explained_by_the_reader_of_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 12 -5 5000\n")
    error = refused(tmp_path / "r.hea")
    assert error.reason is Reason.HEADER
    assert "'-5' as sampling rate" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "Rhythm signal: 5000 X 12\n4 9 14\n",
        "0 1 2 3\n1 2 3 4\n",
        "a b c\nd e f\n",
        "12 12 500\n500 400 300 200\n",
        "r 1 500\n",
        "0\t0\t0\t0\n0\t0\t0\t0\n",
    ],
)
def test_plain_text_is_no_wfdb_header(text: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text(text)
    assert refused(tmp_path / "file.txt").reason is Reason.FORMAT


@pytest.mark.shared
def test_every_vendor_file_is_known_for_what_it_is(shared: Path) -> None:
    """No reader claims a file of another format, among all real files at hand."""
    known = {"ge_muse_xml": "muse_xml", "philips_sierra_xml": "philips_xml", "hl7_aecg": "hl7_aecg"}
    known |= {"scp_ecg": "scp", "healforce": "scp", "contec": "scp", "dicom": "dicom"}
    known |= {"schiller_sema": "schiller_xml", "mfer": "mfer"}
    own = {".txt": [], ".ECG": ["contec"]}  # numbers: no reader claims them; Contec's own format beside an SCP file
    loaded = {name: plugins.load(readers.KIND, name) for name in plugins.names(readers.KIND)}
    files = [path for path in sorted((shared / "vendor").rglob("*")) if path.is_file()]
    assert {path.parent.name for path in files} == known.keys() | {"text_12lead"}
    for path in files:
        head = path.read_bytes()[: readers.HEAD_BYTES]
        expected = own[path.suffix] if path.suffix in own else [known[path.parent.name]]
        assert [name for name, reader in loaded.items() if reader.sniff(head)] == expected, path
