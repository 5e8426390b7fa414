"""The base of all specs: frozen values that go to JSON and back to an equal object."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from ecgcohorts.errors import SpecError, expectation

Share = Annotated[float, Field(ge=0.0, le=1.0)]


SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

# Sizes that a stranger's file may ask for: far above any encoder for ECGs, and small enough that no product of a few of
# them overflows 64 bits. `encoders.build` bounds the product itself, the number of parameters.
Channels = Annotated[int, Field(gt=0, le=1 << 16)]
Taps = Annotated[int, Field(gt=0, le=1 << 12)]  # of a kernel, samples of a stride
MAX_LAYERS = 64
MAX_YAML_BYTES = 1 << 20  # of a run; a long one has some 5 kB

# Of JSON text: our longest cards have some hundred values and eight levels. More is refused before pydantic, which
# keeps a record of every single fault.
MOST_VALUES, _DEEPEST, _LONGEST_INTEGER = 20_000, 32, 19


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, no infinities (JSON has none)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AnySpec = TypeVar("AnySpec", bound=BaseModel)


def parse(kind: type[AnySpec], values: Mapping[str, Any] | str, where: str) -> AnySpec:
    """Build a spec from a mapping or JSON text. Raises SpecError, in one line, naming the first wrong key.

    Text is taken for hostile: a key that is there twice, integers beyond 64 bits, more than 20,000 values and more than
    32 levels are refused.
    """
    if isinstance(values, str):
        values = read_json(values, where)
    if not isinstance(values, Mapping):  # of a file that is empty, or a list
        raise SpecError(
            f"{where}: found {'nothing' if values is None else f'{values!r:.80}'}, expected fields with values."
        )
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_beside(kind, first["loc"]))
            raise SpecError(f"{where}: found unknown key {key!r}, expected one of {known}.") from None
        raise SpecError(f"{where}: found {first['input']!r:.80} for {key!r}, expected: {expectation(first)}.") from None


def read_json(text: str | bytes, where: str, most: int = MOST_VALUES) -> Any:
    """Return the values of a JSON text by a stranger, at most `most` of them. Raises SpecError, naming what is wrong."""
    try:
        values = json.loads(text, object_pairs_hook=_distinct, parse_int=_short, parse_constant=_no_number)
        inner, count = [(values, 1)], 1
        while inner:
            value, depth = inner.pop()
            below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            count += len(below)
            if count > most or depth > _DEEPEST:
                raise ValueError(f"more than {most} values or {_DEEPEST} levels")
            inner.extend((one, depth + 1) for one in below)
    except (ValueError, RecursionError) as error:
        reason = "too many levels" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise SpecError(f"{where}: found no usable JSON ({reason:.200}), expected fields with values.") from None
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that is there twice: the reader before us may have gone by the other one."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r:.80} twice")
    return values


def _short(digits: str) -> int:
    # Python would read any length; what follows compares, multiplies and prints it.
    if len(digits.lstrip("-")) > _LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name}, which is no number")


class PartSpec(Spec):
    """A plug-in by its registered name, and the values of its `Config` that differ from the defaults."""

    name: str
    config: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("config", mode="before")
    @classmethod
    def _lists(cls, config: object) -> object:
        """Tuples become lists, as JSON would make them, so that a spec equals its round trip."""
        if not isinstance(config, Mapping):
            return config
        return {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}


def fingerprint(spec: BaseModel | Mapping[str, Any]) -> str:
    """Return the SHA-256 of a spec's canonical JSON (sorted keys, no spaces), also from its values as JSON has them."""
    values = spec.model_dump(mode="json") if isinstance(spec, BaseModel) else spec
    # Sorted: a field that moves to another line of its class must not make a run another run.
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def derive_seed(seed: int, *key: str | int) -> int:
    """A seed of its own for one use, from the run's seed and a key such as ("views", step): 63 bits of SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, *key]).encode()).digest()
    # 63 bits: a signed integer of 64 holds them, whichever library is seeded.
    return int.from_bytes(digest[:8], "big") >> 1


def _keys_beside(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Keys of the spec in which the last part of `place` was found."""
    for part in place[:-1]:
        inner = kind.model_fields[part].annotation if isinstance(part, str) else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        kind = inner
    return list(kind.model_fields)
