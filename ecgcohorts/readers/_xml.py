"""XML as if its writer were hostile: no entities, known encodings, and caps on bytes, depth and elements."""

import re
from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers.expat import errors

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers._files import read_bounded

XML_LIMIT = 64 << 20  # bytes
MAX_DEPTH = 64  # our default; ECG formats nest about ten deep
MAX_ELEMENTS = 200_000  # our default; a 12-lead resting ECG has a few hundred to a few thousand
CHUNK = 1 << 16  # characters given to the parser at a time, so that a cap stops it early

# Declared name -> Python codec. cp949: tabular MUSE exports from Korea.
ENCODINGS = {
    "utf-8": "utf-8",
    "utf-16": "utf-16",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "windows-1252",
    "cp949": "cp949",
}
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_TRUNCATED = {
    errors.codes[text]
    for text in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN, errors.XML_ERROR_PARTIAL_CHAR)
} | {errors.codes[errors.XML_ERROR_UNCLOSED_CDATA_SECTION]}


def read_xml(path: Path) -> Element:
    """Parse an XML file; names of elements and attributes lose their namespaces.

    A DOCTYPE is allowed (MUSE writes one), its external DTD is not fetched, entities are refused.
    Raises UnreadableRecording.
    """
    return parse_xml(read_bounded(path, XML_LIMIT), str(path))


def parse_xml(data: bytes, where: str) -> Element:
    """Parse XML bytes of at most XML_LIMIT."""
    text = _decode(data, where)
    parser = DefusedXMLParser(target=_CappedBuilder(where))
    try:
        for start in range(0, len(text), CHUNK):
            # As text, not bytes: expat then ignores the declared encoding, which it may not know (cp949).
            parser.feed(text[start : start + CHUNK])
        root: Element = parser.close()
    except ParseError as error:
        cut = error.code in _TRUNCATED
        _refuse(
            Reason.TRUNCATED if cut else Reason.HEADER, f"XML that {'ends early' if cut else 'is malformed'}", where
        )
    except DefusedXmlException:
        _refuse(Reason.UNSUPPORTED, "XML that declares entities", where)
    except UnicodeEncodeError:  # lone surrogates, which UTF-16 input can hold
        _refuse(Reason.HEADER, "XML with broken characters", where)
    return root


def root_name(head: bytes) -> str:
    """Name of the first element in the first bytes of a file, without prefix; empty if there is none."""
    try:
        text = head[: len(head) // 2 * 2].decode(_codec(head) or "utf-8", errors="ignore")
    except (UnicodeDecodeError, LookupError):
        return ""
    place = 0
    # Step over declaration, comments and DOCTYPE one by one: a single pattern for all could take exponential time.
    while (start := text.find("<", place)) >= 0 and not text[place:start].strip():
        stop = "-->" if text.startswith("<!--", start) else "?>" if text.startswith("<?", start) else ">"
        if stop == ">" and not text.startswith("<!", start):
            match = re.match(r"<(?:[\w.-]+:)?([\w.-]+)[\s/>]", text[start : start + 200])
            return match[1] if match else ""
        end = text.find(stop, start)
        if end < 0:
            break
        place = end + len(stop)
    return ""


class _CappedBuilder:
    """A tree builder that counts."""

    def __init__(self, where: str) -> None:
        self._builder = TreeBuilder()
        self._where = where
        self._depth = self._count = 0
        self.data = self._builder.data
        self.close = self._builder.close

    def start(self, tag: str, attributes: dict[str, str]) -> Any:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            what = f"more than {MAX_ELEMENTS} elements" if self._depth <= MAX_DEPTH else f"more than {MAX_DEPTH} levels"
            _refuse(Reason.LIMIT, f"XML of {what}", self._where)
        return self._builder.start(_local(tag), {_local(name): text for name, text in attributes.items()})

    def end(self, tag: str) -> Any:
        self._depth -= 1
        return self._builder.end(_local(tag))


def _local(name: str) -> str:
    """A name without its namespace, which some writers and most de-identifiers leave out: `{urn:hl7-org:v3}text`."""
    return name.rpartition("}")[2] if name.startswith("{") else name


def _codec(data: bytes) -> str | None:
    """Python codec by byte order mark, else by declaration, else UTF-8; None if the encoding is not one of ours."""
    for mark, codec in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return codec
    match = _DECLARATION.match(data[:400])
    declared = match[1].decode("ascii").casefold() if match else "utf-8"
    # UTF-16 without a mark could not have been matched as bytes, so a declaration of it is wrong.
    return None if declared == "utf-16" else ENCODINGS.get(declared)


def _decode(data: bytes, where: str) -> str:
    codec = _codec(data)
    if codec is None:
        _refuse(Reason.UNSUPPORTED, "XML of an encoding that is not allowed", where)
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        _refuse(Reason.HEADER, f"bytes that are not {codec}", where)


def _refuse(reason: Reason, found: str, where: str) -> NoReturn:
    expected = f"well-formed XML without entities, in one of {', '.join(ENCODINGS)}"
    raise UnreadableRecording(reason, found, expected, "Export the file again.", where)
