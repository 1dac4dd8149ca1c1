"""The ways to write new rows: a model on this machine, or a server; table GENERATORS."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.config.sections.augment import AugmentSection
from trainer.data.augmenting.model_files import hub_commit, locate_model
from trainer.data.augmenting.prompts import Completion, Generate, Messages, Refused, Request
from trainer.errors import AugmentError, ConfigError, ModelError, first_line

REFUSES_PROMPT = (400, 413, 422)
"""HTTP statuses that may concern one prompt alone: a content filter, or too many tokens."""
RETRIED = (408, 409, 429)
"""HTTP statuses below 500 that the client retries, as it retries all from 500 on."""


def check_generator(augment: AugmentSection) -> None:
    """Check the model or the key's variable without loading a model or asking a server.

    Raises:
        ModelError: there is no such model, or it does not write text.
        ConfigError: the key's variable is not set.
    """
    if augment.generator == "endpoint":
        _api_key(augment)
    elif augment.generator == "local":
        _check_local(augment)


def _check_local(augment: AugmentSection) -> None:
    """Check that the model exists and writes text, without loading it.

    Raises:
        ModelError: there is no such model, or it is not a causal language model.
    """
    folder, gguf_file = locate_model(augment.model or "")
    if gguf_file is None:
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        with _loading(augment.model):
            config = AutoConfig.from_pretrained(folder, revision=augment.revision)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ModelError(
                f"augment.model: '{augment.model}' is of type {config.model_type},"
                " which does not write text. Choose a causal language model."
            )


def local(augment: AugmentSection) -> Generate:
    """Load the model, on the accelerator if there is one, and return its generator.

    The first request of each batch seeds the sampling. A model without a chat template continues
    a plain text of prompts and examples, up to the first blank line.

    Raises:
        ModelError: the model cannot be loaded, or a prompt is longer than it can read.
    """
    _check_local(augment)
    tokenizer, model = _load(augment)
    longest = getattr(model.config, "max_position_embeddings", None)

    def generate(requests: list[Request]) -> list[tuple[Request, str]]:
        from transformers import set_seed

        encoded = tokenizer(
            [_render(tokenizer, request.messages) for request in requests],
            return_tensors="pt",
            padding=True,
            add_special_tokens=tokenizer.chat_template is None,
        ).to(model.device)
        num_prompt_tokens = encoded["input_ids"].shape[1]
        if longest and num_prompt_tokens + augment.max_new_tokens > longest:
            raise ModelError(
                f"augment: a prompt of {num_prompt_tokens} tokens and an answer of"
                f" {augment.max_new_tokens} are more than the {longest} that '{augment.model}'"
                " reads. Lower augment.examples, example_characters or max_new_tokens."
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


def _load(augment: AugmentSection) -> tuple[Any, Any]:
    """Return the tokenizer and the model, ready to generate."""
    from accelerate import PartialState
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, gguf_file = locate_model(augment.model or "")
    commit = None if Path(folder).is_dir() else hub_commit(folder, augment.revision)
    where: dict[str, Any] = {"revision": commit or augment.revision}
    if gguf_file:
        where["gguf_file"] = gguf_file
    device = PartialState().device
    # unpacked GGUF weights and CPUs compute fastest in float32
    dtype = "float32" if gguf_file or device.type == "cpu" else "auto"
    with _loading(augment.model):
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **where)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=None if gguf_file else True, **where
        )
        model = model.to(device).eval()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def _render(tokenizer: Any, messages: Messages) -> str:
    """Return the conversation in the model's chat template, else as paragraphs of plain text."""
    if tokenizer.chat_template is not None:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return "\n\n".join(message["content"] for message in messages) + "\n\n"


@contextmanager
def _loading(name: str | None) -> Iterator[None]:
    """Turn what transformers raises while it loads into a ModelError that names the model."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"augment.model: '{name}' cannot be loaded: {first_line(error)}"
        ) from error


def endpoint(augment: AugmentSection) -> Generate:
    """Return the generator of a server that speaks OpenAI's protocol (vLLM, Ollama, TGI).

    Answers come in any order. If a request fails for good, the answers to the others are yielded
    first. A prompt that the server refuses gets the completion Refused.

    Raises:
        AugmentError: the server refuses, or it gives no usable answer after all retries.
    """
    from openai import OpenAI

    key = _api_key(augment)
    client = OpenAI(
        base_url=augment.base_url,
        api_key=key or "none",
        timeout=augment.timeout_seconds,
        max_retries=augment.retries,
    )

    def generate(requests: list[Request]) -> Iterator[tuple[Request, Completion]]:
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


def _ask(client: Any, augment: AugmentSection, request: Request, key: str | None) -> Completion:
    """Return one completion.

    The client retries failed requests, and waits as long as the server's `Retry-After` says. An
    answer with status 200 that cannot be used is requested again here.
    """
    import openai

    for _ in range(augment.retries + 1):
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
        except ValueError as error:  # it may also be no JSON or no UTF-8
            problem = first_line(error)
        except openai.APITimeoutError:
            problem = f"no answer within {augment.timeout_seconds:g} seconds."
            break
        except openai.APIError as error:
            # servers may repeat the key
            problem = first_line(error).replace(key, "***") if key else first_line(error)
            status = getattr(error, "status_code", 500)
            if status in REFUSES_PROMPT:
                return Refused(problem)
            if status < 500 and status not in RETRIED:
                raise AugmentError(
                    f"augment.base_url: {augment.base_url} refused a request: {problem}"
                    " Check augment.model, base_url and api_key_env."
                ) from None
            break
    raise AugmentError(
        f"augment.base_url: {augment.base_url} gave no usable answer"
        f" (augment.retries: {augment.retries}). The last problem: {problem}"
        " All rows so far are kept: start the server, then run the same command again."
    )


def _content(answer: Any) -> str:
    """Return the text of the first choice; the client accepts any JSON as an answer.

    Raises:
        ValueError: the answer contains no choices or no message.
    """
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ValueError("the answer contains no choices")
    message = getattr(choices[0], "message", None)
    if message is None or not hasattr(message, "content"):
        raise ValueError("the first choice of the answer contains no message")
    return message.content if isinstance(message.content, str) else ""


def _api_key(augment: AugmentSection) -> str | None:
    """Return the key of the server, or None if the config names no variable for it.

    Raises:
        ConfigError: the variable is not set.
    """
    name = augment.api_key_env
    if name and not os.environ.get(name):
        raise ConfigError(
            f"augment.api_key_env: the environment variable {name} is not set."
            f" Run: export {name}=<your key>"
        )
    return os.environ[name] if name else None


GENERATORS: dict[str, Callable[[AugmentSection], Generate]] = {
    "local": local,
    "endpoint": endpoint,
}
"""{name: function that loads the model, or checks the key, and returns a generator}."""
