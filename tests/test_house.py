"""The rules of the house, read from the source: who imports whom, sizes, and what is never used."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ecgcohorts

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ecgcohorts", "capezoo")

# Left never imports right. Modules of one layer may, unless INDEPENDENT or FORBIDDEN says otherwise.
LAYERS = {
    "ecgcohorts": (
        ("errors", "leads", "recording", "plugins"),
        ("io", "privacy"),
        ("readers", "preprocess", "index", "sources"),
        ("cohorts", "store"),
        ("samplers",),
        ("loading",),
        ("export", "ingest", "report", "simulate"),
        ("cli",),
    ),
    "capezoo": (
        ("errors", "specs", "distributed", "devices"),
        ("encoders", "objectives", "views", "runs"),
        ("training", "zoo"),
        ("embedding", "interop"),
        ("evaluate",),
        ("cli",),
    ),
}
INDEPENDENT = ("export", "ingest", "report", "simulate")  # neighbours that know nothing of each other
FORBIDDEN = (
    ("ecgcohorts.samplers", "ecgcohorts.store"),  # a plan, not a read
    ("ecgcohorts.readers", "ecgcohorts.preprocess"),  # readers do not resample, filter or choose leads
    ("ecgcohorts.preprocess.quality", "ecgcohorts.preprocess.strip"),
)
PLUGIN_KINDS = (
    "ecgcohorts.readers",
    "ecgcohorts.cohorts.presets",
    "ecgcohorts.preprocess.recipes",
    "capezoo.encoders",
    "capezoo.objectives",
    "capezoo.zoo.importers",
    "capezoo.evaluate.questions",
    "ecgcohorts.cli.commands",
    "capezoo.cli.commands",
)

FILE_LINES, FUNCTION_LINES, PARAMETERS = 450, 60, 6
EXCUSES = ("# Long because", "# Many parameters because")
IMPORT_SECONDS = 0.5
HEAVY = ("torch", "timm", "scipy.signal", "matplotlib", "capezoo")

# Measures of the whole that only grow if nobody looks.
LOOSE = {"ecgcohorts": 7, "capezoo": 6}  # modules at the top of a package, `__init__` included
PUBLIC_NAMES, CHAIN, COMMENT_SHARE = 792, 16, 0.03
# Names that plug-ins have by contract: they say nothing about the number of ideas.
CONTRACT_NAMES = {
    *("sniff", "read", "scan", "beside", "described"),
    *("Config", "Encoder", "Objective", "View"),
    *("Result", "run", "tables", "figures"),
}

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
GENERATORS = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64", "BitGenerator"}  # of numpy.random


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sources(*PACKAGES)}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of a file's syntax tree: a dozen rules look at each, and walking takes as long as parsing."""
    return tuple(ast.walk(parse(path)))


