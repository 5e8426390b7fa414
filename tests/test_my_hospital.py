"""docs/my_hospital.md is run: every command in order, in one folder, and its output compared with the page.

python tests/test_my_hospital.py    # writes what commands print now into the page; look at the difference
"""

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "my_hospital.md"
STEP = re.compile(
    r"^<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<content>.*?)^```$|^```console\n(?P<console>.*?)^```$", re.M | re.S
)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.M)
# Pseudonyms and fingerprints depend on the key, which each reader has of his own.
DIGITS = re.compile(r"\b[0-9a-f]{16,}\b")
# Whatever folder the package was installed into.
PROGRAM = f'ecgcohorts() {{ "{sys.executable}" -m ecgcohorts.cli "$@"; }}; python() {{ "{sys.executable}" "$@"; }}\n'
HOME = "/home/you"
SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SECONDS = 120


def ran(command: str, folder: Path) -> str:
    """What a command prints in a terminal of 100 columns, with the home folder of the page."""
    surroundings = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(folder), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    surroundings.pop("XDG_CONFIG_HOME", None)
    done = subprocess.run(
        ["bash", "-c", PROGRAM + command],
        cwd=folder,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    return done.stdout.replace(str(folder), HOME)


def compared(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(command, output on the page, output now) for every command, in the order of the page; equal outputs as on the page."""
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "practice_hospital.py", folder / "examples")
    same = doctest.OutputChecker().check_output
    for step in STEP.finditer(PAGE.read_text("utf-8")):
        if step["name"]:
            (folder / step["name"]).write_text(step["content"], "utf-8")
            continue
        for command, shown in COMMAND.findall(step["console"]):
            found = ran(command, folder)
            is_same = same(DIGITS.sub("0" * 16, shown), DIGITS.sub("0" * 16, found), SAME)
            yield command, shown, shown if is_same else found


def test_the_page_shows_what_its_commands_print(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("the page is for bash, which is not installed")
    for command, shown, found in compared(tmp_path):
        assert found == shown, command


def renew() -> None:
    """Put the outputs of now into the page, where they differ."""
    text = PAGE.read_text("utf-8")
    with TemporaryDirectory() as folder:
        for command, shown, found in compared(Path(folder)):
            lines = "".join(f"{line.rstrip()}\n" for line in found.rstrip("\n").splitlines())
            text = text.replace(f"$ {command}\n{shown}", f"$ {command}\n{lines}", 1)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    renew()
