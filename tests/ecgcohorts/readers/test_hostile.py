"""Files written by an adversary: each ends in UnreadableRecording, in a second, in little memory, and touches nothing.

Cases are the functions `case_*` of tests/ecgcohorts/readers/hostile/*.py. Each is read by the readers its module is
named after (`xml`: all that read XML, `paths`: all), and as a user would, by `ec.read`. Every reading has a process of
its own, forked from one that has imported all readers: tests/fuzz/zygote.py.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import victims

SECONDS = 1.0  # of processor time, for one reading
START_SECONDS = 10.0  # on the clock, where a reading starts the process of an isolated reader
MEGABYTES = 256
CASES = sorted(victims.hostile_cases())
LEAST_CASES = 40

# What a design review asked for: items of each family, and patterns that the name of at least one case must fit.
FAMILIES = {
    "xml": (
        *("billion_laughs", "quadratic", "external_entity_file", "external_entity_url", "external_dtd"),
        *("nested.*200000", "sibling", "65_mib", "utf_7|unknown", "utf_16_without_bom", "contradicts_the_bom"),
    ),
    "muse_xml": ("base64.*junk", "empty_waveform"),
    "wfdb": (
        *("5e9", "65", "rate_negative", "rate_zero", "rate_inf", "rate_nan", "gain_zero", "gain_inf"),
        *("per_frame_1e9", "offset_beyond", "skew_negative", "line_too_many", "line_missing", "mebibyte", "bom"),
    ),
    "paths": (
        *("parent_folder", "absolute", "drive", "url", "nul", "leading_minus", "home|tilde", "linked_from_outside"),
        *("itself", "pipe", "device", "folder"),
    ),
    "scp": (*("length_beyond", "length_zero", "overlap", "pointer_to_itself", "never_consumes", "65535_leads"),),
    "dicom": (
        *("deflated_bomb", "missing_sensitivity", "billion_samples", "four_groups_of_three", "big_endian", "padding"),
    ),
    "edf": (
        *("minus_one_records", "9999_signals", "header_bytes", "digital_limits", "physical_limits", "duration_of_zero"),
    ),
    "code_hdf5": (*("external_storage", "virtual_dataset", "soft_link", "external_link", "gigabytes", "wrong_type"),),
    "arrays": (
        *("matlab_bomb", "gzip_bomb", "npy_of_terabytes", "npy_of_objects", "fortran_order", "million_columns"),
        *("endless_line", "naming_files_above", "naming_an_absolute_path", "that_is_a_link"),
    ),
}


@pytest.fixture(scope="session")
def ask() -> Iterator[Callable[[dict[str, str]], dict[str, Any]]]:
    """Ask the process that has all readers imported to try one case."""
    command = [sys.executable, str(Path(victims.__file__).with_name("zygote.py"))]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings
    ) as zygote:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        assert zygote.stdout.readline().strip() == "ready"

        def ask(request: dict[str, str]) -> dict[str, Any]:
            assert zygote.stdin is not None
            assert zygote.stdout is not None
            zygote.stdin.write(json.dumps(request) + "\n")
            zygote.stdin.flush()
            return json.loads(zygote.stdout.readline())

        yield ask
        zygote.stdin.close()


@pytest.mark.parametrize(("module", "case"), CASES, ids=[f"{module}-{case[5:]}" for module, case in CASES])
def test_a_hostile_file_is_refused(
    module: str, case: str, ask: Callable[[dict[str, str]], dict[str, Any]], tmp_path: Path
) -> None:
    answer = ask({"module": module, "case": case, "folder": str(tmp_path)})
    assert "error" not in answer, answer
    for call, found in answer["calls"].items():
        said = f"{call}: {found}"
        assert isinstance(found, dict), said
        assert not found["error"], said
        assert not found["acts"], said
        # A scan decodes nothing, and may take what only decoding shows to be wrong.
        assert found["outcome"] != "read" or call.endswith(".scan"), said
        assert found["cpu_s"] < SECONDS, said
        assert found["clock_s"] < START_SECONDS, said
        assert found["memory_mb"] < MEGABYTES, said


def test_what_is_read_shows_and_memory_is_measured(
    ask: Callable[[dict[str, str]], dict[str, Any]], tmp_path: Path
) -> None:
    calls = ask({"module": "_wfdb", "case": "case_that_is_read", "folder": str(tmp_path)})["calls"]
    assert {found["outcome"] for found in calls.values()} == {"read"}
    assert max(found["memory_mb"] for found in calls.values()) < 20
    calls = ask({"module": "_wfdb", "case": "case_of_zeros", "folder": str(tmp_path)})["calls"]
    assert set(calls) == {"wfdb.read", "wfdb.scan", "ec.read"}
    assert min(calls[call]["memory_mb"] for call in ("wfdb.read", "ec.read")) > 120


def test_there_are_cases_enough_and_of_every_kind() -> None:
    assert len(CASES) >= LEAST_CASES
    missing = [
        f"{module}: {item}"
        for module, items in FAMILIES.items()
        for item in items
        if not any(name == module and re.search(item, case) for name, case in CASES)
    ]
    assert not missing


@pytest.mark.parametrize("name", victims.NAMES)
def test_every_reader_has_hostile_files_of_its_own(name: str) -> None:
    assert any(module == name for module, _ in CASES), f"write hostile/{name}.py"
