"""Manifests: all is stated, once, by known names; a cut one is never another one."""

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from ecgcohorts.errors import Reason, UnreadableRecording
from ecgcohorts.readers.arrays import sniff
from ecgcohorts.readers.arrays.description import ArrayDescription
from ecgcohorts.readers.arrays.manifest import Manifest

GOOD = "ecg_arrays: 1\nkind: csv\nrate_hz: 500\nunit: uV\nleads: [I, II]\naxes: time_lead\nfiles: ['*.csv']\n"


@pytest.fixture(scope="module")
def files(writers: Callable[[str], ModuleType]) -> ModuleType:
    return writers("arrays")


def load(folder: Path, text: str | bytes) -> Manifest:
    path = folder / "arrays.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest.load(path)


def refused(folder: Path, text: str | bytes) -> UnreadableRecording:
    start = time.perf_counter()
    with pytest.raises(UnreadableRecording) as caught:
        load(folder, text)
    assert time.perf_counter() - start < 1
    return caught.value


@pytest.mark.parametrize("text", [
    GOOD, "\ufeff" + GOOD, "# by hand\n\n---\n" + GOOD, GOOD.replace("\n", "\r\n"), GOOD.replace("500", "'500'"),
    GOOD.replace("leads: [I, II]", "leads:\n  - I\n  - II"), GOOD.replace("kind", "# comment\nkind"), GOOD + "\n\n",
    GOOD.replace("axes", "samples: null\naxes"), GOOD.replace("axes", "samples: ~\naxes"),
])  # fmt: skip
def test_one_meaning_in_several_spellings(text: str, tmp_path: Path) -> None:
    found = load(tmp_path, text)
    assert found.files == ("*.csv",)
    expected = ArrayDescription(kind="csv", rate_hz=500, unit="uV", leads=("I", "II"), axes="time_lead")
    assert found.description == expected
    assert sniff(text.encode())


def test_texts_stay_what_was_written(tmp_path: Path) -> None:
    """YAML 1.1 makes false of NO, 90 of 1:30 and a date of 2020-01-01."""
    found = load(tmp_path, GOOD.replace("[I, II]", "[NO, 1:30, 2020-01-01, 1e3]"))
    assert found.description.leads == ("NO", "1:30", "2020-01-01", "1e3")


def test_every_field_can_be_stated(tmp_path: Path) -> None:
    more = "steps_per_unit: 200\nsamples: 5000\nmissing: -32768\nskip_lines: 6\ncolumns: [2, 1]\nseparator: space\ndecimal: ','\n"
    found = load(tmp_path, GOOD.replace("files", more + "files")).description
    assert (found.steps_per_unit, found.samples, found.missing, found.skip_lines) == (200.0, 5000, -32768.0, 6)
    assert (found.columns, found.separator, found.decimal) == ((2, 1), "space", ",")


@pytest.mark.parametrize("key", ["kind", "rate_hz", "unit", "leads", "axes"])
def test_nothing_is_guessed(key: str, tmp_path: Path) -> None:
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))
    error = refused(tmp_path, text)
    assert error.reason is Reason.HEADER
    assert key in error.found