@cache
def imports(name: str) -> frozenset[str]:
    """Full names of all modules a module imports, anywhere in it; `from package import module` names the module."""
    found = set()
    for node in nodes(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import in line {node.lineno}, expected absolute ones"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return frozenset(found)


def part_of(name: str) -> str:
    """The piece of a package that a module belongs to: `ecgcohorts.store.reader` -> `store`."""
    return name.split(".")[1] if "." in name else ""


def layer_of(name: str) -> int:
    for place, parts in enumerate(LAYERS[name.split(".")[0]]):
        if part_of(name) in parts:
            return place
    raise AssertionError(f"{name} is in no layer of tests/test_house.py: give it one, and docs/architecture.md too")


def dotted(node: ast.AST) -> str:
    """`np.random.seed` of an attribute chain; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


@pytest.mark.parametrize("name", [name for name in MODULES if name not in PACKAGES])
def test_left_never_imports_right(name):
    package = name.split(".")[0]
    for other in imports(name):
        if other.split(".")[0] != package or other == package:
            continue
        assert layer_of(other) <= layer_of(name), f"{name} imports {other}, which stands to its right"
        if part_of(name) in INDEPENDENT and part_of(other) in INDEPENDENT:
            assert part_of(other) == part_of(name), f"{name} imports its neighbour {other}"
        for left, right in FORBIDDEN:
            assert not (name.startswith(left) and other.startswith(right)), f"{name} imports {other}"


def test_no_two_modules_import_each_other():
    for name in MODULES:
        for other in imports(name) & set(MODULES):
            is_own_package = name.startswith(f"{other}.") or other.startswith(f"{name}.")
            assert is_own_package or name not in imports(other), f"{name} and {other} import each other"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("ecgcohorts")])
def test_ecgcohorts_knows_no_torch_and_no_capezoo(name):
    roots = {other.split(".")[0] for other in imports(name)}
    assert "capezoo" not in roots
    if name != "ecgcohorts.loading.torch":
        assert not roots & {"torch", "timm", "lightning_fabric", "torchvision"}


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_plugins_of_one_kind_never_import_each_other(kind):
    """A plug-in is a file or a folder; what begins with an underscore is theirs to share."""

    def plugin(name: str) -> str:
        piece = name.removeprefix(f"{kind}.").split(".")[0] if name.startswith(f"{kind}.") else "_"
        return "" if piece.startswith("_") else piece

    for name in MODULES:
        others = {plugin(other) for other in imports(name)} - {"", plugin(name)}
        assert not (plugin(name) and others), f"{name} imports another plug-in of {kind}"


@pytest.mark.parametrize("name", MODULES)
def test_an_underscore_stays_inside_its_package(name):
    """What others need of a reader, an encoder or any other room is public there."""
    for other in imports(name) & set(MODULES):
        parts = other.split(".")
        for place, part in enumerate(parts):
            owner = ".".join(parts[:place])
            if part.startswith("_") and not f"{name}.".startswith(f"{owner}."):
                pytest.fail(f"{name} imports {other}: make what it needs public in {owner}")


def test_adapters_of_frameworks_never_import_each_other():
    adapters = {f"ecgcohorts.loading.{name}" for name in ("torch", "grain", "tensorflow")}
    assert adapters <= set(MODULES)
    for name in adapters:
        assert not imports(name) & adapters


@pytest.mark.parametrize("path", sources(*PACKAGES, "tests", "examples"), ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path):
    lines = path.read_text("utf-8").splitlines()
    excused = any(line.startswith(EXCUSES[0]) for line in lines[:12])
    assert len(lines) <= FILE_LINES or excused, f"{path}: {len(lines)} lines; cut it, or say why: {EXCUSES[0]} ..."
    for node in nodes(path):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        comment = _comment_above(lines, first)
        length = node.end_lineno - node.lineno + 1
        assert length <= FUNCTION_LINES or EXCUSES[0] in comment, f"{node.name}: {length} lines. {EXCUSES[0]} ..."
        if path.is_relative_to(ROOT / "tests"):
            continue  # a test's parameters are its fixtures
        # Those that have to be named at the call do not count: nobody can mix them up.
        names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]
        count = len([name for name in names if name not in ("self", "cls")])
        assert count <= PARAMETERS or EXCUSES[1] in comment, f"{node.name}: {count} parameters. {EXCUSES[1]} ..."


def _comment_above(lines: list[str], line_number: int) -> str:
    """The comment that ends in the line directly above."""
    comment: list[str] = []
    for line in reversed(lines[: line_number - 1]):
        if not line.strip().startswith("#"):
            break
        comment.insert(0, line.strip())
    return "\n".join(comment)


@pytest.mark.parametrize("name", MODULES)
def test_nothing_that_runs_code_found_in_data(name):
    assert not {other.split(".")[0] for other in imports(name)} & PICKLES
    for function, call in calls(MODULES[name]):
        place = f"{name}, line {call.lineno}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert function not in ("eval", "exec", "compile", "__import__"), place
        assert function != "yaml.load", f"{place}: yaml.safe_load"
        if function == "torch.load":
            assert keywords.get("weights_only") == "True", place
        assert keywords.get("allow_pickle", "False") == "False", place
        assert keywords.get("shell", "False") == "False", place


@pytest.mark.parametrize("name", MODULES)
def test_randomness_is_an_argument(name):
    """No global generator is read or seeded."""
    assert "random" not in imports(name)
    for function, call in calls(MODULES[name]):
        place = f"{name}, line {call.lineno}: {function}"
        assert function not in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all", "seed_everything"), (
            place
        )
        for numpy in ("np.random.", "numpy.random."):
            assert not function.startswith(numpy) or function.removeprefix(numpy) in GENERATORS, place
        if function.endswith("random.default_rng"):
            assert call.args, f"{place} without a seed"


@pytest.mark.parametrize(
    "path", sources(*PACKAGES, "tests", "examples", "docs"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_annotations_are_evaluated(path):
    """pydantic and runtime checkers read them."""
    for node in nodes(path):
        assert not (isinstance(node, ast.ImportFrom) and node.module == "__future__"), f"line {node.lineno}"


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    assert ast.get_docstring(parse(MODULES[name]))


@pytest.mark.parametrize("name", ecgcohorts.__all__)
def test_public_names_are_there_and_documented(name):
    value = getattr(ecgcohorts, name)
    assert name in dir(ecgcohorts)
    if name != "__version__":
        assert callable(value)
        assert value.__doc__


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("modules_first", [False, True])
def test_a_public_name_is_never_hidden_by_a_module_of_that_name(package, modules_first):
    """`capezoo.embed` is a function; importing the module of that name must not put itself in its place."""
    script = f"""
import importlib, pkgutil, {package} as package
modules = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name in package.__all__]
if not {modules_first}:
    [getattr(package, name) for name in modules]
