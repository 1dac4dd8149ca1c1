"""The server over real HTTP on loopback: formats, bad requests, limits, tokens, slow clients."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from conftest import ROOT
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError
from saved_models import by_pipeline, make_model
from serving import served

from trainer import Classifier, ConfigError, ModelError, RunError
from trainer.delivery.serving import connections, guard
from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.serve import listen, read_token, serve

pytestmark = pytest.mark.slow

TEXTS = ["What a lovely day!", "I hate this.", "The train leaves at nine.", "Was für ein Tag 😀"]
TOKEN = "s3cret-token"


class Slow(Classifier):
    """A real classifier that takes 0.3 seconds a batch."""

    def classify(self, texts):
        time.sleep(0.3)
        return super().classify(texts)


class Gated(Classifier):
    """A real classifier that computes nothing while its gate is shut."""

    def classify(self, texts):
        assert self.gate.wait(60)
        return super().classify(texts)


class Failing(Classifier):
    """A real classifier that fails on one word, as a model out of memory would."""

    def classify(self, texts):
        if any("fail" in text for text in texts):
            raise RuntimeError("out of memory")
        return super().classify(texts)


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """A model whose thresholds turn down what is most probable."""
    return make_model(
        tiny_model,
        tmp_path_factory.mktemp("model"),
        decision={"thresholds": {"negative": 0.9, "neutral": 0.05, "positive": 0.05}},
    )


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier.load(model)


@pytest.fixture(scope="module")
def client(classifier):
    with served(lambda: classifier) as client:
        yield client


@pytest.fixture
def online(monkeypatch):
    """The client of the Hub refuses every address, loopback too, while it is offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def by_score(found):
    return {score["label"]: score["score"] for score in found}


def test_the_unmodified_inference_client_reads_the_answers(client, classifier, online):
    hub = InferenceClient(model=client.url)
    for text, prediction in zip(TEXTS, classifier.predict(TEXTS), strict=True):
        found = hub.text_classification(text)
        assert found[0].label == prediction.label
        assert {score.label: score.score for score in found} == pytest.approx(
            prediction.probabilities, abs=1e-5
        )
        assert [score.label for score in hub.text_classification(text, top_k=1)] == [
            prediction.label
        ]
    logits = {
        score.label: score.score
        for score in hub.text_classification(TEXTS[0], function_to_apply="none")
    }
    assert logits == pytest.approx(
        by_score(
            client.post("/", {"inputs": TEXTS[0], "parameters": {"function_to_apply": "none"}})[2][
                0
            ]
        )
    )
    # of several texts the client keeps the first answer; the others are in what the server sends
    assert [score.label for score in hub.text_classification(TEXTS)] == [
        score["label"] for score in client.post("/", {"inputs": TEXTS})[2][0]
    ]
    with pytest.raises(HfHubHTTPError, match="inputs is empty"):
        hub.text_classification("")


def test_batches_come_back_in_order_with_all_labels_or_the_first_k(client, classifier):
    texts = [f"{text} {n}" for n in range(60) for text in TEXTS]
    expected = classifier.predict(texts)
    for top_k, count in ((None, 3), (1, 1), (2, 2), (100, 3)):
        status, _, found = client.post("/", {"inputs": texts, "parameters": {"top_k": top_k}})
        assert status == 200
        assert [len(scores) for scores in found] == [count] * len(texts)
        assert [scores[0]["label"] for scores in found] == [
            prediction.label for prediction in expected
        ]
        assert [scores[0]["score"] for scores in found] == pytest.approx(
            [prediction.score for prediction in expected], abs=1e-5
        )


def test_the_decided_label_comes_first_even_where_another_is_more_probable(client, classifier):
    predictions = classifier.predict(TEXTS)
    assert any(
        prediction.score < max(prediction.probabilities.values()) for prediction in predictions
    )
    for scores, prediction in zip(client.post("/", {"inputs": TEXTS})[2], predictions, strict=True):
        assert scores[0]["label"] == prediction.label
        assert [score["score"] for score in scores[1:]] == sorted(
            (score["score"] for score in scores[1:]), reverse=True
        )


