"""One cohort in several formats in one folder: a layout each, taken one after the other."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ecgcohorts as ec
from ecgcohorts.cli.program import main
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest import ingest
from ecgcohorts.ingest.draft import draft
from ecgcohorts.simulate import simulate

YAML = """\
name: ours
title: Two generations of carts
licence: none
citation: none
mains_hz: 50
layouts:
  - {name: old, reader: wfdb, files: {include: ["**/*.hea"]}, patient: {header: Patient ID}}
  - {name: new, reader: muse_xml, files: {include: ["**/*.xml"]}}
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WFDB and MUSE files in the same folder, and the description beside it."""
    folder = tmp_path_factory.mktemp("mixed")
    simulate(folder / "raw", patients_per_cohort=4, seed=0)
    for hospital in ("north", "river"):
        shutil.copytree(folder / "raw" / hospital, folder / "src", dirs_exist_ok=True)
    (folder / "src" / "cohort.yaml").unlink()
    (folder / "ours.yaml").write_text(YAML)
    return folder


def test_the_message_leads_to_the_layouts(mixed: Path) -> None:
    with pytest.raises(SourceError) as caught:
        CohortSpec.load(str(mixed / "ours.yaml")).find(mixed / "src")
    assert "files of the layouts old and new" in str(caught.value)
    assert "--cohort NAME#old" in str(caught.value)


def test_both_formats_become_one_cohort(mixed: Path, tmp_path: Path) -> None:
    paths = {name: f"{mixed / 'ours.yaml'}#{name}" for name in ("old", "new")}
    reports = [ingest(mixed / "src", tmp_path / "s.zarr", path) for path in paths.values()]
    store = ec.open(tmp_path / "s.zarr")
    assert list(store.index.cohorts) == ["ours"]
    assert all(report.total.stored for report in reports)
    n_xml, n_hea = (len(list((mixed / "src").rglob(f"*.{suffix}"))) for suffix in ("xml", "hea"))
    assert len(store.index) == n_xml + n_hea
    # Simulated hospitals number their people alike, so here a number is one patient in both formats.
    one = CohortSpec.load(paths["old"])
    ids = {
        spec.describe(tables, item).patient_id
        for spec in (one, CohortSpec.load(paths["new"]))
        for tables in [spec.load_tables(mixed / "src")]
        for item in spec.scan(mixed / "src")
    }
    assert store.index.n_patients == len(ids)
    again = ingest(mixed / "src", tmp_path / "s.zarr", paths["old"])
    assert not again.written


def test_each_format_is_compared_with_the_store(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, description = shutil.copytree(mixed / "src", tmp_path / "src"), mixed / "ours.yaml"
    store = tmp_path / "s.zarr"
    for layout in ("old", "new"):
        ingest(source, store, f"{description}#{layout}")
    n = {kind: len(list(source.rglob(f"*.{kind}"))) for kind in ("xml", "hea")}
    for layout, mine, others in (("old", n["hea"], n["xml"]), ("new", n["xml"], n["hea"])):
        main(["verify", str(store), "--against", str(source), "--cohort", f"{description}#{layout}", "-j", "2"])
        told = capsys.readouterr().out
        assert (
            f"{mine} recordings equal their source; not stored: none; not in this layout, hence not compared: {others}"
            in told
        )
    shutil.copy(*sorted(source.rglob("*.xml"))[:2])
    with pytest.raises(SystemExit) as end:
        main(["verify", str(store), "--against", str(source), "--cohort", f"{description}#new"])
    assert end.value.code == 4
    for path in source.rglob("*.hea"):
        path.unlink()
    with pytest.raises(SystemExit) as end:  # of one format that is left, without its name: what is gone is told
        main(["verify", str(store), "--against", str(source), "--cohort", str(description)])
    assert end.value.code == 4
    assert f"{n['hea']} gone from the source" in capsys.readouterr().err


def test_a_layout_is_no_part_of_the_description(mixed: Path) -> None:
    whole, part = (CohortSpec.load(f"{mixed / 'ours.yaml'}{end}") for end in ("", "#new"))
    assert part.sha256 == whole.sha256
    assert part.layouts == whole.layouts
    assert [layout.name for layout in (part.find(mixed / "src").layout,)] == ["new"]
    preset = CohortSpec.load("code15#wfdb")
    assert preset.sha256 == CohortSpec.load("code15").sha256
    assert CohortSpec.load("code15")._chosen is None  # presets are shared


def test_an_unknown_layout_is_one_line(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match=r"found no layout 'nwe', expected one of old, new. Did you mean 'new'\?"):
        CohortSpec.load(f"{mixed / 'ours.yaml'}#nwe")
    with pytest.raises(SpecError, match="found no cohort"):
        CohortSpec.load("#old")
    with pytest.raises(SystemExit) as stop:
        main(["ingest", str(mixed / "src"), str(mixed / "x.zarr"), "--cohort", f"{mixed / 'ours.yaml'}#nwe"])
    assert stop.value.code == 2
    assert "found no layout 'nwe'" in capsys.readouterr().err


def test_a_file_with_this_character_in_its_name_is_a_file(tmp_path: Path, make_cohort: Callable[..., Any]) -> None:
    raw = make_cohort(patients=1)
    path = raw.spec.rename(tmp_path / "a#b.yaml")
    assert CohortSpec.load(str(path)).name == "north"


def test_a_draft_of_several_formats_leads_there(mixed: Path) -> None:
    made = draft(mixed / "src")
    assert "# As one cohort, each format is a layout of one file" in made.text
    assert "several formats" not in draft(mixed / "raw" / "north").text
