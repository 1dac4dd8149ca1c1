"""Rows to vectors: mean of the frozen encoder's last hidden states. Legend: N rows, B rows of a batch, L tokens, D hidden size."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trainer.data.clean import CleanRows
from trainer.data.tokenise import TokenisedRows, tokenise
from trainer.training.distributed import gains_from_bf16
from trainer.training.model import check_weights, load_encoder, load_pretrained_config, load_tokenizer

if TYPE_CHECKING:
    from trainer.sections.model import ModelSection

Embed = Callable[[CleanRows, NDArray[np.int64], Path], tuple[NDArray[np.float32], TokenisedRows]]

BATCH_TOKENS = 2048
"""Tokens of a batch: on one CPU core about twice the rows a second of 8192 (MiniLM-L6, tweets)."""


def open_encoder(model: "ModelSection") -> Embed:
    """Function (rows, row ids, cache folder) -> (embeddings, tokens) of a pretrained encoder, which is loaded now and stays as it is.

    Raises:
        ModelError: a model that cannot be found or loaded.
    """
    config = load_pretrained_config(model)
    tokenizer, max_length = load_tokenizer(model, config)
    check_weights(model)
    encoder = load_encoder(model, config)

    def embed(clean: CleanRows, ids_N: NDArray[np.int64], cache_dir: Path) -> tuple[NDArray[np.float32], TokenisedRows]:
        labels_N, digest = clean.label_ids_N[ids_N], clean.text_fingerprint
        tokens = tokenise(clean.rows.table, ids_N, labels_N, tokenizer, max_length=max_length, fingerprint=digest, cache_dir=cache_dir)
        return embed_texts(tokens, encoder, tokenizer), tokens

    return embed


def embed_texts(rows: TokenisedRows, encoder: Any, tokenizer: Any) -> NDArray[np.float32]:
    """(N, D) mean over the tokens of each row of the last hidden states; padding counts nothing.

    Args:
        encoder: from `load_encoder`.
    Source: the pooling of Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    encoder = encoder.to(device).eval()
    order = np.argsort(-rows.lengths_N, kind="stable")  # longest first: what does not fit in memory fails at once
    out_ND: NDArray[np.float32] | None = None
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16()), _bar(len(order)) as bar:
        start = 0
        while start < len(order):
            batch = order[start : start + max(1, BATCH_TOKENS // int(rows.lengths_N[order[start]]))]
            features = [{name: value for name, value in rows[int(row)].items() if name != "labels"} for row in batch]
            inputs_BL = tokenizer.pad(features, return_tensors="pt").to(device)
            states_BLD = encoder(**inputs_BL).last_hidden_state.float()
            mask_BL1 = inputs_BL["attention_mask"].unsqueeze(-1).float()
            means_BD = (states_BLD * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
            if out_ND is None:
                out_ND = np.empty((len(order), means_BD.shape[1]), np.float32)
            out_ND[batch] = means_BD.cpu().numpy()
            bar.update(len(batch))
            start += len(batch)
    return out_ND if out_ND is not None else np.zeros((0, 0), np.float32)


def _bar(size: int) -> Any:
    return tqdm(total=size, desc="Embedding", unit=" rows", delay=2, disable=None, leave=False)