@pytest.mark.parametrize(("old", "new", "said"), [
    ("rate_hz", "rate", "expected rate_hz?"), ("unit", "units", "expected unit?"), ("kind: csv", "kind: xlsx", "kind"),
    ("unit: uV", "unit: counts", "unit"), ("500", "0", "rate_hz"), ("500", "nan", "rate_hz"), ("500", "-500", "rate_hz"),
    ("500", "1e9", "rate_hz"), ("500", "[500]", "rate_hz"), ("[I, II]", "[]", "leads"), ("[I, II]", "I", "leads"),
    ("[I, II]", "[I, DI]", "lead I twice"), ("[I, II]", "[x, X]", "twice"), ("[I, II]", "[I, '']", "lead names"),
    ("axes: time_lead", "axes: rows", "axes"), ("axes", "unit: mV\naxes", "twice"), ("axes", "name: x\naxes", "name"),
    ("kind: csv", "kind: hdf5", "name"), ("kind: csv", "kind: npy\nskip_lines: 1", "only csv"), ("axes", "columns: [1]\naxes", "columns"),
    ("axes", "columns: [1, 1]\naxes", "one column"), ("axes", "columns: [-1, 2]\naxes", "columns"), ("axes", "samples: 0\naxes", "samples"),
    ("axes", "decimal: ','\naxes", "decimal"), ("axes", "steps_per_unit: 0\naxes", "steps_per_unit"), ("axes", "missing: .inf\naxes", "missing"),
    ("[I, II]", "&a [I, II]", "anchor"), ("[I, II]", "[&a I, *a]", "anchor"), ("[I, II]", "!!set {I, II}", "nesting"),
    ("[I, II]", "[[I], II]", "nesting"), ("uV", "!!python/object:os.system {}", "nesting"), ("uV", "!!str uV", "tag"),
    ("uV", "'uV", "YAML"), ("uV", "\0", "YAML"), ("[I, II]", "{I: II}", "nesting"), ("rate_hz", "? [a]\n: 1\nrate_hz", "nesting"),
    ("['*.csv']", "[]", "files"), ("['*.csv']", "'*.csv'", "files"), ("['*.csv']", "['/x']", "below"), ("['*.csv']", "['a/../x']", "below"),
    ("['*.csv']", "['a//x']", "below"), ("['*.csv']", "['C:x']", "below"), ("['*.csv']", "['a\\x']", "below"), ("['*.csv']", "['**']", "below"),
    ("['*.csv']", "['a/**/x']", "first folder"), ("['*.csv']", "['**x/y']", "first folder"), ("['*.csv']", "['']", "below"),
    ("csv\n", "csv\nfiles: ['a']\n", "twice"),
])  # fmt: skip
def test_what_is_stated_wrongly_is_said(old: str, new: str, said: str, tmp_path: Path) -> None:
    error = refused(tmp_path, GOOD.replace(old, new, 1))
    assert error.reason is Reason.HEADER
    assert said in str(error)


@pytest.mark.parametrize(("text", "reason"), [
    (GOOD.replace("ecg_arrays: 1", "ecg_arrays: 2"), Reason.UNSUPPORTED), (GOOD.replace("ecg_arrays: 1", "ecg_arrays: "), Reason.UNSUPPORTED),
    (GOOD.removeprefix("ecg_arrays: 1\n") + "ecg_arrays: 1\n", Reason.FORMAT), ("", Reason.FORMAT), ("- ecg_arrays: 1\n", Reason.FORMAT),
    (GOOD + "unit: mV\n", Reason.TRUNCATED), (GOOD.replace("['*.csv']", "\n  - '*.csv'\n  - '*.txt'"), Reason.TRUNCATED),
    (GOOD + "...\n---\na: 1\nfiles: []\n", Reason.HEADER), (GOOD.encode() + b"# \xff\nfiles: []\n", Reason.HEADER),
    (GOOD + "#" * 40_000, Reason.LIMIT), (GOOD.replace("axes", f"name: {'[' * 70}\naxes"), Reason.HEADER),
])  # fmt: skip
def test_what_is_no_manifest_or_half_of_one(text: str, reason: Reason, tmp_path: Path) -> None:
    assert refused(tmp_path, text).reason is reason


def test_a_manifest_cut_anywhere_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("files", "samples: 5000\nmissing: -32768\nskip_lines: 2\nfiles")
    for length in range(len(text)):
        refused(tmp_path, text[:length])


def test_a_manifest_is_known_by_its_first_key() -> None:
    assert not any(
        map(sniff, (b"", b"ecg", b"ecg_arrays", b"name: x\necg_arrays: 1\n", b"{ecg_arrays: 1}", b"\0" * 99))
    )


def test_a_changed_manifest_is_read_again(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).description.unit == "uV"
    assert load(tmp_path, GOOD.replace("uV", "nV ")).description.unit == "nV"


def test_a_description_in_code_is_checked_alike() -> None:
    known: dict[str, Any] = {"kind": "csv", "rate_hz": 500, "unit": "uV", "leads": ("I", "aVR"), "axes": "time_lead"}
    ArrayDescription(**known)
    for wrong in ({"leads": ("I", "Lead I")}, {"columns": (0, 256)}, {"unit": "mm"}, {"x": 1}):
        with pytest.raises(ValidationError):
            ArrayDescription(**(known | wrong))
