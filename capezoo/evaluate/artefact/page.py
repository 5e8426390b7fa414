"""What an artefact control writes: tables as CSV, figures as SVG, and one HTML page with both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from capezoo.evaluate.artefact.outcome import Outcome, in_words
from capezoo.evaluate.artefact.verdict import (
    ALL,
    IN_DISTRIBUTION,
    MIXED,
    PRIMARY,
    UNSEEN,
    Estimate,
    Findings,
    _Difference,
)
from ecgcohorts.io.durable import write_file
from ecgcohorts.report.charts import Limits, dots, intervals
from ecgcohorts.report.page import NOTHING, Markup, Section, facts, figure, page, paragraph, table

PAGE = "report.html"
_CONSTANT = "constant answer"
# Words and digits of each measure; AUROCs and AUCs have no unit.
_WORDS = {
    "shift_swapped": ("age shift, years", 2),
    "sex_drop_swapped": ("drop of sex AUROC", 3),
    "device_auc": ("device AUC", 3),
    f"shift_swapped{ALL}": ("over all seeds", 2),
    f"sex_drop_swapped{ALL}": ("over all seeds", 3),
    "shift_unseen": ("age shift, years", 2),
    "sex_drop_unseen": ("drop of sex AUROC", 3),
    "sex_home": ("sex AUROC at home", 3),
    "age_error_home": ("age error at home, years", 2),
}
# What someone who gives the same answer to every recording reaches; the age error depends on the patients.
_OF_CONSTANT = {"shift": 0.0, "sex_drop": 0.0, "device_auc": 0.5, "sex": 0.5, "largest_z": 0.0}
# More arms in one strip chart than these cannot be told apart at 390 px.
_MOST_STRIPS = 3
# Years; from here on the axis of shifts is logarithmic. Less is about the month of birth, and of no account.
_SHIFT_LOG_FROM = 0.1

_FIXED = (
    "Primary measures, all under the guarded scaler: the mean absolute shift of the predicted age when another device "
    "records the same heart (over patients, over four devices that are home in turn, and over the three devices that are "
    "not); the drop of the AUROC for sex, at home minus the mean of each other device; and the AUC of a linear probe for "
    "the patient's own device. Errors under the plain scaler are secondary. A constant answer has a row in every table. A "
    "seed counts for age (sex) only if its heads beat the constant answer at home with a patient interval above zero; a "
    "comparison takes the seeds that count in both arms. Seeds share test patients, so every interval draws patients and "
    "seeds anew; with three seeds it is a rough one (coverage .80 to 1.00 in simulation, with ten .91 to .99)."
)
_MEANS = (
    "The devices are made up: patients of one cohort are dealt to four signatures at random, so nothing but the signature "
    "tells them apart, and each held-out heart is rendered with every device, so that any change of an answer is artefact. "
    "This shows what the choice of batches does to a shortcut of this kind and strength. It does not show that real "
    "recorders leave such a signature after filtering, nor anything about other cohorts, larger networks or longer training."
)


@dataclass(frozen=True, eq=False)
class _Table:
    title: str
    rows: pd.DataFrame
    caption: str = ""


def sections(outcome: Outcome) -> list[Section]:
    """Return the sections of a page: verdict, figures, tables, rules, origin."""
    found = outcome.findings
    pictures = [figure(svg, caption) for _, svg, caption in _figures(found)]
    tables = [Markup("<h3>{}</h3>\n").format(one.title) + table(one.rows, one.caption) for one in _tables(found)]
    folded = Markup("<details><summary>{}</summary>{}</details>\n").format("Every trial", table(_by_trial(found)))
    return [
        Section("Artefact control: in short", _in_short(outcome)),
        Section("Figures", Markup('<div class="grid">{}</div>').format(Markup("").join(pictures))),
        Section("Tables", Markup("").join(tables) + folded),
        Section("What was fixed before any trial", paragraph(_FIXED)),
        Section("What it shows, and what not", paragraph(_MEANS)),
        Section("Where the control's numbers come from", facts(_origin(outcome))),
    ]


def write(outcome: Outcome, folder: Path) -> Path:
    """Write results.json, tables/*.csv, figures/*.svg and report.html; return where the page is."""
    outcome.write(folder)
    found = outcome.findings
    for name, rows in (("arms", _arms(found)), ("differences", _differences(found)), ("trials", _trials(found))):
        text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        write_file(folder / "tables" / f"{name}.csv", text.encode())
    for name, svg, _ in _figures(found):
        write_file(folder / "figures" / f"{name}.svg", svg.encode())
    text = page(
        "Artefact control",
        sections(outcome),
        f"{outcome.cohort}, {outcome.patients} patients, one recording each; {outcome.settings.objective.name}",
    )
    write_file(folder / PAGE, text.encode())
    return folder / PAGE


def in_short(found: Findings) -> pd.DataFrame:
    """Return what mixed and in-distribution batches did, side by side: a row a condition, means over all seeds."""
    by_arm = {one.where: one.measures for one in found.arms}
    columns = [text for name in PRIMARY for text in (_WORDS[name][0], "larger with mixed in")]
    rows: list[tuple[str, list[str]]] = []
    for one in found.differences:
        if (one.first, one.second) != (MIXED, IN_DISTRIBUTION):
            continue
        measures = [by_arm[one.kind, one.positives, one.strength_uv, arm] for arm in (one.first, one.second)]
        cells = []
        for name in PRIMARY:
            whole = name if name == PRIMARY[2] else f"{name}{ALL}"
            pair = (_value(each[whole].value, _WORDS[name][1]) for each in measures)
            cells += [" / ".join(pair), _counted(one, name)]
        rows.append((f"{_heading(one.kind, one.positives)}, {one.strength_uv:g} uV", cells))
    constant = [text for name in PRIMARY for text in (_value(_constant(name, found), _WORDS[name][1]), NOTHING)]
    return _as_frame([*rows, (_CONSTANT, constant)] if rows else [], columns)


def _counted(one: _Difference, name: str) -> str:
    """Say in how many seeds a measure is larger: of those that count and, where these are not all, of all."""
    counted, every = (
        f"{one.larger[label]} of {one.measures[label].seeds}"
        + (f", equal in {one.equal[label]}" if one.equal[label] else "")
        for label in (name, f"{name}{ALL}")
    )
    is_whole = one.measures[name].seeds == one.measures[f"{name}{ALL}"].seeds
    return counted if is_whole else f"{counted} (all: {every})"


def _in_short(outcome: Outcome) -> Markup:
    left = len(outcome.left)
    state = paragraph(f"Incomplete: {left} trials are left.") if left else Markup("")
    rows = in_short(outcome.findings)
    if not len(rows):
        return state + paragraph("Mixed and in-distribution batches were not both run.")
    caption = "Mixed / in-distribution batches, means over all seeds; then of the seeds that count, and of all where not all count."
    return state + table(rows, caption)


def _origin(outcome: Outcome) -> dict[str, object]:
    source, settings = outcome.provenance, outcome.settings.model_dump(mode="json")
    known = outcome.cpu_seconds is not None
    cpu = f", of which {in_words(outcome.cpu_seconds or 0.0)} of processor time" if known else ""
    return {
        "command": source.command or "called from Python",
        "commit": source.commit or "not from a checkout",
        "store": outcome.store_fingerprint,
        "recipe": f"{outcome.recipe}, of a store of {outcome.store_recipe}",
        "settings": ", ".join(f"{name} = {value}" for name, value in settings.items()),
        "settings and recordings": outcome.made_with,
        "time": f"{in_words(outcome.seconds)} for {len(outcome.findings.trials)} trials in one thread{cpu}",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(source.versions.items())),
    }


def _tables(found: Findings) -> Iterator[_Table]:
    primary = (
        "shift_swapped",
        f"shift_swapped{ALL}",
        "sex_home",
        "sex_drop_swapped",
        f"sex_drop_swapped{ALL}",
        "device_auc",
    )
    yield _Table(
        "Devices met in pretraining",
        _frame(found, primary, counted=True),
        "Means with 95 % intervals over seeds and patients. Shift and drop: over the seeds that count, and over all.",
    )
    yield _Table(
        "Mixed batches against others",
        _compared(found),
        "Differences, and of the seeds that count those in which the first is larger; of all seeds where not all count.",
    )
    yield _Table("A device never met", _frame(found, UNSEEN, counted=True), "The fifth device, only in tests.")
    yield _Table("Plain and guarded scaler", _scalers(found), "Means over all seeds; |z| is the median over seeds.")


def _frame(found: Findings, names: Sequence[str], counted: bool) -> pd.DataFrame:
    """Return a row for every arm, below a heading for each kind and positives, and one for a constant answer."""
    columns = [_WORDS[name][0] for name in names] + (["seeds for age, sex, all"] if counted else [])
    rows: list[tuple[str, list[str]]] = []
    for condition, arms in groupby(found.arms, key=lambda one: (one.kind, one.positives)):
        rows.append((_heading(*condition), [""] * len(columns)))
        for one in arms:
            cells = [_text(one.measures.get(name), _WORDS[name][1]) for name in names]
            cells += [f"{len(one.age_counts)}, {len(one.sex_counts)}, {len(one.seeds)}"] if counted else []
            rows.append((f"{one.strength_uv:g} uV, {_named(one.arm)}", cells))
    constant = [_value(_constant(name, found), _WORDS[name][1]) for name in names] + ([NOTHING] if counted else [])
    return _as_frame([*rows, (_CONSTANT, constant)], columns)


def _compared(found: Findings) -> pd.DataFrame:
    columns = [text for name in PRIMARY for text in (_WORDS[name][0], "first larger in")]
    rows: list[tuple[str, list[str]]] = []
    for condition, differences in groupby(found.differences, key=lambda one: (one.kind, one.positives)):
        rows.append((_heading(*condition), [""] * len(columns)))
        for one in differences:
            cells = [
                text for name in PRIMARY for text in (_text(one.measures[name], _WORDS[name][1]), _counted(one, name))
            ]
            rows.append((f"{one.strength_uv:g} uV, {_named(one.first)} minus {_named(one.second)}", cells))
    return _as_frame([*rows, (_CONSTANT, ["0", NOTHING] * len(PRIMARY))], columns)


def _scalers(found: Findings) -> pd.DataFrame:
    names = {
        "age_error_home": "age error at home, years",
        "age_error_swapped": "on other devices",
        "age_error_unseen": "on one never met",
        "sex_home": "sex AUROC at home",
        "sex_swapped": "sex AUROC on other devices",
    }
    rows: list[tuple[str, list[str]]] = []
    for suffix, scaler in (("_plain", "plain"), ("", "guarded")):
        rows.append((f"{scaler} scaler", [""] * (len(names) + 1)))
        for one in found.arms:
            # Over all seeds: these describe, and are not judged.
            trials = [each for each in found.trials if each.where == one.where]
            cells = [_text(one.measures.get(f"{name}{suffix}"), 3 if "sex" in name else 2) for name in names]
            largest = [value for each in trials if (value := each.measures.get(f"largest_z{suffix}")) is not None]
            label = f"{one.strength_uv:g} uV, {_named(one.arm)}, {one.kind}, {one.positives}"
            rows.append((label, [*cells, f"{median(largest):.1f}" if largest else NOTHING]))
    constant = [_value(_constant(name, found), 3 if "sex" in name else 2) for name in names]
    return _as_frame([*rows, (_CONSTANT, [*constant, "0"])], [*names.values(), "largest |z|"])


def _by_trial(found: Findings) -> pd.DataFrame:
    columns = {name: f"{words}" for name, (words, _) in _WORDS.items() if name not in UNSEEN}
    rows: list[tuple[str, list[str]]] = []
    for one in found.trials:
        cells = [_value(one.measures.get(name), _WORDS[name][1]) for name in columns]
        said = [word for word, counts in (("age", one.age_counts), ("sex", one.sex_counts)) if counts]
        label = f"{one.kind}, {one.positives}, {one.strength_uv:g} uV, {_named(one.arm)}, seed {one.seed}"
        rows.append((label, [*cells, ", ".join(said) or "neither"]))
    constant = [_value(_constant(name, found), _WORDS[name][1]) for name in columns]
    return _as_frame([*rows, (_CONSTANT, [*constant, NOTHING])], [*columns.values(), "counts for"])


def _figures(found: Findings) -> Iterator[tuple[str, str, str]]:
    """Yield name, picture and caption: each primary measure against strength, and arms side by side."""
    for (kind, positives), group in groupby(found.trials, key=lambda one: (one.kind, one.positives)):
        trials = list(group)
        arms = list(dict.fromkeys(one.arm for one in trials))
        strengths = sorted({one.strength_uv for one in trials})
        shown = arms if len(arms) <= _MOST_STRIPS else [arm for arm in (MIXED, IN_DISTRIBUTION) if arm in arms]
        for name in PRIMARY if shown else ():
            values: dict[tuple[str, float], list[float]] = {where: [] for where in product(shown, strengths)}
            rings: dict[tuple[str, float], set[int]] = {where: set() for where in values}
            for one in trials:
                value, where = one.measures.get(name), (one.arm, one.strength_uv)
                if where in values and value is not None:
                    rings[where] |= set() if one.counts(name) else {len(values[where])}
                    values[where].append(value)
            is_shift = name == "shift_swapped"
            svg = dots(
                f"{_sentence(_WORDS[name][0].split(',')[0])}: {_heading(kind, positives)}",
                [f"{at:g}" for at in strengths],
                {_named(arm): [values[arm, at] for at in strengths] for arm in shown},
                "strength of the signature, uV",
                "years" if is_shift else "",
                log_from=_SHIFT_LOG_FROM if is_shift else 0.0,
                reference=(_CONSTANT, _OF_CONSTANT[_stem(name)]),
                hollow={_named(arm): [rings[arm, at] for at in strengths] for arm in shown},
            )
            yield (
                f"{kind}-{positives}-{name}",
                svg,
                "A dot a seed, a bar the mean; rings: seeds whose heads are no better than a constant answer at home.",
            )
        if len(arms) > len(shown):
            for name in PRIMARY:
                yield f"{kind}-{positives}-arms-{name}", _arms_drawn(found, (kind, positives), name), "95 % intervals."


def _arms_drawn(found: Findings, condition: tuple[str, str], name: str) -> str:
    """Draw one measure of all arms: a row an arm, a colour each strength that most arms have."""
    here = [one for one in found.arms if (one.kind, one.positives) == condition]
    arms = list(dict.fromkeys(one.arm for one in here))
    counts = {at: sum(one.strength_uv == at for one in here) for at in sorted({one.strength_uv for one in here})}
    # The sweep has two arms at most strengths; those with all arms are the comparison.
    strengths = [at for at, count in counts.items() if count > 2] or list(counts)
    limits: dict[tuple[str, float], Limits | None] = {}
    for one in here:
        estimate = one.measures.get(name)
        if estimate is not None and estimate.value is not None:
            limits[one.arm, one.strength_uv] = (estimate.low, estimate.value, estimate.high)
    series = {f"{at:g} uV": [limits.get((arm, at)) for arm in arms] for at in strengths}
    return intervals(
        f"{_sentence(_WORDS[name][0])}: {_heading(*condition)}", list(map(_named, arms)), series, _WORDS[name][0]
    )


def _arms(found: Findings) -> list[dict[str, object]]:
    """Return tables/arms.csv: a row an arm, with value, low and high of every measure."""
    rows = []
    for one in found.arms:
        row: dict[str, object] = dict(zip(("kind", "positives", "strength_uv", "arm"), one.where, strict=True))
        row |= {"seeds": len(one.seeds), "age_counts": len(one.age_counts), "sex_counts": len(one.sex_counts)}
        rows.append(row | _spread(one.measures))
    names = dict.fromkeys(name for one in found.arms for name in one.measures)
    return [*rows, {"arm": _CONSTANT, **{f"{name}_value": _constant(name, found) for name in names}}]


def _differences(found: Findings) -> list[dict[str, object]]:
    rows = []
    for one in found.differences:
        row: dict[str, object] = {"kind": one.kind, "positives": one.positives, "strength_uv": one.strength_uv}
        row |= {"first": one.first, "second": one.second} | _spread(one.measures)
        for name in one.measures:
            row |= {f"{name}_seeds": one.measures[name].seeds, f"{name}_larger": one.larger[name]}
            row |= {f"{name}_smaller": one.smaller[name], f"{name}_equal": one.equal[name]}
        rows.append(row)
    constant = {f"{name}_value": 0.0 for name in (*PRIMARY, *UNSEEN)}
    return [*rows, {"first": _CONSTANT, "second": _CONSTANT, **constant}]


def _trials(found: Findings) -> list[dict[str, object]]:
    rows = []
    for one in found.trials:
        row: dict[str, object] = dict(zip(("kind", "positives", "strength_uv", "arm"), one.where, strict=True))
        row |= {"seed": one.seed, "age_counts": one.age_counts, "sex_counts": one.sex_counts}
        rows.append(row | _spread({"age_gain": one.age_gain, "sex_gain": one.sex_gain}) | one.measures)
    names = dict.fromkeys(name for one in found.trials for name in one.measures)
    return [*rows, {"arm": _CONSTANT, **{name: _constant(name, found) for name in names}}]


def _spread(measures: Mapping[str, Estimate]) -> dict[str, object]:
    return {f"{name}_{end}": getattr(one, end) for name, one in measures.items() for end in ("value", "low", "high")}


def _constant(name: str, found: Findings) -> float | None:
    """Return what a constant answer reaches in a measure; its age error is the mean over the trials."""
    if name.startswith("age_error"):
        errors = [one.measures.get("age_error_constant") for one in found.trials]
        known = [error for error in errors if error is not None]
        return float(np.mean(known)) if known else None
    return _OF_CONSTANT[_stem(name)]


def _stem(name: str) -> str:
    return next(stem for stem in _OF_CONSTANT if name.startswith(f"{stem}_") or name == stem)


def _as_frame(rows: Sequence[tuple[str, list[str]]], columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame([cells for _, cells in rows], columns=list(columns), index=[name for name, _ in rows])


def _text(estimate: Estimate | None, digits: int) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return _value(estimate.value if estimate else None, digits)
    value, low, high = (_value(one, digits) for one in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _value(value: float | None, digits: int) -> str:
    # Adding 0 turns a rounded -0.0 into 0.0.
    return NOTHING if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _heading(kind: str, positives: str) -> str:
    return f"{kind.replace('_', ' ')}, {positives} positives"


def _named(arm: str) -> str:
    return (
        "in-distribution"
        if arm == IN_DISTRIBUTION
        else arm.replace("in_distribution", "in-distribution").replace("_", " ")
    )


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]
