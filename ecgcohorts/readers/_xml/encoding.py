"""Turn the bytes of an XML document into text: byte order mark first, then declaration, and few bad bytes forgiven."""

import codecs
import re
from collections.abc import Iterator
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import NamedTuple, NoReturn

from ecgcohorts.errors import Reason, UnreadableRecording

CHUNK = 1 << 18  # bytes decoded at a time: in one piece, one wide character would make a text four times its size
# Bytes that are replaced in one document; our default. Texts of an ECG are short, and a whole document of such bytes is of
# another encoding than it says.
MOST_BAD_BYTES = 10_000

# Codecs in which each ASCII byte means itself wherever a character can begin, so that no tag hides in a character of
# several bytes: not UTF-7, ISO-2022, HZ, Johab or EBCDIC. They are compared by name, and nothing is imported by a name
# that a file gives.
_CODECS = {
    *("ascii", "utf_8", "latin_1", "koi8_r", "koi8_u", "mac_roman", "tis_620", "euc_jp", "gb18030"),
    *(f"iso8859_{part}" for part in (*range(2, 12), *range(13, 17))),
    *(f"cp{page}" for page in (437, 850, 852, 858, 866, 874, *range(1250, 1259), 932, 949, 950)),
}
# Writers name the older standard where they use its extension, and every text of the older one is one of the newer.
_EXTENSIONS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "euc_kr": "cp949"}
_UTF_16 = {"utf_16", "utf_16_le", "utf_16_be", "unicode", "ucs_2", "iso_10646_ucs_2"}
# Names that Python does not know.
_NAMES = {"x_sjis": "cp932", "windows_874": "cp874", "windows_949": "cp949", "iso_8859_8_i": "iso8859_8"}

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"<\0\0\0", b"\0\0\0<")
# UTF-16 without mark begins with `<` and a NUL, on one side or the other (XML 1.0, appendix F).
_UNMARKED = (
    (re.compile(rb"(?:[ \t\r\n]\0)*<\0[^\0]\0"), "utf-16-le"),
    (re.compile(rb"(?:\0[ \t\r\n])*\0<\0[^\0]"), "utf-16-be"),
)
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")

_BLANKS = " \t\r\n"
_END = b"\0\x1a \t\r\n"  # after the last tag: programs of DOS end a text with Ctrl-Z, and others fill up a block
_CONTROLS = tuple(bytes([code]) for code in range(1, 32) if code not in b"\t\n\r")  # no document may hold one
_BAD = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\udc80-\udcff]")
NO_MARK = "UTF-16 without byte order mark"
NO_UTF_16 = "declared as UTF-16, read as UTF-8"
LATE_START = "blank before the XML declaration ignored"
TRAILING = "NUL or Ctrl-Z after the last tag ignored"


class _Encoding(NamedTuple):
    """The encoding of a document, from its first bytes."""

    codec: str  # of Python; empty if it is none of ours
    stated: str  # as the document calls it
    note: str = ""

    @staticmethod
    def of_head(head: bytes) -> "_Encoding":
        """Find the encoding by byte order mark, else by the first characters, else by declaration, else UTF-8."""
        if head.startswith(_UTF_32):
            return _Encoding("", "UTF-32")
        # PhilipsECG 1.04 is UTF-16 with a mark, but files that were saved again may be UTF-8: the mark counts first.
        for mark, codec in _BYTE_ORDER_MARKS:
            if head.startswith(mark):
                return _Encoding(codec, codec)
        for pattern, codec in _UNMARKED:
            if pattern.match(head):
                return _Encoding(codec, codec, NO_MARK)
        match = _DECLARATION.match(head[:400])
        stated = match[1].decode("ascii") if match else "UTF-8"
        name = normalize_encoding(stated).casefold()
        name = _NAMES.get(name) or aliases.get(name, name)
        # In UTF-16 the declaration could not have been read as bytes.
        if name in _UTF_16:
            return _Encoding("utf_8", "UTF-8", NO_UTF_16)
        codec = _EXTENSIONS.get(name, name)
        return _Encoding(codec if codec in _CODECS else "", stated)


