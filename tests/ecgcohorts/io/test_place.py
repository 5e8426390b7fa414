"""A folder and a bucket answer alike: what stores, copies and sources rest on, run over both."""

import pickle
from pathlib import Path

import pytest

from ecgcohorts.errors import SpecError, StoreError
from ecgcohorts.io.place import Bucket, Folder, Place, place_at

CONTENT = {"CURRENT": b"c", ".staging/x.part": b"half", "a b/2": b"two", "a/1.hea": b"1", "a/1/2": b"12", "a-/0": b""}
VISIBLE = ["CURRENT", "a b/2", "a-/0", "a/1.hea", "a/1/2"]  # whole paths in order: "a-/" and "a b/" stand before "a/"


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = place_at(
        tmp_path / "place" if request.param == "folder" else f"{request.getfixturevalue('bucket_url')}/place"
    )
    for name, content in CONTENT.items():
        place.put(name, content)
    return place


def test_names_are_those_that_show_in_the_order_of_their_paths(place: Place) -> None:
    assert list(place.names()) == VISIBLE
    assert list(place.names("a/")) == ["a/1.hea", "a/1/2"]
    assert place.name == "place"


def test_everything_is_every_file_and_folders_after_what_is_in_them(place: Place) -> None:
    found = list(place.everything())
    assert sorted(name for name in found if not name.endswith("/")) == sorted(CONTENT)
    if isinstance(place, Folder):
        assert found.index("a/") > found.index("a/1/") > found.index("a/1/2")
    assert place.sizes() == {name: len(content) for name, content in CONTENT.items()}


def test_sizes_of_those_that_are_there(place: Place) -> None:
    for sizes in (place.sizes, place.pin):
        assert sizes(["a/1/2", "nothing", "a"]) == {"a/1/2": 2}
    assert place.size("a/1/2") == 2


def test_whole_files_parts_and_checksums(place: Place, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(range(200)))
    noted = Folder(tmp_path).sha256_of("long")
    place.put("long", tmp_path / "long", noted)
    assert place.get("long") == bytes(range(200))
    with pytest.raises(StoreError, match="long: found 200 bytes, expected at most 199"):
        place.get("long", limit=199)
    part = bytearray(10)
    assert place.read_into("long", 195, memoryview(part)) == 5
    assert part[:5] == bytes(range(195, 200))
    assert place.sha256_of("long") == place.noted_sha256("long") == noted
    with place.on_disk("long") as path:
        assert path.read_bytes() == bytes(range(200))
    place.put("long", b"short")
    assert place.get("long") == b"short"


def test_what_is_not_there_is_a_missing_file(place: Place) -> None:
    for ask in (
        place.get,
        place.size,
        place.sha256_of,
        lambda name: place.read_into(name, 0, memoryview(bytearray(1))),
    ):
        with pytest.raises(FileNotFoundError):
            ask("nothing")


def test_what_is_deleted_is_gone_and_twice_does_no_harm(place: Place) -> None:
    doomed = [name for name in place.everything() if name.startswith("a/")]
    for _ in range(2):
        place.delete(doomed)
    assert list(place.names()) == ["CURRENT", "a b/2", "a-/0"]
    place.delete(["a b/"])  # not empty: stays in a folder, and a bucket has none
    assert place.get("a b/2") == b"two"


def test_it_may_be_sent_to_another_process(place: Place) -> None:
    assert pickle.loads(pickle.dumps(place)).get("CURRENT") == b"c"


def test_a_place_that_is_not_there_is_empty(tmp_path: Path, bucket_url: str) -> None:
    for where in (tmp_path / "nothing", f"{bucket_url}/nothing"):
        place = place_at(where)
        assert list(place.everything()) == []
        assert place.sizes(["CURRENT"]) == {}


def test_links_are_neither_followed_nor_deleted(tmp_path: Path) -> None:
    place = Folder(tmp_path / "place")
    place.put("real/1", b"1")
    (tmp_path / "place" / "link").symlink_to(tmp_path / "place" / "real")
    (tmp_path / "place" / "1").symlink_to(tmp_path / "place" / "real" / "1")
    assert list(place.names()) == ["1", "real/1"]
    assert list(place.everything()) == ["1", "link/", "real/1", "real/"]
    place.delete(["1", "link/"])
    assert (tmp_path / "place" / "link" / "1").exists()
    assert (tmp_path / "place" / "1").is_symlink()
    (tmp_path / "way").symlink_to(tmp_path / "place")  # a store may itself be reached by a link
    assert list(Folder(tmp_path / "way").everything()) == ["1", "link/", "real/1", "real/"]


def test_a_url_that_lost_a_slash_is_no_folder() -> None:
    with pytest.raises(SpecError, match="loses a slash"):
        place_at(Path("s3://bucket/x"))
    assert isinstance(place_at("s3://bucket/x"), Bucket)
