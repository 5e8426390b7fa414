"""Pseudonyms: keyed, stable, and a key that nobody else can read."""

import hmac
import os
import stat
from hashlib import sha256

import pytest

from ecgcohorts.errors import KeyMismatch, SpecError
from ecgcohorts.privacy.pseudonyms import PseudonymKey, _default_key_path, load_key

KEY = PseudonymKey(bytes(range(32)))


def test_it_is_the_documented_hmac():
    expected = hmac.new(bytes(range(32)), b"north\0patient\x000012", sha256).digest()[:16]
    assert KEY.pseudonym("north", "patient", " 0012 ") == expected


def test_cohort_kind_key_and_leading_zeros_all_matter():
    names = {
        KEY.pseudonym("north", "patient", "12"),
        KEY.pseudonym("south", "patient", "12"),
        KEY.pseudonym("north", "recording", "12"),
        KEY.pseudonym("north", "patient", "0012"),
        PseudonymKey(bytes(32)).pseudonym("north", "patient", "12"),
    }
    assert len(names) == 5


def test_composed_and_decomposed_letters_are_one_id():
    assert KEY.pseudonym("c", "patient", "Z\u00fcrich") == KEY.pseudonym("c", "patient", "Zu\u0308rich")


def test_the_default_key_is_made_once_and_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = load_key()
    assert stat.S_IMODE(_default_key_path().stat().st_mode) == 0o600
    assert load_key() == first
    assert [path.name for path in _default_key_path().parent.iterdir()] == ["pseudonym.key"]


def test_the_secret_does_not_show():
    assert KEY.secret.hex() not in repr(KEY)
    assert "secret" not in repr(KEY)
    assert KEY.fingerprint not in KEY.secret.hex()


@pytest.mark.parametrize("text", ["", "xyz", "abcd", "00" * 31])
def test_what_is_no_key_is_refused(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(SpecError):
        load_key(path)


def test_a_named_key_is_never_made_silently(tmp_path):
    with pytest.raises(SpecError, match=r"\(umask 077; openssl rand -hex 32 > key\)"):
        load_key(tmp_path / "key")
    assert not (tmp_path / "key").exists()


# --- what is said of a key ----------------------------------------------------------------------------------------


def test_the_making_of_a_key_is_told_once_with_where_and_why_to_keep_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    secret = load_key().secret.hex()
    (told,) = caplog.messages
    for words in (str(_default_key_path()), "add recordings", "look one up", "remove a patient", "Copy it now"):
        assert words in told
    assert secret not in told
    caplog.clear()
    load_key()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("mode", "is_told"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True)]
)
def test_a_key_that_others_can_read_is_told_where_a_store_is_made_and_not_after(tmp_path, caplog, mode, is_told):
    path = tmp_path / "hospital.key"
    path.write_text(KEY.secret.hex())
    path.chmod(mode)
    assert load_key(path) == KEY
    assert [
        message.startswith(f"the pseudonym key {path} can be read by other users") for message in caplog.messages
    ] == [True] * is_told
    assert all(f"chmod 600 {path}" in message and KEY.secret.hex() not in message for message in caplog.messages)
    caplog.clear()
    assert load_key(path, for_new_store=False) == KEY
    assert not caplog.messages


def test_a_key_is_not_made_for_a_store_that_has_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(KeyMismatch, match=r"found no pseudonym key .*pseudonym\.key, expected the one.*--key FILE"):
        load_key(for_new_store=False)
    assert not os.listdir(tmp_path)
    assert not caplog.messages
