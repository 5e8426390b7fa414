"""Warnings may repeat names of files, devices and cohorts; a terminal must not obey them, in either program."""

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from capezoo.cli.program import main as capezoo
from ecgcohorts.cli.program import main as ecgcohorts

STEERING = "Cart\x1b[2J\x1b]0;title\x07 \u202eleft\x9b31m\nfound nothing wrong\udcff"


def without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program: pytest has handlers of its own, from the beginning of the call on."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("main", "words", "inside"),
    [
        (ecgcohorts, ["info", "s.zarr"], "ecgcohorts.store.upkeep.info.describe"),
        (capezoo, ["list"], "capezoo.zoo.listing.list_models"),
    ],
    ids=["ecgcohorts", "capezoo"],
)
def test_no_warning_steers_a_terminal(
    main: Callable, words: list[str], inside: str, log: bool, make_cohort, tmp_path, monkeypatch, capsys
):
    without_handlers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    if main is ecgcohorts:
        raw = make_cohort(patients=2)
        main(["ingest", str(raw.folder), "s.zarr", "--cohort", str(raw.spec)])

    def warn(*args: object, **kwargs: object) -> None:
        for name in ("ecgcohorts.samplers", "capezoo.zoo", "a_library"):
            logging.getLogger(name).warning("left out: %s", STEERING)
        raise SystemExit(0)

    monkeypatch.setattr(inside, warn)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*words, *(["--log-json", "log.jsonl"] if log else [])])
    told = capsys.readouterr().err
    assert told.count(r"left out: Cart\x1b[2J\x1b]0;title\x07 \u202eleft\x9b31m\nfound nothing wrong\udcff") == 3
    assert all(one.isprintable() or one == "\n" for one in told)
    if log:
        text = Path("log.jsonl").read_text()
        assert all(one.isprintable() or one == "\n" for one in text)
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["message"] for line in lines if line["event"] == "warning"] == [f"left out: {STEERING}"] * 2


def test_no_warning_of_python_itself_does(tmp_path):
    code = f"""
import warnings
from ecgcohorts.cli.program import main
from ecgcohorts.store import union
union.open_named = lambda *args: warnings.warn({STEERING!r})
main(["info", "none.zarr"])
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True).stderr
    assert r"UserWarning: Cart\x1b[2J" in told
    assert all(one.isprintable() or one == "\n" for one in told)


def test_what_was_set_for_warnings_before_is_set_again(capsys):
    before = logging.lastResort, warnings.formatwarning
    with pytest.raises(SystemExit):
        ecgcohorts(["info", "none.zarr"])
    assert (logging.lastResort, warnings.formatwarning) == before


def test_a_path_in_a_warning_is_written_out(make_cohort, tmp_path, monkeypatch, capsys):
    without_handlers(monkeypatch)
    raw, key = make_cohort(patients=2), tmp_path / "k\x1b[2Jey"
    key.write_text("ab" * 32)
    key.chmod(0o644)
    ecgcohorts(["ingest", str(raw.folder), str(tmp_path / "s.zarr"), "--cohort", str(raw.spec), "--key", str(key)])
    told = capsys.readouterr().err
    assert r"k\x1b[2Jey" in told
    assert "\x1b" not in told
