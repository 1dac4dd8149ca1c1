"""The `model:` section: which pretrained model is used, and which part of it is trained."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.config.sections.section import Section


class LoraSection(Section):
    """Low-rank adapters (`mode: lora`). The classification head is trained in full beside them."""

    r: int = Field(default=16, ge=1)
    """Rank of the two matrices that are added to each adapted layer."""
    alpha: float = Field(default=32.0, gt=0)
    """The product of the two matrices is scaled by alpha / r."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout probability at the input of the matrices."""
    target_modules: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the layers to adapt, such as [query, value]. Default: all linear layers of the
    encoder."""


class HeadSection(Section):
    """The classification head on a frozen encoder (`mode: head`)."""

    l2: float | None = Field(default=None, ge=0)
    """Strength of the L2 penalty. By default, 0.1, 0.01, 0.001, 0.0001 and 0.00001 are tried, and
    the best by `training.metric_for_best_model` on validation is used."""


class ModelSection(Section):
    """The pretrained model that is fine-tuned."""

    name: str
    """Hub id, folder, or `package:<distribution>[==version]/<path>` for a folder in an installed
    Python package."""
    max_length: int | None = Field(default=None, ge=4)
    """Maximum length of a text in tokens; longer texts are truncated. Default: the limit of the
    model, but at most 512."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Set it only for sources that you trust."""
    convert_weights: bool = False
    """Load pickled weights (`pytorch_model.bin`) through a safetensors copy in the cache. A
    separate process, which loads only tensors, writes this copy once. If false, such a model is
    refused, because pickled files can run code."""
    mode: Literal["full", "head", "lora"] = "full"
    """What is trained. `full`: all weights. `lora`: low-rank adapters, which are merged into
    `model/` and also kept in `adapter/`. `head`: only the final layer, in one process, on
    embeddings of the frozen encoder. From the section `training`, `head` uses
    `metric_for_best_model`, `greater_is_better`, `label_smoothing_factor`, `use_cpu`, and
    `max_steps` as the number of L-BFGS iterations of a fit."""
    reinitialise_layers: int = Field(default=0, ge=0)
    """Number of last layers of the encoder whose weights are drawn again before training, by the
    model's own rule and `run.seed`; what follows them in the encoder, such as a pooler, is drawn
    again too. 1 to 3 can make trainings on few rows more stable (Zhang et al. 2021,
    https://arxiv.org/abs/2006.05987). It needs `mode: full`."""
    lora: LoraSection = LoraSection()
    """Low-rank adapters (`mode: lora`)."""
    head: HeadSection = HeadSection()
    """The classification head on a frozen encoder (`mode: head`)."""
