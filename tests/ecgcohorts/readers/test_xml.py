"""XML written by an adversary: refused fast, in little memory, without touching any other file."""

import time
import tracemalloc
from pathlib import Path
from types import ModuleType

import pytest

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import muse_xml
from ecgcohorts.readers._xml import document as _xml

ROOT = "<RestingECG>{}</RestingECG>"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
ENTITIES = {
    "billion laughs": (f'<!DOCTYPE RestingECG [<!ENTITY l0 "ha">{LAUGHS}]>', "&l9;"),
    "quadratic": (f'<!DOCTYPE RestingECG [<!ENTITY a "{"x" * 50_000}">]>', "&a;" * 50_000),
    "external file": ('<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
    "external address": ('<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "http://127.0.0.1:9/x">]>', "&a;"),
    "parameter entity": ('<!DOCTYPE RestingECG [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>', ""),
    "entity of an external DTD": ('<!DOCTYPE RestingECG SYSTEM "restecg.dtd">', "1&a;2"),
    "unparsed entity": ('<!DOCTYPE RestingECG [<!NOTATION n SYSTEM "n"><!ENTITY a SYSTEM "x" NDATA n>]>', ""),
}


def refused(data: bytes) -> UnreadableRecording:
    start = time.process_time()
    with pytest.raises(UnreadableRecording) as caught:
        _xml._parse(data, "x.xml")
    assert time.process_time() - start < 1
    assert caught.value.where == "x.xml"
    return caught.value


@pytest.mark.parametrize("name", ENTITIES)
def test_entities_are_refused(name: str) -> None:
    doctype, body = ENTITIES[name]
    assert refused((doctype + ROOT.format(body)).encode()).reason is Reason.UNSUPPORTED


def test_an_external_dtd_is_allowed_and_not_fetched() -> None:
    for address in ("restecg.dtd", "file:///etc/passwd", "http://127.0.0.1:9/x.dtd"):
        root = _xml._parse(f'<!DOCTYPE RestingECG SYSTEM "{address}">{ROOT.format("ok")}'.encode(), "")
        assert (root.tag, root.text) == ("RestingECG", "ok")


@pytest.mark.parametrize("body", ["<a>" * 200_000 + "</a>" * 200_000, "<a/>" * 2_000_000], ids=["depth", "breadth"])
def test_depth_and_breadth_are_capped(body: str) -> None:
    data = ROOT.format(body).encode()
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableRecording) as caught:
            _xml._parse(data, "x.xml")
        assert tracemalloc.get_traced_memory()[1] < 128 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.reason is Reason.LIMIT


@pytest.mark.parametrize("piece", ["<!---->", "<?a?>", "&#65;", "<![CDATA[]]>", "\n", "\r", "= "])
def test_what_costs_the_parser_more_than_text_is_capped(piece: str) -> None:
    """63 MB of empty comments took 6 s."""
    found = refused(ROOT.format(piece * (_xml.MOST_MARKS[piece[0]] + 1)).encode())
    assert found.reason is Reason.LIMIT


def test_an_internal_subset_is_refused_before_it_is_read() -> None:
    doctype = f"<!DOCTYPE RestingECG [{'<!ELEMENT a ANY>' * 100_000}]>"
    assert refused((doctype + ROOT.format("")).encode()).reason is Reason.UNSUPPORTED


