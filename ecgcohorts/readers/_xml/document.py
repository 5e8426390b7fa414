"""Parse XML as if its writer were hostile: no entities, and caps on bytes, depth and elements."""

# Why expat runs here and not in the isolated process: with these bounds a hostile file takes less than a second and
# 128 MB, as the tests measure, and expat opens no other file. Isolation would add 0.2 ms to the 2.1 ms of a MUSE file of
# ten seconds, and 0.35 s to the start of every worker.

import re
from functools import lru_cache
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType, errors

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.io.regular import read_bounded
from ecgcohorts.readers._xml.encoding import _XmlText

XML_LIMIT = 64 << 20  # bytes
MAX_DEPTH = 64  # our default; ECG formats nest about ten deep
MAX_ELEMENTS = 200_000  # our default; a 12-lead resting ECG has a few hundred to a few thousand
TEXT_BUFFER = 1 << 16  # characters of text that expat gathers before it hands them on
# Bytes of one tag or comment; our default: 13 min of Mortara samples, which stand in an attribute. Until the end of a tag
# comes, expat before 2.6 goes over it again with every chunk: 10 MB took 4 s.
LONGEST_TOKEN = 1 << 20

# How often each character may stand in a document. Our defaults: far more than 200,000 elements of two attributes need,
# and as many as are read in under a second. Without them, 63 MB of empty comments took 6 s, of declared attributes 13 s.
MOST_MARKS = {
    "<": 2 * MAX_ELEMENTS + 100_000,
    "=": 2 * MAX_ELEMENTS,
    "&": 2 * MAX_ELEMENTS,
    "\n": 8 << 20,
    "\r": 8 << 20,
}
# Characters of text in elements where one is not ASCII. Samples always are; of other text, Python takes up to four bytes
# for each character. Our default.
MAX_WIDE_TEXT = 4 << 20

_TRUNCATED = {
    errors.codes[text]
    for text in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN, errors.XML_ERROR_PARTIAL_CHAR)
} | {errors.codes[errors.XML_ERROR_UNCLOSED_CDATA_SECTION]}


class Root(Element):
    """The first element of a document. `notes` says what was odd about the bytes, for `Recording.notes`."""

    notes: tuple[str, ...] = ()


def read_xml(path: Path) -> Root:
    """Parse an XML file; names of elements and attributes lose their namespaces.

    A DOCTYPE is allowed (MUSE writes one), its external DTD is not fetched, entities are refused.
    Raises UnreadableRecording.
    """
    return _parse(read_bounded(path, XML_LIMIT), str(path))


def _parse(data: bytes, where: str) -> Root:
    """Parse XML bytes of at most XML_LIMIT. Raises UnreadableRecording."""
    document = _XmlText(data, where)
    builder = _CappedBuilder(document, where)
    parser = builder.parser()
    fed = 0
    marks = {mark: most for mark, most in MOST_MARKS.items() if most < len(data)}
    try:
        for text in document.chunks():
            _count_marks(text, marks, where)
            # As text, not bytes: expat then ignores the declared encoding, which it may not know (cp949), or not mean.
            parser.Parse(text, False)
            fed += len(text.encode())
            if fed - parser.CurrentByteIndex > LONGEST_TOKEN:
                _refuse(Reason.LIMIT, f"a tag or comment of more than {LONGEST_TOKEN} bytes", where)
        parser.Parse("", True)
    except ExpatError as error:
        cut = error.code in _TRUNCATED
        _refuse(
            Reason.TRUNCATED if cut else Reason.HEADER, f"XML that {'ends early' if cut else 'is malformed'}", where
        )
    except UnicodeEncodeError:  # lone surrogates, which UTF-16 input can hold
        _refuse(Reason.HEADER, "XML with broken characters", where)
    first = builder.close()
    root = Root(first.tag, first.attrib)
    root.text, root.notes = first.text, document.notes
    root.extend(first)
    return root


@lru_cache(maxsize=1)  # each XML reader asks it of the same first bytes: a sixth of a census of 20,000 files
def root_name(head: bytes) -> str:
    """Return the name of the first element in the first bytes of a file, without prefix; empty if there is none."""
    text, place = _XmlText.start(head), 0
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
    """A tree builder that counts, with the handlers that expat calls. Entities cannot be declared, so none is expanded."""

    def __init__(self, document: _XmlText, where: str) -> None:
        self._builder = TreeBuilder()
        self._document, self._where = document, where
        self._depth = self._count = 0
        self._text = self._wide_text = 0  # characters of the current text; of the wide texts before it
        self._is_wide = False
        self.close = self._builder.close

    def parser(self) -> XMLParserType:
        """Make an expat parser that builds the tree. It knows no namespaces: names keep their prefix, which `start` cuts."""
        parser = ParserCreate()
        parser.buffer_text, parser.buffer_size = True, TEXT_BUFFER
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self.data, self.doctype
        parser.SkippedEntityHandler = self.entity
        return parser

    def doctype(self, _name: str, _system: str | None, _public: str | None, holds_declarations: int) -> None:
        """Allow a DOCTYPE that names a DTD, which is never fetched; refuse one that holds declarations."""
        # A DOCTYPE as such must pass: every MUSE file has one.
        if holds_declarations:
            _refuse(Reason.UNSUPPORTED, "XML that declares entities or elements in its DOCTYPE", self._where)

    def entity(self, _name: str, _is_parameter: bool) -> None:
        """Refuse an entity that only the DTD of a DOCTYPE could explain; expat would leave it out silently."""
        _refuse(Reason.UNSUPPORTED, "XML that uses an entity it does not declare", self._where)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            what = f"more than {MAX_ELEMENTS} elements" if self._depth <= MAX_DEPTH else f"more than {MAX_DEPTH} levels"
            _refuse(Reason.LIMIT, f"XML of {what}", self._where)
        self._end_text()
        # A replaced byte in a name would make another element or attribute of it, and so leave out the right one.
        if self._document.is_mended and not all(map(str.isascii, (tag, *attributes))):
            _refuse(Reason.HEADER, "a name of an element or attribute with bytes of another encoding", self._where)
        if any(":" in name for name in attributes):
            attributes = {_local(name): text for name, text in attributes.items()}
        self._builder.start(_local(tag), attributes)

    def data(self, text: str) -> None:
        self._text += len(text)
        self._is_wide = self._is_wide or not text.isascii()
        if self._is_wide and self._wide_text + self._text > MAX_WIDE_TEXT:
            _refuse(Reason.LIMIT, f"more than {MAX_WIDE_TEXT} characters of text beyond ASCII", self._where)
        self._builder.data(text)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._end_text()
        self._builder.end(_local(tag))

    def _end_text(self) -> None:
        """Count a finished text: the builder joins its parts, and one wide character widens all of them."""
        self._wide_text += self._text if self._is_wide else 0
        self._text, self._is_wide = 0, False


def _local(name: str) -> str:
    """Cut the namespace prefix, as of `xsi:type`: some writers and most de-identifiers leave it out."""
    return name.rpartition(":")[2]


def _count_marks(text: str, left: dict[str, int], where: str) -> None:
    """Count down the characters that cost expat more than others, by those of one chunk."""
    for mark in left:
        left[mark] -= text.count(mark)
        if left[mark] < 0:
            _refuse(Reason.LIMIT, f"XML of more than {MOST_MARKS[mark]} characters {mark!r}", where)


def _refuse(reason: Reason, found: str, where: str) -> NoReturn:
    raise UnreadableRecording(reason, found, "well-formed XML without entities", "Export the file again.", where)
