"""Links are followed in no source, and none hides a recording: what a layout asks for is an input, link or not."""

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from ecgcohorts.cli.program import main
from ecgcohorts.errors import SourceError
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.sources import open_source

OPTIONS = IngestOptions(quality=False)


def _pack(folder: Path, kind: str) -> Path:
    """Pack a folder as tar and zip do: links stay links, and tar makes a hard link of each second name of a file."""
    path = folder.parent / f"packed.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for one in sorted(folder.rglob("*")):
                if one.is_symlink():
                    info = zipfile.ZipInfo(one.relative_to(folder).as_posix())
                    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                    archive.writestr(info, os.readlink(one))
                elif one.is_file():
                    archive.write(one, one.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as archive:
            for one in sorted(folder.rglob("*")):
                archive.add(one, one.relative_to(folder), recursive=False)
    return path


@pytest.fixture
def raw(make_cohort):
    """Three recordings; a link to a header, one to a header's samples, one to nothing, and one to a folder."""
    made = make_cohort(patients=2)
    folder = made.folder
    (folder / "linked.hea").symlink_to("CANARYREC000v0.hea")
    (folder / "to_nothing.hea").symlink_to("gone.hea")
    samples = next(iter(made.signals.values()))
    made.add("CANARYLAST", samples // 2, Age="44")
    (folder / "CANARYLAST.dat").rename(folder / "elsewhere.bin")
    (folder / "CANARYLAST.dat").symlink_to("elsewhere.bin")
    (folder.parent / "far").mkdir()
    (folder.parent / "far" / "hidden.hea").write_text("far\n")
    (folder / "sub").symlink_to(folder.parent / "far")
    return made


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "zip"])
def test_a_link_that_a_layout_asks_for_is_an_input_that_is_refused(raw, kind, tmp_path):
    source = raw.folder if kind == "folder" else _pack(raw.folder, kind)
    report = ingest(source, tmp_path / "s.zarr", str(raw.spec), OPTIONS)
    asked_for = {path.name for path in raw.folder.iterdir() if path.suffix == ".hea"}
    assert report.total.inputs == len(asked_for) == 6
    assert report.total.balanced()
    assert report.total.stored == 3
    assert report.total.rejected == {"unsafe_path": 3}
    assert report.left_out == ({"link to a folder": 1} if kind == "folder" else {"symbolic link": 4})
    again = ingest(source, tmp_path / "s.zarr", str(raw.spec), OPTIONS)
    assert not again.written
    assert again.known == 6


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_header_that_is_a_second_name_of_a_file_is_counted(make_cohort, kind, tmp_path):
    made = make_cohort(patients=2)
    os.link(made.folder / "CANARYREC000v0.hea", made.folder / "second.hea")
    report = ingest(_pack(made.folder, kind), tmp_path / "s.zarr", str(made.spec), OPTIONS)
    assert report.total.inputs == 4
    assert report.total.rejected == {"unsafe_path": 1}
    assert report.left_out == {"hard link": 1}


def test_samples_that_are_a_second_name_of_a_file_refuse_their_recording(make_cohort, tmp_path):
    made = make_cohort(patients=1)
    made.add("a", next(iter(made.signals.values())) // 2)
    (made.folder / "a.dat").rename(made.folder / "A.bin")
    os.link(made.folder / "A.bin", made.folder / "a.dat")
    report = ingest(_pack(made.folder, "tar"), tmp_path / "s.zarr", str(made.spec), OPTIONS)
    assert (report.total.inputs, report.total.rejected) == (2, {"unsafe_path": 1})


def test_a_link_beside_the_top_folder_does_not_hide_it(make_cohort, tmp_path):
    made = make_cohort(patients=1)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(made.folder, "release-1")
        info = tarfile.TarInfo("latest")
        info.type, info.linkname = tarfile.SYMTYPE, "release-1"
        archive.addfile(info)
    with open_source(path) as source:
        assert source.top_folder() == "release-1/"
        assert "latest" not in source.names()


def test_links_are_told_at_the_end_of_a_run(raw, tmp_path, capsys):
    main(["ingest", str(raw.folder), str(tmp_path / "s.zarr"), "--cohort", str(raw.spec), "--max-reject-frac", "1"])
    assert "in the source, but no files: 1 x link to a folder" in capsys.readouterr().out


def test_most_members_hold_something(tmp_path):
    """60,000 empty members took 24 s to refuse one by one."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.hea", b"x")
        for number in range(3000):
            archive.writestr(zipfile.ZipInfo(f"{number}.hea"), b"")
    with open_source(path) as source, pytest.raises(SourceError, match="found 1025 empty members of 1026"):
        next(source.names())


@pytest.mark.parametrize("n", [900, 2000])
def test_records_of_headers_are_bounded_by_the_members(n, tmp_path):
    """A global header of 80,000 records under 20,000 members took a minute, packed in 284 kB."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={f"k{key}": "" for key in range(n)}) as archive:
        info = tarfile.TarInfo("a.hea")
        archive.addfile(info)
    with open_source(path) as source:
        if n < 1000:
            assert list(source.names()) == ["a.hea"]
        else:
            with pytest.raises(SourceError, match="found 1001 records in headers"):
                next(source.names())
