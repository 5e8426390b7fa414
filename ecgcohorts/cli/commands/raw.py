"""Raw recordings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecgcohorts import plugins
from ecgcohorts.cli.console import EXIT_NOT_FOUND, Answer, progress, table
from ecgcohorts.cli.parameters import COUNT, FILE, FOLDER, NATURAL, SOURCE, TEXT, Name, OneOf, argument, option
from ecgcohorts.cli.program import command

ORDER = 1
_ACCESS = ("open", "registration", "credentialed", "restricted", "agreement", "own")  # of schema.About
_OTHERS_SHOWN = 3  # our default
_FORMAT = Name("NAME", lambda: plugins.names("ecgcohorts.readers"))
source = argument("source", SOURCE, "folder, tar or zip with raw recordings, or s3://bucket/folder")


@command("inspect", "ecgcohorts inspect ptb-xl/", "ecgcohorts inspect records.zip --sample 50 --json")
@source
@option("--sample", type=COUNT, default=200, help="recordings to decode, spread over formats and folders")
def _inspect(*, source: str, sample: int) -> Answer:
    """Say what a folder of raw recordings holds.

    Gives the class of every file, and formats, rates, leads and lengths of a sample of the recordings. Writes nothing.
    """
    from ecgcohorts.ingest.inspect import inspect

    with progress() as tell:
        found = inspect(source, sample, lambda done: tell("files", done, done))
    return Answer(found.as_json(), found.render())


@command("draft", "ecgcohorts draft export/ -o mine.yaml", "ecgcohorts draft export/ export/persons.csv -o mine.yaml")
@source
@argument("csv", FILE, "table in it with a row for each recording", required=False)
@option("-o", "--out", type=FILE, required=True, help="cohort file to write, .yaml")
@option("--sample", type=COUNT, default=200, help="recordings to look at")
@option("--format", "reader", type=_FORMAT, help="the format to describe; default: the commonest")
@option("--force", is_flag=True, help="replace the cohort file")
def _draft(*, source: str, csv: Path | None, out: Path, sample: int, reader: str | None, force: bool) -> Answer:
    """Write a first description of a cohort for you to finish.

    Guesses and gaps are marked in it. A description is of one format: where a folder holds several, draft one for each.
    """
    from ecgcohorts.ingest.draft import Draft, draft

    # Before the long part: looking at a large source takes minutes.
    Draft.check_out(out, force)
    made = draft(source, csv, sample, reader)
    made.save(out, force)
    lines = [
        *(f"left out: {what}" for what in made.left_out),
        f"{out}: describes {made.n_files:,} {made.reader} file{'' if made.n_files == 1 else 's'}.",
        f"Check {made.guesses} lines marked guess, fill in {made.unknowns} marked unknown, then try",
        f"ecgcohorts ingest {source} STORE --cohort {out} --dry-run",
    ]
    if made.others and reader is None:
        lines += ["Each other format needs a description and a cohort name of its own:"]
        lines += [f"ecgcohorts draft {source} --format {name} -o {name}.yaml" for name in made.others[:_OTHERS_SHOWN]]
    facts = {
        "out": out,
        "reader": made.reader,
        "files": made.n_files,
        "guesses": made.guesses,
        "unknowns": made.unknowns,
        "left_out": made.left_out,
        "other_formats": made.others,
    }
    return Answer(facts, "\n".join(lines))


@command("formats", "ecgcohorts formats", "ecgcohorts formats --json")
def _formats() -> Answer:
    """List the raw formats that can be read, with their variants."""
    from ecgcohorts.errors import install_line
    from ecgcohorts.plugins import load, names
    from ecgcohorts.readers import missing_packages

    modules = {name: load("ecgcohorts.readers", name) for name in names("ecgcohorts.readers")}
    facts = [
        {
            "format": name,
            "suffixes": module.SUFFIXES,
            "reads": _first_line(module.__doc__),
            "variants": getattr(module, "VARIANTS", ()),
            "missing_packages": missing_packages(name),
        }
        for name, module in modules.items()
    ]
    rows = []
    for one in facts:
        lacking = [
            f"needs {name}, which is not installed. Run: {install_line('ingest')}" for name in one["missing_packages"]
        ]
        about = "\n- ".join([one["reads"], *one["variants"], *lacking])
        rows.append([one["format"], "\n".join(one["suffixes"]), about])
    return Answer(facts, table(rows, ("format", "files", "read")))


@command(
    "cohorts",
    "ecgcohorts cohorts",
    "ecgcohorts cohorts china children",
    "ecgcohorts cohorts --access open --repeated 1000 --json",
    "ecgcohorts cohorts incart_original",
)
@argument("word", TEXT, "words that a preset must hold: name, country, licence, label ...", nargs=-1, required=False)
@option("--access", type=OneOf(*_ACCESS), help="who may have the data")
@option("--records", type=NATURAL, default=0, help="so many records at least")
@option("--repeated", type=NATURAL, default=0, help="so many patients with two or more recordings at least")
def _cohorts(*, word: tuple[str, ...], access: str | None, records: int, repeated: int) -> Answer:
    """Search the cohort presets.

    With the name of one, everything that is known about it. Exit code 1 if none fits.
    """
    from ecgcohorts.cohorts.catalogue import search

    found = search(word, access, records, repeated)
    if not found:
        return Answer([], "", "found no cohort that fits. Try fewer words.", EXIT_NOT_FOUND)
    is_named = [one["cohort"] for one in found] == [*word]
    return Answer(found, _one_cohort(found[0]) if is_named else _many_cohorts(found))


def _many_cohorts(about: list[dict[str, Any]]) -> Any:
    columns = ("cohort", "records", "patients", "with >= 2", "access", "about")
    numbers = ("records", "patients", "repeated_patients")
    rows = []
    for one in about:
        shares = ", ".join(dict.fromkeys(pair["cohort"] for pair in one["shares_with"]))
        text = f"{one['title']}; {_first_line(one['licence'])}" + (f"; shares records with {shares}" if shares else "")
        rows.append([one["cohort"], *(_number(one[name]) for name in numbers), one["access"] or "", text])
    return table(rows, columns, right=(1, 2, 3))


def _one_cohort(one: dict[str, Any]) -> Any:
    rows = [
        ["title", one["title"]],
        ["country", one["country"] or "unknown"],
        ["access", one["access"] or "unknown"],
        ["licence", one["licence"]],
        ["source", one["citation"]],
        ["records", _number(one["records"])],
        ["patients", f"{_number(one['patients'])}, with two or more: {_number(one['repeated_patients'])}"],
        *(["files", f"{layout}: {', '.join(globs)}"] for layout, globs in one["layouts"].items()),
        ["readers", ", ".join(one["readers"])],
        ["labels", ", ".join(one["labels"]) or "none"],
        *([["cohorts", ", ".join(one["cohorts"])]] if one["cohorts"] else []),
        *(
            [
                "shares",
                f"{pair['of']} with {pair['cohort']}: {pair['what']}" + ("" if pair["found"] else "; not recognised"),
            ]
            for pair in one["shares_with"]
        ),
        *(["note", note] for note in one["notes"]),
    ]
    return table(rows)


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


@command("recipes", "ecgcohorts recipes", "ecgcohorts recipes --json")
def _recipes() -> Answer:
    """List the preprocessing recipes."""
    from ecgcohorts.plugins import load, names
    from ecgcohorts.preprocess.recipes import KIND

    modules = [load(KIND, name) for name in names(KIND)]
    facts = [
        {
            "recipe": module.RECIPE.name,
            "about": _first_line(module.__doc__),
            "leads": module.RECIPE.leads,
            "rate_hz": module.RECIPE.rate_hz,
            "band_hz": module.RECIPE.band_hz,
            "window_s": module.RECIPE.window_s,
        }
        for module in modules
    ]
    rows = [
        [
            one["recipe"],
            str(len(one["leads"])),
            f"{one['rate_hz']:g}",
            "{:g}-{:g}".format(*one["band_hz"]) if one["band_hz"] else "none",
            f"{one['window_s']:g}",
            one["about"],
        ]
        for one in facts
    ]
    return Answer(facts, table(rows, ("recipe", "leads", "Hz", "band, Hz", "window, s", "about"), right=(1, 2, 3, 4)))


@command(
    "simulate",
    "ecgcohorts simulate raw --patients 5",
    "ecgcohorts simulate raw --patients 400 --seed 7 --hospital north",
)
@argument("out", FOLDER, "new or empty folder")
@option("--patients", type=COUNT, default=200, help="patients in each cohort")
@option("--seed", type=NATURAL, default=0, help="random seed; the same one gives the same bytes")
@option("--hospital", type=OneOf("north", "river", "coast"), multiple=True, help="only this one; repeat for more")
def _simulate(*, out: Path, patients: int, seed: int, hospital: Sequence[str]) -> Answer:
    """Write three raw cohorts with known physiology.

    One is of WFDB, one of MUSE XML, one of HDF5 files; each has the signature of a device of its own.
    """
    from ecgcohorts.simulate import HOSPITALS, simulate

    with progress() as tell:
        report = simulate(
            out,
            patients_per_cohort=patients,
            seed=seed,
            hospitals=[found for name, found in HOSPITALS.items() if not hospital or name in hospital],
            progress=lambda done, total: tell("simulate", done, total),
        )
    return Answer(report, str(report))


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
