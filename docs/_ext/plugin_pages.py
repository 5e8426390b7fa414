"""A page for each objective, encoder and view, and tables of them all, from the modules themselves, written while building.

Into `docs/parts`, which git ignores: `KIND-NAME.rst` for pages, `_KINDS.rst` for tables, which docs/methods.md includes.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from inspect import getdoc
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

from plain_docstrings import literally, paragraph
from sphinx.application import Sphinx

KINDS = {"objective": "capezoo.objectives", "encoder": "capezoo.encoders", "view": "capezoo.views"}
SOURCE = re.compile(r"arXiv (\d{4}\.\d{5})")
LONGEST_DEFAULT = 60


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "parts"))
    return {"parallel_read_safe": True}


def write(folder: Path) -> None:
    """Write what has changed and remove what is gone, so that a second build reads nothing anew."""
    from ecgcohorts import plugins

    pages: dict[str, str] = {"_runs": runs_table()}
    for kind, package in KINDS.items():
        modules = {name: plugins.load(package, name) for name in plugins.names(package)}
        table = {"objective": objectives_table, "encoder": encoders_table, "view": views_table}[kind]
        pages[f"_{kind}s"] = table(modules)
        pages |= {f"{kind}-{name}": page(kind, name, module) for name, module in modules.items()}
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def page(kind: str, name: str, module: ModuleType) -> str:
    """Docstrings of module and Config, what the class says of itself, the settings, the runs that use it."""
    lines = [name, "=" * len(name), "", *text_of(module), ""]
    if kind == "objective":
        lines += [*text_of(module.Objective), "", *asked(name, module.Objective)]
    else:
        lines += text_of(module.Encoder if kind == "encoder" else module.View)
    if kind == "encoder":
        lines += ["", *said_of_encoder(name)]
    lines += ["", "Settings", "--------", "", *text_of(module.Config), ""]
    fields = [
        (f"``{key}``", default_of(info), literally(info.description or ""))
        for key, info in module.Config.model_fields.items()
    ]
    lines += table(("Name", "Default", "What it is, and where the number is from"), fields, (20, 20, 60))
    used = [run for run, config in configs().items() if name in named_by(kind, config)]
    lines += ["", "Named runs", "----------", "", ", ".join(f"``{run}``" for run in used) or "None."]
    lines += ["", f"In the code: ``{module.__name__}``. :doc:`All methods, encoders and views </methods>`.", ""]
    return "\n".join(lines)


def asked(name: str, objective: Any) -> list[str]:
    """What an objective needs and gives, as a list."""
    needs = objective.needs
    untrained = objective.untrained is not import_module("capezoo.objectives").Objective.untrained
    said = (getdoc(objective.untrained) or "").partition("\n")[0] if untrained else "there is no such number"
    return [
        f"- Views: {needs.views}" + (f", paired by {' or '.join(needs.pairing)}" if needs.views > 1 else ""),
        f"- Tokens: {tokens_of(needs)}",
        f"- Teacher: {teacher_of(name)}",
        f"- Loss of an untrained network: {literally(said)}",
        f"- Further columns of metrics.csv: {', '.join(f'``{term}``' for term in objective.terms) or 'none'}",
        f"- Two processes give loss and gradient of one: {'yes' if objective.ranks_as_one else 'not to the last bit'}",
    ]


def objectives_table(modules: dict[str, ModuleType]) -> str:
    rows = []
    for name, module in modules.items():
        needs = module.Objective.needs
        rows.append((
            f":doc:`{name} </parts/objective-{name}>`", str(needs.views),
            ", ".join(needs.pairing) if needs.views > 1 else "", tokens_of(needs), teacher_of(name),
            sources(module.__doc__), runs_of("objective", name),
        ))  # fmt: skip
    heads = ("Method", "Views", "Paired by", "Tokens", "Teacher", "Source", "Named runs")
    return "\n".join(table(heads, rows, (14, 6, 12, 14, 8, 18, 28))) + "\n"


def encoders_table(modules: dict[str, ModuleType]) -> str:
    rows = []
    for name, module in modules.items():
        encoder = outline(name)
        count = sum(parameter.numel() for parameter in encoder.parameters())
        link = f":doc:`{name} </parts/encoder-{name}>`"
        rows.append((link, f"{count:,}", str(encoder.num_features), made_of(encoder), sources(module.__doc__)))
    heads = ("Encoder", "Parameters", "Features", "Tokens", "Source")
    return "\n".join(table(heads, rows, (16, 14, 10, 40, 20))) + "\n"


def views_table(modules: dict[str, ModuleType]) -> str:
    rows = [
        (f":doc:`{name} </parts/view-{name}>`", first_sentence(module), sources(module.__doc__), runs_of("view", name))
        for name, module in modules.items()
    ]  # fmt: skip
    return "\n".join(table(("View", "What it does", "Source", "Named runs"), rows, (16, 44, 16, 24))) + "\n"


def runs_table() -> str:
    rows = []
    for name, config in configs().items():
        sampler, window = config.sampler, config.input
        mixed = "one cohort" if sampler.name == "in_distribution" else "cohorts mixed"
        of = {"patient": "patients", "record": "recordings", "adjacent": "recordings"}[sampler.pairing]
        length = f"{config.max_steps} steps" if config.max_steps else f"{config.epochs} epochs"
        rows.append((
            f"``{name}``", f":doc:`{config.objective.name} </parts/objective-{config.objective.name}>`",
            f":doc:`{config.encoder.name} </parts/encoder-{config.encoder.name}>`", f"{sampler.groups} {of}, {mixed}",
            f"{len(window.leads)} x {window.length}, {window.recipe}", length,
        ))  # fmt: skip
    heads = ("Run", "Method", "Encoder", "Batch", "Window", "Length")
    return "\n".join(table(heads, rows, (22, 14, 14, 20, 20, 10))) + "\n"


def table(heads: Iterable[str], rows: Iterable[tuple[str, ...]], widths: tuple[int, ...]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (tuple(heads), *rows):
        lines += [f"   {'*' if place == 0 else ' '} - {cell}".rstrip() for place, cell in enumerate(row)]
    return lines


def text_of(thing: Any) -> list[str]:
    """A docstring as reStructuredText that shows the same text."""
    lines: list[str] = []
    for is_text, group in groupby((getdoc(thing) or "").splitlines(), key=lambda line: bool(line.strip())):
        lines += paragraph(list(group)) if is_text else [""]
    return lines


def first_sentence(module: ModuleType) -> str:
    return literally(re.split(r"(?<=\.) |\n", (module.__doc__ or "").strip())[0])


def sources(text: str | None) -> str:
    """Links to the papers that a docstring names, in its order."""
    found = dict.fromkeys(SOURCE.findall(text or ""))
    return ", ".join(f"`{number} <https://arxiv.org/abs/{number}>`__" for number in found)


def default_of(info: Any) -> str:
    value = repr(info.get_default(call_default_factory=True, validated_data={}))
    return f"``{value}``" if len(value) <= LONGEST_DEFAULT else "..."


def tokens_of(needs: Any) -> str:
    if not needs.tokens:
        return "no"
    causal = {None: "", True: ", causal", False: ", not causal"}[needs.causal]
    return ("yes, some dropped" if needs.drops_tokens else "yes") + causal


def said_of_encoder(name: str) -> list[str]:
    encoder = outline(name)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    return [
        f"- Parameters with these settings: {count:,}",
        f"- Features: {encoder.num_features}",
        f"- Tokens: {made_of(encoder)}",
    ]


def made_of(encoder: Any) -> str:
    """What an encoder's tokens are."""
    if not hasattr(encoder, "token_dim"):
        return "none"
    return f"of {encoder.token_dim} channels" + (", some can be dropped" if encoder.can_drop else "")


