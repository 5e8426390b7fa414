"""Do in-distribution batches help other methods? The artefact control for several objectives, in one table and two figures.

    python examples/methods_on_the_control.py STORE COHORT OUT --method info_nce --method byol --method cpc --seeds 3

Each method has a folder in OUT, as `capezoo evaluate artefact --method NAME` makes it with the arms mixed, in_distribution and
random_weights, and may be stopped and called again. Patients, devices and renderings are the same for all. OUT then holds
`table.md`, `device.svg` and `shift.svg`: means over all seeds, with 95 % intervals over seeds and patients.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import ecgcohorts as ec
from capezoo.evaluate.artefact.campaign import Campaign, plan
from capezoo.evaluate.artefact.methods import settings_of
from capezoo.evaluate.artefact.outcome import Outcome
from capezoo.evaluate.artefact.page import write
from capezoo.evaluate.artefact.rendering import Material
from capezoo.evaluate.artefact.verdict import ALL, Estimate
from ecgcohorts.report.charts import Limits, intervals, on_its_own

ARMS = {"mixed": "mixed batches", "in_distribution": "in-distribution batches", "random_weights": "random weights"}
# Measure -> its column and digits.
MEASURES = {
    "device_auc": ("device AUC", 3),
    f"shift_swapped{ALL}": ("age shift, years", 2),
    f"sex_drop_swapped{ALL}": ("drop of sex AUROC", 3),
}
AT_HOME = {"age_error_home": ("age error at home, years", 2), "sex_home": ("sex AUROC at home", 3)}
COMPARED = ("device_auc", "shift_swapped", "sex_drop_swapped")


def estimates(outcome: Outcome, arm: str) -> dict[str, Estimate]:
    """All measures of an arm."""
    return next((dict(one.measures) for one in outcome.findings.arms if one.arm == arm), {})


def larger(outcome: Outcome) -> str:
    """In how many seeds mixed batches have the larger measure, of all seeds: device, age, sex."""
    for one in outcome.findings.differences:
        if (one.first, one.second) == ("mixed", "in_distribution"):
            names = [name if name == "device_auc" else f"{name}{ALL}" for name in COMPARED]
            return ", ".join(f"{one.larger[name]}" for name in names) + f" of {one.measures[names[0]].seeds}"
    return "-"


def table(outcomes: dict[str, Outcome]) -> str:
    """A row for each method and arm, as Markdown."""
    head = ["method, encoder", "batches", *(text for text, _ in (MEASURES | AT_HOME).values())]
    head.append("mixed is larger in (device, age, sex)")
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method, outcome in outcomes.items():
        for arm, words in ARMS.items():
            found = estimates(outcome, arm)
            if not found:
                continue
            cells = [f"{method}, {outcome.settings.encoder_name}", words]
            cells += [_text(found[name], digits) for name, (_, digits) in MEASURES.items()]
            cells += [_number(found[name].value, digits) for name, (_, digits) in AT_HOME.items()]
            rows.append("| " + " | ".join([*cells, larger(outcome) if arm == "mixed" else ""]) + " |")
    return "\n".join(rows) + "\n"


def figure(outcomes: dict[str, Outcome], name: str, title: str, axis: str) -> str:
    """One measure of all methods, a row a method and a line an arm."""
    series: dict[str, Sequence[Limits | None]] = {}
    for arm, words in ARMS.items():
        of_arm = [estimates(outcome, arm).get(name) for outcome in outcomes.values()]
        series[words] = [None if one is None or one.value is None else (one.low, one.value, one.high) for one in of_arm]
    return on_its_own(intervals(title, list(outcomes), series, axis))


def _text(one: Estimate, digits: int) -> str:
    if one.low is None or one.high is None:
        return _number(one.value, digits)
    return f"{_number(one.value, digits)} ({_number(one.low, digits)} to {_number(one.high, digits)})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("cohort")
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", action="append", required=True, help="a registered objective; repeat for more")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strength", type=float, default=200.0, help="of the tone, in uV")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for all methods")
    options = parser.parse_args()
    store = ec.open(options.store)
    material = Material.of(store, options.cohort)
    # Hard positives concern methods with two views; all get the same renderings.
    cells = plan("tone", [options.strength], ARMS, "hard", range(options.seed, options.seed + options.seeds))
    outcomes: dict[str, Outcome] = {}
    for method in options.method:
        campaign = Campaign(material, cells, options.out / method, settings_of(method, options.set))
        campaign.run(say=lambda text, method=method: print(f"{method}: {text}", file=sys.stderr, flush=True))  # type: ignore[misc]
        outcomes[method] = campaign.outcome(store.fingerprint)
        write(outcomes[method], options.out / method)
        # After each method: a campaign cut short leaves a table of those before.
        (options.out / "table.md").write_text(table(outcomes), "utf-8")
        device = figure(outcomes, "device_auc", "AUC of a probe for the device", "AUC")
        shift = figure(outcomes, f"shift_swapped{ALL}", "Age shift when another device records", "years")
        for name, picture in (("device", device), ("shift", shift)):
            (options.out / f"{name}.svg").write_text(picture, "utf-8")
    print(table(outcomes), end="")


if __name__ == "__main__":
    main()
