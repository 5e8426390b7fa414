"""A disk that loses power: what a crash may leave of a recorded run, by the rules that file systems promise and no more.

What was written to a file is safe once the file was synced; a name, given or taken, once its folder was. Anything else
may be there or not: files cut short or empty, names in any selection. A move between folders is one step. No real disk
is asked; that it keeps what it was told to sync is taken for granted.
"""

import random
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from disk import Act

HOW = ("nothing", "names", "some")  # of what was never synced, left are: nothing; all names but no content; a selection


class File:
    """Content, and what was written and not synced."""

    def __init__(self, safe: bytes = b"") -> None:
        self.safe = safe
        self.unsafe: list[Act] = []

    def content(self, writes: Iterable[Act]) -> bytes:
        content = bytearray(self.safe)
        for act in writes:
            content.extend(bytes(max(0, act.offset - len(content))))
            content[act.offset : act.offset + len(act.data)] = act.data
        return bytes(content)

    def sync(self) -> None:
        self.safe, self.unsafe = self.content(self.unsafe), []

    def left(self, how: str, draw: random.Random) -> bytes:
        if how != "some":
            return self.safe
        kept = self.unsafe[: draw.randint(0, len(self.unsafe))]
        if kept and draw.random() < 0.5:
            kept[-1] = kept[-1]._replace(data=kept[-1].data[: len(kept[-1].data) // 2])
        return self.content(kept)


class Folder:
    """Names as they are now, as they were when last synced, and the steps between."""

    def __init__(self) -> None:
        self.now: dict[str, File | Folder] = {}
        self.safe: dict[str, File | Folder] = {}
        self.unsafe: list[Step] = []


Node = File | Folder


class Change(NamedTuple):
    folder: Folder
    name: str
    node: Node | None  # None: the name is taken away

    def make(self, names: dict[str, Node]) -> None:
        if self.node is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.node


class Step:
    """Changes of names that come together or not at all."""

    def __init__(self, *changes: Change) -> None:
        self.changes = changes


class PowerDisk:
    """The content of a folder, to which a recorded run is done again."""

    def __init__(self, start: Path) -> None:
        self.root = _loaded(start)
        self.steps: list[Step] = []  # not safe, in order
        self.files: dict[int, File] = {}

    def do(self, act: Act) -> None:
        """One more act happens."""
        if act.kind == "write":
            self.files[act.file].unsafe.append(act)
        elif act.kind == "fsync" and act.file >= 0:
            self.files[act.file].sync()
        elif act.kind == "fsync":
            folder = self._at(act.path)
            assert isinstance(folder, Folder)
            self._sync(folder)
        elif act.kind == "create":
            folder, name = self._place(act.path)
            file = folder.now.get(name) or File()
            assert isinstance(file, File)
            self.files[act.file] = file
            if name not in folder.now:
                self._step(Change(folder, name, file))
        elif act.kind == "mkdir":
            self._step(Change(*self._place(act.path), Folder()))
        elif act.kind in ("unlink", "rmdir"):
            self._step(Change(*self._place(act.path), None))
        else:
            given = Change(*self._place(act.target), self._at(act.path))
            taken = [Change(*self._place(act.path), None)] if act.kind == "replace" else []
            self._step(*taken, given)

    def crash(self, how: str, draw: random.Random) -> dict[str, bytes | None]:
        """What is left, by path: content of files, None for folders."""
        kept = [step for step in self.steps if how == "names" or (how == "some" and draw.random() < 0.5)]
        names: dict[int, dict[str, Node]] = {}
        for step in kept:
            for change in step.changes:
                change.make(names.setdefault(id(change.folder), dict(change.folder.safe)))
        left: dict[str, bytes | None] = {}

        def walk(folder: Folder, path: str) -> None:
            for name, node in sorted(names.get(id(folder), folder.safe).items()):
                left[path + name] = node.left(how, draw) if isinstance(node, File) else None
                if isinstance(node, Folder):
                    walk(node, f"{path}{name}/")

        walk(self.root, "")
        return left

    def now(self) -> dict[str, bytes | None]:
        """What a process sees."""
        seen: dict[str, bytes | None] = {}

        def walk(folder: Folder, path: str) -> None:
            for name, node in folder.now.items():
                seen[path + name] = node.content(node.unsafe) if isinstance(node, File) else None
                if isinstance(node, Folder):
                    walk(node, f"{path}{name}/")

        walk(self.root, "")
        return seen

    def _step(self, *changes: Change) -> None:
        step = Step(*changes)
        self.steps.append(step)
        for change in changes:
            change.make(change.folder.now)
            change.folder.unsafe.append(step)

    def _sync(self, folder: Folder) -> None:
        while folder.unsafe:
            self._make_safe(folder.unsafe[0])

    def _make_safe(self, step: Step) -> None:
        """With all that came before it in its folders: journals keep their order."""
        for change in step.changes:
            while change.folder.unsafe[0] is not step:
                self._make_safe(change.folder.unsafe[0])
        for change in step.changes:
            change.make(change.folder.safe)
        for folder in {id(change.folder): change.folder for change in step.changes}.values():
            folder.unsafe = [one for one in folder.unsafe if one is not step]
        self.steps.remove(step)

    def _at(self, path: str) -> Node:
        node: Node = self.root
        for part in () if path == "." else PurePosixPath(path).parts:
            assert isinstance(node, Folder)
            node = node.now[part]
        return node

    def _place(self, path: str) -> tuple[Folder, str]:
        pure = PurePosixPath(path)
        folder = self._at(str(pure.parent))
        assert isinstance(folder, Folder)
        return folder, pure.name


def _loaded(path: Path) -> Folder:
    folder = Folder()
    for child in path.iterdir():
        folder.now[child.name] = _loaded(child) if child.is_dir() else File(child.read_bytes())
    folder.safe = dict(folder.now)
    return folder


def write(left: dict[str, bytes | None], folder: Path) -> None:
    """What is left, as real files."""
    folder.mkdir()
    for path, content in left.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
