"""Prompts to completions, by a model on this machine or an OpenAI-compatible server; table GENERATORS.

A generator loads its model, or checks its key, once and gives a function: requests -> (request, completion) as they come.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.reading.locate import package_path, refuse_url
from trainer.errors import AugmentError, ConfigError, ModelError, did_you_mean, first_line, listing
from trainer.files.content import content_digest

if TYPE_CHECKING:
    from trainer.config.sections.augment import AugmentSection

Messages = list[dict[str, str]]
"""A conversation as chat templates and servers take it: dicts of role and content."""
BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 30.0
REQUEST_TIMEOUT = 408
REFUSES_PROMPT = (400, 413, 422)
"""HTTP statuses that may tell of one prompt alone: a content filter, or too many tokens."""
NOT_READ = (
    ".gguf",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".onnx",
    ".md",
    ".png",
    ".jpg",
    ".gitattributes",
    ".log",
    ".lock",
)
"""Endings of files in a model folder that are not loaded: weights in other formats, and texts and pictures for people."""


@dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
        attempt: number of the prompt within its class.
        seed: of the sampling, in [0, 2**31).
    """

    attempt: int
    messages: Messages
    seed: int


@dataclass(frozen=True)
class Refused:
    """Stands for the completion of a prompt that a server refuses to answer, as its content filter does; in the server's words."""

    words: str


Generate = Callable[[list[Request]], Iterable[tuple[Request, "str | Refused"]]]


def locate_model(name: str) -> tuple[str, str | None]:
    """(folder or Hub id, name of the GGUF file or None for safetensors).

    Raises:
        ModelError: nothing there, several GGUF files, or neither safetensors nor GGUF weights.
    """
    path = (
        package_path(name, ModelError) if name.startswith("package:") else Path(name).expanduser()
    )
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"augment.model: '{name}' is no GGUF file. Give a model folder, a GGUF file or a Hub id."
                )
        return str(path.parent), path.name
    if not path.is_dir():
        refuse_url(name, "augment.model", "model", ModelError)
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf"):
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ModelError(
                f"augment.model: '{name}' does not exist.{did_you_mean(path.name, siblings)} Relative paths start at the folder you run in."
            )
        return name, None
    if (path / "config.json").is_file() and list(path.glob("*.safetensors")):
        return str(path), None
    packed = sorted(p.name for p in path.glob("*.gguf"))
    if len(packed) > 1:
        raise ModelError(
            f"augment.model: '{name}' holds {len(packed)} GGUF files: {listing(packed)}. Name one: {name.rstrip('/')}/{packed[0]}"
        )
    if not packed:
        raise ModelError(
            f"augment.model: '{name}' holds neither config.json with safetensors weights nor a GGUF file; pickled weights are not loaded."
        )
    return str(path), packed[0]


def model_identity(augment: "AugmentSection") -> str:
    """Return what the completions depend on beside the prompts.

    Of a local model that is the content of its files, wherever they lie; of a Hub model the commit; of a server its address
    and the model's name, since no server tells its weights.
    """
    if augment.generator == "endpoint":
        return f"{augment.base_url} {augment.model}"
    name, gguf_file = locate_model(augment.model or "")
    if not Path(name).is_dir():
        return f"{name} {_commit(name, augment.revision)}"
    paths = [
        path
        for path in sorted(Path(name).iterdir())
        if path.is_file() and (path.name == gguf_file or path.suffix.lower() not in NOT_READ)
    ]
    return " ".join(f"{path.name}:{content_digest(path.resolve())}" for path in paths)


@cache
def _commit(name: str, revision: str | None) -> str | None:
    """Where the branch of a Hub model stands, asked once, so that the weights that are loaded are those of the cache's key.

    Where the Hub cannot be reached it is the commit in the Hub's cache; None where the model is not there either.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().model_info(name, revision=revision, timeout=10).sha)
    except (httpx.HTTPError, ValueError, OSError):
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        return (
            Path(found).parent.name if isinstance(found, str) else None
        )  # .../snapshots/<commit>/config.json


def check_generator(augment: "AugmentSection") -> None:
    """Model folder or Hub model, and the key's variable, without loading or asking anything (`--check`).

    Raises:
        ModelError: no such model, or one that does not write text.
        ConfigError: the key's variable is not set.
    """
    if augment.generator == "endpoint":
        _api_key(augment)
    elif augment.generator == "local":
        folder, gguf_file = locate_model(augment.model or "")
        if gguf_file is None:
            from transformers import AutoConfig
            from transformers.models.auto.modeling_auto import (
                MODEL_FOR_CAUSAL_LM_MAPPING,
            )  # of AutoModelForCausalLM, without torch

            with _worded(augment.model):
                config = AutoConfig.from_pretrained(folder, revision=augment.revision)
            if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise ModelError(
                    f"augment.model: '{augment.model}' is of type {config.model_type}, which does not write text. Choose a causal language model."
                )


def local(augment: "AugmentSection") -> Generate:
    """Batches through transformers, on the accelerator where there is one; seeded by the first request of each batch.

    Models without a chat template continue a plain text of prompts and examples, up to the first blank line.

    Raises:
        ModelError: the model cannot be loaded, or a prompt is longer than it reads.
    """
    check_generator(augment)
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    folder, gguf_file = locate_model(augment.model or "")
    revision = (
        augment.revision
        if Path(folder).is_dir()
        else _commit(folder, augment.revision) or augment.revision
    )
    where: dict[str, Any] = {"revision": revision} | ({"gguf_file": gguf_file} if gguf_file else {})
    device = PartialState().device
    with _worded(augment.model):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **where)
        dtype = (
            "float32" if gguf_file or device.type == "cpu" else "auto"
        )  # packed GGUF and CPUs compute fastest in float32
        model = (
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=None if gguf_file else True, **where
            )
            .to(device)
            .eval()
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    longest = getattr(model.config, "max_position_embeddings", None)

    def generate(requests: list[Request]) -> list[tuple[Request, str]]:
        texts = [_render(tokenizer, request.messages) for request in requests]
        encoded = tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=tokenizer.chat_template is None,
        ).to(device)
        num_prompt_tokens = encoded["input_ids"].shape[1]
        if longest and num_prompt_tokens + augment.max_new_tokens > longest:
            raise ModelError(
                f"augment: a prompt of {num_prompt_tokens} tokens and an answer of {augment.max_new_tokens} are more than the {longest} that"
                f" '{augment.model}' reads. Lower augment.examples, example_characters or max_new_tokens."
            )
        set_seed(requests[0].seed)
        out = model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            max_new_tokens=augment.max_new_tokens,
            do_sample=True,
            temperature=augment.temperature,
            top_p=augment.top_p,
            pad_token_id=tokenizer.pad_token_id,
        )
        answers = tokenizer.batch_decode(out[:, num_prompt_tokens:], skip_special_tokens=True)
        if tokenizer.chat_template is None:
            answers = [answer.strip().split("\n\n")[0] for answer in answers]
        return list(zip(requests, answers, strict=True))

    return generate


def _render(tokenizer: Any, messages: Messages) -> str:
    """The conversation as the model's chat template writes it, else as paragraphs of plain text."""
    if tokenizer.chat_template is not None:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return "\n\n".join(message["content"] for message in messages) + "\n\n"


