"""A saved text classifier: runs in float32 without padding. Legend: N rows, C labels, T tokens."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainer.arrays import Array, Bools, Floats, Floats32, Ints
from trainer.data.tokens.tokenise import IGNORED, TokenisedRows, encode_texts
from trainer.delivery.predicting.graph_files import READERS, graph_format, is_in_8_bits
from trainer.delivery.predicting.model_source import folder_identity, hub_commit
from trainer.delivery.predicting.texts import Text, as_list
from trainer.errors import ModelError
from trainer.evaluation.decisions.multi_label_decision import DECISIONS, AnyDecision
from trainer.evaluation.frequency_groups import recorded_groups
from trainer.launch.distributed import allow_missing_operations, device_type
from trainer.training.models.end_token import Origin, head_looks_for_end

INT8_TOLERANCE = 0.1
"""Tolerance of `fit_collator` for 8 bits: answers then depend a little on the batch."""
CHARACTERS_PER_TOKEN = 100
"""Only this many characters for each token of `max_length` are read, so that a text of 10 MB takes
no longer than another."""


@dataclass(frozen=True)
class Answers:
    """The answers of a classifier for some texts.

    Attributes:
        probabilities_NC: in the order of the labels, with the decision's prior and temperature.
        decided: label id of each text, with thresholds and costs; for a multi-label model which
            labels each text has, (N, C).
        truncated_N: whether a text is longer than the model reads; its end is ignored.
        logits_NC: the logits of a single model; None for several models.
    """

    probabilities_NC: Floats
    decided: Array
    truncated_N: Bools
    logits_NC: Floats | None = None


class SavedModel:
    """A saved model in float32 with its tokenizer, its labels and its decision.

    Args:
        source: model folder or Hub id. A folder of `equipoise export` runs on the CPU.
        revision: branch, tag or commit on the Hub.
        device: "cpu", "cuda", "cuda:1" ...; default: the accelerator if there is one.
    Attributes:
        max_length: tokens that the model reads of a text; longer texts are cut.
        groups: frequent and rare labels by the training rows; None if they are not recorded.
        identity: changes whenever the files of the model change.
        padded_because: why batches are padded; None if they are not.
        equal_lengths: whether only rows of equal length share a batch, since padding would change
            the answers.
    Raises:
        ModelError: not found, incomplete, or no text classifier.
    """

    def __init__(
        self,
        source: str,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> None:
        self.name = source
        if Path(source).is_dir():
            self.identity = folder_identity(Path(source))
        else:
            self.identity = revision = hub_commit(source, revision)
        allow_missing_operations()
        from trainer.delivery.predicting import model_loading

        origin = Origin(revision=revision, trust_remote_code=trust_remote_code)
        config = model_loading.load_config(source, origin)
        self.tokenizer, self.max_length = model_loading.load_tokenizer(source, config, origin)
        self._tokenizer_lock = threading.Lock()  # fast tokenizers store the cut of the last call
        self.end_id = config.eos_token_id if head_looks_for_end(config, source, **origin) else None
        self.labels = [str(config.id2label[label_id]) for label_id in range(config.num_labels)]
        self.is_multi_label = config.problem_type == "multi_label_classification"
        values = getattr(config, "decision", None) or {}
        with model_loading.loading(source):
            self.decision: AnyDecision = DECISIONS[self.is_multi_label].from_config(
                values, self.labels
            )
            self.groups = recorded_groups(getattr(config, "train_rows", None) or {}, self.labels)
        self._load(config, origin, device)

    def _load(self, config: Any, origin: Origin, device: str | None) -> None:
        """Load the weights onto the device, and find out how its batches must be made."""
        import torch

        from trainer.delivery.predicting.model_loading import load_weights, loading
        from trainer.delivery.predicting.onnx_runtime import TOKENS_PER_PASS
        from trainer.training.batches.batching import Collator, tokens_per_pass
        from trainer.training.batches.packing import pack
        from trainer.training.batches.widths import TOLERANCE, fit_collator

        graph = graph_format(self.name)
        self.model = load_weights(self.name, config, origin)
        self.device = torch.device("cpu" if graph else device or device_type(use_cpu=False))
        with loading(self.name):
            self.model.to(self.device)
        self.padded_because = (
            f"{READERS[graph]} reads padded batches" if graph else pack(self.model)
        )
        self.collate = Collator(self.tokenizer)
        self.equal_lengths = self.padded_because is not None and fit_collator(
            lambda batch: self.model(**batch).logits,
            config,
            self.device,
            self.collate,
            columns=getattr(self.model, "names", ("input_ids",)),
            tolerance=INT8_TOLERANCE if is_in_8_bits(self.name) else TOLERANCE,
        )
        self.tokens_per_pass = TOKENS_PER_PASS if graph else tokens_per_pass(self.device)

    def tokens(self, texts: Iterable[Text]) -> TokenisedRows:
        """Return token ids, cut at `max_length`; outer white space is removed, as in training."""
        texts = as_list(texts)
        pairs = [
            (text, None) if isinstance(text, str) else (text["text"], text.get("text_pair"))
            for text in texts
        ]
        most = CHARACTERS_PER_TOKEN * self.max_length
        rows: list[dict[str, Array]] = [{} for _ in texts]
        truncated_N = np.zeros(len(texts), bool)
        for is_paired in (False, True):
            chosen = [n for n, (_, second) in enumerate(pairs) if (second is not None) is is_paired]
            if not chosen:
                continue
            with self._tokenizer_lock:
                columns, lengths = encode_texts(
                    [pairs[n][0].strip()[:most] for n in chosen],
                    [str(pairs[n][1]).strip()[:most] for n in chosen] if is_paired else None,
                    self.tokenizer,
                    self.max_length,
                )
            truncated_N[chosen] = lengths.truncated
            ends = np.cumsum(lengths.lengths)[:-1]
            for name, column in columns.items():
                for n, part in zip(chosen, np.split(column, ends), strict=True):
                    rows[n][name] = part
        names = list(rows[0]) if rows else []
        offsets_N1 = np.r_[0, np.cumsum([len(row["input_ids"]) for row in rows], dtype=np.int64)]
        return TokenisedRows(
            {name: np.concatenate([row[name] for row in rows]) for name in names},
            offsets_N1,
            np.full(len(texts), IGNORED),
            truncated_N,
        )

    def logits(self, rows: TokenisedRows) -> Floats32:
        """Return the logits (N, C) of the rows; use smaller batches after a lack of memory.

        Raises:
            ModelError: the memory is too small for a single text.
        """
        from trainer.training.memory import in_smaller_passes, is_out_of_memory

        longest = int(rows.lengths_N.max()) if len(rows) else 0
        try:
            found_NC, self.tokens_per_pass = in_smaller_passes(
                partial(self._logits, rows), self.tokens_per_pass, longest
            )
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise ModelError(
                    f"{self.name}: {self.device} has too little memory for a text of {longest}"
                    " tokens."
                ) from error
            raise
        return found_NC

    def _logits(self, rows: TokenisedRows, tokens: int) -> Floats32:
        """Return the logits, computed in batches of rows of similar length.

        Args:
            tokens: most tokens of a batch.
        """
        import torch

        from trainer.training.batches.batching import token_batches
        from trainer.training.batches.packed_rows import PackedRows

        batches = [
            alike[batch]
            for alike in self._alike(rows)
            for batch in token_batches(
                rows.lengths_N[alike], tokens, equal_lengths=self.equal_lengths
            )
        ]
        found = []
        logits_NC = np.zeros((len(rows), len(self.labels)), np.float32)
        with torch.inference_mode():
            for batch in batches:
                tensors = self.collate(rows.__getitems__(batch))
                inputs: dict[str, Any] = {
                    name: tensor.to(self.device)
                    for name, tensor in tensors.items()
                    if name != "labels"
                }
                if self.padded_because is None:
                    inputs["packed_rows"] = PackedRows(
                        tensors["attention_mask"].bool(), self.device
                    )
                found.append(self.model(**inputs).logits.float())
            if found:
                logits_NC[np.concatenate(batches)] = torch.cat(found).cpu().numpy()
        return logits_NC

    def _alike(self, rows: TokenisedRows) -> list[Ints]:
        """Return the rows that may share a batch.

        A head that looks for the end token needs the same number of them in each row of a batch.
        Pairs have more of them than single texts.
        """
        if self.end_id is None:
            return [np.arange(len(rows))]
        ids_T = rows.columns.get("input_ids", np.zeros(0, np.int64))
        counts_N = np.diff(np.r_[0, np.cumsum(ids_T == self.end_id)][rows.offsets_N1])
        return [np.flatnonzero(counts_N == count) for count in np.unique(counts_N)]

    def classify(self, texts: Iterable[Text]) -> Answers:
        """Return the probabilities and the decided labels of texts."""
        rows = self.tokens(texts)
        logits_NC = self.logits(rows)
        log_p_NC = self.decision.log_probabilities(logits_NC)
        return Answers(
            np.exp(log_p_NC),
            self.decision.decide(log_p_NC),
            rows.truncated_N,
            self.decision.correct(logits_NC),
        )
