"""A launch that would not train as asked ends at once, in words, on every process."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from ranks import ends, ranks

from trainer.errors import ConfigError
from trainer.launch import distributed

pytestmark = pytest.mark.slow

PREPARE = """
import sys
from trainer import load_config
from trainer.launch.exits import worded_errors
from trainer.runs.preparation import prepare
from trainer.runs.startup import start
with worded_errors():
    config = load_config(sys.argv[1])
    start(config)
    prepare(config)
    print("prepared")
"""


@pytest.fixture
def alone(monkeypatch):
    """Environment of a process that no launcher started."""
    for name in (
        "WORLD_SIZE",
        "GROUP_WORLD_SIZE",
        "SLURM_STEP_NUM_TASKS",
        "ACCELERATE_MIXED_PRECISION",
        *distributed.MPI_SIZES,
    ):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_tasks_of_srun_that_did_not_find_each_other_are_refused(alone):
    alone.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(
        ConfigError,
        match=re.escape(
            "srun started 4 tasks, but only 1 of them are connected; the others would train"
            " separately. In each task"
        ),
    ):
        distributed.start_processes(None, None)
    distributed.start_processes(1, None)  # asked for in so many words


@pytest.mark.parametrize("name", distributed.MPI_SIZES)
def test_sizes_that_mpi_left_are_told_or_passed_over(name, alone):
    alone.setenv(name, "4")
    rank = name.replace("SIZE", "RANK")
    words = (
        f"mpirun or srun ({name}) started 4 tasks, but only 1 of them are connected; the others"
        " would train separately. In each task"
    )
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        distributed.start_processes(None, None)
    assert f"--machine_rank ${rank}, as" in str(error.value)
    assert f"unset {name}. If each task should train separately, set run.num_processes: 1." in str(
        error.value
    )
    code = (
        "from accelerate import PartialState\n"
        "from trainer.launch.distributed import start_processes\n"
        "start_processes(1, 1)\n"
        "print(PartialState().num_processes)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env=os.environ,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr[-2000:]


@pytest.mark.parametrize("left", ["", "1", "no number"])
def test_a_variable_of_mpi_that_tells_of_no_other_task_changes_nothing(left, alone):
    alone.setenv("PMI_SIZE", left)
    distributed.start_processes(None, None)


def test_launchers_of_each_task_of_srun_must_find_each_other(alone):
    for name, value in {
        "SLURM_STEP_NUM_TASKS": "2",
        "WORLD_SIZE": "4",
        "GROUP_WORLD_SIZE": "1",
    }.items():
        alone.setenv(name, value)
    with pytest.raises(ConfigError, match="srun started 2 tasks, but only 1 of them are connected"):
        distributed.start_processes(None, None)


@pytest.mark.parametrize("by", ["option", "file"])
def test_accelerate_that_starts_one_process_instead_of_two_is_refused(by, config_file, tmp_path):
    (tmp_path / "cpu.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\n"
        "num_processes: 2\nuse_cpu: true\n",
        encoding="utf-8",
    )
    how = {
        "option": ["--cpu", "--num_processes", "2"],
        "file": ["--config_file", str(tmp_path / "cpu.yaml")],
    }[by]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *how,
        str(ROOT / "scripts/train.py"),
        "--config",
        config_file(),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, cwd=ROOT, env=os.environ, check=False
    )
    assert done.returncode != 0
    assert (
        "accelerate launch was asked for 2 processes, but started one (with --cpu it always does)."
        " On CPUs launch with ACCELERATE_USE_CPU" in done.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_process_with_other_code_or_config_is_named_on_all(config_file, tmp_path):
    package = tmp_path / "other_code"
    shutil.copytree(
        ROOT / "trainer", package / "trainer", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (package / "trainer/errors.py").open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    train = ["-m", "trainer", "train", "--config", config_file()]
    options = [{}, {"cwd": package, "env": {"PYTHONPATH": str(package)}}, {}]
    with ranks(
        train, [*train, "--set", "training.learning_rate=3e-5"], train, options=options
    ) as processes:
        codes, told = ends(processes)
    assert codes == [2, 2, 2], told
    start = told[0].index("the processes differ: the code of trainer/ is")
    words = told[0][start:]
    assert re.search(
        (
            rf"the code of trainer/ is \"\w+\" on rank 1 \(\S+, pid {processes[1].pid}\),"
            rf" \"\w+\" on rank 0"
        ),
        words,
    )
    assert "training.learning_rate is 3e-05 on rank 1 (" in words
    assert words.count(" on rank 1 (") == 2
    assert "on rank 2" not in words
    assert words.rstrip().endswith("Start all of them with the same config, data and code.")
    assert not (tmp_path / "runs").exists()


def two_nodes(config, folders, tmp_path):
    """(exit codes, standard errors) of two processes that prepare data in their own folders."""
    options = [
        {"cwd": folder, "env": {"HF_HOME": str(tmp_path / f"cache-{folder.name}")}}
        for folder in folders
    ]
    with ranks(
        ["-c", PREPARE, config], ["-c", PREPARE, config], node_of=lambda rank: rank, options=options
    ) as processes:
        return ends(processes)


@pytest.fixture
def nodes(tmp_path, tweets):
    folders = [tmp_path / "node-0", tmp_path / "node-1"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(tweets, folder / "rows.csv")
    return folders


def test_node_with_other_rows_is_named(nodes, config_file, tmp_path):
    lines = (nodes[1] / "rows.csv").read_text(encoding="utf-8").splitlines()
    (nodes[1] / "rows.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    codes, told = two_nodes(config_file(data={"source": "rows.csv"}), nodes, tmp_path)
    assert codes == [2, 2], told
    assert re.search(r"the processes differ: the fingerprint of .* on rank 1 .* on rank 0", told[0])
    assert "the fingerprint of the data is" in told[0]


def test_file_that_one_node_lacks_ends_all_of_them(nodes, config_file, tmp_path):
    (nodes[1] / "rows.csv").unlink()
    codes, told = two_nodes(config_file(data={"source": "rows.csv"}), nodes, tmp_path)
    assert codes == [2, 2], told
    assert re.search(r"rank 1 \(\S+, pid \d+\): data.source: 'rows.csv' does not exist.", told[0])


@pytest.mark.parametrize(
    ("visible", "place", "taken"),
    [
        ("", "1", "1"),
        ("", "2", "0"),
        ("4,6", "1", "6"),
        ("4,6", "2", "4"),
        ("GPU-8a", "0", "GPU-8a"),
    ],
)
def test_process_that_leaves_the_others_takes_the_gpu_of_its_place_and_its_share_of_the_cores(
    alone, visible, place, taken
):
    for name, value in {
        "RANK": "5",
        "LOCAL_RANK": place,
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "1",
    }.items():
        alone.setenv(name, value)
    alone.setenv("CUDA_VISIBLE_DEVICES", visible)
    alone.setattr("torch.cuda.device_count", lambda: 2)
    distributed.leave_the_others(discards=False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken
    assert os.environ["LOCAL_WORLD_SIZE"] == "4"
    assert (distributed.world_size(), distributed.is_main(), distributed.is_first_of_machine()) == (
        1,
        True,
        True,
    )
    assert not {"RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()


def test_process_without_a_launcher_keeps_all_gpus(alone):
    alone.delenv("LOCAL_RANK", raising=False)
    alone.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    distributed.leave_the_others(discards=False)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


def test_process_whose_partner_never_comes_says_so():
    code = (
        "from trainer.launch.distributed import start_processes as s\nfrom "
        "trainer.launch.exits import worded_errors\n"
    )
    with ranks(
        ["-c", code + "with worded_errors(): s(None, None, timeout_minutes=0.05)"], ["-c", ""]
    ) as processes:
        codes, told = ends(processes)
    assert codes == [2, 0], told
    assert re.search(
        (
            r"the 2 processes did not connect at 127.0.0.1:\d+ \(MASTER_ADDR and"
            r" MASTER_PORT\) within 0.05 min: "
        ),
        told[0],
    )
