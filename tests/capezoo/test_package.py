"""The package: light to import, clear without torch, its runs, and the guard around timm."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import capezoo
from capezoo import objectives, runs
from capezoo.encoders import _timm, build
from capezoo.specs import RunConfig
from capezoo.training.optimiser import Optimiser
from ecgcohorts import errors, plugins
from ecgcohorts.errors import SpecError, install_line


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_import_loads_neither_torch_nor_timm() -> None:
    done = python(
        "import sys, capezoo, capezoo.specs; print(sorted({'torch', 'timm', 'lightning_fabric'} & set(sys.modules)))"
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("use", ["from capezoo import embed", "import capezoo; capezoo.create_model('cape_resnet')"])
def test_without_torch_one_line_says_what_to_install(use: str) -> None:
    """The first use says so, not `import capezoo`: the command line has help to give without torch."""
    done = python(f"import sys; sys.modules['torch'] = None\n{use}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ecgcohorts.errors.MissingExtra: torch is not installed. Run: {install_line('zoo')}"


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        ("{}", 'pip install "ecgcohorts[zoo]"'),
        ('{"url": "file:///src/clone", "dir_info": {}}', 'pip install "/src/clone[zoo]"'),
        ('{"url": "file:///a.whl", "archive_info": {}}', 'pip install "ecgcohorts[zoo] @ file:///a.whl"'),
        (
            '{"url": "https://x/y.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}',
            'pip install "ecgcohorts[zoo] @ git+https://x/y.git@abc"',
        ),
    ],
)
def test_the_install_line_fits_where_the_package_came_from(
    origin: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Installed:
        def read_text(self, name: str) -> str:
            assert name == "direct_url.json"
            return origin

    assert install_line("zoo") == f'pip install "{Path(errors.__file__).parents[1]}[zoo]"'  # this checkout
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "ecgcohorts" / "errors.py"))
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    assert install_line("zoo") == line


def test_public_names_are_there_and_others_are_not() -> None:
    for name in capezoo.__all__:
        assert not isinstance(getattr(capezoo, name), ModuleType), name
    assert set(capezoo.__all__) <= set(dir(capezoo))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = capezoo.nonsense  # type: ignore[attr-defined]


def test_a_submodule_does_not_hide_the_function_of_its_name() -> None:
    done = python("import capezoo.embedding.embed, capezoo; print(type(capezoo.embed).__name__)")
    assert done.stdout.strip() == "function", done.stderr


@pytest.mark.parametrize("name", runs.names())
def test_runs_go_to_json_and_back_and_build(name: str) -> None:
    cohort = "code15" if name == "cape_single" else None
    config = runs.get(name, 3, cohort)
    assert (config.name, config.seed) == ("cape_code15" if cohort else name, 3)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    with torch.device("meta"):  # shapes are enough
        assert build(config.encoder, 0).num_features in (64, 256, 384, 512, 768, 2048)


def test_published_runs_differ_in_their_batches_only() -> None:
    x, z = runs.get("cape_x", seed=1), runs.get("cape_z", seed=1)
    assert (x.sampler.name, z.sampler.name) == ("patient_pairs", "in_distribution")
    assert x.model_copy(update={"name": "", "sampler": None}) == z.model_copy(update={"name": "", "sampler": None})
    assert (z.sampler.groups, z.epochs, z.max_steps, z.optimiser.lr) == (512, 200, None, 0.1)
    assert runs.get("cape_single", 1, "code15").cohorts == ("code15",)


@pytest.mark.parametrize("name", ["cpc", "data2vec", "dinosr", "hubert_sinkhorn", "jepa"])
def test_runs_of_the_scaling_study_have_its_three_learning_rates(name: str) -> None:
    config = runs.get(f"scaling_{name}", seed=0)
    assert (config.input.rate_hz, config.input.length, len(config.input.leads)) == (240, 600, 12)
    assert (config.sampler.groups, config.epochs, config.optimiser.weight_decay) == (64, 10, 1e-3)
    with torch.device("meta"):
        encoder = build(config.encoder, 0)
        objective = objectives.build(config.objective, encoder, 0)
    assert sum(p.numel() for p in encoder.parameters()) == (2_932_736 if name == "cpc" else 2_949_120)
    both = torch.nn.ModuleDict({"encoder": encoder, "objective": objective})
    optimiser = Optimiser(both.named_parameters(), config.optimiser, torch.device("cpu"))
    optimiser.at_step(optimiser.torch.param_groups, 0, 10)
    rates = {id(p): group["lr"] for group in optimiser.torch.param_groups for p in group["params"]}
    for key, parameter in both.named_parameters():
        if parameter.requires_grad:
            is_slow = key.startswith("encoder.layers") or key == "objective.mask_token"
            expected = 3e-5 if key.startswith("encoder.stem") else 3e-4 if is_slow else 3e-3
            assert rates[id(parameter)] == pytest.approx(expected), key
    small = runs.get(f"scaling_{name}_small", seed=0)
    factors = {} if name == "cpc" else {"encoder": 0.1, "objective.mask_token": 0.1}
    assert (small.encoder.config["width"], small.max_steps, small.optimiser.rate_factors) == (64, 500, factors)


@pytest.mark.parametrize(("name", "heads"), [("simclr", 4_458_624), ("byol", 9_449_728 + 2_109_696)])
def test_runs_of_openecg_are_resnet_50_on_whole_recordings(name: str, heads: int) -> None:
    config = runs.get(f"openecg_{name}", seed=0)
    assert (config.input.rate_hz, config.input.length, len(config.input.leads)) == (100, 1000, 12)
    with torch.device("meta"):
        encoder = build(config.encoder, 0)
        objective = objectives.build(config.objective, encoder, 0)
    assert sum(p.numel() for p in encoder.parameters()) == 15_959_168
    assert sum(p.numel() for p in objective.parameters() if p.requires_grad) == heads
    small = runs.get(f"openecg_{name}_small", seed=0)
    assert (small.encoder.config["embedding_dim"], small.sampler.groups, small.max_steps) == (256, 32, 500)
    assert small.views == config.views


def test_ecg_fm_has_the_numbers_of_its_study() -> None:
    config = runs.get("ecg_fm", seed=0)
    assert (config.input.rate_hz, config.input.length, len(config.input.leads)) == (500, 2500, 12)
    assert (config.input.normalisation, config.sampler.pairing, config.epochs) == ("record_lead_z", "adjacent", 200)
    assert 2 * config.sampler.groups == 64 * 2 * 4 * 2  # pairs, segments, devices, accumulated steps
    chosen = config.optimiser
    assert (chosen.kind, chosen.lr, chosen.betas, chosen.eps) == ("adamw", 5e-5, (0.9, 0.98), 1e-6)
    assert (chosen.weight_decay, chosen.schedule, chosen.warmup_steps) == (0.01, "constant", 0)
    small = runs.get("ecg_fm_small", seed=0)
    assert sum(p.numel() for p in build(small.encoder, 0).parameters()) == 263_456
    changed = {
        "name",
        "encoder",
        "objective",
        "sampler",
        "optimiser",
        "held_out",
        "probes",
        "epochs",
        "max_steps",
        "checkpoint_every",
    }
    assert {key for key, value in config if value != getattr(small, key)} == changed


def test_smoke_is_small() -> None:
    parameters = sum(p.numel() for p in build(runs.get("smoke", seed=0).encoder, 0).parameters())
    assert parameters == 339_808


def test_unknown_run_names_the_known_ones_and_the_nearest() -> None:
    known = ", ".join(runs.names())
    assert {"cape_z", "ecg_fm", "openecg_byol", "scaling_cpc_small", "smoke"} <= set(runs.names())
    with pytest.raises(SpecError, match=rf"found no run 'smok', expected one of {known}\. Did you mean 'smoke'"):
        runs.get("smok", 0)


def test_a_run_of_one_cohort_wants_one_and_the_others_none() -> None:
    with pytest.raises(SpecError, match=r"run cape_single trains on one cohort. Name it: --cohort NAME"):
        runs.get("cape_single", 0)
    with pytest.raises(
        SpecError, match=r"run cape_z trains on all cohorts, and --cohort code15 names one. Use --run cape_s"
    ):
        runs.get("cape_z", 0, "code15")


def test_two_studies_may_not_use_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names come from the files of capezoo/runs and from entry points: a second study with a name of the first is refused."""
    monkeypatch.setattr(plugins, "names", lambda kind: ("mine", "small"))
    monkeypatch.setattr(plugins, "load", lambda kind, name: SimpleNamespace(RUNS={"smoke": lambda seed: None}))
    runs._all.cache_clear()
    try:
        with pytest.raises(SpecError, match="run 'smoke' is in studies mine and small"):
            runs.names()
    finally:
        runs._all.cache_clear()


def test_timm_that_meets_another_torchvision_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_timm, "import_module", broken)
    with pytest.raises(
        ImportError, match=r"torchvision does not match torch \d.*Reinstall both from the same index"
    ) as error:
        _timm.timm()
    assert "\n" not in str(error.value)


def test_other_errors_of_timm_are_not_disguised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("something else")

    monkeypatch.setattr(_timm, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        _timm.timm("optim")
    monkeypatch.undo()
    with pytest.raises(ModuleNotFoundError, match=r"timm\.nonsense"):
        _timm.timm("nonsense")


def test_missing_timm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=re.escape(install_line("zoo"))):
        _timm.timm()
