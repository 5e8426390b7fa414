"""The directive `command-help`: what a program and each of its commands say to `--help`, asked while building."""

import os
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}


def ask(program: str, *arguments: str) -> str:
    """The help text of a program's command, 100 columns wide."""
    run = subprocess.run(
        [sys.executable, "-m", f"{program}.cli", *arguments, "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.rstrip()


def commands_in(help_text: str) -> list[str]:
    """Names of the commands of a group: those are listed after its options, below one heading or several."""
    before, _, listed = help_text.partition("\n\nExamples:")[0].partition("\n  -h, --help")
    if " COMMAND ..." not in before.partition("\n")[0]:
        return []
    return re.findall(r"^  (\w[\w-]*)  ", listed, re.MULTILINE)


class CommandHelp(Directive):
    """One section a command, with its help as a literal block."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        program = self.arguments[0]
        whole = ask(program)
        made: list[nodes.Node] = [nodes.literal_block(whole, whole, language="text")]
        for command in commands_in(whole):
            text = ask(program, command)
            section = nodes.section(ids=[f"{program}-{command}"], names=[f"{program} {command}"])
            section += nodes.title(text=f"{program} {command}")
            section += nodes.literal_block(text, text, language="text")
            for deeper in commands_in(text):
                text = ask(program, command, deeper)
                section += nodes.rubric(text=f"{program} {command} {deeper}")
                section += nodes.literal_block(text, text, language="text")
            made.append(section)
        return made
