"""DICOM files written by an adversary: each must be refused at once and cheaply."""

import os
import zlib
from pathlib import Path
from typing import Any

import write_dicom as files

SAMPLES = files.known_samples(12, 40)
ITEM, WAVEFORMS = b"\xfe\xff\x00\xe0", b"\x00\x54\x00\x01SQ\0\0"
UNDEFINED = b"\xff\xff\xff\xff"


def written(folder: Path, data: bytes) -> Path:
    path = folder / "ecg.dcm"
    path.write_bytes(data)
    return path


def groups(folder: Path, *given: Any, **how: Any) -> Path:
    return written(folder, files.document(given, **how))


def case_deflated_bomb(folder: Path) -> Path:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    return written(folder, files.meta(files.DEFLATED) + bomb)


def case_missing_sensitivity(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES, channel={0x003A0210: None}))


def case_a_billion_samples_declared(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES, group={0x003A0010: ("UL", 10**9)}))


def case_a_minute_of_samples_declared(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES, group={0x003A0010: ("UL", 30_000)}))


def case_four_groups_of_three_leads(folder: Path) -> Path:
    quarters = [files.Group(SAMPLES[at : at + 3], files.TWELVE[at : at + 3]) for at in range(0, 12, 3)]
    return groups(folder, *quarters)


def case_big_endian_called_little_endian(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES), encoding=files.Encoding(files.BIG_ENDIAN), uid=files.EXPLICIT)


def case_implicit_called_explicit(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES), encoding=files.Encoding(files.IMPLICIT), uid=files.EXPLICIT)


def case_explicit_called_implicit(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES), uid=files.IMPLICIT)


def case_padding_of_zero_for_big_endian_bytes(folder: Path) -> Path:
    group = files.Group(SAMPLES % 100, bits=8, kind="SB", group={0x5400100A: ("OB", b"\0\0")})
    return groups(folder, group, encoding=files.Encoding(files.BIG_ENDIAN))


def case_65535_channels(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES, group={0x003A0005: ("US", 65_535)}))


def case_companded_samples(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES % 100, bits=8, kind="MB"))


def case_a_rate_of_infinity(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES, rate="1e309"))


def case_sequences_in_each_other_100000_deep(folder: Path) -> Path:
    return written(folder, files.meta(files.EXPLICIT) + (WAVEFORMS + UNDEFINED + ITEM + UNDEFINED) * 100_000)


def case_a_million_empty_items(folder: Path) -> Path:
    items = (ITEM + bytes(4)) * 1_000_000
    head = files.meta(files.EXPLICIT) + WAVEFORMS + len(items).to_bytes(4, "little")
    return written(folder, head + items)


def case_two_hundred_thousand_elements(folder: Path) -> Path:
    """Private ones of no length, every tag another."""
    tags = range(0x0009_0000, 0x0009_0000 + 200_000)
    elements = (tag.to_bytes(4, "big") for tag in tags)
    data = b"".join(tag[1::-1] + tag[:1:-1] + b"LO\0\0" for tag in elements)
    return written(folder, files.meta(files.EXPLICIT) + data)


def case_zeros_where_items_belong(folder: Path) -> Path:
    """pydicom takes every eight of them for an item."""
    zeros = bytes(8_000_000)
    return written(folder, files.meta(files.EXPLICIT) + WAVEFORMS + len(zeros).to_bytes(4, "little") + zeros)


def case_a_sequence_longer_than_the_file(folder: Path) -> Path:
    return written(folder, files.meta(files.EXPLICIT) + WAVEFORMS + b"\xfe\xff\xff\xff" + ITEM + bytes(4))


def case_a_sequence_without_end(folder: Path) -> Path:
    whole = files.document([files.Group(SAMPLES)], files.Encoding(undefined=True))
    return written(folder, whole[:-8])


def case_meta_information_without_end(folder: Path) -> Path:
    return written(folder, bytes(128) + b"DICM" + b"\x02\x00\x10\x00UN\0\0\xff\xff\xff\x7f")


def case_an_id_of_a_megabyte(folder: Path) -> Path:
    return groups(folder, files.Group(SAMPLES), patient={**files.PATIENT, 0x00100020: ("UN", b"7" * (1 << 20))})


def case_a_sparse_gigabyte(folder: Path) -> Path:
    path = groups(folder, files.Group(SAMPLES))
    os.truncate(path, 1 << 30)
    return path