def test_predict_gives_label_score_and_probabilities_as_the_classifier_does(client, classifier):
    for found, prediction in zip(
        client.post("/predict", {"inputs": TEXTS})[2], classifier.predict(TEXTS), strict=True
    ):
        assert (found["label"], found["labels"]) == (prediction.label, [prediction.label])
        assert found["score"] == pytest.approx(prediction.score, abs=1e-5)
        assert found["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_function_to_apply_gives_the_scores_of_the_plain_pipeline(client, model, function):
    from transformers import pipeline

    expected = pipeline("text-classification", str(model), top_k=None, function_to_apply=function)(
        TEXTS
    )
    found = client.post("/", {"inputs": TEXTS, "parameters": {"function_to_apply": function}})[2]
    for scores, wanted in zip(found, expected, strict=True):
        assert by_score(scores) == pytest.approx(by_score(wanted), abs=1e-4)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_each_text_is_computed_once_and_with_others_whatever_function_is_applied(
    client, classifier, monkeypatch, function
):
    model, passes = classifier.models[0], []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda rows: passes.append(len(rows)) or logits(rows))
    assert (
        client.post("/", {"inputs": TEXTS * 8, "parameters": {"function_to_apply": function}})[0]
        == 200
    )
    assert sum(passes) == 32
    assert len(passes) <= 3


def test_a_multi_label_model_gives_every_label_its_own_probability(tiny_model, tmp_path):
    folder = make_model(tiny_model, tmp_path / "many", problem_type="multi_label_classification")
    classifier = Classifier.load(folder)
    with served(lambda: classifier) as client:
        expected = by_pipeline(folder, TEXTS)
        for scores, wanted in zip(client.post("/", {"inputs": TEXTS})[2], expected, strict=True):
            assert by_score(scores) == pytest.approx(wanted, abs=1e-4)
            assert [score["score"] for score in scores] == sorted(
                by_score(scores).values(), reverse=True
            )
        for scores in client.post(
            "/", {"inputs": TEXTS, "parameters": {"function_to_apply": "softmax"}}
        )[2]:
            assert sum(by_score(scores).values()) == pytest.approx(1)
        for found in client.post("/predict", {"inputs": TEXTS})[2]:
            assert set(found["labels"]) == {
                label for label, p in found["probabilities"].items() if p >= 0.5
            }
        assert client.ask("GET", "/info")[2]["is_multi_label"] is True


def test_models_that_vote_have_no_logits_in_common(classifier):
    with served(lambda: Classifier([classifier, classifier])) as client:
        assert (
            client.post("/", {"inputs": TEXTS[0], "parameters": {"function_to_apply": "softmax"}})[
                0
            ]
            == 200
        )
        status, _, problem = client.post(
            "/", {"inputs": TEXTS[0], "parameters": {"function_to_apply": "none"}}
        )
        assert (status, problem["error"]) == (
            422,
            "function_to_apply is 'none', but several models vote here, which have no common"
            " logits. Omit it.",
        )


def test_pairs_of_texts_are_judged_as_pairs(client, classifier):
    pair = {"text": "What a day!", "text_pair": "It rains."}
    found = client.post("/predict", {"inputs": [pair, "What a day!"]})[2]
    expected = classifier.predict([pair, "What a day!"])
    assert [one["score"] for one in found] == pytest.approx(
        [one.score for one in expected], abs=1e-5
    )
    assert client.post("/predict", {"inputs": pair})[2][0]["score"] == pytest.approx(
        expected[0].score, abs=1e-5
    )


def test_in_bfloat16_probabilities_are_nearly_the_same(classifier):
    with served(lambda: classifier, bf16=True) as client:
        found = [
            list(one["probabilities"].values())
            for one in client.post("/predict", {"inputs": TEXTS})[2]
        ]
        difference = np.abs(np.array(found) - classifier.probabilities(TEXTS)).max()
        assert 1e-6 < difference < 0.05