class _XmlText:
    """The text of an XML document, decoded in chunks. `notes` names what was odd, as far as the text was taken."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self._where = data, where
        self._encoding = _Encoding.of_head(data[: 2 * 400])
        self._bad = 0
        self.notes: tuple[str, ...] = (self._encoding.note,) if self._encoding.note else ()

    @staticmethod
    def start(head: bytes) -> str:
        """Return the first bytes of a document as text, as far as they are; blanks before it are kept."""
        codec = _Encoding.of_head(head).codec or "utf-8"
        return head[: len(head) // 2 * 2].decode(codec, errors="ignore").lstrip("\ufeff")

    @property
    def is_mended(self) -> bool:
        """Whether a byte of the text so far stands for another character than its encoding says."""
        return self._bad > 0

    def chunks(self) -> Iterator[str]:
        """Yield the text, without blanks before it. Raises UnreadableRecording for an encoding or bytes that are not ours."""
        codec, stated, _ = self._encoding
        if not codec:
            self._refuse(Reason.UNSUPPORTED, f"XML in the encoding {stated}", "UTF-8, UTF-16 or a common code page")
        is_wide = codec.startswith("utf-16")
        decoder = codecs.getincrementaldecoder(codec)("strict" if is_wide else "surrogateescape")
        mends = not is_wide and any(control in self._data for control in _CONTROLS)
        end, has_begun = self._end(is_wide), False
        for start in range(0, max(1, end), CHUNK):
            try:
                text = decoder.decode(self._data[start : min(start + CHUNK, end)], start + CHUNK >= end)
            except UnicodeDecodeError:
                self._refuse(Reason.HEADER, f"bytes that are not {stated}", f"text in {stated}")
            if not is_wide and (mends or not text.isascii()):
                text = self._mended(text)
            if not has_begun:
                begun = text.lstrip(_BLANKS + "\ufeff")
                if len(begun) < len(text) and begun.startswith("<?xml"):
                    self.notes += (LATE_START,)
                # Told that it reads UTF-8, expat still changes to UTF-16 where it finds a NUL here.
                if "\0" in begun[:2]:
                    self._refuse(Reason.HEADER, "a NUL at the beginning", f"text in {stated}")
                text, has_begun = begun, bool(begun)
            yield text

    def _end(self, is_wide: bool) -> int:
        """Return the number of bytes up to the last one that is neither blank, NUL nor Ctrl-Z."""
        end = len(self._data.rstrip(_END))
        if is_wide and end % 2:
            end = min(end + 1, len(self._data))  # the other half of the last character
        rest = self._data[end:]
        blanks = len(rest) - len(rest.translate(None, _BLANKS.encode()))
        if len(rest) > blanks * (1 + is_wide):
            self.notes += (TRAILING,)
        return end

    def _mended(self, text: str) -> str:
        # Not str.translate, which looks every character up: it takes ten times as long.
        text, bad = _BAD.subn(_meant, text)
        if bad and not self._bad:
            self.notes += (f"bytes that are not {self._encoding.stated} replaced",)
        self._bad += bad
        if self._bad > MOST_BAD_BYTES:
            stated = self._encoding.stated
            self._refuse(Reason.HEADER, f"more than {MOST_BAD_BYTES} bytes that are not {stated}", f"text in {stated}")
        return text

    def _refuse(self, reason: Reason, found: str, expected: str) -> NoReturn:
        raise UnreadableRecording(reason, found, expected, "Export the file again, as UTF-8.", self._where)


def _meant(match: re.Match[str]) -> str:
    """Return what a bad byte most probably means: the character of Windows-1252. Two bytes never mean the same.

    A replacement character where that would be a blank: blanks between samples are skipped, and no damaged sample may be.
    """
    code = ord(match[0])
    meant = bytes([code & 0xFF]).decode("cp1252", "replace") if code > 0xFF else "\ufffd"
    return "\ufffd" if meant.isspace() else meant
