"""YAML of strangers: bounded in size, depth and number of values before anything is made of it, and no key twice."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from ecgcohorts.errors import SpecError

_MAX_DEPTH = 64  # our default; a cohort file nests about eight deep
_MAX_VALUES = 50_000  # with every alias written out; our default, a cohort file has some hundred
_MAX_NUMBER = 400  # characters: integers of base 60 take a time that grows with the square of their length
_NUMBERS = ("int", "float", "timestamp")
# libyaml is twenty times as fast, but not in every build of PyYAML.
_Parser: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Parser):  # type: ignore[misc, valid-type]
    """Refuses keys that stand twice, and names the line of a date or number that there is not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        # Of two equal keys the last one would win in silence: a description could show a person one rule and apply
        # another.
        met = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                text = (key.tag, key.value)
                if text in met:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"found key {key.value!r:.80} twice", key.start_mark
                    )
                met.add(text)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            if kind not in _NUMBERS or len(node.value) <= _MAX_NUMBER:
                return super().construct_object(node, deep)
        except (ValueError, OverflowError):  # the 45th day of a month
            pass
        what = "date" if kind == "timestamp" else "number"
        raise yaml.constructor.ConstructorError(
            None, None, f"found {node.value!r:.80}, which is no {what}; put quotes around a text", node.start_mark
        )


def read_yaml(path: Path, limit: int, what: str) -> Any:
    """Return the content of a YAML file of at most `limit` bytes. what: the file should be, for messages.

    Raises SpecError, in one line, for a file that cannot be read, is larger, or is no YAML; and for a key that stands twice,
    and for more values or levels than any such file has.
    """
    try:
        with path.open("rb") as file:
            # One byte further than allowed instead of asking for the size: the path may be a pipe.
            text = file.read(limit + 1)
    except OSError as error:
        raise SpecError(f"{path}: the {what} cannot be read ({error.strerror}). Check the path.") from None
    if len(text) > limit:
        raise SpecError(f"{path}: more than {limit} bytes are too many for a {what}, which has a few kB.")
    try:
        _refuse_bombs(path, text, what)
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).replace('in "<byte string>", ', "in ").split())
        raise SpecError(f"{path}: this is not YAML ({where[:300]}). Correct it there.") from None


def _refuse_bombs(path: Path, text: bytes, what: str) -> None:
    """Raise SpecError for too many values or levels, from the events of the parser: nothing is made yet."""
    # An alias costs nothing to load; whoever then walks through the values, as a check or a message does, meets each again
    # and again: nine lines of ten aliases each stand for a billion.
    sizes: dict[str, int] = {}  # values below an anchor
    begun: list[tuple[str | None, int]] = []  # anchor, and the number of values before it
    values = 0
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor is not None:
                sizes[anchor] = values - before
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise SpecError(
                    f"{path}: found the alias {event.anchor!r:.80}, which stands for nothing yet. Write its value out."
                )
            values += sizes[event.anchor]
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                begun.append((event.anchor, values))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if values > _MAX_VALUES or len(begun) > _MAX_DEPTH:
            bound = f"{_MAX_VALUES} values" if values > _MAX_VALUES else f"{_MAX_DEPTH} levels"
            raise SpecError(f"{path}: found more than {bound}, aliases written out: too many for a {what}. Shorten it.")
