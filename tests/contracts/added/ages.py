"""Ages: the mean age of the patients of each cohort, for a test that adds a question."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from pydantic import Field

from capezoo.evaluate.questions import Context, Figure, Table
from capezoo.specs.base import Spec
from ecgcohorts.report.charts import intervals

EXAMPLES = (
    "capezoo evaluate ages --weights w/x --store store.zarr --seed 0 -o study",
    "capezoo evaluate ages --weights w/x --store store.zarr --seed 0 --oldest 80 -o study",
)


class Config(Spec):
    """Whose age counts."""

    oldest: float = Field(89.0, gt=0, description="older patients are left out")


class Result(Spec):
    """Cohort -> mean age in years."""

    ages: dict[str, float]


def run(context: Context, config: Config) -> Result:
    """Average ages."""
    age = context.index["age"]
    counted = age <= config.oldest  # False for unknown ages, which are NaN
    ages = {name: float(np.mean(age[counted & (context.cohorts == name)])) for name in context.index.cohorts}
    return Result(ages={name: round(mean, 2) for name, mean in ages.items()})


def tables(result: Result) -> Sequence[Table]:
    """Show the means."""
    return [Table("Mean ages", pd.DataFrame.from_dict(result.ages, orient="index", columns=["years"]))]


def figures(result: Result) -> Sequence[Figure]:
    """Draw the means."""
    series = {"mean": [(None, mean, None) for mean in result.ages.values()]}
    return [Figure("ages", intervals("Ages", list(result.ages), series, "years"))]
