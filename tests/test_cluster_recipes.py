"""The recipes of docs/cluster.md: taken from the page, and run on a small cohort, with stand-ins for schedulers only."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import ecgcohorts as ec
from ecgcohorts.ingest import IngestOptions, ingest
from ecgcohorts.simulate import simulate

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
SECONDS = 240
SHARD = 6  # records: three partitions

PROGRAMS = {
    "ecgcohorts": f'exec {sys.executable} -m ecgcohorts.cli "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "scontrol": 'echo "$@" >> scontrol.log',
    "date": 'if [ "$*" = +%u ]; then echo "$WEEKDAY"; else exec /bin/date "$@"; fi',
    # Runs an array job at once, task after task, as Slurm does with one node, and prints a number as --parsable does.
    "sbatch": r"""
array=0
while [ $# -gt 0 ]; do
  case "$1" in
    --array=*) array=${1#--array=}; array=${array%%%*}; shift ;;
    --wrap) echo 2; exec bash -c "$2" >&2 ;;
    --*) shift ;;
    *) break ;;
  esac
done
for ((SLURM_ARRAY_TASK_ID = ${array%-*}; SLURM_ARRAY_TASK_ID <= ${array#*-}; SLURM_ARRAY_TASK_ID++)); do
  export SLURM_ARRAY_TASK_ID
  bash "$@" >&2
done
echo 1
""",
}


def block(language: str, containing: str) -> str:
    """The one block of a language on the page that contains these words."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [one] = [code for code in found if containing in code]
    return one


class Place:
    """A folder with raw recordings of one small hospital, its description, and programs to run recipes with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name, script in PROGRAMS.items():
            (folder / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
            (folder / "bin" / name).chmod(0o755)
        # Where a recipe names it, and where it is looked for where none does.
        for key in (folder / "pseudonym.key", folder / "config" / "ecgcohorts" / "pseudonym.key"):
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_text(bytes(range(32)).hex(), "ascii")
            key.chmod(0o600)
        simulate(folder / "raw", patients_per_cohort=6, seed=0)
        shutil.copytree(folder / "raw" / "north", folder / "muse")
        shutil.copy(folder / "raw" / "north" / "cohort.yaml", folder / "hospital.yaml")

    @property
    def surroundings(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "WEEKDAY": "1",
            "OMP_NUM_THREADS": "1",
        }

    def script(self, name: str, code: str, **paths: str) -> Path:
        for there, here in paths.items():
            assert there in code
            code = code.replace(there, here)
        (self.folder / name).write_text(code)
        return self.folder / name

    def run(self, *command: object, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*map(str, command)], cwd=self.folder, env=self.surroundings | more, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    def ingested(self) -> str:
        """Fingerprint of the store that one call of `ingest` makes."""
        options = IngestOptions(key_file=self.folder / "pseudonym.key", shard_records=SHARD)
        return ingest(
            self.folder / "muse", self.folder / "alone.zarr", str(self.folder / "hospital.yaml"), options
        ).fingerprint


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


BASH = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BASH)
def test_every_script_parses(code):
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slurm_array(place):
    planning = block("bash", "ecgcohorts plan").replace("hospital.yaml --key", f"hospital.yaml --shard {SHARD} --key")
    paths = {"/data/hospital/muse": "muse", "/data/stores/hospital.zarr": "hospital.zarr", "encode.sh": "./encode.sh"}
    place.script("plan.sh", planning, **paths)
    place.script("encode.sh", block("bash", "--job-name=ecg-encode"))
    place.run("bash", "plan.sh")
    assert ec.open(place.folder / "hospital.zarr").fingerprint == place.ingested()


def test_slurm_array_of_several_partitions_a_task(place):
    words = ["muse", "s.zarr", "--cohort", "hospital.yaml", "--shard", SHARD, "--json", "-o", "run.plan"]
    partitions = json.loads(place.run("ecgcohorts", "plan", *words).stdout)["partitions"]
    # Two a task instead of 64, so that the last asks for one more than there is.
    several = block("bash", "* 64").replace("* 64", "* 2").replace("+ 63", "+ 1")
    place.script("encode.sh", f"set -euo pipefail\n{several}")
    assert partitions % 2 == 1
    place.run("sbatch", f"--array=0-{partitions // 2}", "encode.sh", "run.plan")
    place.run("ecgcohorts", "commit", "run.plan")
    assert ec.verify(place.folder / "s.zarr").ok


@pytest.mark.slow
def test_slurm_pretraining_asks_for_another_turn_and_goes_on(place):
    pytest.importorskip("torch")
    place.ingested()
    script = place.script("pretrain.sh", block("bash", "torchrun"))
    steps = 60  # more than a turn does
    settings = [
        f"max_steps={steps}",
        "sampler.groups=4",
        'sampler.singles="self"',
        "checkpoint_every=2",
        "compute.batch_norm=local",
    ]
    words = ["bash", str(script), "alone.zarr", "run", *(word for one in settings for word in ("--set", one))]
    first = subprocess.Popen(
        words, cwd=place.folder, env=place.surroundings | {"SLURM_JOB_ID": "17"}, start_new_session=True
    )
    status = place.folder / "run" / "status.json"
    end = time.monotonic() + SECONDS
    while not list(place.folder.glob("run/checkpoints/*")):
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    first.send_signal(signal.SIGUSR1)  # to the script alone, as B: says
    while not (place.folder / "scontrol.log").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGTERM)  # what Slurm does next
    first.wait(SECONDS)
    assert (place.folder / "scontrol.log").read_text() == "requeue 17\n"
    assert json.loads(status.read_text())["step"] < steps
    place.run(*words, SLURM_JOB_ID="17")
    assert json.loads(status.read_text())["step"] == steps


def test_cron(place):
    paths = {"/data/stores": ".", "/data/hospital/muse": "muse", "~/pseudonym.key": "pseudonym.key"}
    place.script("nightly.sh", block("bash", "nightly.sh"), **paths)
    place.run("bash", "nightly.sh")
    place.run("bash", "nightly.sh", WEEKDAY="7")
    log = [json.loads(line) for line in (place.folder / "nightly.jsonl").read_text().splitlines()]
    ended = [(line["command"], line["exit_code"]) for line in log if line["event"] == "end"]
    again = [("ecgcohorts ingest", 0), ("ecgcohorts compact", 0), ("ecgcohorts gc", 0), ("ecgcohorts verify", 0)]
    assert ended == [("ecgcohorts ingest", 0), *again]


def test_snakemake(place):
    """Its shell commands, in the order of its rules; and by Snakemake itself, where it is installed."""
    code = block("python", "checkpoint plan:").replace("cohort.yaml -o", f"cohort.yaml --shard {SHARD} -o")
    plan, encode, commit = re.findall(r'shell: "(.*)"', code)
    place.run("bash", "-c", plan)
    for number in range(json.loads((place.folder / "plan.json").read_text())["partitions"]):
        place.run("bash", "-c", encode.format(input="run.plan", wildcards=type("", (), {"number": number})))
    place.run("bash", "-c", commit)
    whole = ec.open(place.folder / "north.zarr").fingerprint
    assert whole == place.ingested()
    if snakemake := shutil.which("snakemake"):
        shutil.rmtree(place.folder / "north.zarr")
        for name in ("run.plan", "plan.json"):
            (place.folder / name).unlink()
        place.script("Snakefile", code)
        place.run(snakemake, "--cores", 2)
        assert ec.open(place.folder / "north.zarr").fingerprint == whole


def test_kubernetes(place):
    job = yaml.safe_load(block("yaml", "kind: Job"))
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
    assert job["spec"]["completionMode"] == "Indexed"
    (place.folder / "plans").mkdir()
    words = ["muse", "s.zarr", "--cohort", "hospital.yaml", "--shard", SHARD]
    planned = place.run("ecgcohorts", "plan", *words, "-o", "plans/hospital.plan", "--json")
    command = [word.replace("/plans/", f"{place.folder}/plans/") for word in container["command"]]
    for index in range(json.loads(planned.stdout)["partitions"]):
        place.run(*command, JOB_COMPLETION_INDEX=str(index))
    place.run("ecgcohorts", "commit", "plans/hospital.plan")
    assert ec.open(place.folder / "s.zarr").fingerprint == place.ingested()


def test_dask_jobqueue(place):
    """With an `sbatch` that starts the script that dask-jobqueue wrote, as a job of this machine."""
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install 'ecgcohorts[dask]'")
    # dask-jobqueue deletes the script as soon as `sbatch` returns, which keeps a copy.
    keep = 'cp "$1" job.$$.sh\nsetsid bash job.$$.sh > job.$$.log 2>&1 &\n'
    place.script("bin/sbatch", f'#!/bin/bash\n{keep}echo "Submitted batch job $!"\n')
    place.script("bin/scancel", '#!/bin/bash\nfor job in "$@"; do kill -- -"$job" 2>/dev/null; done\ntrue\n')
    (place.folder / "bin" / "scancel").chmod(0o755)
    code = (
        block("python", "SLURMCluster")
        .replace("jobs=64", "jobs=2")
        .replace("runner=Dask", f"shard_records={SHARD}, runner=Dask")
    )
    place.script("run.py", code.replace("raw/north/cohort.yaml", "hospital.yaml").replace('"raw/north"', '"muse"'))
    done = place.run(sys.executable, "run.py", DASK_JOBQUEUE__SLURM__INTERFACE="lo")
    assert "stored" in done.stdout
    assert ec.open(place.folder / "north.zarr").fingerprint == place.ingested()


def test_the_container_file_has_the_commands_of_one():
    lines = block("dockerfile", "FROM").splitlines()
    assert {line.split()[0] for line in lines} == {"FROM", "RUN", "COPY", "USER", "ENTRYPOINT", "CMD"}
    uid = yaml.safe_load(block("yaml", "kind: Job"))["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert any(f"--uid {uid}" in line for line in lines)
    assert "requirements.lock" in block("bash", "pip freeze")
