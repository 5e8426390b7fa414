"""The pages of methods, encoders and views are made of their files: nothing is left out, and nothing is written twice."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from capezoo import runs
from ecgcohorts import plugins

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"objective": "capezoo.objectives", "encoder": "capezoo.encoders", "view": "capezoo.views"}
ALL = [(kind, name) for kind, package in KINDS.items() for name in plugins.names(package)]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    pytest.importorskip("sphinx")
    place = str(ROOT / "docs" / "_ext")
    sys.path.insert(0, place)
    try:
        spec = importlib.util.spec_from_file_location("plugin_pages", Path(place) / "plugin_pages.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(place)
    return module


@pytest.fixture(scope="module")
def made(pages: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("docs") / "parts"
    pages.write(folder)
    return folder


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_each_has_a_page_with_every_setting_and_its_source_and_a_row(kind: str, name: str, made: Path) -> None:
    module = plugins.load(KINDS[kind], name)
    text = (made / f"{kind}-{name}.rst").read_text("utf-8")
    assert text.startswith(f"{name}\n=")
    for key, field in module.Config.model_fields.items():
        assert f"   * - ``{key}``\n" in text
        assert str(field.description).split(";")[-1].split("_")[-1].strip() in text
    assert f":doc:`{name} </parts/{kind}-{name}>`" in (made / f"_{kind}s.rst").read_text("utf-8")


def test_rows_say_what_the_classes_say(made: Path) -> None:
    rows = (made / "_objectives.rst").read_text("utf-8").split("   * - ")
    cells = {row.split("`")[1].split(" ")[0]: row.splitlines() for row in rows[2:]}
    assert [line.strip(" -") for line in cells["byol"][1:5]] == ["2", "record, patient, adjacent", "no", "yes"]
    assert [line.strip(" -") for line in cells["cpc"][1:5]] == ["1", "", "yes", "no"]
    assert "2002.05709" in cells["simclr"][5]
    assert all(f"``{name}``" in (made / "_runs.rst").read_text("utf-8") for name in runs.names())


def test_a_second_build_touches_nothing_and_what_is_gone_is_removed(pages: ModuleType, made: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    (made / "objective-gone.rst").write_text("gone\n====\n")
    pages.write(made)
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before