def outline(name: str, **config: Any) -> Any:
    """An encoder's shapes, without its memory."""
    import torch

    from capezoo import encoders
    from capezoo.specs import EncoderSpec

    with torch.device("meta"):
        return encoders.build(EncoderSpec(name=name, config=config), seed=0)


def teacher_of(name: str) -> str:
    """Whether an objective holds a teacher, by building its shapes with the encoder of a run, or with one that has tokens."""
    import torch

    from capezoo import objectives
    from capezoo.objectives._teacher import Teacher
    from capezoo.specs import ObjectiveSpec

    run = next((config for config in configs().values() if config.objective.name == name), None)
    encoder = outline(run.encoder.name, **run.encoder.config) if run else outline("vit1d", causal=True)
    with torch.device("meta"):
        objective = objectives.build(run.objective if run else ObjectiveSpec(name=name), encoder, seed=0)
    return "yes" if any(isinstance(module, Teacher) for module in objective.modules()) else "no"


@cache  # asked for every page
def configs() -> dict[str, Any]:
    """All named runs, those of one cohort with a made-up name."""
    from capezoo import runs
    from ecgcohorts.errors import SpecError

    found = {}
    for name in runs.names():
        try:
            found[name] = runs.get(name, seed=0)
        except SpecError:
            found[name] = runs.get(name, seed=0, cohort="cohort")
    return found


def named_by(kind: str, config: Any) -> list[str]:
    parts = [*config.views] if kind == "view" else [getattr(config, kind)]
    return [part.name for part in parts]


def runs_of(kind: str, name: str) -> str:
    return ", ".join(f"``{run}``" for run, config in configs().items() if name in named_by(kind, config))
