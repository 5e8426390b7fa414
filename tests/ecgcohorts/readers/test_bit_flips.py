"""Single bits flipped where a checksum covers them: every one is noticed. Collected from the writers that say CHECKED."""

from pathlib import Path

import numpy as np
import pytest
import victims

from ecgcohorts import plugins, readers
from ecgcohorts.errors import UnreadableRecording

FLIPS = 300
CASES = [
    (name, case)
    for name in victims.NAMES
    if victims.has_writer(name)
    for case in getattr(victims.writer_of(name), "CHECKED", {})
]


def test_formats_with_checksums_are_here() -> None:
    assert {"muse_xml", "scp", "wfdb"} <= {name for name, _ in CASES}
    assert {case for name, case in CASES if name == "wfdb"} == {
        f"format {fmt}" for fmt in (16, 61, 80, 160, 212, 310, 311)
    }


@pytest.mark.parametrize(("name", "case"), CASES, ids=[f"{name}-{case}" for name, case in CASES])
def test_every_flipped_bit_is_noticed(name: str, case: str, tmp_path: Path) -> None:
    reader = plugins.load(readers.KIND, name)
    path, file, bits = victims.writer_of(name).CHECKED[case](tmp_path)
    assert list(reader.read(path))
    data = file.read_bytes()
    unnoticed = []
    for bit in np.random.default_rng(31).choice(bits, min(FLIPS, len(bits)), replace=False).tolist():
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        file.write_bytes(flipped)
        try:
            list(reader.read(path))
        except UnreadableRecording:
            continue
        unnoticed.append(bit)
    assert not unnoticed