for name in modules:
    importlib.import_module(f"{package}.{{name}}")
hidden = [name for name in modules if not callable(getattr(package, name))]
assert not hidden, hidden
"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr


def test_import_is_light_and_fast():
    script = (
        "import sys, time; start = time.perf_counter(); import ecgcohorts; took = time.perf_counter() - start\n"
        f"print(took, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
        for _ in range(5)
    ]
    answers = [run.stdout.split() for run in runs]
    assert answers[0][1:] == []
    assert min(float(answer[0]) for answer in answers) < IMPORT_SECONDS


def test_the_layers_name_only_what_exists():
    """A renamed module must not leave its old name behind in the rules."""
    parts = {package: {part_of(name) for name in MODULES if name.startswith(f"{package}.")} for package in PACKAGES}
    for package, layers in LAYERS.items():
        named = [part for layer in layers for part in layer]
        assert len(named) == len(set(named))
        assert set(named) <= parts[package], set(named) - parts[package]


@pytest.mark.parametrize("name", MODULES)
def test_pages_named_in_the_source_exist(name):
    for page in re.findall(r"docs/[\w/]+\.md", MODULES[name].read_text("utf-8")):
        assert (ROOT / page).is_file(), f"{name} names {page}"


@pytest.mark.parametrize("package", PACKAGES)
def test_few_modules_stand_loose_at_the_top(package):
    loose = sorted(path.name for path in (ROOT / package).glob("*.py"))
    assert len(loose) <= LOOSE[package], f"{len(loose)} modules at the top of {package}: {loose}. Give one a room."


def test_few_names_are_public():
    """A function or class that only its own module uses begins with an underscore, or goes back to its caller."""
    public: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        is_plugin = f"{name}.".startswith(tuple(f"{kind}." for kind in (*PLUGIN_KINDS, "capezoo.views")))
        for node in parse(path).body:
            is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_named and not node.name.startswith("_") and not (is_plugin and node.name in CONTRACT_NAMES):
                public.setdefault(".".join(name.split(".")[:2]), []).append(node.name)
    rooms = {room: len(names) for room, names in sorted(public.items(), key=lambda pair: -len(pair[1]))}
    total = sum(rooms.values())
    assert total < PUBLIC_NAMES, f"{total} public classes and functions, expected fewer than {PUBLIC_NAMES}: {rooms}"


def test_import_chains_are_short():
    """A reader who follows imports from any module reaches the end in a few steps."""

    @cache
    def longest(name: str) -> tuple[str, ...]:
        # A package and a module of its own import each other; the way back is not followed.
        followed = (longest(other) for other in sorted(imports(name) & set(MODULES)) if not is_front_of(other, name))
        return (name, *max(followed, key=len, default=()))

    def is_front_of(package: str, name: str) -> bool:
        return package == name or name.startswith(f"{package}.")

    chain = max((longest(name) for name in MODULES), key=len)
    assert len(chain) <= CHAIN, f"a chain of {len(chain)} imports, expected {CHAIN} at most: {' -> '.join(chain)}"


def test_enough_reasons_stand_beside_the_code():
    """Comments on lines of their own; a room without any has reasons that only its authors know."""
    counts: dict[str, list[int]] = {}
    for name, path in MODULES.items():
        lines = path.read_text("utf-8").splitlines()
        count = counts.setdefault(".".join(name.split(".")[:2]), [0, 0])
        count[0] += sum(line.lstrip().startswith("#") for line in lines)
        count[1] += len(lines)
    own, total = (sum(count[place] for count in counts.values()) for place in (0, 1))
    poorest = sorted(counts, key=lambda room: counts[room][0] / max(1, counts[room][1]))[:5]
    assert own >= COMMENT_SHARE * total, (
        f"{own} of {total} lines are comments, expected {COMMENT_SHARE:.1%}. Fewest in {poorest}."
    )
