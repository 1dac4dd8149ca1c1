"""If a process dies or hangs, the others end and name it; slow work outside steps is no fault."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from ranks import ends, ranks

from trainer.errors import TrainingError
from trainer.launch import watch
from trainer.launch.watch import LEFT, LOST, Watch

WATCHED = str(Path(__file__).parent / "watched.py")
REMEDY = (
    "Look at the last output of this process and its machine. Run the same command again to"
    " resume from the last checkpoint."
)


@pytest.fixture
def three():
    """Watches of three processes in the same store, whose clocks the test moves."""
    store = dist.HashStore()
    watches = [
        Watch(
            store, rank, 3, f"rank {rank} (node-{rank}, pid 7)", launcher=None, timeout_seconds=60
        )
        for rank in range(3)
    ]
    for one in watches:
        one.space = one.name  # machines of their own
        one.send()
    return watches


def pass_time(watches, seconds, silent=()):
    for one in watches:
        one.lived += seconds
    awake = [one for one in watches if one not in silent]
    for one in awake:
        one.send()
    for one in awake:
        one.receive()


def test_who_is_behind_is_named_by_all_when_one_has_waited_too_long(three):
    for one in three:
        one.progress("step 12")
    for one in (three[0], three[2]):
        one.progress("step 13")
    pass_time(three, 60)
    assert [one.fault() for one in three] == [None] * 3
    pass_time(three, 1)
    for one in three:
        assert re.match(
            (
                r"rank 1 \(node-1, pid 7\), last seen at step 12 in \S+:\d+, made no"
                r" progress for 1 min \(run.timeout_minutes\)$"
            ),
            one.fault(),
        )


def test_all_are_named_when_nobody_is_behind(three):
    for one in three:
        one.progress("step 12")
    pass_time(three, 61)
    assert (
        three[1]
        .fault()
        .startswith(
            "all processes are at one step and made no progress for 1 min"
            " (run.timeout_minutes): rank 1 (node-1, pid 7), last seen"
        )
    )


def test_process_that_is_silent_is_named_whether_progress_is_expected_or_not(three):
    pass_time(three, 1)
    pass_time(three, 61, silent=[three[2]])
    assert re.match(
        r"rank 2 \(node-2, pid 7\), last seen at start in \S+, gave no sign for 1 min$",
        three[0].fault(),
    )
    three[0].progress("step 1")
    pass_time(three[:2], 61)
    assert re.match(
        r"rank 2 \(node-2, pid 7\), last seen at start in \S+, gave no sign for 1 min$",
        three[0].fault(),
    )


def test_no_time_is_too_long_where_no_progress_is_expected(three):
    for one in three:
        one.progress("step 12")
        one.progress(None)
    for _ in range(100):
        pass_time(three, 59)
    assert [one.fault() for one in three] == [None] * 3


def test_process_that_left_in_order_is_not_missed(three):
    pass_time(three, 1)
    three[2].end = LEFT
    pass_time(three, 1)
    pass_time(three, 1000, silent=[three[2]])
    assert three[0].fault() is None
    three[0].round_seconds = 0.01
    assert three[0].blame() == "rank 2 (node-2, pid 7) ended"


def test_error_of_another_process_is_told_in_its_words_and_those_it_drags_along_are_not_blamed(
    three,
):
    pass_time(three, 1)
    three[1].end, three[2].end = LOST, "rows.arrow: Input/output error."
    pass_time(three, 1)
    assert three[0].fault() is None  # it may still end by itself
    assert (
        three[0].blame()
        == "rank 2 (node-2, pid 7), last seen at start, ended: rows.arrow: Input/output error"
    )


def test_store_that_gives_no_answer_is_blamed_on_who_keeps_it(three):
    pass_time(three, 1)
    three[1].lived += 61
    assert re.match(
        r"rank 0 \(node-0, pid 7\), last seen at start in \S+, gave no answer for 1 min; it runs",
        three[1].fault(),
    )
    three[1].launcher = "the launcher at node-0:29500"
    assert (
        three[1]
        .fault()
        .startswith(
            "the launcher at node-0:29500 gave no answer for 1 min; it runs the common store"
        )
    )


def test_process_that_is_gone_from_this_machine_is_told_after_a_while(three, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    three[1].space = three[0].space
    monkeypatch.setattr(os, "getpid", lambda: ended.pid)
    three[1].send()
    monkeypatch.undo()
    three[0].receive()
    assert three[0].fault() is None
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0)
    assert (
        three[0].fault() == "rank 1 (node-1, pid 7), last seen at start, died: its process is gone"
    )


def test_broken_connection_between_processes_that_all_live_is_told_as_such(three):
    for one in three:
        one.round_seconds = 0.01
    pass_time(three, 1)
    assert (
        three[0].blame() == "the connection between the processes broke, but all of them are alive"
    )


def test_own_error_is_told_to_others_and_another_one_is_named_once(three, monkeypatch):
    pass_time(three, 1)
    monkeypatch.setattr(watch, "_watch", three[0])
    with pytest.raises(ValueError, match="my own"), watch.naming_lost_processes():
        raise ValueError("my own")
    assert three[0].end == "my own."
    three[1].end = "disk full."
    pass_time(three, 1)
    broken = OSError("could not be saved")
    broken.__cause__ = RuntimeError(
        "[.../gloo/transport/tcp/pair.cc:538] Connection closed by peer"
    )
    with (
        pytest.raises(TrainingError) as told,
        watch.naming_lost_processes(),
        watch.naming_lost_processes(),
    ):
        raise broken
    assert (
        str(told.value) == f"rank 1 (node-1, pid 7), last seen at start, ended: disk full. {REMEDY}"
    )


@pytest.mark.exhaustive
def test_suspended_process_names_itself_to_nobody_and_the_keeper_of_the_store_is_named():
    with ranks(*[[WATCHED, "stopped", 0, 0.05]] * 2) as processes:
        message = processes[1].communicate(timeout=60)[1]
        assert processes[1].returncode == 2
        assert processes[0].poll() is None
    assert re.search(
        (
            rf"rank 1 \(.*\): rank 0 \(\S+, pid {processes[0].pid}\), last seen at .* gave"
            rf" no answer for 3 s; .*{REMEDY}"
        ),
        message,
    )


def test_hanging_process_is_named_with_its_line_by_all():
    with ranks(*[[WATCHED, "stuck", 1, 0.05]] * 2) as processes:
        codes, told = ends(processes)
    assert codes == [2, 2]
    for message in told:
        assert re.search(
            (
                rf"rank 1 \(\S+, pid {processes[1].pid}\), last seen at step 2 in"
                rf" tests/launch/watched.py:\d+, made no progress for 3 s"
            ),
            message,
        )


@pytest.mark.exhaustive
def test_waiting_for_one_that_writes_results_is_no_fault():
    with ranks(*[[WATCHED, "writes", 0, 0.05]] * 2) as processes:
        codes, told = ends(processes)
    assert codes == [0, 0], told


@pytest.mark.exhaustive
def test_killed_process_ends_the_other_within_seconds_and_the_run_goes_on(
    config_file, run_cli, tmp_path
):
    path = config_file(training={"num_train_epochs": 4, "per_device_train_batch_size": 4})
    train, folder = ["-m", "trainer", "train", "--config", path], tmp_path / "runs/run"
    with ranks(train, train) as processes:
        while not list(folder.glob("checkpoints/checkpoint-*[0-9]/whole.json")):
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        message = processes[0].communicate(timeout=60)[1]
        assert time.monotonic() - killed < 20
        assert processes[0].returncode == 2
    assert re.search(
        (
            rf"rank 1 \(\S+, pid {processes[1].pid}\), last seen at [a-z ]*step \d+, died:"
            rf" its process is gone. {REMEDY}"
        ),
        message,
    )
    assert "Traceback" not in message
    done = run_cli("train", "--config", path)
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
