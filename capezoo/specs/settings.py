"""Changes to a run as a person types them: `optimiser.lr=1e-3`. Every key is known and every value checked."""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import yaml

from capezoo.specs import PartSpec, RunConfig, parse
from capezoo.specs.base import AnySpec
from ecgcohorts import plugins
from ecgcohorts.errors import SpecError

WHERE = "--set"


def changed(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Return the config with each KEY=VALUE set; KEY is a path such as `encoder.config.widths`.

    VALUE is read as JSON, else as YAML, else it is text: 1e-3, true, null, [a, b], patient_pairs. Later ones win.
    Raises SpecError, in one line, for an unknown key, naming the known ones, or a value that does not fit.
    """
    values = config.model_dump()
    # Only what was given: leads, rate and length that were not follow the recipe.
    values["input"] = config.input.model_dump(exclude_unset=True)
    given: set[str] = set()
    for key, text in _pairs(settings):
        if key == "seed":
            raise SpecError(
                f"{WHERE}: found {f'{key}={text}'!r}, expected the seed as an option of its own: --seed {text}."
            )
        _put(values, key.split("."), value_of(text))
        given.add(key)
    asked = values["input"]
    if "input.recipe" in given and asked.get("recipe") != config.input.recipe:
        # A length in samples means nothing at another rate.
        for name in {"leads", "rate_hz", "length", "own_recipe"}:
            if f"input.{name}" not in given:
                asked.pop(name, None)
    made = parse(RunConfig, values, WHERE)
    _require_parts(made, given)
    return made


def with_values(spec: AnySpec, settings: Sequence[str]) -> AnySpec:
    """Return any spec with each KEY=VALUE set, in the words of `changed`. Raises SpecError as that does."""
    values = spec.model_dump()
    for key, text in _pairs(settings):
        _put(values, key.split("."), value_of(text))
    return parse(type(spec), values, WHERE)


def _pairs(settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise SpecError(f"{WHERE}: found {setting!r}, expected KEY=VALUE, such as optimiser.lr=1e-3.")
        yield key, text


def _require_parts(config: RunConfig, given: Collection[str]) -> None:
    """Raise SpecError unless encoder, objective and views exist and know the settings they are given.

    given: the keys that were typed.
    """
    views: tuple[tuple[str, PartSpec], ...] = tuple(("view", view) for view in config.views)
    parts = (("encoder", config.encoder), ("objective", config.objective), *views)
    for kind, part in parts:
        module = plugins.load(f"capezoo.{kind}s", part.name)
        typed = {key.removeprefix(f"{kind}.config.").split(".")[0] for key in given}
        # Nobody typed these: they were settings of the part that another one replaces.
        left = [repr(key) for key in part.config if key not in module.Config.model_fields and key not in typed]
        if left and f"{kind}.name" in given and f"{kind}.config" not in given:
            known = ", ".join(module.Config.model_fields)
            raise SpecError(
                f"{kind} {part.name}: found {', '.join(left)} of the run's own {kind}, expected only {known}. "
                f"Start without them: {WHERE} '{kind}.config={{}}'."
            )
        parse(module.Config, part.config, f"{kind} {part.name}")


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a leaf. A branch that is not there is made: `parse` names it as unknown."""
    *branches, leaf = path
    for place, branch in enumerate(branches):
        inner = values.setdefault(branch, {})
        if not isinstance(inner, dict):
            whole = ".".join(branches[: place + 1])
            raise SpecError(
                f"{WHERE}: found key {'.'.join(path)!r}, but {whole!r} has no keys of its own: {whole}=VALUE."
            )
        values = inner
    values[leaf] = value


def value_of(text: str) -> Any:
    """Return the value that a text stands for: read as JSON, else as YAML, else the text itself."""
    # JSON first: YAML 1.1 takes 1e-3 for text.
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
