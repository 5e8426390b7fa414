"""XML as programs really write it: under many names of encodings, with single bad bytes, and with bytes around it."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import victims

import ecgcohorts as ec
from ecgcohorts import plugins, readers
from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers import root_name
from ecgcohorts.readers._xml import document, encoding

XML_READERS = [name for name in victims.NAMES if ".xml" in plugins.load(readers.KIND, name).SUFFIXES]
HEAD = '<?xml version="1.0" encoding="{}"?>'
MARKUP = b"<>&\"'=/!?-;# \n"

# Name as a file declares it, the codec its bytes are in, a text of its language.
DECLARED = [
    *((name, "latin-1", "Hôpital") for name in ("ISO8859-1", "iso-8859-1", "ISO_8859-1", "latin1", "Latin-1", "l1")),
    *((name, "utf-8", "Hôpital 医院") for name in ("UTF8", "utf-8", "Utf_8")),
    *((name, "cp1252", "€ Hôpital") for name in ("windows-1252", "Windows-1252", "cp1252")),
    ("windows-1250", "cp1250", "Łódź"),
    ("windows-1251", "cp1251", "Больница"),
    ("windows-1253", "cp1253", "Νοσοκομείο"),
    ("windows-1254", "cp1254", "Şişli"),
    ("windows-1255", "cp1255", "בית"),
    ("windows-1256", "cp1256", "مستشفى"),
    ("windows-1257", "cp1257", "Rīga"),
    ("windows-1258", "cp1258", "Hôpital"),
    ("ISO-8859-2", "iso8859-2", "Łódź"),
    ("iso-8859-9", "iso8859-9", "Şişli"),
    ("ISO-8859-15", "iso8859-15", "€"),
    ("KOI8-R", "koi8-r", "Больница"),
    ("IBM850", "cp850", "Hôpital"),
    ("macintosh", "mac-roman", "Hôpital"),
    ("GB2312", "gb2312", "医院"),
    ("gb2312", "gbk", "醫院"),  # letters that only the extension has, as Windows writes them
    ("GBK", "gbk", "醫院"),
    ("GB18030", "gb18030", "醫院 ê"),
    ("Big5", "big5", "醫院"),
    ("Shift_JIS", "shift_jis", "病院"),
    ("x-sjis", "cp932", "病院"),
    ("EUC-JP", "euc-jp", "病院"),
    ("EUC-KR", "euc-kr", "병원"),
    ("ks_c_5601-1987", "cp949", "뷁"),
    ("windows-949", "cp949", "뷁"),
    ("TIS-620", "tis-620", "โรงพยาบาล"),
    ("US-ASCII", "ascii", "Hospital"),
]


def parsed(data: bytes) -> document.Root:
    return document._parse(data, "x.xml")


def refused(data: bytes) -> UnreadableRecording:
    with pytest.raises(UnreadableRecording) as caught:
        parsed(data)
    return caught.value


@pytest.mark.parametrize(("name", "codec", "text"), DECLARED, ids=[f"{name}-{codec}" for name, codec, _ in DECLARED])
def test_a_text_under_every_common_name_of_its_encoding(name: str, codec: str, text: str) -> None:
    data = f'{HEAD.format(name)}<RestingECG a="{text}">{text}</RestingECG>'.encode(codec)
    root = parsed(data)
    assert (root.text, root.get("a"), root.notes) == (text, text, ())
    assert root_name(data) == "RestingECG"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("head", [HEAD.format("UTF-16"), HEAD.format("utf-8"), "", "\n\n" + HEAD.format("UTF-16")])
def test_utf_16_shows_without_its_mark(codec: str, head: str) -> None:
    data = f"{head}<!DOCTYPE RestingECG SYSTEM 'x'>\n<RestingECG>é 医</RestingECG>".encode(codec)
    root = parsed(data)
    assert (root.text, root.notes[0]) == ("é 医", encoding.NO_MARK)
    assert root_name(data[:250]) == "RestingECG"


@pytest.mark.parametrize("name", ["UTF-16", "utf-16", "UTF-16LE", "unicode", "ISO-10646-UCS-2"])
def test_utf_16_declared_over_utf_8(name: str) -> None:
    data = f"{HEAD.format(name)}<RestingECG>é 医</RestingECG>".encode()
    root = parsed(data)
    assert (root.text, root.notes) == ("é 医", (encoding.NO_UTF_16,))
    assert root_name(data) == "RestingECG"
    assert parsed(HEAD.format(name).encode() + b"<a>\xe9</a>").text == "é"


def test_the_name_of_an_encoding_that_is_not_read_is_told() -> None:
    error = refused((HEAD.format("x-klingon") + "<a/>").encode())
    assert error.reason is Reason.UNSUPPORTED
    assert "x-klingon" in error.found
    for codec in ("utf-32-le", "utf-32-be", "utf-32"):
        error = refused(f"{HEAD.format('UTF-32')}<a/>".encode(codec))
        assert (error.reason, error.found) == (Reason.UNSUPPORTED, "XML in the encoding UTF-32")


@pytest.mark.parametrize("data", [b"\0<a/>", b"<\0a/>", b"\0\0<a/>", b"<\0", b"\0", b"\xff\xfe\0\0<\0a\0/\0>\0"])
def test_a_nul_at_the_beginning_is_refused(data: bytes) -> None:
    refused(data)


def test_only_encodings_whose_ascii_bytes_mean_themselves_are_read() -> None:
    """Neither alone nor after a byte that may begin a longer character does a tag change its meaning."""
    ascii_bytes = bytes(range(128))
    for codec in encoding._CODECS:
        assert ascii_bytes.decode(codec) == ascii_bytes.decode("ascii"), codec
        for lead, mark in itertools.product(range(128, 256), MARKUP):
            text = bytes([lead, mark, mark]).decode(codec, "surrogateescape")
            assert text.endswith(chr(mark) * 2), f"{codec}: {lead:#x} swallows {chr(mark)!r}"


@pytest.mark.parametrize("name", ["UTF-8", "us-ascii", "GB2312", "Shift_JIS", "EUC-KR", "windows-1253"])
def test_a_bad_byte_costs_a_note(name: str) -> None:
    start = (HEAD.format(name) + '<RestingECG id="7">').encode("ascii")
    root = parsed(start + b"<site>H\xd2</site><of>\x0b\xff</of></RestingECG>")
    assert root.get("id") == "7"
    assert root.findtext("site").startswith("H")
    assert root.notes == (f"bytes that are not {name} replaced",)
    assert parsed(start + b"</RestingECG>").notes == ()


def test_two_bad_bytes_never_become_one_character() -> None:
    """An id with a Latin-1 letter must not be that of somebody else."""
    texts = [parsed(b"<a>M" + bytes([byte]) + b"ller</a>").text for byte in range(0xA1, 0x100)]
    assert len(set(texts)) == len(texts)
    assert texts[0xFC - 0xA1] == "Müller"


@pytest.mark.parametrize("byte", [b"\x80", b"\x85", b"\xa0", b"\xe9", b"\x0b", b"\x1a", b"\x81"])
def test_no_bad_byte_is_taken_for_a_blank(byte: bytes) -> None:
    """Blanks between samples are skipped; a damaged sample must not be."""
    text = parsed(b"<a>AAAA" + byte + b"AAAA</a>").text or ""
    assert len(text.split()[0]) == 9
    assert not text.isascii()


@pytest.mark.parametrize(
    "data",
    [b"<a><L\xe9ad/></a>", b"<a unit\xe9='1'/>", b"<a>\xe9<b\xc3\xa9/></a>", b"<a>\x01<b\xc3\xa9/></a>"],
)
def test_a_bad_byte_in_a_name_is_refused(data: bytes) -> None:
    """Another name is another element, and the right one would be missing."""
    assert refused(data).reason is Reason.HEADER


def test_a_document_full_of_bad_bytes_is_refused_soon() -> None:
    start = time.process_time()
    for name in ("UTF-8", "GB18030", "ascii", "cp1253"):
        data = (HEAD.format(name) + "<a>").encode() + b"\xff\x0b" * (8 << 20) + b"</a>"
        error = refused(data)
        assert error.reason is Reason.HEADER
        assert name in error.found
    assert time.process_time() - start < 4
    few = b"<a>" + b"\xff" * encoding.MOST_BAD_BYTES + b"</a>"
    assert len(parsed(few).text or "") == encoding.MOST_BAD_BYTES


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("after", "note"),
    [
        ("\x1a", True),
        ("\0", True),
        ("\r\n\x1a\0\0\n", True),
        ("\0" * 300_000, True),
        ("\r\n \t\n", False),
        ("", False),
    ],
    ids=["ctrl-z", "nul", "mixed", "many", "blanks", "nothing"],
)
def test_what_ends_a_file_after_its_last_tag(codec: str, after: str, note: bool) -> None:
    text = HEAD.format("UTF-16" if "16" in codec else "UTF-8") + "<RestingECG>é</RestingECG>"
    root = parsed((text + after).encode(codec))
    assert root.text == "é"
    assert (encoding.TRAILING in root.notes) == note


def test_half_a_character_of_zero_ends_a_file_of_utf_16() -> None:
    root = parsed("<a>é</a>".encode("utf-16") + b"\0")
    assert (root.text, root.notes) == ("é", (encoding.TRAILING,))
    assert parsed("\ufeff<a>é</a>".encode("utf-16-be") + b"\0").notes == (encoding.TRAILING,)


@pytest.mark.parametrize("data", [b"<a/>x", b"<a/>\0x", b"<a/><b/>", b"<a/>\x1a<a/>", b"<a\0/>", b"<a>\0</a>\0"])
def test_nothing_else_may_follow_the_last_tag(data: bytes) -> None:
    assert refused(data).reason is Reason.HEADER


def test_a_cut_file_filled_up_with_zeros_is_still_cut() -> None:
    assert refused(b"<a><b>12" + b"\0" * 5000).reason is Reason.TRUNCATED
    assert refused("<a><b>12".encode("utf-16") + b"\0" * 5000).reason is Reason.TRUNCATED


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", " ", "\t", "\ufeff"])
def test_what_stands_before_the_declaration(blank: str) -> None:
    data = f"{blank}{HEAD.format('ISO-8859-1')}<RestingECG>\xe9</RestingECG>"
    known = "utf-8" if blank == "\ufeff" else "latin-1"
    root = parsed(data.encode(known))
    assert (root.text, root.notes) == ("é", () if blank == "\ufeff" else (encoding.LATE_START,))
    assert root_name(data.encode(known)) == "RestingECG"
    assert parsed(f"{blank}<a/>".encode()).notes == ()  # without a declaration it is legal
    twice = ("\ufeff" + data).encode("utf-8-sig")
    assert (parsed(twice).text, root_name(twice)) == ("é", "RestingECG")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("UTF-16", "utf-16"), ("UTF-16", "utf-16-le"), ("UTF-16", "utf-16-be"), ("UTF-16", "utf-8"), ("", "utf-8-sig")]
    + [(name, codec) for name, codec, _ in DECLARED],
)
def test_entities_are_refused_in_every_encoding(name: str, codec: str) -> None:
    head = HEAD.format(name) if name else ""
    for before, after in (("", ""), ("\n", "\x1a")):
        for doctype, body in (
            (f'<!DOCTYPE RestingECG [<!ENTITY l0 "ha">{LAUGHS}]>', "&l9;"),
            ('<!DOCTYPE RestingECG [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "&a;"),
            ('<!DOCTYPE RestingECG SYSTEM "restecg.dtd">', "&a;"),
        ):
            text = f"{before}{head}{doctype}<RestingECG>{body}</RestingECG>{after}"
            assert refused(text.encode(codec)).reason is Reason.UNSUPPORTED
    deep = f"{head}{'<a>' * 5000}".encode(codec)
    assert refused(deep).reason is Reason.LIMIT


def changed(change: Callable[[bytes], bytes], name: str, folder: Path) -> tuple[ec.Recording, ec.Recording]:
    """The recording of a reader's fixture, and that of the same file changed."""
    path, _ = victims.writer_of(name).write(folder)
    (whole,) = ec.read(path)
    path.write_bytes(change(path.read_bytes()))
    (found,) = ec.read(path)
    (scanned,) = plugins.load(readers.KIND, name).scan(path)
    assert set(scanned.notes) - set(whole.notes) == set(found.notes) - set(whole.notes)
    return whole, found