BAD = {
    "": (400, "is not JSON"),
    "not JSON": (400, "is not JSON"),
    '{"inputs": "a"': (400, "is not JSON"),
    '{"inputs": NaN}': (400, "is not JSON"),
    '{"inputs": "\\ud800"}': (400, "is not JSON"),  # half of a surrogate pair
    "[" * 100_000: (400, "is not JSON"),
    "[]": (422, "The request is not a JSON object."),
    "null": (422, "The request is not a JSON object."),
    "{}": (422, "inputs is missing."),
    '{"texts": ["a"]}': (422, "texts is unknown; known: inputs, parameters, options."),
    '{"input": "a"}': (
        422,
        "input is unknown; known: inputs, parameters, options. Did you mean 'inputs'?",
    ),
    '{"inputs": null}': (422, "inputs is neither a text nor a list of texts."),
    '{"inputs": 5}': (422, "inputs is neither a text nor a list of texts."),
    '{"inputs": ""}': (422, "inputs is empty; needed: a text."),
    '{"inputs": " \\n\\t"}': (422, "inputs is empty; needed: a text."),
    '{"inputs": []}': (422, "inputs is empty; needed: at least one text."),
    '{"inputs": ["a", ""]}': (422, "inputs[1] is empty; needed: a text."),
    '{"inputs": ["a", 3]}': (422, "inputs[1] is not a text."),
    '{"inputs": ["a", ["b"]]}': (422, "inputs[1] is not a text."),
    '{"inputs": {"text": "a"}}': (422, "inputs.text_pair is missing."),
    '{"inputs": [{"text": 1, "text_pair": "b"}]}': (422, "inputs[0].text is not a text."),
    '{"inputs": {"text": "a", "text_pair": "b", "x": 1}}': (
        422,
        "inputs.x is unknown; known: text, text_pair.",
    ),
    '{"inputs": "a", "input": 1}': (
        422,
        "input is unknown; known: inputs, parameters, options. Did you mean 'inputs'?",
    ),
    '{"inputs": "a", "parameters": []}': (422, "parameters is not a JSON object."),
    '{"inputs": "a", "parameters": {"topk": 1}}': (
        422,
        "parameters.topk is unknown; known: top_k, function_to_apply. Did you mean 'top_k'?",
    ),
    '{"inputs": "a", "parameters": {"top_k": 0}}': (422, "parameters.top_k is below 1."),
    '{"inputs": "a", "parameters": {"top_k": "1"}}': (422, "parameters.top_k is not an integer."),
    '{"inputs": "a", "parameters": {"top_k": 1e400}}': (
        422,
        "parameters.top_k is not an integer.",
    ),
    '{"inputs": "a", "parameters": {"function_to_apply": "relu"}}': (
        422,
        "parameters.function_to_apply is unknown; known: softmax, sigmoid, none.",
    ),
    json.dumps({"inputs": ["a"] * 100_000}): (
        413,
        "inputs holds 100,000 texts; at most 1,000 are allowed per request (--max-texts).",
    ),
    json.dumps({"inputs": "a" * 2**20}): (
        413,
        "The request is larger than 1,048,576 bytes (--max-body-bytes). Send fewer texts at once.",
    ),
}


@pytest.mark.parametrize("body", BAD, ids=lambda body: f"{body[:40]}... {len(body)}")
def test_a_bad_request_is_told_why_and_the_server_goes_on(client, body):
    status, words = BAD[body]
    found, headers, problem = client.ask("POST", "/", body, Content_Type="application/json")
    assert found == status, problem
    assert words in problem["error"]
    assert headers["Content-Type"] == "application/json"
    assert client.post("/", {"inputs": "a"})[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "\x00",
        "\u202e\u200b\ufeff",
        "👩‍👩‍👧‍👦" * 50,
        "e\u0301" * 300,
        "\\\"'<script>",
        "名前",
        "\uffff",
        "a\u0000b\r\n",
    ],
    ids=ascii,
)
def test_an_odd_text_is_answered_as_the_classifier_answers_it(client, classifier, text):
    status, _, found = client.post("/predict", {"inputs": [text, "a"]})
    assert status == 200
    assert found[0]["probabilities"] == pytest.approx(
        classifier.predict([text])[0].probabilities, abs=1e-5
    )


def test_other_methods_paths_and_content_types_are_refused_in_words(client):
    assert client.ask("GET", "/nothing")[::2] == (404, {"error": "GET /nothing: Not Found."})
    assert client.ask("DELETE", "/predict")[::2] == (
        405,
        {"error": "DELETE /predict: Method Not Allowed."},
    )
    status, _, problem = client.ask(
        "POST", "/", "inputs=a", Content_Type="application/x-www-form-urlencoded"
    )
    assert (status, problem["error"]) == (
        415,
        "Content-Type is 'application/x-www-form-urlencoded'; needed: application/json.",
    )
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
        assert client.ask("GET", "/info", Host=host)[0] == 200, host
    status, _, problem = client.ask("GET", "/info", Host="evil.example:80")
    assert (status, problem["error"]) == (
        421,
        "Host is 'evil.example'; without a token, this server accepts only the hosts 127.0.0.1"
        " and localhost.",
    )


def test_behind_a_proxy_with_tls_the_documentation_names_its_address(classifier):
    with served(lambda: classifier, token=TOKEN) as client:
        page = client.ask("GET", "/docs", Host="model.example", X_Forwarded_Proto="https")[2]
        assert "https://model.example/predict" in page
        assert "http://" not in page


def test_head_gives_what_get_gives_but_the_body(client):
    for path in ("/", "/docs", "/health", "/info", "/nothing"):
        status, headers, content = client.ask("HEAD", path, timeout=5)
        expected, wanted, _ = client.ask("GET", path)
        assert (status, headers["Content-Type"], headers["Content-Length"]) == (
            expected,
            wanted["Content-Type"],
            wanted["Content-Length"],
        ), path
        assert not content
    assert client.ask("HEAD", "/predict")[0] == 405


