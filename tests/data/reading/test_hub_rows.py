"""A Hub that changes or goes away while rows are read: the `datasets` client, a local server."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hub_server import Fault, HubServer

pytestmark = pytest.mark.slow

READ = """
import json, sys, time
import datasets
datasets.config.STREAMING_READ_MAX_RETRIES = 2
time.sleep = lambda seconds: None  # between the attempts of the clients
from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.source_tables import hub_commits, source_tables
from trainer.errors import DataError
name, streaming = json.loads(sys.argv[1])
data = DataSection(source=name, streaming=streaming)
for line in sys.stdin:
    try:
        texts = [
            text
            for tables in source_tables("source", data, ["text", "label"], BadRows())
            for table in tables
            for text in table["text"].to_pylist()
        ]
        print(json.dumps([texts, hub_commits(data)]), flush=True)
    except DataError as error:
        print(json.dumps(str(error)), flush=True)
"""


def shard(text, rows=40):
    out = io.BytesIO()
    pq.write_table(
        pa.table({"text": [f"{text} {i}" for i in range(rows)], "label": ["a", "b"] * (rows // 2)}),
        out,
    )
    return out.getvalue()


@pytest.fixture
def hub():
    with HubServer({}) as server:
        server.add(
            "dataset",
            "user/rows",
            {f"data/train-0000{i}.parquet": shard(f"old {i}") for i in range(3)},
        )
        yield server


@pytest.fixture
def reader(hub, tmp_path):
    """Function (streaming) -> a process that reads user/rows on request; gives rows or an error."""
    processes = []

    def start(streaming, **environment):
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            **environment,
        }
        command = [sys.executable, "-c", READ, json.dumps(["user/rows", streaming])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(
            process := subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes)
        )

        def read():
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
            return json.loads(line) if line else process.stderr.read()

        return read

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("streaming", [True, False])
def test_second_reading_is_of_the_commit_of_the_first(streaming, hub, reader):
    read = reader(streaming)
    before = read()
    first = hub.repos["dataset", "user/rows"].branches["main"]
    assert len(before[0]) == 120
    assert before[1] == {"user/rows": first}
    hub.add("dataset", "user/rows", {"data/train-00000.parquet": shard("new")})
    assert read() == before
    texts, commits = reader(streaming)()
    assert texts == [f"new {i}" for i in range(40)]
    assert commits != before[1]


@pytest.mark.parametrize("status", [0, 500])
def test_stream_that_breaks_off_is_told_in_one_message(status, hub, reader):
    hub.faults = [Fault("GET /datasets/user/rows/resolve/.*00002.parquet", status, times=1000)]
    message = reader(True)()
    assert isinstance(message, str)
    assert "Traceback" not in message
    assert message.startswith("user/rows: cannot be read to its end: ")
    assert message.endswith(
        "Run the same command again when the Hub can be reached, or set data.streaming: false."
    )
    assert len(message.splitlines()) == 1


def test_rows_that_were_read_are_read_again_offline(reader):
    first = reader(False)()
    assert reader(False, HF_HUB_OFFLINE="1")()[0] == first[0]
