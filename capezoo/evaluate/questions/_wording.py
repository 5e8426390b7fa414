"""Numbers of tables as text, the same in every question about age and sex."""

from capezoo.evaluate.measure.parts import Task
from ecgcohorts.report.page import NOTHING

_HEADINGS: dict[Task, str] = {"age": "Age: mean absolute error in years", "sex": "Sex: area under the ROC curve"}


def _number(value: float | None, task: Task) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f}" if task == "age" else f"{value:.3f}"


def _range(low: float | None, high: float | None, task: Task) -> str:
    return "" if low is None or high is None else f"{_number(low, task)} to {_number(high, task)}"


def _with_range(value: float | None, low: float | None, high: float | None, task: Task) -> str:
    limits = _range(low, high, task)
    return _number(value, task) + (f" ({limits})" if limits else "")


def _p(value: float | None) -> str:
    return NOTHING if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _in_papers_way(mean: float, se: float | None, task: Task) -> str:
    """Write mean and standard error as CAPE's Table 3 does: 7.880(028) is 7.880 +- 0.028, 0.939(06) is 0.939 +- 0.0006.

    `*` stands for an error of 1 year or .01 and more, for which the notation has no digits.
    """
    if se is None:
        return f"{mean:.3f}"
    # The last digits of the error: three decimals of a year, four of an area, whose first two are always 0.
    decimals, shown = (3, 3) if task == "age" else (4, 2)
    last = round(se * 10**decimals)
    return f"{mean:.3f}({'*' if last >= 10**shown else f'{last:0{shown}}'})"
