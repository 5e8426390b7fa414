"""Object stores by URL, against a real server that speaks S3."""

import os
import pickle
from pathlib import Path

import pytest

from ecgcohorts.errors import ObjectStoreError, SpecError, StoreError
from ecgcohorts.io.buckets import Bucket


def test_what_was_put_is_listed_with_its_size_and_read_back(bucket_url: str, tmp_path: Path) -> None:
    bucket = Bucket(f"{bucket_url}/some/folder")
    (tmp_path / "file").write_bytes(b"from a file")
    bucket.put("b/two", b"hello")
    bucket.put("a one", tmp_path / "file")
    assert bucket.sizes() == {"a one": 11, "b/two": 5}
    whole = Bucket(bucket_url)
    assert {name: whole.size(name) for name in whole.names("some/folder/b")} == {"some/folder/b/two": 5}
    assert bucket.get("b/two") == b"hello"
    bucket.fetch("a one", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"from a file"
    assert bucket.size("b/two") == 5
    bucket.delete(["b/two", "never/there"])
    assert list(bucket.sizes()) == ["a one"]


def test_an_object_that_is_not_there_is_a_missing_file(bucket_url: str, tmp_path: Path) -> None:
    bucket = Bucket(bucket_url)
    for ask in (bucket.get, bucket.size, lambda name: bucket.fetch(name, tmp_path / "new")):
        with pytest.raises(FileNotFoundError, match=r"s3://.*/nothing"):
            ask("nothing")
    assert bucket.tag("nothing") is None


def test_only_one_makes_an_object_and_only_who_saw_it_last_replaces_it(bucket_url: str) -> None:
    bucket = Bucket(bucket_url)
    assert bucket.put_new("lock", b"mine")
    assert not bucket.put_new("lock", b"yours")
    seen = bucket.tag("lock")
    assert bucket.replace("lock", b"second", seen)
    assert not bucket.replace("lock", b"third", seen)
    assert not bucket.replace("lock", b"third", None)
    assert bucket.get("lock") == b"second"
    assert bucket.replace("new", b"first", None)


def test_more_than_the_limit_is_not_fetched(bucket_url: str) -> None:
    Bucket(bucket_url).put("large", bytes(100))
    with pytest.raises(StoreError, match="found 100 bytes, expected at most 99"):
        Bucket(bucket_url).get("large", limit=99)


def test_a_bucket_may_be_sent_to_another_process(bucket_url: str) -> None:
    Bucket(bucket_url).put("x", b"1")
    assert pickle.loads(pickle.dumps(Bucket(bucket_url))).get("x") == b"1"


def test_a_forked_process_is_told_instead_of_waiting_for_ever(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by its number: a test that forks this process, with its threads, would be no better off."""
    bucket = Bucket(bucket_url)
    assert bucket.sizes() == {}
    own = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    with pytest.raises(ObjectStoreError, match=r"forked.*spawn or forkserver"):
        bucket.sizes()
    with pytest.raises(ObjectStoreError, match="forked"):
        Bucket(bucket_url).get("x")


def test_parts_and_whole_say_of_which_object_they_are(bucket_url: str) -> None:
    bucket = Bucket(bucket_url)
    bucket.put("x", b"0123456789")
    part, stamp = bucket.get_range("x", 8, 12)
    assert bytes(part) == b"89"
    assert stamp == bucket.stamps()["x"]
    assert b"".join(bucket.blocks("x")) == b"0123456789"
    bucket.put("empty", b"")
    assert list(bucket.blocks("empty")) == []


def test_a_replaced_object_is_not_pieced_together(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgcohorts.io.buckets._BLOCK_BYTES", 4)
    bucket = Bucket(bucket_url)
    bucket.put("x", b"01234567")
    blocks = bucket.blocks("x")
    next(blocks)
    bucket.put("x", b"another")
    with pytest.raises(ObjectStoreError, match="replaced while it was being read"):
        list(blocks)


def test_a_sha256_may_be_noted_beside_an_object(bucket_url: str) -> None:
    bucket = Bucket(bucket_url)
    bucket.put("plain", b"1")
    bucket.put("noted", b"1" * (6 << 20), "ab" * 32)  # in several parts
    assert bucket.noted_sha256("plain") is None
    assert bucket.noted_sha256("noted") == "ab" * 32


def test_errors_name_the_url_and_nothing_secret(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARYSECRET")
    with pytest.raises(ObjectStoreError, match=r"s3://no-such-bucket: .*404 NoSuchBucket") as caught:
        Bucket("s3://no-such-bucket").sizes()
    assert "CANARY" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["/data", "http://host/x", "s3://", "s3:///x", "s3://user:password@bucket", "s3://bucket?key=1"]
)
def test_what_is_no_url_of_an_object_store_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SpecError, match="Write for example s3://bucket/folder") as caught:
        Bucket(url)
    assert "password" not in str(caught.value).replace("without password", "")
