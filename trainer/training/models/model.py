"""The pretrained encoder, its tokenizer and a new head with the label names in its config."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.arrays import Floats
from trainer.errors import ModelError
from trainer.training.models import model_checks
from trainer.training.models.end_token import Origin, reads_text_only
from trainer.training.models.model_checks import position_limit
from trainer.training.models.model_folder import (
    refuse_other_types,
    resolve_name,
    telling_damage,
    telling_repository,
    worded,
)
from trainer.training.models.model_weights import with_safetensors

if TYPE_CHECKING:
    from trainer.config.sections.model import ModelSection

LONGEST_DEFAULT = 512


def load_pretrained_config(model: "ModelSection") -> Any:
    """Config of the pretrained model, before any weight is loaded.

    Raises:
        ModelError: not found, not a text classifier, or shorter than `max_length`.
    """
    config = pretrained_config(model)
    limit = model_checks.limit_of(model, config)
    if model.max_length and limit and model.max_length > limit:
        raise ModelError(
            f"model.max_length is {model.max_length}, but '{model.name}' reads at most {limit} tokens. Set model.max_length: {limit} or less."
        )
    return config


def pretrained_config(model: "ModelSection") -> Any:
    """Return the config of a pretrained text classifier or encoder.

    Raises:
        ModelError: not found, or not a text classifier.
    """
    from transformers import AutoConfig

    with worded(model.name):
        name = resolve_name(model.name)
        with telling_repository(name, model.revision, f"model.name: '{model.name}'"):
            config = AutoConfig.from_pretrained(
                name, revision=model.revision, trust_remote_code=model.trust_remote_code
            )
    refuse_other_types(config, f"model.name: '{model.name}'")
    return config


def pinned(model: "ModelSection") -> "ModelSection":
    """The section with the commit of the Hub that its config was read from, so that tokenizer and weights are of the same one."""
    from huggingface_hub import try_to_load_from_cache

    name = resolve_name(model.name)
    found = (
        None
        if Path(name).is_dir()
        else try_to_load_from_cache(name, "config.json", revision=model.revision)
    )
    return (
        model.model_copy(update={"revision": Path(found).parent.name})
        if isinstance(found, str)
        else model
    )  # .../snapshots/<commit>/config.json


def load_tokenizer(model: "ModelSection", config: Any) -> tuple[Any, int]:
    """The tokenizer, with a padding token, and the maximal length in tokens.

    Raises:
        ModelError: no tokenizer, one without words, or one that has nothing to pad with.
    """
    from transformers import AutoTokenizer

    with (
        worded(model.name),
        telling_damage(
            Path(resolve_name(model.name)), f"model.name: the tokenizer of '{model.name}'"
        ),
    ):
        name, origin = (
            resolve_name(model.name),
            Origin(revision=model.revision, trust_remote_code=model.trust_remote_code),
        )
        tokenizer = reads_text_only(
            AutoTokenizer.from_pretrained(name, config=config, **origin), config, name, **origin
        )
    where = f"model.name: the tokenizer of '{model.name}'"
    limits = complete_tokenizer(tokenizer, config, where, trust_remote_code=model.trust_remote_code)
    return tokenizer, model.max_length or min([LONGEST_DEFAULT, *limits])


def complete_tokenizer(
    tokenizer: Any, config: Any, where: str, *, trust_remote_code: bool = False
) -> list[int]:
    """Give a tokenizer and its config a padding token.

    Args:
        where: words for the tokenizer.
    Returns:
        The lengths in tokens that the tokenizer and its model allow, if they set any.
    Raises:
        ModelError: a tokenizer without words, with nothing to pad with, or of another model.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"{where} knows no words; are its tokenizer files missing? Copy them beside config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{where} has no padding, end or unknown token, so batches cannot be padded."
        )
    model_checks.refuse_unknown_ids(tokenizer, config, where)
    for part in (
        config,
        config.get_text_config(),
    ):  # of a model of text and images each has its own
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = tokenizer.pad_token_id
    limits = (
        position_limit(config, trust_remote_code=trust_remote_code),
        tokenizer.model_max_length,
    )
    return [int(limit) for limit in limits if limit and limit < 1_000_000]


def load_model(
    model: "ModelSection",
    config: Any,
    labels: list[str],
    tokenizer: Any,
    max_length: int,
    *,
    multi_label: bool = False,
) -> Any:
    """Pretrained weights in float32 with a new head, drawn from torch's generator; a head for the same labels is kept.

    With `model.mode: lora` a PeftModel around it; with `head` its untrained layers before the final one pass their input through.

    Raises:
        ModelError: no safetensors weights, or weights that do not fit the config.
    """
    from transformers import AutoModelForSequenceClassification

    config = deepcopy(config)  # the next model that is made of it has to find the pretrained labels
    config.problem_type = (
        "multi_label_classification" if multi_label else "single_label_classification"
    )
    if hasattr(config, "decision"):
        del config.decision  # of an earlier training
    tokenizer.model_max_length = max_length  # pipelines cut texts where training did
    with worded(model.name), _quiet_report():
        pretrained_labels = list((config.id2label or {}).values())
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: label_id for label_id, label in enumerate(labels)}
        loaded, info = _from_pretrained(
            AutoModelForSequenceClassification,
            model,
            config,
            ignore_mismatched_sizes=True,  # a head for another number of labels is replaced
            output_loading_info=True,
        )
    if not info["missing_keys"] and not info["mismatched_keys"] and pretrained_labels != labels:
        _renew_head(loaded)
    if model.mode == "head":
        from trainer.training.models.layers import pass_through

        pass_through(loaded, info["missing_keys"])
    if model.mode == "lora":
        from trainer.training.models.lora import add_adapter

        loaded = add_adapter(loaded, model.lora, info["missing_keys"])
    return loaded


def load_encoder(model: "ModelSection", config: Any) -> Any:
    """The pretrained encoder without a head, in float32.

    Raises:
        ModelError: no safetensors weights, or weights that do not fit the config.
    """
    from transformers import AutoModel

    with worded(model.name), _quiet_report():
        return _from_pretrained(AutoModel, model, config)


def _from_pretrained(kind: Any, model: "ModelSection", config: Any, **options: Any) -> Any:
    """Weights of safetensors files alone, in float32."""
    import torch

    name, source = resolve_name(model.name), with_safetensors(model)
    found = kind.from_pretrained(
        source,
        config=config,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        use_safetensors=True,
        dtype=torch.float32,
        **options,
    )
    if source != name:
        loaded = found[0] if isinstance(found, tuple) else found
        loaded.name_or_path = loaded.config._name_or_path = (
            name  # what an adapter calls its base model; the copy may be cleared
        )
    return found


def _renew_head(model: Any) -> None:
    """Draw the last layer anew: it was trained for as many labels, but of other names or in another order."""
    import torch

    from trainer.training.models.layers import final_linear

    head = final_linear(model)
    if head is not None:
        torch.nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            torch.nn.init.zeros_(head.bias)


def fold_into_head(model: Any, temperature: float, shift_C: Floats) -> bool:
    """Change the last layer so that it gives logits / temperature + shift; False, and nothing done, where it has no bias."""
    import torch

    from trainer.training.models.layers import final_linear

    head = final_linear(model)
    if head is None or head.bias is None:
        return False
    with torch.no_grad():
        head.weight /= temperature
        head.bias /= temperature
        head.bias += torch.as_tensor(shift_C, dtype=head.bias.dtype, device=head.bias.device)
    return True


@contextmanager
def _quiet_report() -> Iterator[None]:
    """No report of head weights that are new, which is what is meant to be."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
