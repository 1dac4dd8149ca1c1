"""A tiny model with random weights of every text classifier that the installed transformers has."""

from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
)

NO_TEXT_ALONE = {
    "layoutlmv2": "reads the image of a page (detectron2) beside its text",
    "tapas": "reads the cells of a table beside its text",
}
"""Model types that classify no text by itself, and why."""

ARCHITECTURES = [name for name in CLASSIFIERS if name not in NO_TEXT_ALONE]
MAX_LENGTH = 40
VOCAB_SIZE = 4200
PAD, START, END, UNKNOWN, MASK = range(5)
IDS = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
IDS |= {"cls_token_id": START, "sep_token_id": END}

SIZES = {
    **IDS,
    "vocab_size": VOCAB_SIZE,
    "initializer_range": 0.3,
    "type_vocab_size": 2,
    **dict.fromkeys(("hidden_size", "d_model", "dim", "n_embd", "emb_dim"), 32),
    **dict.fromkeys(("decoder_hidden_size", "word_embed_proj_dim", "hidden_dim"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size", "d_ff", "dff", "d_inner"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size"), 48),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_experts_per_tok"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "n_group", "topk_group"), 1),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "rotary_dim"), 4),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("head_dim", "d_head", "d_kv", "kv_lora_rank", "q_lora_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("embedding_size", "moe_intermediate_size"), 16),
    "shared_expert_intermediate_size": 16,
    "num_key_value_heads": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), MAX_LENGTH),
}
"""Small values of the settings that configs have under these names."""

ALL_HEADS = {"num_key_value_heads": 4}
T5 = {"decoder_start_token_id": PAD}
OFFSET_TYPES = ("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke")
OFFSET_TYPES += ("markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta")
OFFSET_TYPES += ("xlm-roberta-xl", "xmod")
OFFSET = {"max_position_embeddings": MAX_LENGTH + PAD + 1}
LINEAR = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
LINEAR |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
ROPE = {"rope_theta": 1e4, "rope_type": "default"}
MAMBA = {"mamba_d_state": 8, "mamba_dt_rank": 4, "n_mamba_heads": 2, "use_mamba_kernels": False}
ATTENTION_OF_BOTH = {"attention_hidden_size": 64, "attention_head_dim": 16}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 2, "image_size": 8, "patch_size": 4}
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(OFFSET_TYPES, OFFSET),
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "minicpm3", "esmc"), ALL_HEADS),
    **dict.fromkeys(("t5", "mt5", "umt5"), T5),
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "falcon": {"head_dim": None},
    "funnel": {"block_sizes": [1, 1], "num_hidden_layers": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": MAMBA | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 1},
    "layoutlmv3": OFFSET | {"coordinate_size": 5, "shape_size": 6},
    "lilt": OFFSET | {"hidden_size": 48, "channel_shrink_ratio": 1},
    "luke": OFFSET | {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mistral4": ALL_HEADS | {"head_dim": 16},
    "mpnet": {"max_position_embeddings": MAX_LENGTH + 2},
    "perceiver": {"vocab_size": 262, "d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 2}
    | {"num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "reformer": {"attn_layers": ["local", "lsh"], "axial_pos_embds": False, "hash_seed": 1, "num_buckets": 4}
    | {"local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "attention_head_size": 8},
    "roc_bert": {"shape_vocab_size": VOCAB_SIZE, "pronunciation_vocab_size": VOCAB_SIZE},
    "squeezebert": {"embedding_size": 32},
    "xlnet": {"max_position_embeddings": None},
    "xmod": OFFSET | {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": MAMBA | ATTENTION_OF_BOTH | {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
    "zamba2": MAMBA
    | ATTENTION_OF_BOTH
    | {"layers_block_type": ["linear_attention", "hybrid"], "num_key_value_heads": 4}
    | {"mamba_headdim": 32, "chunk_size": 8, "num_query_groups": 4, "adapter_rank": 4},
}
"""What a model type needs beside."""

PARTS = {
    "gemma3": ("text_config", "vision_config"),
    "modernvbert": ("text_config", "vision_config"),
    "qwen3_5": ("text_config", "vision_config"),
    "ultravbert": ("text_config", "vision_config"),
    "t5gemma": ("encoder", "decoder"),
    "t5gemma2": ("encoder", "decoder"),
}
"""Configs made of several."""


def tiny_config(model_type: str, **settings: Any) -> Any:
    """Config of some hundred thousand weights at most."""
    kind = CONFIG_MAPPING[model_type]
    default = kind()
    if model_type not in PARTS:
        values = {**_known(default, SIZES), **OWN.get(model_type, {}), **settings}
        return kind(**{name: value for name, value in values.items() if value is not None})
    parts = {name: _tiny_part(getattr(default, name)) for name in PARTS[model_type]}
    return kind(**parts, **_known(default, IDS | {"image_token_id": 190, **settings}))


def _tiny_part(default: Any) -> Any:
    if "vision" in default.model_type or "siglip" in default.model_type:
        return type(default)(**_known(default, VISION))
    values = SIZES | (LINEAR if "qwen" in default.model_type else {})
    nested = {name: _tiny_part(part) for name, part in vars(default).items() if hasattr(part, "model_type") and part is not default}
    return type(default)(**_known(default, values), **nested)


def _known(default: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if hasattr(default, name)}