def declared_as(name: str, codec: str) -> Callable[[bytes], bytes]:
    """A change of the declared encoding, and of the bytes with it."""

    def change(data: bytes) -> bytes:
        known = encoding._Encoding.of_head(data[:800]).codec
        text = data.decode(known).lstrip("\ufeff")
        _, _, rest = text.partition("?>") if text.startswith("<?xml") else ("", "", text)
        return (HEAD.format(name) + rest).encode(codec)

    return change


CHANGES = {
    "ISO8859-1": (declared_as("ISO8859-1", "latin-1"), ()),
    "latin1": (declared_as("latin1", "latin-1"), ()),
    "windows-1252": (declared_as("windows-1252", "cp1252"), ()),
    "GB18030": (declared_as("GB18030", "gb18030"), ()),
    "UTF-16": (declared_as("UTF-16", "utf-16"), ()),
    "UTF-16 without mark": (declared_as("UTF-16", "utf-16-le"), (encoding.NO_MARK,)),
    "UTF-16 over UTF-8": (declared_as("utf-16", "utf-8"), (encoding.NO_UTF_16,)),
    "blank line before": (lambda data: b"\n" + declared_as("UTF-8", "utf-8")(data), (encoding.LATE_START,)),
    "Ctrl-Z after": (lambda data: declared_as("UTF-8", "utf-8")(data) + b"\x1a", (encoding.TRAILING,)),
    "NUL after": (lambda data: declared_as("UTF-8", "utf-8")(data) + b"\0", (encoding.TRAILING,)),
    "a bad byte": (
        lambda data: declared_as("UTF-8", "utf-8")(data).rstrip() + b"<!-- \xe9 -->",
        ("bytes that are not UTF-8 replaced",),
    ),
}


