"""MFER files written by an adversary: each must be refused at once and cheaply."""

from pathlib import Path
from typing import Any

import write_mfer as files

LITTLE = files.Coder()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "monitor.mwf"
    path.write_bytes(data)
    return path


def bent(folder: Path, leads: tuple[str, ...] = ("I", "II"), how: dict[str, Any] | None = None, **channel: Any) -> Path:
    """Every channel changed alike, the file by `how`."""
    channels = [files.Channel(lead, row, **channel) for lead, row in zip(leads, files.known_samples(), strict=True)]
    return written(folder, files.document(channels, **(how or {})))


def case_four_billion_bytes_declared(folder: Path) -> Path:
    return written(folder, files.head(LITTLE) + b"\x1e\x84\xff\xff\xff\xff" + bytes(100))


def case_a_length_of_100_bytes(folder: Path) -> Path:
    return written(folder, files.head(LITTLE) + b"\x1e\xe4" + bytes(200))


def case_a_tag_of_undeclared_length(folder: Path) -> Path:
    return written(folder, files.head(LITTLE) + b"\x1e\x80" + bytes(200))


def case_four_billion_sequences(folder: Path) -> Path:
    return bent(folder, how={"sequences": 2**32 - 1})


def case_no_sequences(folder: Path) -> Path:
    return bent(folder, how={"sequences": 0})


def case_65535_channels(folder: Path) -> Path:
    return bent(folder, how={"n_channels": 65535})


def case_no_channels(folder: Path) -> Path:
    return bent(folder, how={"n_channels": 0})


def case_fewer_channels_than_described(folder: Path) -> Path:
    return bent(folder, how={"n_channels": 1})


def case_a_channel_number_of_many_bytes(folder: Path) -> Path:
    return written(folder, files.head(LITTLE) + b"\x3f" + b"\xff" * 100)


def case_a_block_of_four_billion_samples(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x04, b"\xff\xff\xff\xff"))


def case_a_block_of_nothing(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x04, b"\0\0\0\0"))


def case_a_number_of_200_bytes(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x04, b"\xff" * 100))


def case_an_unknown_type(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x0A, b"\x09"))


def case_a_step_of_nothing(folder: Path) -> Path:
    return bent(folder, step=(0, -6, 0))


def case_a_step_of_ten_to_the_127(folder: Path) -> Path:
    return bent(folder, step=(0, 127, 5))


def case_leads_in_mmhg(folder: Path) -> Path:
    return bent(folder, step=(1, -3, 125))


def case_leads_without_a_step(folder: Path) -> Path:
    return bent(folder, step=None)


def case_no_interval(folder: Path) -> Path:
    return bent(folder, interval=None)


def case_an_interval_of_nothing(folder: Path) -> Path:
    return bent(folder, interval=(1, -3, 0))


def case_an_interval_of_metres(folder: Path) -> Path:
    return bent(folder, interval=(2, -3, 2))


def case_compressed_samples(folder: Path) -> Path:
    return bent(folder, how={"before": files.tag(0x0E, b"\x01\0" + bytes(8))})


def case_an_offset(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x0D, b"\x05\0"))


def case_two_frames(folder: Path) -> Path:
    again = files.frame([files.Channel("I", files.known_samples(1)[0])], LITTLE)
    return bent(folder, how={"after": again})


def case_no_frame(folder: Path) -> Path:
    return written(folder, files.head(LITTLE))


def case_channels_in_channels(folder: Path) -> Path:
    return bent(folder, extra=files.tag(0x3F, files.tag(0x04, b"\x01"), 0))


def case_ten_million_tags(folder: Path) -> Path:
    return written(folder, files.head(LITTLE) + files.tag(0x41, b"") * 10_000_000)
