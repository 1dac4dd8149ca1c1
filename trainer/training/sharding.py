"""FSDP as accelerate does it: what fails with encoders is mended, what loses the model refused."""

from typing import Any

from trainer.errors import ConfigError


def fit_to_sharding(model: Any, plugin: Any) -> None:
    """Have accelerate cut a model where it can.

    Since https://github.com/huggingface/accelerate/pull/4015 accelerate shards the input embedding as a unit of its own, which fails when it was
    sharded before as part of a class in `_no_split_modules`, as BertEmbeddings and RobertaEmbeddings are. Those are left out here.

    Args:
        plugin: accelerate's FullyShardedDataParallelPlugin.
    Raises:
        ConfigError: the plugin saves shards, and transformers then saves no model at the end.
    """
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ConfigError(
            f"FSDP's state_dict_type is {plugin.state_dict_type.name}; known here: FULL_STATE_DICT, since a model is saved from whole weights."
            " Set fsdp_state_dict_type in accelerate's config, as configs/accelerate/fsdp2.yaml does."
        )
    embedding = model.get_input_embeddings()
    holders = {type(module).__name__ for module in model.modules() if module is not embedding and embedding in module.modules()}
    model._no_split_modules = [name for name in model._no_split_modules or () if name not in holders]
