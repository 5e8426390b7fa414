"""Archives: every member found as the standard library finds it; nothing hostile gets a file, a byte or a second too many."""

import bz2
import gzip
import io
import lzma
import pickle
import random
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgcohorts.errors import Reason, SourceError
from ecgcohorts.sources import Archive, open_source
from ecgcohorts.sources.windows import local

SECONDS, BYTES = 1.0, 64 << 20  # what refusing an archive may take
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def everything(source: Archive) -> dict[str, bytes]:
    with local(source, source.names()) as folder:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def some_files(seed: int) -> dict[str, bytes]:
    rng = random.Random(seed)
    names = {"a", "b/c.hea", "b/d/e.dat", "b-c.hea", "b.hea", "ü/ñ.hea", "x" * 90 + "/" + "y" * 98, "empty"}
    names |= {f"p{rng.randrange(5)}/{rng.randrange(1000)}.dat" for _ in range(20)}
    if seed:
        names |= {"/".join("n" * 60 for _ in range(6)) + "/long.hea"}
    return {name: rng.randbytes(rng.choice([0, 1, 511, 512, 513, 3000, 70_000])) for name in sorted(names)}


def test_names_come_in_the_order_of_a_folder(tmp_path: Path) -> None:
    files = some_files(1)
    for name, data in files.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in reversed(files):
            archive.writestr(name, files[name])
        archive.writestr("b/.hidden", b"")
        archive.writestr(".hidden/file", b"")
    with open_source(tmp_path / "raw") as folder, open_source(tmp_path / "x.zip") as packed:
        assert list(packed.names()) == list(folder.names()) == sorted(files)
        assert list(packed.names(below="b/")) == list(folder.names(below="b/")) == ["b/c.hea", "b/d/e.dat"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("packer", ["", "gz", "bz2", "xz"])
def test_a_tar_gives_what_went_in(form: str, packer: str, tmp_path: Path, temporary: Path) -> None:
    files = some_files(form != "ustar")
    path = tmp_path / "x.tar"
    with tarfile.open(path, f"w:{packer}", format=FORMATS[form]) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(f"./{name}" if len(name) < 80 else name)
            info.size, info.mtime = len(data), 1_600_000_000
            archive.addfile(info, io.BytesIO(data))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"odd{kind[0]}")
            info.type, info.linkname = kind, "a"
            archive.addfile(info)
    with open_source(path) as source:
        assert everything(source) == files
        assert source.left_out == {"symbolic link": 1, "hard link": 1, "pipe": 1, "device": 1}
        again = pickle.loads(pickle.dumps(source))
        assert list(again.names()) == sorted(files)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_zip_gives_what_went_in(method: int, streamed: bool, tmp_path: Path, temporary: Path) -> None:
    files, path = some_files(1), tmp_path / "x.zip"
    with path.open("wb") as file:
        target = _Unseekable(file) if streamed else file  # then sizes stand behind the members
        with zipfile.ZipFile(target, "w", method) as archive:
            archive.comment = b"PK\5\6 a comment"
            for place, (name, data) in enumerate(files.items()):
                with archive.open(name, "w", force_zip64=place % 2 == 0) as member:
                    member.write(data)
            link = zipfile.ZipInfo("link")
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "a")
            archive.mkdir("folder")
    with open_source(path) as source:
        assert everything(source) == files
        assert source.left_out == {"symbolic link": 1}
        assert source.state("a", path) != source.state("b.hea", path)
    assert not list(temporary.iterdir())


class _Unseekable(io.RawIOBase):
    def __init__(self, file) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        return self._file.write(data)


