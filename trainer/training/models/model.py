"""The pretrained model of a `model:` section: config, tokenizer, weights and a new head."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from trainer.config.sections.model import ModelSection
from trainer.data.reading.locate import hub_is_unreachable
from trainer.errors import ModelError
from trainer.training.models.end_token import Origin, reads_text_only
from trainer.training.models.model_folder import (
    loading,
    loading_from_hub,
    loading_tokenizer,
    refuse_other_types,
    resolve_name,
)
from trainer.training.models.model_weights import with_safetensors
from trainer.training.models.positions import limit_of
from trainer.training.models.tokenizer import LONGEST_DEFAULT, complete_tokenizer


def load_pretrained_config(model: ModelSection) -> Any:
    """Return the config of the pretrained model, before any weight is loaded.

    Raises:
        ModelError: not found, not a text classifier, or it reads fewer tokens than `max_length`.
    """
    config = pretrained_config(model)
    limit = limit_of(model, config)
    if model.max_length and limit and model.max_length > limit:
        raise ModelError(
            f"model.max_length is {model.max_length}, but '{model.name}' reads at most {limit}"
            f" tokens. Set model.max_length: {limit} or less."
        )
    return config


def pretrained_config(model: ModelSection) -> Any:
    """Return the config of a pretrained text classifier or encoder.

    Raises:
        ModelError: not found, or not a text classifier.
    """
    from transformers import AutoConfig

    where = f"model.name: '{model.name}'"
    with loading(model.name):
        name = resolve_name(model.name)
        with loading_from_hub(name, model.revision, where):
            config = AutoConfig.from_pretrained(
                name,
                revision=model.revision,
                trust_remote_code=model.trust_remote_code,
                # without a network, the client would repeat its requests for a minute
                local_files_only=not Path(name).is_dir() and hub_is_unreachable(),
            )
    refuse_other_types(config, where)
    return config


def pinned(model: ModelSection) -> ModelSection:
    """Return the section with the Hub commit of its config as revision.

    Tokenizer and weights are then loaded from the same commit.
    """
    from huggingface_hub import try_to_load_from_cache

    name = resolve_name(model.name)
    if Path(name).is_dir():
        return model
    found = try_to_load_from_cache(name, "config.json", revision=model.revision)
    # the path ends in snapshots/<commit>/config.json
    commit = Path(found).parent.name if isinstance(found, str) else model.revision
    return model.model_copy(update={"revision": commit})


def load_tokenizer(model: ModelSection, config: Any) -> tuple[Any, int]:
    """Return the tokenizer, with a padding token, and the maximum length in tokens.

    Raises:
        ModelError: there is no tokenizer, or one without words or without a token to pad with.
    """
    from transformers import AutoTokenizer

    where = f"model.name: the tokenizer of '{model.name}'"
    name = resolve_name(model.name)
    origin = Origin(revision=model.revision, trust_remote_code=model.trust_remote_code)
    with (
        loading(model.name),
        loading_tokenizer(Path(name), where),
    ):
        tokenizer = AutoTokenizer.from_pretrained(name, config=config, **origin)
        tokenizer = reads_text_only(tokenizer, config, name, **origin)
    limits = complete_tokenizer(tokenizer, config, where, trust_remote_code=model.trust_remote_code)
    return tokenizer, model.max_length or min([LONGEST_DEFAULT, *limits])


def load_model(
    model: ModelSection,
    config: Any,
    labels: list[str],
    tokenizer: Any,
    max_length: int,
    *,
    multi_label: bool = False,
) -> Any:
    """Return the pretrained weights in float32 with a new head, drawn from torch's generator.

    A head that was trained for the same labels is kept. With `model.mode: lora` a PeftModel is
    returned. With `head`, untrained layers before the final one pass their input through.

    Raises:
        ModelError: there are no safetensors weights, or weights that do not fit the config.
    """
    from transformers import AutoModelForSequenceClassification

    from trainer.training.models.encoder_layers import reinitialise_layers
    from trainer.training.models.layers import pass_through, renew_head
    from trainer.training.models.lora import add_adapter

    config = deepcopy(config)  # other models made from this config need its pretrained labels
    kind = "multi_label" if multi_label else "single_label"
    config.problem_type = f"{kind}_classification"
    for of_earlier_training in ("decision", "train_rows"):
        if hasattr(config, of_earlier_training):
            delattr(config, of_earlier_training)
    tokenizer.model_max_length = max_length  # pipelines then cut texts as training did
    with loading(model.name), _without_load_report():
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
        renew_head(loaded)
    if model.reinitialise_layers:
        reinitialise_layers(loaded, model.reinitialise_layers)
    if model.mode == "head":
        pass_through(loaded, info["missing_keys"])
    if model.mode == "lora":
        return add_adapter(loaded, model.lora, info["missing_keys"])
    return loaded


def load_encoder(model: ModelSection, config: Any) -> Any:
    """Return the pretrained encoder without a head, in float32.

    Raises:
        ModelError: there are no safetensors weights, or weights that do not fit the config.
    """
    from transformers import AutoModel

    with loading(model.name), _without_load_report():
        return _from_pretrained(AutoModel, model, config)


def _from_pretrained(kind: Any, model: ModelSection, config: Any, **options: Any) -> Any:
    """Load weights in float32, from safetensors files only."""
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
    if source != name:  # an adapter records its base model, and the copy may be removed
        loaded = found[0] if isinstance(found, tuple) else found
        loaded.name_or_path = loaded.config.name_or_path = name
    return found


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Silence the report of transformers about a new head, which is intended."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