def test_a_body_without_a_length_is_cut_off_at_the_limit(client):
    def chunks():
        for _ in range(40):
            yield b" " * 100_000

    status, _, problem = client.ask("POST", "/", chunks(), Content_Type="application/json")
    assert (status, problem["error"][:44]) == (413, "The request is larger than 1,048,576 bytes (")
    status, _, problem = client.ask(
        "POST", "/", b" " * 10_000_000, Content_Type="application/json"
    )  # it sends all of it before it reads
    assert status == 413
    announced = socket.create_connection(("127.0.0.1", client.port))
    announced.sendall(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:"
        b" 99999999999\r\n\r\n"
    )
    assert announced.recv(100).startswith(b"HTTP/1.1 413")


def test_the_token_is_asked_for_wherever_the_model_shows(classifier, online):
    with served(lambda: classifier, token=TOKEN) as client:
        for path in ("/", "/docs", "/health", "/ready", "/openapi.json"):
            assert client.ask("GET", path)[0] == 200, path
        for method, path in (
            ("POST", "/"),
            ("POST", "/predict"),
            ("GET", "/info"),
            ("GET", "/card"),
            ("GET", "/metrics"),
            ("POST", "/health"),
        ):
            for given in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": TOKEN},
                {"Authorization": f"Basic {TOKEN}"},
                {"Authorization": "Bearer \xe9"},
            ):
                status, headers, problem = client.ask(
                    method,
                    path,
                    '{"inputs": "a"}' if method == "POST" else None,
                    Content_Type="application/json",
                    **given,
                )
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
                assert problem["error"] == (
                    "The bearer token is missing or wrong. Send the header Authorization:"
                    " Bearer <token>."
                )
        assert (
            client.post(
                "/", {"inputs": "a"}, Authorization=f"Bearer {TOKEN}", Host="model.example"
            )[0]
            == 200
        )
        assert (
            client.post("/", {"inputs": "a"}, Authorization=f"bearer  {TOKEN}")[0] == 200
        )  # RFC 9110: any case, any number of blanks
        assert InferenceClient(model=client.url, token=TOKEN).text_classification("a")
        with pytest.raises(HfHubHTTPError, match="401"):
            InferenceClient(model=client.url, token="hf_wrong").text_classification("a")
        api = client.ask("GET", "/openapi.json")[2]
        assert api["paths"]["/predict"]["post"]["security"] == [{"token": []}]
        assert "security" not in api["paths"]["/health"]["get"]


def test_slow_clients_are_cut_off_and_others_served(client, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    begun = time.monotonic()
    silent, dribbling, unfinished = (
        socket.create_connection(("127.0.0.1", client.port), timeout=20) for _ in range(3)
    )
    dribbling.sendall(b"POST / HT")
    unfinished.sendall(
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:"
        b' 100\r\n\r\n{"inputs":'
    )
    assert client.post("/", {"inputs": "a"})[0] == 200
    answer = unfinished.recv(1000) + unfinished.recv(1000)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.5 seconds" in answer + unfinished.recv(1000)
    dribbling.sendall(b"TP/1.1\r\nHo")
    for cut in (silent, dribbling, unfinished):
        with suppress(ConnectionResetError):
            assert cut.recv(100) == b""
    assert time.monotonic() - begun < 15
    assert client.post("/", {"inputs": "a"})[0] == 200


@pytest.fixture(scope="module")
def many_labels(tiny_model, tmp_path_factory):
    """A classifier of 150 labels, whose answer to 1,000 texts (9 MB) exceeds the kernel buffer."""
    return Classifier.load(
        make_model(
            tiny_model, tmp_path_factory.mktemp("many"), [f"label number {n}" for n in range(150)]
        )
    )


LARGE = {"inputs": [f"this is text {n}" for n in range(1000)]}
WHOLE, CUT = (
    f'equipoise_requests_total{{route="/",status="{outcome}"}}' for outcome in (200, "aborted")
)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_slow_reader_gets_the_whole_answer(many_labels, monkeypatch, version):
    monkeypatch.setattr(
        connections, "HEAD_SECONDS", 0.3
    )  # for the head of the next request, not for this answer
    with served(lambda: many_labels) as client:
        size, found = client.slow_post("/", LARGE, bytes_per_second=5_000_000, version=version)
        assert (len(found), len(json.loads(found))) == (size, 1000)
        assert size > 9_000_000
        assert (client.metric(WHOLE), client.metric(CUT)) == (1, None)


def test_a_reader_so_slow_that_the_kernel_asks_for_no_more_for_a_while_gets_the_whole_answer(
    many_labels, monkeypatch
):
    monkeypatch.setattr(
        connections, "READ_SECONDS", 0.5
    )  # the kernel of Linux asks once a megabyte
    with served(lambda: many_labels) as client:
        size, found = client.slow_post(
            "/", LARGE | {"parameters": {"top_k": 75}}, bytes_per_second=1_000_000
        )
        assert (len(found), client.metric(WHOLE)) == (size, 1)


def test_an_answer_of_which_the_client_takes_nothing_more_is_cut_and_counted_as_aborted(
    many_labels, monkeypatch, caplog
):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.3)
    caplog.set_level("INFO", "trainer.delivery.serving")
    with served(lambda: many_labels) as client:
        size, found = client.slow_post("/", LARGE, bytes_per_second=1e9, pause_seconds=1.5)
        assert len(found) < size
        assert (client.metric(WHOLE), client.metric(CUT)) == (None, 1)
    assert (
        "A client read nothing of its answer for 0.3 s; its connection is closed."
        in caplog.messages
    )
    line = next(record for record in caplog.records if record.getMessage().startswith("POST"))
    assert (line.levelname, re.sub(r"\d+ ms", "N ms", line.getMessage())) == (
        "WARNING",
        "POST / aborted N ms",
    )