def test_a_zip_of_many_members_is_zip64(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(70_000):
            archive.writestr(zipfile.ZipInfo(f"{number % 100}/{number}"), b"x")
    with open_source(path) as source:
        assert sum(1 for _ in source.names()) == 70_000
        assert len(list(source.names(below="7/"))) == 700


def tar_of(*members: tuple[str, bytes], **fields: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return bytearray(buffer.getvalue())


def patched(data: bytearray, at: int, form: str, *values: int, mark: bytes = b"PK\1\2") -> bytes:
    struct.pack_into(form, data, data.rfind(mark) + at, *values)
    return bytes(data)


def raw_tar(kind: bytes, size: int, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo("name")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512) + bytes(1024)


BAD_NAMES = ("../x", "a/../../x", "/etc/x", "C:/x", "c:x", "a\\x", "a\nb", "a//b", "a/./b", "x" * 300, "a/" * 600 + "b")
HOSTILE: dict[str, Callable[[], bytes]] = {
    **{f"tar name {name[:9]!r}": lambda name=name: tar_of((name, b"x")) for name in BAD_NAMES},
    **{
        f"zip name {name[:9]!r}": lambda name=name: bytes(zip_of((name, b"x")))
        for name in BAD_NAMES
    },
    "tar, name twice": lambda: tar_of(("a", b"1"), ("b", b""), ("./a", b"2")),
    "tar, name of NUL": lambda: raw_tar(b"x", 20, b"20 path=a\0../../x\n\n"[:20]),
    "tar, header without end": lambda: tar_of(("a", b"1"))[:100],
    "tar, cut in a member": lambda: tar_of(("a", bytes(5000)))[:2000],
    "tar, cut between members": lambda: tar_of(("a", b"1"), ("b", b"2"))[:1024],
    "tar, size beyond the end": lambda: raw_tar(b"0", 1 << 40),
    "tar, size below zero": lambda: _sized(b"\xff" * 12),
    "tar, size of 2^80": lambda: _sized(b"\x80" + b"\x01" + bytes(10)),
    "tar, size that is no number": lambda: _sized(b"0000000000z\0"),
    "tar, long name without end": lambda: raw_tar(b"L", 1 << 34),
    "tar, pax header of 2 MiB": lambda: raw_tar(b"x", 2 << 20, b"9" * (2 << 20)),
    "tar, pax header of digits": lambda: raw_tar(b"x", 1 << 20, b"9" * (1 << 20)),
    "tar, pax record of no length": lambda: raw_tar(b"x", 12, b"0 path=x\n\n\n\n"),
    "tar, pax size that is none": lambda: raw_tar(b"x", 13, b"13 size=-100\n") [:1024] + tar_of(("a", b"")),
    "tar, wrong checksum": lambda: tar_of(("a", b"1"))[:1024] + b"x" * 512 + bytes(1024),
    "tar, sparse file of GNU": lambda: raw_tar(b"S", 3, b"abc"),
    "tar, sparse file of pax": lambda: raw_tar(b"x", 22, b"22 GNU.sparse.major=1\n")[:1024] + tar_of(("a", b"abc")),
    "zstd": lambda: b"\x28\xb5\x2f\xfd" + bytes(1000),
    "tar, another behind its end": lambda: tar_of(("a", b"1")) + tar_of(("b", b"1")),
    "gzip bomb": lambda: gzip.compress(tar_of(("zeros", bytes(20 << 20)))),
    "bzip2 bomb": lambda: bz2.compress(tar_of(("zeros", bytes(20 << 20)))),
    "xz bomb": lambda: lzma.compress(tar_of(("zeros", bytes(20 << 20)))),
    "gzip, cut": lambda: gzip.compress(tar_of(("a", random.Random(0).randbytes(5000))))[:3000],
    "gzip, checksum": lambda: gzip.compress(tar_of(("a", b"1")))[:-8] + bytes(8),
    "gzip of itself": lambda: gzip.compress(gzip.compress(b"x")),
    "zip, name twice": lambda: bytes(zip_of(("aa", b"1"), ("bb", b"2")).replace(b"bb", b"aa")),
    "zip, encrypted": lambda: patched(zip_of(("a", b"1")), 8, "<H", 1),
    "zip, method 12": lambda: patched(zip_of(("a", b"1")), 10, "<H", 12),
    "zip, bomb as declared": lambda: bytes(zip_of(("a", bytes(20 << 20)))),
    "zip, offset beyond the end": lambda: patched(zip_of(("a", b"1")), 42, "<L", 1 << 30),
    "zip, packed size beyond the end": lambda: patched(zip_of(("a", b"1")), 20, "<L", 1 << 30),
    "zip, members on each other": lambda: _overlapping(),
    "zip, directory of another length": lambda: patched(zip_of(("a", b"1")), 12, "<L", 5, mark=b"PK\5\6"),
    "zip, more entries than there are": lambda: patched(zip_of(("a", b"1")), 8, "<2H", 9, 9, mark=b"PK\5\6"),
    "zip, of several disks": lambda: patched(zip_of(("a", b"1")), 4, "<H", 1, mark=b"PK\5\6"),
    "zip, something before": lambda: b"PK\3\4" + bytes(zip_of(("a", b"1"))),
    "zip, cut": lambda: bytes(zip_of(("a", bytes(1000))))[:-30],
    "zip, directory gone": lambda: b"PK\3\4" + bytes(1000),
    "a picture": lambda: b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "nothing": lambda: b"",
    "random": lambda: random.Random(0).randbytes(5000),
}  # fmt: skip


def _sized(field: bytes) -> bytes:
    block = bytearray(raw_tar(b"0", 0))
    block[124:136] = field
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:512]))
    return bytes(block)


