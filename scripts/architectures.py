"""Train a tiny model with random weights of every text classifier that transformers has.

Each is trained in full, with LoRA and as a head on the frozen encoder; then its saved folder
must give the same logits here, in batches, and in transformers' own `pipeline()`, one text at
a time. `python scripts/architectures.py` writes the table of docs/reference/architectures.md
(6 minutes on 2 CPU cores); names of model types after it try these alone and print their rows.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tqdm.auto import tqdm
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    CanineTokenizer,
    PerceiverTokenizer,
    PreTrainedTokenizerFast,
    pipeline,
)
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
OFFSET_TYPES = (
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
)
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
    "markuplm": OFFSET | {"initializer_range": 0.05},
    "mistral4": ALL_HEADS | {"head_dim": 16},
    "mpnet": {"max_position_embeddings": MAX_LENGTH + 2},
    "perceiver": {
        "vocab_size": 262,
        "d_latents": 32,
        "num_latents": 8,
        "num_self_attends_per_block": 2,
    }
    | {"num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR,
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds": False,
        "hash_seed": 1,
        "num_buckets": 4,
    }
    | {"local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "attention_head_size": 8},
    "roc_bert": {"shape_vocab_size": VOCAB_SIZE, "pronunciation_vocab_size": VOCAB_SIZE},
    "squeezebert": {"embedding_size": 32},
    "xlnet": {"max_position_embeddings": None},
    "xmod": OFFSET | {"languages": ["en_XX"], "default_language": "en_XX"},
    "zamba": MAMBA
    | ATTENTION_OF_BOTH
    | {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4},
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
    nested = {
        name: _tiny_part(part)
        for name, part in vars(default).items()
        if hasattr(part, "model_type") and part is not default
    }
    return type(default)(**_known(default, values), **nested)


def _known(default: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if hasattr(default, name)}


LABELS = ["negative", "neutral", "positive"]
LETTERS = {"canine": CanineTokenizer, "perceiver": PerceiverTokenizer}
"""Models that read characters or bytes."""
WORDS = [f"w{number}" for number in range(5, 190)]
SPECIAL_TEXTS = [
    "w9 </s> w10 w11",
    "w7 <s> w8 <pad> w9",
    "<mask> w6 </s>",
    "<pad> w12",
    "[CLS] w8 [SEP]",
]
TOLERANCE = 1e-4
"""Difference of logits that rounding explains, as a share of the largest."""


def tiny_tokenizer(model_type: str) -> Any:
    """Tokenizer of a few words that puts a start and an end token around each text."""
    if model_type in LETTERS:
        return LETTERS[model_type](model_max_length=MAX_LENGTH)
    named = {"<pad>": PAD, "<s>": START, "</s>": END, "<unk>": UNKNOWN, "<mask>": MASK}
    vocabulary = named | {word: number for number, word in enumerate(WORDS, start=len(named))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", START), ("</s>", END)],
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def texts() -> list[str]:
    """Texts of several lengths; the last is longer than a model reads."""
    generator = np.random.default_rng(0)
    lengths = (3, 9, 5, 5, 12, 2, 7, 1, 30, 2 * MAX_LENGTH)
    return [" ".join(generator.choice(WORDS, size=length)) for length in lengths]


def contract(model_type: str, folder: Path) -> dict[str, str]:
    """Train one architecture in each mode and compare its saved model with `pipeline()`.

    Args:
        folder: empty; models are written there.
    Returns:
        The row of the table: for each mode "yes" or what is wrong, and how its batches are formed.
    """
    torch.manual_seed(0)
    config = tiny_config(
        model_type,
        id2label=dict(enumerate("xyz")),
        label2id={label: number for number, label in enumerate("xyz")},
    )
    source = folder / "pretrained"
    AutoModelForSequenceClassification.from_config(config).save_pretrained(source)
    tiny_tokenizer(model_type).save_pretrained(source)
    row: dict[str, str] = {}
    for mode in ("full", "lora", "head"):
        try:
            row |= _trained(str(source), mode, folder)
        except Exception as error:
            row[mode] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return row


def _trained(source: str, mode: str, folder: Path) -> dict[str, str]:
    from trainer.config.sections.model import ModelSection
    from trainer.training.batches.widths import refuse_unreadable_length
    from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer

    section = ModelSection(name=source, mode=mode)
    config = load_pretrained_config(section)
    tokenizer, max_length = load_tokenizer(section, config)
    model = load_model(section, config, LABELS, tokenizer, max_length)
    build = _head_trainer if mode == "head" else _weighted_trainer
    trainer = build(model, tokenizer, _rows(texts()[:8], tokenizer, max_length), folder)
    refuse_unreadable_length(trainer.model, tokenizer, max_length, source)
    trainer.run(None)
    if mode == "lora":
        trainer.merge_adapter(folder / "adapter")
    logits_NC = trainer.predict_logits(_rows(texts(), tokenizer, max_length))
    trainer.save_model(str(folder / mode))
    return _compared(folder / mode, logits_NC, mode)


def _rows(given: list[str], tokenizer: Any, max_length: int) -> Any:
    from trainer.data.tokens.tokenise import TokenisedRows, encode_texts

    columns, lengths = encode_texts(given, None, tokenizer, max_length)
    known = {name: columns[name] for name in ("input_ids", "token_type_ids") if name in columns}
    offsets_N1 = np.r_[0, np.cumsum(lengths.lengths)]
    return TokenisedRows(known, offsets_N1, np.arange(len(given)) % 3, lengths.truncated)


def _arguments(folder: Path) -> Any:
    from trainer.training.arguments import build_arguments

    values = {"use_cpu": True, "bf16": False, "max_steps": 2, "per_device_train_batch_size": 4}
    values |= {"learning_rate": 1e-3, "eval_strategy": "no", "save_strategy": "no"}
    values |= {"metric_for_best_model": "macro_f1", "greater_is_better": True}
    return build_arguments(values, checkpoints=folder / "checkpoints", seed=0)


def _weighted_trainer(model: Any, tokenizer: Any, rows: Any, folder: Path) -> Any:
    from trainer.training.batches.batching import Collator
    from trainer.training.progress import epoch_metrics
    from trainer.training.run_trainer import RunTrainer

    return RunTrainer(
        model=model,
        args=_arguments(folder),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        data_collator=Collator(tokenizer),
        compute_metrics=epoch_metrics(LABELS, LABELS[0]),
    )


def _head_trainer(model: Any, tokenizer: Any, rows: Any, folder: Path) -> Any:
    from trainer.training.frozen.head import HeadFit, HeadRows, HeadTrainer
    from trainer.training.losses.one_label import cross_entropy
    from trainer.training.trackers.trackers import Trackers

    return HeadTrainer(
        model=model,
        tokenizer=tokenizer,
        args=_arguments(folder),
        rows=HeadRows(rows, np.arange(len(rows)), rows, LABELS, LABELS[0]),
        fit=HeadFit(
            loss=cross_entropy,
            loss_options=lambda counts_C: {},
            weigh=lambda counts_C: np.ones(len(counts_C)),
            l2=1.0,  # the fit of a few rows would magnify rounding
        ),
        cache_dir=folder / "cache",
        write_epochs=lambda epochs: None,
        trackers=Trackers(),
    )


def _compared(folder: Path, logits_NC: Any, mode: str) -> dict[str, str]:
    """Compare the logits of training, of the saved model and of `pipeline()`.

    Args:
        logits_NC: of `texts()`, from training.
    Returns:
        "yes" for the mode if they agree, also on texts that hold special tokens, and the form of
        batches.
    """
    from trainer.delivery.predicting.saved_model import SavedModel

    saved = SavedModel(str(folder), device="cpu")
    pipe = pipeline("text-classification", str(folder), top_k=None, device="cpu")
    given = texts() + SPECIAL_TEXTS
    answers = pipe(given, truncation=True, function_to_apply="none")
    by_label = [{answer["label"]: answer["score"] for answer in row} for row in answers]
    expected_NC = np.array([[row[label] for label in LABELS] for row in by_label])
    allowed = TOLERANCE * np.abs(expected_NC).max()
    found_NC = saved.logits(saved.tokens(given))
    formed = (
        "equal lengths" if saved.equal_lengths else "padded" if saved.padded_because else "packed"
    )
    row = {"batches": formed, mode: "yes"}
    for name, difference in (
        ("training", logits_NC - expected_NC[: len(logits_NC)]),
        ("the saved model", found_NC[: len(logits_NC)] - expected_NC[: len(logits_NC)]),
        ("texts with special tokens", found_NC[len(logits_NC) :] - expected_NC[len(logits_NC) :]),
    ):
        if not np.abs(difference).max() <= allowed:
            share = np.abs(difference).max() / allowed * TOLERANCE
            row[mode] = f"{name}: logits differ by {share:.1e} of the largest"
    return row


def quietly(model_type: str) -> dict[str, str]:
    """Run the contract of one architecture in a folder of its own, without output."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return contract(model_type, Path(folder))


def table_row(model_type: str, row: dict[str, str]) -> str:
    """Return a line of the table in Markdown."""
    cells = [
        f"`{model_type}`",
        *(row.get(name, "") for name in ("batches", "full", "lora", "head")),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the table, or print the rows of the model types named."""
    chosen = sys.argv[1:]
    lines = [
        table_row(name, quietly(name)) for name in tqdm(chosen or ARCHITECTURES, unit=" models")
    ]
    if chosen:
        print("\n".join(lines))
        return
    path = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
    before = path.read_text(encoding="utf-8").partition(START_OF_TABLE)[0]
    head = ["| model type | batches | full | LoRA | head |", "| --- | --- | --- | --- | --- |"]
    others = [
        f"| `{name}` | not offered: {reason} | | | |" for name, reason in NO_TEXT_ALONE.items()
    ]
    table = "\n".join([START_OF_TABLE, "", *head, *lines, *others, ""])
    path.write_text(f"{before}{table}", encoding="utf-8")
    print(f"{path.name}: {len(lines)} architectures")


START_OF_TABLE = f"<!-- transformers {transformers.__version__} -->"

if __name__ == "__main__":
    main()