def test_a_slow_reader_may_finish_after_the_stop_signal(many_labels, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with served(lambda: many_labels) as client, ThreadPoolExecutor(1) as pool:
        has_begun = threading.Event()
        reading = pool.submit(
            client.slow_post,
            "/",
            LARGE,
            bytes_per_second=4_000_000,
            pause_seconds=0.2,
            has_begun=has_begun,
        )
        assert has_begun.wait(60)
        client.server.should_exit = True
        size, found = reading.result(60)
        assert len(found) == size > 9_000_000


def test_a_reader_who_takes_longer_than_the_graceful_end_is_cut_without_a_traceback(
    many_labels, caplog, capsys
):
    with served(lambda: many_labels) as client, ThreadPoolExecutor(1) as pool:
        has_begun = threading.Event()
        reading = pool.submit(
            client.slow_post, "/", LARGE, bytes_per_second=1e9, pause_seconds=3, has_begun=has_begun
        )
        assert has_begun.wait(60)
        client.server.config.timeout_graceful_shutdown = 1
        client.server.should_exit = True
        size, found = reading.result(60)
        assert len(found) < size
    assert any(line.startswith("POST / aborted ") for line in caplog.messages)
    said = capsys.readouterr().err
    assert "Cancel 1 running task(s)" in said
    assert "Traceback" not in said


@pytest.mark.exhaustive
def test_while_a_large_answer_is_made_and_read_slowly_health_answers_at_once(many_labels):
    """12 seconds with the real limits: the answer is read for longer than a head may take."""
    seconds, is_over = [], threading.Event()

    def ask_health(client):
        while not is_over.is_set():
            begun = time.monotonic()
            assert client.ask("GET", "/health")[0] == 200
            seconds.append(time.monotonic() - begun)
            time.sleep(0.01)

    with served(lambda: many_labels) as client, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_health, client)
        try:
            size, found = client.slow_post("/", LARGE, bytes_per_second=800_000)
        finally:
            is_over.set()
        asking.result(60)
        assert (len(found), client.metric(WHOLE)) == (size, 1)
    assert sorted(seconds)[int(0.9 * len(seconds))] < 0.05


def test_a_client_that_half_closes_while_it_reads_gets_the_whole_answer(many_labels):
    body = json.dumps(LARGE).encode()
    with served(lambda: many_labels) as client, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        connection.connect(("127.0.0.1", client.port))
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        answer = connection.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 200")
        connection.shutdown(socket.SHUT_WR)
        assert len(json.loads(answer.read().partition(b"\r\n\r\n")[2])) == 1000


def test_each_request_is_one_line_of_the_log_without_texts_queries_and_tokens(classifier, caplog):
    caplog.set_level("INFO", "trainer.delivery.serving")
    with served(lambda: classifier, token=TOKEN) as client:
        client.post(
            "/predict?text=private",
            {"inputs": "private words"},
            Authorization=f"Bearer {TOKEN}",
            X_Request_ID="a1-b2",
        )
        client.post(
            "/",
            {"inputs": "private words"},
            Authorization="Bearer private",
            X_Request_ID=f"no id {TOKEN}",
        )
        client.ask("HEAD", "/health")
        client.ask("GET", "/line%0Abreak" + "x" * 1000)
    lines = [re.sub(r"\d+ ms", "N ms", message) for message in caplog.messages]
    assert lines == [
        "POST /predict 200 N ms a1-b2",
        "POST / 401 N ms",
        "HEAD /health 200 N ms",
        f"GET /line%0Abreak{'x' * 187} 401 N ms",
    ]