def _overlapping() -> bytes:
    """Forty members that are one: a zip bomb whose every member is honest."""
    data = zip_of(*((f"{number:02}", bytes(range(256)) * 100) for number in range(40)))
    at = data.find(b"PK\1\2")
    while at >= 0:
        struct.pack_into("<L", data, at + 42, 0)
        at = data.find(b"PK\1\2", at + 1)
    end = data.rfind(b"PK\5\6")
    place = struct.unpack_from("<L", data, end + 16)[0]
    first = data.find(b"PK\3\4", 4)
    del data[first:place]
    struct.pack_into("<L", data, data.rfind(b"PK\5\6") + 16, first)
    return bytes(data)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_at_once(case: str, tmp_path: Path, temporary: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(HOSTILE[case]())
    before = {one.name for one in tmp_path.iterdir()}
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(SourceError) as caught, open_source(path) as source:
            list(source.names())
        assert time.process_time() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value) or "Fetch it again" in str(caught.value)
    assert {one.name for one in tmp_path.iterdir()} == before
    assert not list(temporary.iterdir())


def damaged(how: str) -> bytes:
    data = zip_of(("good", b"good" * 100), ("bad", random.Random(0).randbytes(30_000)))
    local_header = data.find(b"PK\3\4", 4)
    if how == "other bytes":
        data[local_header + 10_000] ^= 1
    elif how == "no header":
        data[local_header] = 0
    elif how == "shorter than declared":
        struct.pack_into("<L", data, data.rfind(b"PK\1\2") + 24, 40_000)
    elif how == "longer than declared":
        struct.pack_into("<L", data, data.rfind(b"PK\1\2") + 24, 20_000)
    elif how == "another checksum":
        struct.pack_into("<L", data, data.rfind(b"PK\1\2") + 16, 7)
    return bytes(data)


@pytest.mark.parametrize(
    ("how", "reasons"),
    [
        ("other bytes", {Reason.CHECKSUM, Reason.TRUNCATED, Reason.LIMIT}),
        ("no header", {Reason.TRUNCATED}),
        ("shorter than declared", {Reason.TRUNCATED}),
        ("longer than declared", {Reason.LIMIT}),
        ("another checksum", {Reason.CHECKSUM}),
    ],
)
def test_a_damaged_member_is_told_and_the_others_are_read(how: str, reasons: set[Reason], tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(damaged(how))
    into = tmp_path / "into"
    into.mkdir()
    with open_source(tmp_path / "x.zip") as source:
        failed = source.fetch(["good", "bad", "none"], into)
    assert {name: error.reason in reasons for name, error in failed.items()} == {"bad": True}
    assert [path.name for path in into.iterdir()] == ["good"]


def test_what_unpacks_to_more_than_it_says_is_stopped_there(tmp_path: Path) -> None:
    """A member that declares a kilobyte and holds 100 MB is left after a kilobyte, not after 100 MB."""
    data = zip_of(("bomb", bytes(100 << 20)))
    path = tmp_path / "x.zip"
    path.write_bytes(patched(data, 24, "<L", 1000))
    (tmp_path / "into").mkdir()
    tracemalloc.start()
    with open_source(path) as source:
        failed = source.fetch(["bomb"], tmp_path / "into")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert failed["bomb"].reason is Reason.LIMIT
    assert peak < 16 << 20
    assert not list((tmp_path / "into").iterdir())


def test_any_flipped_bit_gives_the_same_files_or_an_error(tmp_path: Path) -> None:
    files = {f"d/{number}.dat": random.Random(number).randbytes(900) for number in range(4)}
    whole = {"zip": bytes(zip_of(*files.items())), "tar.gz": gzip.compress(tar_of(*files.items()), mtime=0)}
    rng, path = random.Random(0), tmp_path / "archive"
    for data in whole.values():
        for _ in range(150):
            changed = bytearray(data)
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            try:
                with open_source(path) as source:
                    found = everything(source)
            except SourceError:
                continue
            assert set(found.values()) <= set(files.values())  # a flip in a name gives another name


def test_an_index_takes_little_room(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4_000):
            archive.writestr(zipfile.ZipInfo(f"files/p{number % 100}/s{number}/{number}.hea"), b"x")
    tracemalloc.start()
    with open_source(path) as source:
        assert sum(1 for _ in source.names()) == 4_000
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / 4_000 < 300  # bytes a member; the standard library takes 550


def test_a_folder_without_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zip_of(("a", b"1")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(SourceError, match="Set TMPDIR"), open_source(path) as source:
        list(source.names())
