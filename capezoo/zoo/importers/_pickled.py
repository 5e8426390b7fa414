"""Read a pickle without running it: to the machine here a class or function is a name, and a call is a note of it.

Nothing is imported and nothing called, whatever the pickle asks for. Its opcodes are told apart by the standard library.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

_KEYS = str | int | float | bytes | None
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Name(NamedTuple):
    """A class or function that the pickle names."""

    module: str
    name: str


@dataclass(eq=False)
class Made:
    """What the pickle asks to be made of something, and is not: an inert object."""

    what: Any
    arguments: tuple[Any, ...] = ()
    state: list[Any] = field(default_factory=list)


def read_pickle(
    file: IO[bytes], make: Callable[[Name, tuple[Any, ...]], Any], fetch: Callable[[Any], Any] | None = None
) -> Any:
    """Return what one pickle holds, from where the file stands; the file then stands behind it.

    make: called in the place of whatever the pickle calls, with its name and arguments; returns `Made` for what it does
    not know. fetch: called with what the pickle keeps outside itself. Raises ValueError for what is no pickle.
    """
    machine = _Machine(make, fetch)
    try:
        # As it parses opcodes this library reads their operands, and reads no more than the file has.
        for opcode, operand, _ in pickletools.genops(file):
            machine.step(opcode.name, operand)
        return machine.stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError) as error:
        raise ValueError(f"no pickle ({type(error).__name__})") from None


class _Machine:
    """Stack, marks and memo of a pickle, as the documentation of `pickletools` describes them."""

    def __init__(self, make: Callable[[Name, tuple[Any, ...]], Any], fetch: Callable[[Any], Any] | None) -> None:
        self.make, self.fetch = make, fetch
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, operand: Any) -> None:
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _VALUES:
            self.stack.append(_VALUES[name])
        # A set as a list: its elements would have to be hashed.
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            self.stack.append([])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "MARK":
            self.marked.append(self.stack)
            self.stack = []
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "POP":
            self.stack.pop() if self.stack else self._since_mark()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name.endswith("PUT"):
            self.memo[operand] = self.stack[-1]
        elif name.endswith("GET"):
            self.stack.append(self.memo[operand])
        elif operand is not None and name not in ("GLOBAL", "INST", "PERSID"):
            # They stand for classes that only the writer's registry knows; no library that writes weights uses them.
            if name.startswith("EXT"):
                raise ValueError("a pickle with extension codes")
            self.stack.append(operand)
        else:
            getattr(self, f"_{name.lower()}")(operand)

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _call(self, what: Any, arguments: Any) -> None:
        # What was itself made of something unknown may be called, too: a note of a note.
        known = isinstance(what, Name) and isinstance(arguments, tuple)
        self.stack.append(self.make(what, arguments) if known else Made(what))

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(items)

    _frozenset = _list

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        # A foreign kind of dictionary keeps nothing. Nor do keys other than plain ones: hashing a tuple in tuples,
        # ten thousand deep, ends Python.
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, _KEYS))

    def _global(self, operand: str) -> None:
        module, _, name = operand.partition(" ")
        self.stack.append(Name(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        # Not the text of anything else: lists that hold one another twice have more of it than any memory.
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        self.stack.append(Name(module, name))

    def _reduce(self, _: Any) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        self._call(what, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        _, arguments, what = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(what, arguments)

    def _inst(self, operand: str) -> None:
        module, _, name = operand.partition(" ")
        self._call(Name(module, name), tuple(self._since_mark()))

    def _obj(self, _: Any) -> None:
        what, *arguments = self._since_mark()
        self._call(what, tuple(arguments))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        # Of a dictionary it would set attributes, such as the versions that torch keeps beside a state dict.
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state.append(state)

    def _persid(self, operand: Any) -> None:
        self._fetch(operand)

    def _binpersid(self, _: Any) -> None:
        self._fetch(self.stack.pop())

    def _fetch(self, what: Any) -> None:
        if self.fetch is None:
            raise ValueError("a pickle that refers to something outside itself")
        self.stack.append(self.fetch(what))
