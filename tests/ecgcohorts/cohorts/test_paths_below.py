"""A description of a stranger opens nothing but what stands below SRC."""

from pathlib import Path

import pytest
import yaml

from ecgcohorts.cohorts.schema import Table
from ecgcohorts.cohorts.spec import CohortSpec
from ecgcohorts.errors import SourceError, SpecError
from ecgcohorts.ingest import IngestOptions, ingest


def _described(make_cohort, file: str) -> Path:
    """A cohort whose sex stands in a table, and the folder of its recordings."""
    made = make_cohort(patients=1)
    spec = yaml.safe_load(made.spec.read_text())
    layout = spec["layouts"][0] if "layouts" in spec else spec
    layout["tables"] = [{"file": file, "key": "name"}]
    layout["sex"] = [{"column": "sex"}]
    made.spec.write_text(yaml.safe_dump(spec))
    return made


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("/etc/passwd", "found an absolute path"),
        ("../secret.csv", r"found a path with \.\."),
        ("a/../../secret.csv", r"found a path with \.\."),
        ("a//b.csv", "found an empty part"),
        ("", "found an empty part"),
        (".", "found an empty part"),
        ("C:\\secret.csv", "found a drive letter"),
        ("a\nb.csv", "found .* control character"),
        ("x" * 300, "found a name that is too long"),
    ],
)
def test_a_table_elsewhere_is_refused_when_the_description_is_read(make_cohort, file, message):
    made = _described(make_cohort, file)
    (made.folder.parent / "secret.csv").write_text("name,sex\nCANARYREC000v0,Male\n")
    with pytest.raises(SpecError, match=rf"tables\.0\.file: {message}.*expected a path below SRC"):
        CohortSpec.load(str(made.spec))


@pytest.mark.parametrize("link", ["file", "folder", "itself"])
def test_a_link_that_leads_out_is_refused(make_cohort, tmp_path, link):
    made = _described(make_cohort, "sub/people.csv")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "people.csv").write_text("name,sex\nCANARYREC000v0,Male\n")
    if link == "folder":
        (made.folder / "sub").symlink_to(outside)
    else:
        (made.folder / "sub").mkdir()
        target = outside / "people.csv" if link == "file" else made.folder / "sub" / "people.csv"
        (made.folder / "sub" / "people.csv").symlink_to(target)
    with pytest.raises(SourceError) as caught:
        ingest(made.folder, tmp_path / "s.zarr", str(made.spec), IngestOptions(quality=False))
    expected = "There is no sub/people.csv" if link == "itself" else "found a link that leads out of"
    assert expected in str(caught.value)
    assert "Male" not in str(caught.value)


def test_a_link_inside_and_a_source_reached_by_a_link_are_taken(make_cohort, tmp_path):
    made = _described(make_cohort, "./people.csv")
    (made.folder / "tables").mkdir()
    (made.folder / "tables" / "v2.csv").write_text("name,sex\nCANARYREC000v0,Male\n")
    (made.folder / "people.csv").symlink_to("tables/v2.csv")
    (tmp_path / "by_link").symlink_to(made.folder)
    report = ingest(tmp_path / "by_link", tmp_path / "s.zarr", str(made.spec), IngestOptions(quality=False))
    assert report.tables[0].recordings_matched == 1


def test_a_dot_before_a_path_says_nothing():
    assert Table(file="./a/b.csv", key="k").file == "a/b.csv"