def test_a_full_queue_says_429_and_when_to_come_again_and_never_hangs(classifier):
    slow = Slow(classifier.members)
    with (
        served(
            lambda: slow, limits=Limits(queue_size=3, max_batch_tokens=8, drain_seconds=0)
        ) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        answers = list(pool.map(lambda n: client.post("/", {"inputs": f"text {n}"}), range(20)))
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        for status, headers, body in answers:
            if status == 429:
                assert 1 <= int(headers["Retry-After"]) <= 60
                assert re.fullmatch(
                    r"The queue is full: [1-3] texts are waiting already. Try again later.",
                    body["error"],
                )
        assert (
            client.post("/", {"inputs": ["a"] * 4})[2]["error"]
            == "inputs holds 4 texts; at most 3 are allowed per request (--max-texts)."
        )
        assert client.post("/", {"inputs": "a"})[0] == 200
        assert client.metric('equipoise_requests_total{route="/",status="429"}') == statuses.count(
            429
        )
        assert client.metric("equipoise_queue_texts") == 0


def test_an_answer_that_takes_too_long_is_given_up_and_its_texts_are_dropped(classifier):
    slow = Slow(classifier.members)
    with served(
        lambda: slow, limits=Limits(timeout_seconds=0.5, max_batch_tokens=8, drain_seconds=0)
    ) as client:
        status, _, problem = client.post("/", {"inputs": [f"text {n}" for n in range(50)]})
        assert (status, problem["error"]) == (
            504,
            "There was no answer within 0.5 seconds (--timeout-seconds). Send fewer texts, or try"
            " again later.",
        )
        assert client.metric("equipoise_queue_texts") == 0
        time.sleep(0.4)
        assert client.post("/", {"inputs": "a"})[0] == 200
        assert client.metric("equipoise_texts_total") < 10


def test_a_request_that_waits_holds_its_texts_alone(classifier):
    gate, gated = threading.Event(), Gated(classifier.members)
    gated.gate = gate
    body = json.dumps({"inputs": "hi", "options": {"a": [[]] * 40_000}})
    with served(lambda: gated) as client, ThreadPoolExecutor(5) as pool:
        first = pool.submit(client.post, "/", {"inputs": "hold"})
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            waiting = [
                pool.submit(client.ask, "POST", "/", body, Content_Type="application/json")
                for _ in range(4)
            ]
            until = time.monotonic() + 30
            while client.metric("equipoise_queue_texts") < 4 and time.monotonic() < until:
                time.sleep(0.01)
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            gate.set()
        assert [one.result()[0] for one in (first, *waiting)] == [200] * 5
    assert held < 4 * len(body) / 2  # neither the body nor what was parsed of it


def test_what_a_client_that_left_asked_for_is_dropped(classifier):
    slow = Slow(classifier.members)
    with served(lambda: slow, limits=Limits(max_batch_tokens=8, drain_seconds=0)) as client:
        body = json.dumps({"inputs": [f"text {n}" for n in range(50)]}).encode()
        connection = socket.create_connection(("127.0.0.1", client.port))
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        until = time.monotonic() + 10
        while not client.metric("equipoise_queue_texts") and time.monotonic() < until:
            time.sleep(0.01)
        connection.close()
        while client.metric("equipoise_queue_texts") and time.monotonic() < until:
            time.sleep(0.01)
        assert client.metric("equipoise_queue_texts") == 0
        assert client.metric("equipoise_texts_total") < 20


def test_a_model_that_fails_ends_its_requests_alone(classifier, caplog):
    failing = Failing(classifier.members)
    with served(lambda: failing) as client:
        status, headers, problem = client.post(
            "/", {"inputs": ["please go on", "please fail", "please stay"]}
        )
        words = (
            "The model failed on text 2 of 3 of this request; the server's log says why. Other"
            " requests are not affected."
        )
        assert (status, problem["error"]) == (500, words)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert client.post("/", {"inputs": "please go on"})[0] == 200
        assert client.metric('equipoise_requests_total{route="/",status="500"}') == 1
        assert client.metric("equipoise_failed_texts_total") == 1
    assert "RuntimeError: out of memory" in caplog.text


def test_a_text_that_fails_fails_its_own_request_and_not_those_of_its_batch(classifier, caplog):
    class GatedFailing(Gated, Failing):
        gate = threading.Event()

    failing = GatedFailing(classifier.members)
    texts = ["please fail" if n == 5 else f"please go on {n}" for n in range(8)]
    with served(lambda: failing) as client, ThreadPoolExecutor(9) as pool:
        first, until = pool.submit(client.post, "/", {"inputs": "hold"}), time.monotonic() + 30
        while client.metric("equipoise_batch_texts_count") < 1 and time.monotonic() < until:
            time.sleep(0.01)
        waiting = [pool.submit(client.post, "/", {"inputs": text}) for text in texts]
        while client.metric("equipoise_queue_texts") < 8 and time.monotonic() < until:
            time.sleep(0.01)
        failing.gate.set()
        assert first.result()[0] == 200
        assert [one.result()[0] for one in waiting] == [
            500 if "fail" in text else 200 for text in texts
        ]
    assert (
        "A batch of 8 requests failed (RuntimeError); they are computed one by one."
        in caplog.messages
    )


def test_a_server_is_alive_before_it_is_ready(classifier):
    gate = threading.Event()

    def load():
        assert gate.wait(30)
        return classifier

    with served(load, wait=False) as client:
        assert client.ask("GET", "/health")[::2] == (200, {"status": "alive"})
        for method, path in (
            ("GET", "/ready"),
            ("GET", "/info"),
            ("POST", "/"),
            ("POST", "/predict"),
        ):
            status, headers, problem = client.ask(
                method, path, '{"inputs": "a"}', Content_Type="application/json"
            )
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "loading" in problem["error"]
        gate.set()
        until = time.monotonic() + 20
        while client.ask("GET", "/ready")[0] != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert client.ask("GET", "/ready")[::2] == (200, {"status": "ready"})
        assert client.post("/", {"inputs": "a"})[0] == 200


def test_while_it_drains_it_is_not_ready_but_answers_and_closes_connections(classifier):
    with served(lambda: classifier, limits=Limits(drain_seconds=1.5)) as client:
        client.server.should_exit = True
        time.sleep(0.5)
        assert client.ask("GET", "/ready")[0] == 503
        status, headers, _ = client.post("/", {"inputs": "a"})
        assert (status, headers["Connection"]) == (200, "close")


def test_the_counts_are_those_of_what_was_asked(classifier):
    with served(lambda: classifier) as client:
        client.post("/", {"inputs": ["a", "b", "c"]})
        client.post("/predict", {"inputs": "a"})
        client.post("/", {"inputs": []})
        client.ask("GET", "/../../etc/passwd")
        assert client.metric('equipoise_requests_total{route="/",status="200"}') == 1
        assert client.metric('equipoise_requests_total{route="/",status="422"}') == 1
        assert client.metric('equipoise_requests_total{route="/predict",status="200"}') == 1
        assert client.metric('equipoise_requests_total{route="other",status="404"}') == 1
        assert client.metric('equipoise_request_seconds_count{route="/"}') == 2
        assert client.metric("equipoise_texts_total") == 4
        assert client.metric("equipoise_batch_texts_count") == 2
        assert client.metric("equipoise_batch_texts_sum") == 4


def test_requests_at_once_are_computed_in_common_batches(classifier):
    with served(lambda: classifier) as client, ThreadPoolExecutor(16) as pool:
        texts = [f"{TEXTS[n % 4]} {n}" for n in range(200)]
        found = list(pool.map(lambda text: client.post("/predict", {"inputs": text})[2][0], texts))
        expected = classifier.probabilities(texts)
        np.testing.assert_allclose(
            [[*one["probabilities"].values()] for one in found], expected, atol=1e-5
        )
        assert client.metric("equipoise_batch_texts_count") < 150


def test_schemathesis_finds_no_answer_that_openapi_json_does_not_tell(client):
    checks = (
        "not_a_server_error,status_code_conformance,content_type_conformance,"
        "response_schema_conformance,positive_data_acceptance,negative_data_rejection"
    )
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{client.url}/openapi.json",
        "--checks",
        checks,
        "--max-examples",
        "8",
        "--seed",
        "1",
    ]
    done = subprocess.run(
        [*command, "--phases", "examples,coverage,fuzzing", "--no-color"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert client.post("/", {"inputs": "a"})[0] == 200


def start_cli(log, *arguments, **environment):
    command = [sys.executable, "-m", "trainer", "serve", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def test_stopped_under_load_it_answers_all_that_it_accepted(model, tmp_path):
    with (tmp_path / "log").open("w") as log:
        process = start_cli(log, model, "--port", 0, "--token-env", "OUR_TOKEN", OUR_TOKEN=TOKEN)
    try:
        line = process.stdout.readline()
        port = int(
            re.fullmatch(
                rf"Serving {model} on http://127\.0\.0\.1:(\d+) \(page; API on"
                r" http://127\.0\.0\.1:\1/docs\)\. Stop with Ctrl\+C\.\n",
                line,
            )[1]
        )
        answered, lost = [], []

        def ask_until_closed(n):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
            for turn in range(2000):
                try:
                    connection.request(
                        "POST", "/", json.dumps({"inputs": f"client {n} turn {turn}"}), headers
                    )
                    answer = connection.getresponse()
                    answer.read()
                except OSError as error:
                    lost.append(error)
                    return
                answered.append(answer.status)
                if answer.headers["Connection"] == "close":
                    return

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask_until_closed, n) for n in range(8)]
            while len(answered) < 50:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            for one in clients:
                one.result(60)
        assert process.wait(60) == 0
        assert not lost
        assert set(answered) == {200}
        log = (tmp_path / "log").read_text()
        output = line + process.stdout.read() + log
        assert TOKEN not in output
        assert "Traceback" not in output
        lines = log.splitlines()
        assert len(lines) == len(answered)
        assert all(
            re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} INFO POST / 200 \d+ ms", line)
            for line in lines
        )
    finally:
        process.kill()


