"""Named pretraining runs. A file is a study; its `RUNS` maps names to functions that return a RunConfig.

A function takes the seed, or the seed and a cohort.
"""

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path

from capezoo.specs.base import MAX_YAML_BYTES, parse
from capezoo.specs.run import RunConfig
from ecgcohorts import plugins
from ecgcohorts.errors import SourceError, SpecError, did_you_mean
from ecgcohorts.io.yaml_text import read_yaml


@cache
def _all() -> dict[str, Callable[..., RunConfig]]:
    """All runs of all studies, by name. Raises SpecError for a name that two studies use."""
    found: dict[str, Callable[..., RunConfig]] = {}
    home: dict[str, str] = {}
    for study in plugins.names("capezoo.runs"):
        for name, run in plugins.load("capezoo.runs", study).RUNS.items():
            if name in found:
                raise SpecError(f"run {name!r} is in studies {home[name]} and {study}. Rename one of them.")
            found[name], home[name] = run, study
    return found


def names() -> list[str]:
    """List the names that `get` knows."""
    return sorted(_all())


def get(name: str, seed: int, cohort: str | None = None) -> RunConfig:
    """Return a named run. Raises SpecError for an unknown name, or for a cohort too many or too few."""
    if name not in names():
        raise SpecError(f"found no run {name!r}, expected one of {', '.join(names())}.{did_you_mean(name, names())}")
    run = _all()[name]
    if "cohort" in inspect.signature(run).parameters:
        if cohort is None:
            raise SpecError(f"run {name} trains on one cohort. Name it: --cohort NAME.")
        return run(seed, cohort)
    if cohort is not None:
        raise SpecError(f"run {name} trains on all cohorts, and --cohort {cohort} names one. Use --run cape_single, or "
                        f"--set 'cohorts=[{cohort}]'.")  # fmt: skip
    return run(seed)


def load(path: Path, seed: int) -> RunConfig:
    """Return one's own run, a RunConfig in YAML, with this seed in place of its own.

    Raises SourceError if the file is no YAML, SpecError if it is no RunConfig.
    """
    try:
        values = read_yaml(path, MAX_YAML_BYTES, "run")
    except SpecError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise SourceError(f"{path}: cannot be read ({reason}). Give a YAML RunConfig.") from None
    return parse(RunConfig, values | {"seed": seed} if isinstance(values, dict) else values, str(path))
