"""SCP files made to hurt: lengths and pointers that lie, tables that never end, more leads and beats than there are.

All checksums are right, so that a reader gets as far as the lie.
"""

import struct
from pathlib import Path

import numpy as np
import write_scp as MAKE

POINTERS = 22  # bytes before the first pointer
SIGNAL = MAKE.Signal(MAKE.known_samples())


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "hostile.scp"
    path.write_bytes(data)
    return path


def _pointed(folder: Path, section: int, size: int, index: int) -> Path:
    """A good file but for one pointer."""
    data = bytearray(MAKE.Ecg(SIGNAL).data())
    at = POINTERS + 10 * section
    data[at : at + 10] = struct.pack("<HII", section, size, index)
    return _written(folder, MAKE.mend(bytes(data)))


def _place(section: int) -> tuple[int, int]:
    size, index = struct.unpack_from("<II", MAKE.Ecg(SIGNAL).data(), POINTERS + 10 * section + 2)
    return size, index


def _tables(folder: Path, *codes: tuple[int, int, int, int, int], signal: bytes = b"") -> Path:
    """One Huffman table, with lead data of ones only."""
    body = struct.pack("<HH", 1, len(codes)) + b"".join(struct.pack("<BBBhI", *code) for code in codes)
    others = {2: body, 6: signal} if signal else {2: body}
    return _written(folder, MAKE.Ecg(SIGNAL, others=others).data())


def _rhythm(n_leads: int, n_bytes: int, value: bytes = b"\xff") -> bytes:
    """Section 6 of second differences, 2 us, filled with one byte."""
    lengths = struct.pack(f"<{n_leads}H", *[n_bytes] * n_leads)
    return struct.pack("<HHBB", 2500, 2000, 2, 0) + lengths + value * (n_leads * n_bytes)


def case_section_length_beyond_the_file(folder: Path) -> Path:
    return _pointed(folder, 6, 0x7FFFFFFF, _place(6)[1])


def case_section_length_zero(folder: Path) -> Path:
    return _pointed(folder, 6, 0, _place(6)[1])


def case_section_header_of_length_zero(folder: Path) -> Path:
    data = bytearray(MAKE.Ecg(SIGNAL).data())
    index = _place(6)[1]
    data[index + 3 : index + 7] = bytes(4)
    return _written(folder, MAKE.mend(bytes(data)))


def case_sections_that_overlap(folder: Path) -> Path:
    size, index = _place(6)
    return _pointed(folder, 8, size, index)


def case_pointer_to_itself(folder: Path) -> Path:
    return _pointed(folder, 6, *_place(0))


def case_a_million_pointers(folder: Path) -> Path:
    body = b"".join(struct.pack("<HII", 200 + place % 60_000, 0, 0) for place in range(1_000_000))
    first = struct.pack("<HII", 0, 16 + 10 + len(body), 7)
    section = MAKE.section_bytes(0, first + body)
    after = struct.pack("<I", 6 + len(section)) + section
    return _written(folder, MAKE.crc(after) + after)


def case_huffman_table_that_never_consumes_bits(folder: Path) -> Path:
    return _tables(folder, (0, 0, 1, 7, 0))


def case_huffman_table_that_appends_bits_to_none(folder: Path) -> Path:
    return _tables(folder, (0, 8, 1, 0, 0))


def case_huffman_table_that_switches_for_ever(folder: Path) -> Path:
    return _tables(folder, (1, 1, 1, 0, 0), (1, 1, 0, 1, 1), signal=_rhythm(12, 65_535))


def case_huffman_table_of_65535_codes(folder: Path) -> Path:
    body = struct.pack("<HH", 1, 65_535) + np.random.default_rng(0).bytes(9 * 65_535)
    return _written(folder, MAKE.Ecg(SIGNAL, others={2: body}).data())


def case_65535_huffman_tables(folder: Path) -> Path:
    return _written(folder, MAKE.Ecg(SIGNAL, others={2: struct.pack("<H", 65_535) + bytes(4 * 65_535)}).data())


def case_255_leads_of_four_billion_samples(folder: Path) -> Path:
    leads = struct.pack("<BB", 255, 0b100) + struct.pack("<IIB", 1, 0xFFFFFFFF, 1) * 255
    return _written(folder, MAKE.Ecg(SIGNAL, others={3: leads, 6: _rhythm(255, 10)}).data())


def case_65535_leads_by_the_size_of_the_section(folder: Path) -> Path:
    leads = struct.pack("<BB", 12, 0b100) + struct.pack("<IIB", 1, 60, 1) * 65_535
    return _written(folder, MAKE.Ecg(SIGNAL, others={3: leads}).data())


def case_more_samples_than_bits(folder: Path) -> Path:
    """Four hours at 500 Hz declared over 20 bytes a lead."""
    leads = MAKE.lead_bytes(range(1, 13), 7_200_000)
    return _written(folder, MAKE.Ecg(SIGNAL, others={3: leads, 6: _rhythm(12, 20, b"\0")}).data())


def case_65535_beats_over_one_another(folder: Path) -> Path:
    beats = struct.pack("<HHH", 120, 30, 65_535) + struct.pack("<HIII", 0, 1, 30, 60) * 65_535
    return _written(folder, MAKE.Ecg(SIGNAL, reference=SIGNAL, beats=beats).data())


def case_beats_that_end_before_they_start(folder: Path) -> Path:
    beats = MAKE.beat_bytes(120, 30, [MAKE.Beat(0xFFFFFFFF, 30, 1)])
    return _written(folder, MAKE.Ecg(SIGNAL, reference=SIGNAL, beats=beats).data())


def case_bimodal(folder: Path) -> Path:
    return _written(folder, MAKE.Ecg(MAKE.Signal(MAKE.known_samples(), bimodal=1)).data())


def case_wrong_checksum_of_one_section(folder: Path) -> Path:
    data = bytearray(MAKE.Ecg(SIGNAL).data())
    data[_place(6)[1] - 1] ^= 0xFF
    return _written(folder, MAKE.crc(bytes(data[2:])) + bytes(data[2:]))


def case_17_megabytes(folder: Path) -> Path:
    path = _written(folder, MAKE.Ecg(SIGNAL).data())
    with path.open("r+b") as file:
        file.truncate(17 << 20)
    return path


def _sliced(folder: Path, **bent: int) -> Path:
    """A slice of Healforce's devices."""
    return _written(folder, MAKE.healforce_bytes(MAKE.einthoven_samples(), **bent))


def case_a_slice_of_no_length(folder: Path) -> Path:
    return _sliced(folder, declared=0)


def case_a_slice_longer_than_its_file(folder: Path) -> Path:
    return _sliced(folder, declared=65_535)


def case_a_slice_of_two_billion_samples(folder: Path) -> Path:
    return _sliced(folder, start=1, end=1 << 31)


def case_a_slice_whose_samples_lie_beyond_it(folder: Path) -> Path:
    return _sliced(folder, size=65_535)


def case_a_slice_of_255_leads(folder: Path) -> Path:
    return _sliced(folder, n_leads=255)


def case_a_slice_of_leads_that_nobody_names(folder: Path) -> Path:
    return _written(folder, MAKE.healforce_bytes(MAKE.einthoven_samples()[[2, 0, 1]]))