def test_text_that_one_wide_character_makes_four_times_as_large_is_capped() -> None:
    """As text of samples, which is ASCII, the same length is read."""
    half = "x" * (_xml.MAX_WIDE_TEXT // 2)
    assert len(_xml._parse(ROOT.format(half * 3).encode(), "").text or "") == 3 * len(half)
    assert refused(ROOT.format(half + "\U0001f600" + half).encode()).reason is Reason.LIMIT
    assert refused(ROOT.format(f"<a>{half}é</a>" * 2).encode()).reason is Reason.LIMIT


def test_a_large_document_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    with path.open("wb") as file:
        file.write(b"<RestingECG>")
        file.truncate(_xml.XML_LIMIT + 1)
    with pytest.raises(UnreadableRecording) as caught:
        _xml.read_xml(path)
    assert caught.value.reason is Reason.LIMIT


@pytest.mark.parametrize(
    "name", ["utf-7", "utf-32", "ebcdic-cp-us", "punycode", "idna", "unicode_escape", "zlib", "", "klingon"]
)
def test_other_encodings_are_refused(name: str) -> None:
    data = f'<?xml version="1.0" encoding="{name}"?>{ROOT.format("")}'.encode()
    assert refused(data).reason is (Reason.UNSUPPORTED if name else Reason.HEADER)


def test_the_byte_order_mark_wins_over_the_declaration() -> None:
    text = '<?xml version="1.0" encoding="{}"?>' + ROOT.format("é")
    assert _xml._parse(text.format("UTF-16").encode("utf-16"), "").text == "é"
    assert _xml._parse(text.format("UTF-8").encode("utf-16"), "").text == "é"
    assert _xml._parse(text.format("ISO-8859-1").encode("utf-8-sig"), "").text == "é"
    assert refused(text.format("UTF-16").encode("utf-16")[:-1]).reason is Reason.HEADER


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (b"  \n", Reason.TRUNCATED),
        (b"<RestingECG>", Reason.TRUNCATED),
        (b"<RestingECG><a", Reason.TRUNCATED),
        (b"<a></b>", Reason.HEADER),
        (b"<a/><b/>", Reason.HEADER),
        (b"<a>\0</a>", Reason.HEADER),
        (b"<\xe9>\xff</\xe9>", Reason.HEADER),
        (b"<a>&undefined;</a>", Reason.HEADER),
        (b"<a b='1' b='2'/>", Reason.HEADER),
    ],
)
def test_malformed_documents_are_refused(data: bytes, reason: Reason) -> None:
    assert refused(data).reason is reason


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<RestingECG>", "RestingECG"),
        (
            b'\xef\xbb\xbf<?xml version="1.0"?><!-- <b> --><!DOCTYPE RestingECG SYSTEM "x"> <RestingECG a="1"/>',
            "RestingECG",
        ),
        ("<?xml version='1.0' encoding='UTF-16'?><ns:Root>".encode("utf-16"), "Root"),
        (b"<!-- <RestingECG> --><Other>", "Other"),
        (b"<!-- <RestingECG>", ""),
        (b"text <RestingECG>", ""),
        (b"<RestingECG", ""),
        (b"", ""),
        (b"\xff\xfe<", ""),
    ],
)
def test_the_name_of_the_root_is_found_in_a_head(head: bytes, name: str) -> None:
    assert _xml.root_name(head) == name


def test_a_head_of_comments_takes_no_exponential_time() -> None:
    start = time.perf_counter()
    for part in (b"<!---->", b"<!-- ", b"<?x?>", b"<!D>", b"<", b"< "):
        assert not muse_xml.sniff((part * 4096)[:4096])
    assert time.perf_counter() - start < 0.5


def test_entities_in_a_muse_file_are_refused(muse_files: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    text = muse_files.document(muse_files.waveform_xml(muse_files.known_samples()))
    path.write_text(text.replace(muse_files.DOCTYPE, '<!DOCTYPE RestingECG SYSTEM "x" [<!ENTITY a "b">]>'))
    with pytest.raises(UnreadableRecording) as caught:
        list(muse_xml.read(path))
    assert caught.value.reason is Reason.UNSUPPORTED
    path.write_text(text.replace("RestingECG>", "OtherECG>").replace("<!DOCTYPE RestingECG", "<!DOCTYPE OtherECG"))
    with pytest.raises(UnreadableRecording) as caught:
        list(muse_xml.read(path))
    assert caught.value.reason is Reason.FORMAT
