"""metrics.csv as six panels of curves: curves.png of a run, by matplotlib if it is there, and the report page's SVG."""

import csv
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcohorts.io.durable import write_file

_SIZE_INCHES, _DPI = (13.0, 7.0), 110

Table = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class _Panel:
    """Curves over common axes. label -> (step, value); a dashed one is a bound or chance and belongs to the one before."""

    title: str
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    dashed: Collection[str] = ()
    log: bool = False


def read(metrics: Path) -> Table:
    """Return column -> numbers, NaN where a row says nothing. Text columns are left out."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name != "cohort"]
    table = {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    if "val_bound" in table:  # the name in runs from before other methods than InfoNCE
        table["val_untrained"] = table.pop("val_bound")
    return table


def panels(table: Table) -> list[_Panel]:
    """Return what is drawn of a run, in the order of reading. A curve without numbers is left out."""
    by_cohort = {name: name.removeprefix("loss_") for name in table if name.startswith("loss_")}
    held_out = {name: name.removeprefix("val_loss_") for name in table if name.startswith("val_loss_")}
    if len(held_out) < 2:  # one cohort's curve would lie on that of all
        held_out = {}
    shares = {"cohort_auc": "cohort, AUC", "knn_cohort": "cohort, share of neighbours", "sex_auc": "sex, AUC"}
    return [
        _panel(table, "training loss, running mean", {"loss": "all batches"} | by_cohort),
        _panel(table, "loss of held-out patients (dashed: untrained)", {"val_loss": "all"} | held_out, {"val_loss": "val_untrained"}),
        _panel(table, "probes: cohort and sex (dashed: chance)", shares, {name: f"{name}_chance" for name in shares}),
        _panel(table, "probe: age, error in years (dashed: chance)", {"age_mae": "age"}, {"age_mae": "age_mae_chance"}),
        _panel(table, "gradient norm, learning rate", {"grad_norm": "gradient norm", "lr": "learning rate"}, log=True),
        _panel(table, "embeddings of held-out patients",
               {"effective_rank": "effective rank", "dead_units": "dead units"}),
    ]  # fmt: skip


def draw(metrics: Path, out: Path, title: str) -> bool:
    """Draw a run's metrics.csv, all or nothing. Returns False, and does nothing, if matplotlib is not installed."""
    # Asked, not tried: without the package a run goes on, and one that fails inside should be heard of.
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(_SIZE_INCHES, dpi=_DPI, layout="constrained")
    figure.suptitle(title)
    for axis, panel in zip(figure.subplots(2, 3).flat, panels(read(metrics)), strict=True):
        axis.set_title(panel.title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        colour = -1
        for label, (step, value) in panel.curves.items():
            is_dashed = label in panel.dashed
            colour += not is_dashed
            # A curve of one point shows as a dot only.
            marker = "o" if len(step) == 1 else ""
            shown = "_" if is_dashed else label  # matplotlib leaves `_` out of legends
            axis.plot(step, value, "--" if is_dashed else "-", label=shown, marker=marker, color=f"C{max(colour, 0)}")
        if panel.log:
            axis.set_yscale("log")  # leaves zeros out by itself
        if panel.curves:
            axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_file(out, picture.getvalue())
    return True


def _panel(
    table: Table, title: str, labels: Mapping[str, str], chance: Mapping[str, str] | None = None, log: bool = False
) -> _Panel:
    """labels: column -> label. chance: column -> column of what chance, or an untrained encoder, would give."""
    curves, dashed = {}, []
    for name, label in labels.items():
        curves[label] = _known(table, name)
        if beside := (chance or {}).get(name):
            dashed.append(f"{label}, dashed")
            curves[dashed[-1]] = _known(table, beside)
    return _Panel(title, {label: xy for label, xy in curves.items() if len(xy[0])}, dashed, log)


def _known(table: Table, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of the rows that have a number."""
    y = table.get(name, np.zeros(0))
    known = np.isfinite(y)
    return table["step"][known] if len(y) else y, y[known]
