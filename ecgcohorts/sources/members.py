"""The members of an archive, checked one by one, and the index that finds them by name.

The index is a file in the scratch folder, mapped into memory: one pass over the archive serves all processes of a run.
"""

import json
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.errors import SourceError
from ecgcohorts.io.texts import SortedTexts, Texts
from ecgcohorts.sources.names import fault_of

MAX_MEMBERS = 1 << 24  # our default; three times the files of the largest published cohort
MAX_FILE_BYTES = 1 << 36  # 64 GiB; our default, for one file of any source
MAX_TOTAL_BYTES = 1 << 44  # 16 TiB over all members; our default
MAX_RATIO = 200  # unpacked to packed bytes; design limit
RATIO_FREE_BYTES = 1 << 20  # our default: a flat line of ten seconds packs better than 200:1, and is no bomb

MAX_EMPTY = 1024  # members without a byte, if they are most of all; our default

STORED, DEFLATED = 0, 8  # as in zip
HARD_LINK, SYMBOLIC_LINK = 101, 102  # not followed, but an input like any other: what a link hides must not get lost
LINKS = {HARD_LINK: "hard link", SYMBOLIC_LINK: "symbolic link"}
_STATE, _LEFT_OUT = "state", "left_out"


class Member(NamedTuple):
    """One regular file in an archive."""

    name: str  # posix, checked
    start: int  # where its bytes begin in the archive; in a zip, the header before them
    packed: int  # bytes in the archive
    size: int  # bytes unpacked, as declared
    mark: int  # changes when the content does: its CRC-32 in a zip, its time in a tar
    method: int


class Gathering:
    """Collect members as a pass over an archive finds them. Raises SourceError for what no archive of recordings has.

    Messages tell the number of a member, not its name, which may be that of a patient.
    """

    @staticmethod
    def is_bomb(unpacked: int, packed: int) -> bool:
        """Say whether so many bytes from so few are more than recordings unpack to."""
        return unpacked > MAX_RATIO * packed + RATIO_FREE_BYTES

    def __init__(self, where: str) -> None:
        self.left_out = Counter[str]()
        self._where = where
        # Columns, not objects: 33 bytes and the name for each of up to 16 million members.
        self._names, self._method = Texts(), array("b")
        self._start, self._packed, self._size, self._mark = (array("q") for _ in range(4))
        self._total = self._empty = 0

    def add(self, member: Member) -> None:
        """Check and keep one member."""
        name = member.name.removeprefix("./")
        while name.startswith("./"):
            name = name[2:]
        if fault := fault_of(name):
            self.refuse(f"a member with {fault} (number {self.count + 1})", "plain paths below one folder")
        if member.size > MAX_FILE_BYTES or self._total + member.size > MAX_TOTAL_BYTES:
            self.refuse(
                "more bytes than any cohort has", f"at most {MAX_FILE_BYTES} a member, {MAX_TOTAL_BYTES} in all"
            )
        # As declared; what comes out is counted once more when the member is unpacked.
        if self.is_bomb(member.size, member.packed):
            self.refuse(f"a member packed more than {MAX_RATIO}:1 (number {self.count + 1})", "recordings")
        if len(self._names) >= MAX_MEMBERS:
            self.refuse(f"more than {MAX_MEMBERS} members", "fewer")
        self._empty += not member.size
        # Each is an input to refuse, at 0.4 ms: a file of 6 MB names 60,000.
        if self._empty > MAX_EMPTY and 2 * self._empty > self.count:
            self.refuse(f"{self._empty} empty members of {self.count + 1}", "recordings")
        self._keep(member._replace(name=name))

    def add_link(self, name: str, method: int, at: int) -> None:
        """Count a link, and keep its name: where a layout asks for that file, the link is refused like a recording."""
        self.leave_out(LINKS[method])
        plain = name.removeprefix("./").rstrip("/")
        if fault_of(plain) is None:
            self._keep(Member(plain, at, 0, 0, 0, method))

    def _keep(self, member: Member) -> None:
        self._names.append(member.name)
        self._start.append(member.start)
        self._packed.append(member.packed)
        self._size.append(member.size)
        self._mark.append(member.mark)
        self._method.append(member.method)
        self._total += member.size

    def leave_out(self, kind: str) -> None:
        """Count a member that is no regular file."""
        self.left_out[kind] += 1
        if self.left_out.total() > MAX_MEMBERS:
            self.refuse(f"more than {MAX_MEMBERS} links", "files")

    @property
    def count(self) -> int:
        """Number of members so far, kept or left out; a link is both."""
        return len(self._names) + self.left_out.total()

    def refuse(self, found: str, expected: str) -> None:
        """Raise SourceError for the whole archive."""
        raise SourceError(
            f"{self._where}: found {found}, expected {expected}. Unpack it yourself, and name the folder instead."
        )

    def write(self, path: Path, state: str) -> None:
        """Write the index, sorted by name, of an archive that is in this state.

        Raises SourceError for a name that comes twice: which of the two is meant?
        """
        import pyarrow as pa

        # Sorted by bytes, as `Folder.names` walks: recordings come in one order from every source.
        names, order = self._names.sort()
        if names.first_twice() is not None:
            self.refuse("one name twice", "each once")
        columns = {"name": names.column, "method": pa.array(np.frombuffer(self._method, np.int8)[order])}
        for column in ("start", "packed", "size", "mark"):
            # Popped, so that of each column only one copy is held while the next is sorted.
            columns[column] = pa.array(np.frombuffer(vars(self).pop(f"_{column}"), np.int64)[order])
        notes = {_STATE: state, _LEFT_OUT: json.dumps(self.left_out)}
        table = pa.table(columns, metadata=notes)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


@dataclass(frozen=True, eq=False)
class Index:
    """Finds members by name, in a file mapped into memory."""

    names: SortedTexts
    state: str  # of the archive when it was made
    left_out: dict[str, int]  # what is no regular file -> how many
    _numbers: dict[str, NDArray]

    @classmethod
    def open(cls, path: Path) -> "Index":
        """Map an index that `Gathering.write` wrote."""
        import pyarrow as pa

        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all().combine_chunks()
        empty = pa.array([], pa.large_binary())
        names = table["name"].chunk(0) if len(table) else empty
        numbers = {name: table[name].to_numpy() for name in table.column_names if name != "name"}
        notes = {key.decode(): text.decode() for key, text in table.schema.metadata.items()}
        return cls(SortedTexts(names), notes[_STATE], json.loads(notes[_LEFT_OUT]), numbers)

    def is_link(self, place: int) -> bool:
        """Say whether the member at a place of `names` is a link."""
        return int(self._numbers["method"][place]) in LINKS

    def find(self, name: str) -> Member | None:
        """Return the member of a name; None if there is none."""
        place = self.names.find(name)
        if place is None:
            return None
        return Member(name, *(int(self._numbers[column][place]) for column in Member._fields[1:]))
