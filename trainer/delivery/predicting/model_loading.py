"""Load a saved model: config, tokenizer, and weights from safetensors or an exported graph."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from trainer.delivery.predicting.graph_files import graph_format
from trainer.delivery.predicting.onnx_runtime import OnnxModel
from trainer.delivery.predicting.openvino_runtime import OpenVinoModel
from trainer.errors import ModelError
from trainer.training.models import model_folder
from trainer.training.models.end_token import Origin, reads_text_only
from trainer.training.models.model_folder import loading_tokenizer, refuse_other_types
from trainer.training.models.tokenizer import LONGEST_DEFAULT, complete_tokenizer
from trainer.training.models.weight_files import refuse_other_weights

RUNTIMES: dict[str, Callable[[Path], nn.Module]] = {"onnx": OnnxModel, "openvino": OpenVinoModel}


def load_config(source: str, origin: Origin) -> Any:
    """Return the config of a text classifier.

    Raises:
        ModelError: the config cannot be loaded, or the model is no text classifier.
    """
    with loading(source):
        config = AutoConfig.from_pretrained(source, **origin)
    refuse_other_types(config, f"{source}:")
    if config.num_labels < 2:
        raise ModelError(f"{source}: gives one score and no labels, so it is no text classifier.")
    return config


def load_tokenizer(source: str, config: Any, origin: Origin) -> tuple[Any, int]:
    """Return the tokenizer and the tokens that the model reads of a text, as its pipeline does.

    Tokenizer and config get a padding token if they have none.

    Raises:
        ModelError: the tokenizer has no words, or no token that can pad.
    """
    name = f"{source}: its tokenizer"
    with loading(source), loading_tokenizer(Path(source), name):
        tokenizer = AutoTokenizer.from_pretrained(source, config=config, **origin)
        tokenizer = reads_text_only(tokenizer, config, source, **origin)
        limits = complete_tokenizer(
            tokenizer, config, name, trust_remote_code=origin["trust_remote_code"]
        )
    return tokenizer, min(limits, default=LONGEST_DEFAULT)


def load_weights(source: str, config: Any, origin: Origin) -> Any:
    """Return the model in float32, in evaluation mode.

    Raises:
        ModelError: the weights are missing or do not fit the config.
        MissingPackageError: the package that runs an exported graph is not installed.
        ExportError: the exported graph cannot be loaded.
    """
    if graph := graph_format(source):
        return RUNTIMES[graph](Path(source))
    if Path(source).is_dir():
        refuse_other_weights([path.name for path in Path(source).iterdir()], f"{source}:", source)
    with loading(source):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **origin,
        )
    if info["missing_keys"]:
        raise ModelError(
            f"{source}: its weights lack {sorted(info['missing_keys'])[0]}, so it is no trained"
            " text classifier. Train it first."
        )
    return model.eval()


@contextmanager
def loading(source: str) -> Iterator[None]:
    """Turn errors of libraries into a ModelError, and hide the output of transformers."""
    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with model_folder.loading(
            source, f"{source}:", "set trust_remote_code (--trust-remote-code)"
        ):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