def test_what_cannot_be_found_is_said_with_exit_code_2(run_cli, tmp_path):
    missing = run_cli("serve", tmp_path / "nothing")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.startswith(f"{tmp_path}/nothing: does not exist.")


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # those of the test run stay
    with pytest.raises(ModelError, match=re.escape(str(tmp_path))):
        serve(tmp_path, port=0)
    assert "Serving" not in capsys.readouterr().out


def test_an_address_for_everyone_without_a_token_is_warned_of(model):
    with (
        listen("0.0.0.0", 0) as taken,
        pytest.warns(
            UserWarning, match="--host 0.0.0.0 without --token-env: everyone who can reach"
        ),
        pytest.raises(RunError),
    ):
        serve(model, "0.0.0.0", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_token_asked_for_over_plain_http_on_a_public_address_is_warned_of(model, host):
    words = (
        f"--host {host}: this server uses plain HTTP, so the network can read the token and the"
        " texts."
    )
    with (
        listen(host, 0) as taken,
        pytest.warns(UserWarning, match=re.escape(words)),
        pytest.raises(RunError),
    ):
        serve(model, host, taken.getsockname()[1], token=TOKEN)


def test_no_address_of_this_machine_alone_is_warned_of(model, recwarn):
    for host in ("127.0.0.1", "127.0.0.2"):
        with listen(host, 0) as taken, pytest.raises(RunError):
            serve(model, host, taken.getsockname()[1], token=TOKEN)
    assert not recwarn.list


def test_the_documented_limits_are_those_of_the_server():
    text = (ROOT / "docs/how-to/serve_behind_tls.md").read_text(encoding="utf-8")
    limits = Limits()
    assert limits.max_body_bytes == 2**20
    for words in (
        "client_max_body_size 1m;",
        f"| `--max-body-bytes` per request | {limits.max_body_bytes:,} | 413 |",
        f"| `--max-texts` per request | {limits.max_texts:,} | 413 |",
        f"| `--queue-size`, waiting texts | {limits.queue_size:,} | 429 with Retry-After |",
        "| `--timeout-seconds` per request, including queueing |"
        f" {limits.timeout_seconds:g} s | 504 |",
        "| time to receive the head of a request |"
        f" {connections.HEAD_SECONDS} s | the connection is closed |",
        f"| time to receive the body of a request | {guard.BODY_SECONDS} s | 408 |",
        "| time in which a client reads nothing of its answer |"
        f" {connections.READ_SECONDS} s | the connection is closed |",
        f"`--timeout-seconds` plus {guard.BODY_SECONDS + connections.READ_SECONDS} s",
    ):
        assert words in text


def test_a_taken_address_and_a_token_that_cannot_be_sent_are_refused(monkeypatch):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            RunError,
            match=rf"127.0.0.1:{port}: cannot be listened on \(Address already in use\). Give"
            r" another --host or --port.",
        ):
            listen("127.0.0.1", port)
    with pytest.raises(RunError, match=r"192\.0\.2\.1:0: cannot be listened on"):
        listen("192.0.2.1", 0)
    monkeypatch.setenv("OUR_TOKEN", "")
    with pytest.raises(ConfigError, match="the environment variable OUR_TOKEN is not set or empty"):
        read_token("OUR_TOKEN")
    monkeypatch.setenv("OUR_TOKEN", "two words")
    with pytest.raises(
        ConfigError, match="OUR_TOKEN contains spaces or characters that a header cannot contain"
    ):
        read_token("OUR_TOKEN")
    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    assert read_token("OUR_TOKEN") == TOKEN
