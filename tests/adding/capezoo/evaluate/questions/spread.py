"""Spread: how far the embeddings of each cohort lie apart along one random direction.

Made up for tests/test_adding_things.py.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import Field

from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec, derive_seed
from ecgcohorts.report.charts import intervals

EXAMPLES = (
    "capezoo evaluate spread --weights w/x --store store.zarr --seed 0 -o study",
    "capezoo evaluate spread --weights w/x --store store.zarr --seed 0 --scale 2 -o study",
)


class Config(Spec):
    """The unit of the answer."""

    scale: float = Field(1.0, gt=0, description="factor on every number; our default")


class Result(Spec):
    """Weights -> cohort -> standard deviation along the direction."""

    spread: dict[str, dict[str, float]]


def run(context: Context, config: Config) -> Result:
    """Project on the direction, the same for all weights of one width."""
    found = {}
    for place, subject in enumerate(context.subjects):
        generator = np.random.Generator(np.random.PCG64(derive_seed(context.seed, "spread")))
        direction = generator.normal(size=subject.features.shape[1])
        along = config.scale * (subject.features @ direction)
        found[subject.name] = {name: float(along[context.cohorts == name].std()) for name in context.index.cohorts}
        context.progress(place + 1, len(context.subjects))
    return Result(spread=found)


def tables(result: Result) -> Sequence[Table]:
    """Show the numbers, weights by cohorts."""
    return [Table("Spread", pd.DataFrame.from_dict(result.spread, orient="index"))]


def figures(result: Result) -> Sequence[Figure]:
    """Draw them beside each other."""
    cohorts = list(next(iter(result.spread.values())))
    series = {name: [(None, of[cohort], None) for cohort in cohorts] for name, of in result.spread.items()}
    return [Figure("spread", intervals("Spread", cohorts, series, "units"))]
