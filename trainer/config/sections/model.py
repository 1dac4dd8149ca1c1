"""The `model:` section: which pretrained model, and what of it is trained."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.config.sections.training import Section


class LoraSection(Section):
    """Low-rank adapters (`mode: lora`); the head is trained in full beside them."""

    r: int = Field(default=16, ge=1)
    """Rank of the two matrices added to a layer."""
    alpha: float = Field(default=32.0, gt=0)
    """The matrices' product is scaled by alpha / r."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout on the input of the matrices."""
    target_modules: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the layers to adapt, e.g. [query, value]; left out: every linear layer of the encoder."""


class HeadSection(Section):
    """The head on a frozen encoder (`mode: head`)."""

    l2: float | None = Field(default=None, ge=0)
    """Strength of the L2 penalty; left out: the best of 0.1, 0.01, 0.001, 0.0001, 0.00001 by `training.metric_for_best_model` on validation."""


class ModelSection(Section):
    """The pretrained model that is fine-tuned."""

    name: str
    """Hub id, folder, or `package:<distribution>[==version]/<path>` inside an installed Python package."""
    max_length: int | None = Field(default=None, ge=4)
    """Longest text in tokens, longer ones are cut; left out: the model's own limit, at most 512."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for sources you trust."""
    convert_weights: bool = False
    """Read pickled weights (`pytorch_model.bin`) from a copy in safetensors, which is made once, in the cache, by a process that loads \
tensors alone. Without it such a model is refused, since pickled files can run code."""
    mode: Literal["full", "head", "lora"] = "full"
    """What is trained: `full` all weights; `lora` low-rank adapters, merged into `model/` and kept in `adapter/`; `head` the final layer alone, \
in one process, on embeddings of the frozen encoder (of `training:` it uses `metric_for_best_model`, `greater_is_better`, \
`label_smoothing_factor`, `use_cpu`, and `max_steps` as L-BFGS iterations of a fit)."""
    lora: LoraSection = LoraSection()
    """Low-rank adapters (`mode: lora`)."""
    head: HeadSection = HeadSection()
    """The head on a frozen encoder (`mode: head`)."""


def check_mode(mode: str, method: str, resample_each_epoch: bool) -> None:
    """Raises ValueError where the mode has nothing for a way of balancing to work on."""
    if method in SYNTHESIS_METHODS and mode != "head":
        words = f"balance.method {method} makes new embeddings, never text, so it needs model.mode: head; model.mode is '{mode}'"
        raise ValueError(f"{words}. Set it, or balance by oversample or loss.class_weights")
    if mode == "head" and method == "class_balanced_batches":
        raise ValueError(
            f"balance.method {method} shapes optimizer steps, and model.mode head has none; use method power with alpha: 0"
        )
    if mode == "head" and resample_each_epoch:
        raise ValueError(
            "balance.resample_each_epoch draws rows every epoch, and model.mode head has no epochs; remove one of them"
        )
