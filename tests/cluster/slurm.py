"""A real Slurm (22.05, as in Debian 12) on this machine, without systemd.

It has two nodes, each with two CPUs and two files for GPUs.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "setpriv")
CONFIG = """
ClusterName=test
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PriorityType=priority/basic
ReturnToService=2
JobRequeue=0
KillWait=5
MinJobAge=600
InactiveLimit=0
MailProg=/bin/true
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 \
Port={ports[1]} CPUs=2 Gres=gpu:2 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 \
Port={ports[2]} CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=node1,node2 Default=YES MaxTime=INFINITE \
PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=node1,node2 MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""
# FirstJobId: train.sbatch derives its port from the job id, and another such cluster may run here.
# JobRequeue=0: train.sbatch must ask for it. cred_expire: a requeued job waits for this long, and
# by default for 121 s.


def missing() -> str:
    """Why no cluster can be started here, or nothing."""
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    if absent:
        return f"{', '.join(absent)} not found; apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


@contextmanager
def cluster(folder: Path) -> Iterator["Cluster"]:
    """A cluster with the nodes node1 and node2 and the partitions low and high.

    All its processes have ended when the block ends.

    Args:
        folder: for sockets, state and logs. Its path must be short, because the paths of sockets
            have at most 107 characters.
    """
    folder.chmod(0o755)
    for name in ("state", "spool-node1", "spool-node2"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(
        CONFIG.format(
            folder=folder, host=host, ports=_free_ports(3), first_job=random.randrange(1, 9000)
        )
    )
    (folder / "cgroup.conf").write_text(
        "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
    )  # Slurm 22.05 knows no "disabled", and cgroup/v1 does nothing here
    (folder / "gres.conf").write_text(f"NodeName=node[1-2] Name=gpu File={folder}/gpu[0-1]\n")
    for number in (0, 1):
        (folder / f"gpu{number}").touch()
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    munge = [
        "munged",
        "--foreground",
        "--force",
        f"--key-file={folder}/munge.key",
        f"--socket={folder}/munge.socket",
    ]
    munge += [
        f"--pid-file={folder}/munged.pid",
        f"--log-file={folder}/munged.log",
        f"--seed-file={folder}/munged.seed",
    ]
    found = Cluster(folder)
    with ExitStack() as daemons:
        daemons.callback(found.kill_leftovers)
        daemons.enter_context(_daemon(munge, folder))
        _wait(lambda: (folder / "munge.socket").exists(), "munged has no socket", folder)
        daemons.enter_context(_daemon(["slurmctld", "-D", "-i"], folder))
        for node in ("node1", "node2"):
            daemons.enter_context(_daemon(["slurmd", "-D", "-N", node], folder))
        _wait(
            lambda: found.ask("sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D").strip() == "2",
            "the nodes did not come up",
            folder,
        )
        daemons.callback(found.cancel_all)
        yield found


class Cluster:
    """Commands of a running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ask(self, *command: str, **environment: str) -> str:
        """Output of a Slurm command, empty where it failed."""
        done = subprocess.run(
            command,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def submit(self, *arguments: object, cwd: Path, **environment: str) -> str:
        """Id of a submitted job."""
        command = ["sbatch", "--parsable", *map(str, arguments)]
        done = subprocess.run(
            command,
            env=self._environment(environment),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, job_id: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, ExitCode, Restarts ..."""
        shown = self.ask("scontrol", "show", "job", job_id, "-o")
        return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)

    def wait_for_state(self, job_id: str, *states: str, seconds: float = 240) -> dict[str, str]:
        """The job, once its state is one of these."""
        _wait(
            lambda: self.job(job_id).get("JobState") in states,
            f"job {job_id} is never {' or '.join(states)}",
            self.folder,
            seconds,
        )
        return self.job(job_id)

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until the nodes have nothing to do."""
        self.ask("scancel", "--partition=low,high")
        deadline = time.monotonic() + 10
        while self.ask("squeue", "-h").strip() and time.monotonic() < deadline:
            time.sleep(0.2)

    def kill_leftovers(self) -> None:
        """Kill processes that daemons left: those with this cluster in their environment."""
        own = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if int(process.name) != os.getpid() and own in (
                    process / "environ"
                ).read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue  # it has ended

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": f"{self.folder}/slurm.conf", **more}


@contextmanager
def _daemon(command: list[str], folder: Path) -> Iterator[None]:
    """A process that ends with the block, or with this process, even if it is killed."""
    with (
        folder / f"{'-'.join((Path(command[0]).name, command[-1])).replace('/', '_')[:40]}.out"
    ).open("w") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env={**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(condition, problem: str, folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(
                f"{path.name}: {path.read_text(errors='replace')[-1500:]}"
                for path in sorted([*folder.glob("*.out"), *folder.glob("*.log")])
            )
            raise TimeoutError(f"{problem} after {seconds:.0f} s\n{logs}")
        time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(number)]
        for free in bound:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in bound]