@pytest.mark.parametrize("name", XML_READERS)
@pytest.mark.parametrize("case", CHANGES)
def test_every_reader_of_xml_reads_the_same_and_says_what_was_odd(name: str, case: str, tmp_path: Path) -> None:
    change, notes = CHANGES[case]
    whole, found = changed(change, name, tmp_path)
    np.testing.assert_array_equal(found.signal_mv, whole.signal_mv)
    assert (found.leads, found.rate_hz, found.patient_id, dict(found.fields)) == (
        *(whole.leads, whole.rate_hz, whole.patient_id, dict(whole.fields)),
    )
    assert set(found.notes) - set(whole.notes) == set(notes)


@pytest.mark.parametrize("name", XML_READERS)
def test_a_bad_byte_in_the_samples_is_refused(name: str, tmp_path: Path) -> None:
    """Each byte of the longest text of the fixture in turn, as far as there is time."""
    path, _ = victims.writer_of(name).write(tmp_path)
    data = declared_as("UTF-8", "utf-8")(path.read_bytes())
    root = parsed(data)
    texts = [text for element in root.iter() for text in (element.text or "", *element.attrib.values())]
    samples = max(texts, key=len).strip().encode("ascii")
    start = data.index(samples[:60])
    bad = itertools.cycle([b"\xe9", b"\xa0", b"\x0b", b"\x85"])
    for at in range(start, start + min(len(samples), 400), 7):
        path.write_bytes(data[:at] + next(bad) + data[at + 1 :])
        with pytest.raises(UnreadableRecording):
            ec.read(path)


@pytest.mark.parametrize("name", XML_READERS)
def test_no_bad_byte_changes_a_sample(name: str, tmp_path: Path) -> None:
    """The top bit of one byte after another: the file is refused, or read with the same samples and a note."""
    path, _ = victims.writer_of(name).write(tmp_path)
    data = declared_as("UTF-8", "utf-8")(path.read_bytes())
    path.write_bytes(data)
    reader = plugins.load(readers.KIND, name)
    (whole,) = reader.read(path)
    counts = {"refused": 0, "read": 0}
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
        try:
            (found,) = reader.read(path)
        except UnreadableRecording:
            counts["refused"] += 1
            continue
        counts["read"] += 1
        np.testing.assert_array_equal(found.signal_mv, whole.signal_mv)
        assert found.rate_hz == whole.rate_hz
        assert "bytes that are not UTF-8 replaced" in found.notes
    assert min(counts.values()) > 20