def endpoint(augment: "AugmentSection") -> Generate:
    """Chat completions of a server that speaks OpenAI's protocol (vLLM, Ollama, TGI, `transformers serve`).

    Answers come in any order; where a request fails for good, those of the others are given first. A prompt that the server
    refuses is given as Refused.

    Raises:
        AugmentError: the server refuses, or gives no usable answer after all tries.
    """
    from openai import OpenAI

    key = _api_key(augment)
    client = OpenAI(
        base_url=augment.base_url,
        api_key=key or "none",
        timeout=augment.timeout_seconds,
        max_retries=0,
    )

    def generate(requests: list[Request]) -> Iterator[tuple[Request, str | Refused]]:
        failure: AugmentError | None = None
        with ThreadPoolExecutor(len(requests)) as pool:
            waiting = {
                pool.submit(_ask, client, augment, request, key): request for request in requests
            }
            for future in as_completed(waiting):
                try:
                    completion = future.result()
                except AugmentError as error:
                    failure = error
                else:
                    yield waiting[future], completion
        if failure:
            raise failure

    return generate


def _ask(
    client: Any, augment: "AugmentSection", request: Request, key: str | None
) -> str | Refused:
    """The text of one completion; what a later try may mend is tried again."""
    import openai

    passing = (
        openai.APIConnectionError,
        openai.InternalServerError,
        openai.RateLimitError,
        openai.ConflictError,
        ValueError,
    )  # no JSON, no UTF-8
    problem = ""
    for attempt in range(augment.retries + 1):
        if attempt:
            time.sleep(min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (attempt - 1)))
        try:
            answer = client.chat.completions.create(
                model=augment.model,
                messages=request.messages,
                temperature=augment.temperature,
                top_p=augment.top_p,
                max_tokens=augment.max_new_tokens,
                seed=request.seed,
            )
            return _content(answer)
        except openai.APITimeoutError:
            problem = f"no answer within {augment.timeout_seconds:g} seconds."
        except (*passing, _UnusableAnswer) as error:
            problem = first_line(error)
        except openai.APIError as error:  # 400, 401, 404 ...: another try gives the same
            status = getattr(error, "status_code", None)
            if status == REQUEST_TIMEOUT:
                problem = first_line(error)
                continue
            words = _without(key, first_line(error))
            if status in REFUSES_PROMPT:
                return Refused(words)
            raise AugmentError(
                f"augment.base_url: {augment.base_url} refused a request: {words} Check augment.model, base_url and api_key_env."
            ) from None
    raise AugmentError(
        f"augment.base_url: {augment.base_url} gave no usable answer in {augment.retries + 1} tries; the last: {_without(key, problem)}"
        " What was written so far is kept: start the server, and the same command goes on."
    )


class _UnusableAnswer(Exception):
    """An answer with status 200 that holds no completion."""


def _content(answer: Any) -> str:
    """Text of the first choice, checked by hand: the client takes any JSON for an answer."""
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise _UnusableAnswer("the answer holds no choices")
    message = getattr(choices[0], "message", None)
    if message is None or not hasattr(message, "content"):
        raise _UnusableAnswer("the answer's first choice holds no message")
    return message.content if isinstance(message.content, str) else ""


def _without(key: str | None, text: str) -> str:
    """The text with the key blotted out, since servers may repeat it."""
    return text.replace(key, "***") if key else text


def _api_key(augment: "AugmentSection") -> str | None:
    if augment.api_key_env is None:
        return None
    key = os.environ.get(augment.api_key_env)
    if not key:
        raise ConfigError(
            f"augment.api_key_env: the environment variable {augment.api_key_env} is not set. Run: export {augment.api_key_env}=<your key>"
        )
    return key


@contextmanager
def _worded(name: str | None) -> Iterator[None]:
    """Turns what transformers raises while loading into a ModelError that names the model."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"augment.model: '{name}' cannot be loaded: {first_line(error)}"
        ) from error


GENERATORS: dict[str, Callable[["AugmentSection"], Generate]] = {
    "local": local,
    "endpoint": endpoint,
}
"""Ways to write new rows: the section -> a function from requests to completions."""
