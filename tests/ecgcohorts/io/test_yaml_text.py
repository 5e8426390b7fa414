"""YAML of strangers costs no more than its size, and says one thing only."""

import time
from pathlib import Path

import pytest

from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SpecError
from ecgcohorts.io.yaml_text import read_yaml
from ecgcohorts.preprocess.recipes import load_recipe

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGED = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)
COSTLY = {
    "aliases": (BOMB + "name: *a9\n", "more than 50000 values, aliases written out"),
    "aliases for a title": (BOMB + "name: north\ntitle: *a9\n", "more than 50000 values"),
    "merged mappings": (MERGED + "name: *a8\n", "more than 50000 values"),
    "a list in itself": ("name: &a [*a]\n", "the alias 'a', which stands for nothing yet"),
    "an alias of nothing": ("name: *a\n", "the alias 'a', which stands for nothing yet"),
    "brackets": ("name: " + "[" * 60_000, "nesting depth|more than 64 levels"),
    "closed brackets": ("name: " + "[" * 5000 + "]" * 5000, "nesting depth|more than 64 levels"),
    "braces": ("name: " + "{a: " * 10_000, "nesting depth|more than 64 levels"),
    "levels of lines": ("\n".join(" " * n + "a:" for n in range(200)), "more than 64 levels"),
    "values": ("name: [" + "x," * 30_000 + "]\nlicence: [" + "y," * 30_000 + "]", "more than 50000 values|too many for a"),
    "keys": ("\n".join(f"k{n}: 1" for n in range(5000)), "the key name is missing|name: field required"),
    "a long key": ("? " + "k" * 60_000 + "\n: 1\n", "the key name is missing|name: field required"),
    "a day that there is not": ("name: 2020-13-45\n", "found '2020-13-45', which is no date"),
    "an hour that there is not": ("name: 2020-01-01T99:00:00Z\n", "which is no date"),
    "a zone that there is not": ("name: 2001-01-01T00:00:00+99:00\n", "which is no date"),
    "digits": ("name: " + "9" * 5000 + "\n", "'9{79}, which is no number"),
    "base 60": ("name: 1" + ":59" * 20_000 + "\n", "which is no number"),
    "a key twice": ("name: north\ntitle: a\nname: south\n", "found key 'name' twice in line 3, column 1"),
    "a key twice below": ("name: north\nlayouts:\n- reader: wfdb\n  reader: edf\n", "found key 'reader' twice in line 4"),
    "a key twice in quotes": ("name: north\n'name': south\n", "found key 'name' twice"),
    "an object of Python": ("!!python/object/apply:os.getcwd []", "not YAML"),
    "a list as key": ("? [a, b]\n: 1\n", "not YAML"),
    "bytes that are no text": ("name: \xff\xfe\xff", "not YAML|expected"),
    "a NUL": ("name: a\0b", "not YAML"),
}  # fmt: skip


def _written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, "latin-1")
    return path


@pytest.mark.parametrize("case", COSTLY)
def test_a_costly_or_double_meaning_is_refused_at_once(case, tmp_path):
    text, message = COSTLY[case]
    path = _written(tmp_path, text)
    for read in (CohortSpec.load, load_recipe):
        if read is load_recipe and len(text) > 1 << 16:
            message = "too many for a recipe"
        began = time.process_time()
        with pytest.raises(SpecError, match=message) as caught:
            read(str(path))
        assert time.process_time() - began < 1
        assert len(str(caught.value)) < 1500 + len(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layers", [9, 40])
def test_no_message_makes_the_text_of_what_it_cuts(layers, tmp_path):
    """Even a value below the bound is shown by its kind."""
    text = "name: [" + ", ".join(["[x, x, x]"] * 5000) + "]\n" + f"title: {'t' * layers}\n"
    with pytest.raises(SpecError, match=r"name: found a list, expected"):
        CohortSpec.load(str(_written(tmp_path, text)))


def test_aliases_that_stand_for_little_are_taken(tmp_path):
    path = _written(tmp_path, "a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}\nd: {<<: *a, x: 3}\n")
    found = read_yaml(path, 1000, "test")
    assert found == {"a": {"x": 1}, "b": [{"x": 1}] * 2, "c": {"x": 1, "y": 2}, "d": {"x": 3}}


def test_a_file_of_any_encoding_of_yaml_is_read(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.yaml").write_bytes("a: ä\n".encode(encoding))
        assert read_yaml(tmp_path / "a.yaml", 1000, "test") == {"a": "ä"}
