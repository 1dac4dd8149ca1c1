"""A saved text classifier: found in a run folder, a model folder or on the Hub, loaded in float32, run without padding. Legend: N rows, C labels."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from trainer.arrays import Array, Bools, Floats, Floats32, Ints
from trainer.data.reading.locate import package_path, refuse_url
from trainer.data.tokens.tokenise import IGNORED, TokenisedRows, encode_texts
from trainer.delivery.predicting.onnx_files import is_graph, is_in_8_bits
from trainer.delivery.predicting.texts import Text, as_list
from trainer.errors import ModelError, RunError, did_you_mean, first_line
from trainer.evaluation.decision import Decision
from trainer.evaluation.scores import assigned, log_sigmoid
from trainer.files.content import file_state
from trainer.training.models.end_token import Origin, head_looks_for_end, reads_text_only
from trainer.training.models.model_folder import (
    loading,
    loading_tokenizer,
    refuse_other_kinds,
    refuse_other_types,
)
from trainer.training.models.weight_files import refuse_other_weights

INT8_TOLERANCE = 0.1
"""As `fit_collator` takes it: answers of a graph in 8 bits depend a little on the other rows of a batch."""
CHARACTERS_PER_TOKEN = 100
"""Of a text with more of them for each token that the model reads, the rest is not looked at: a text of 10 MB is read as fast as another."""


@dataclass(frozen=True)
class Judged:
    """What a classifier makes of some texts.

    Attributes:
        probabilities_NC: in the order of its labels, the decision's prior and temperature included.
        decided: label id of each text, thresholds and costs included; of a multi-label model which labels each has, (N, C).
        truncated_N: texts that are longer than the model reads; the rest of them was not looked at.
        logits_NC: behind the probabilities, of one model; several that vote have none in common.
    """

    probabilities_NC: Floats
    decided: Array
    truncated_N: Bools
    logits_NC: Floats | None = None


class SavedModel:
    """One saved model in float32, with its tokenizer, its labels and the decision that its config carries.

    Args:
        source: model folder, also one of `equipoise export`, which runs on the CPU; or Hub id.
        revision: branch, tag or commit on the Hub.
        device: 'cpu', 'cuda', 'cuda:1' ...; left out: the accelerator where there is one.
    Attributes:
        max_length: tokens that it reads of a text; longer ones are cut.
        identity: tells its state from any other of a model.
        padded_because: why its batches are padded; None where they need no padding.
        equal_lengths: whether padding changes its answers, so that only rows of equal length share a batch.
    Raises:
        ModelError: not found, not whole, or no text classifier.
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
            self.identity = _folder_identity(Path(source))
        else:
            self.identity = revision = _hub_commit(source, revision)

        from trainer.launch.distributed import allow_missing_operations, device_type

        allow_missing_operations()
        import torch
        from transformers import AutoConfig, AutoTokenizer

        from trainer.training.batches.batching import Collator, tokens_per_pass
        from trainer.training.batches.packing import pack
        from trainer.training.batches.widths import TOLERANCE, fit_collator

        origin = Origin(revision=revision, trust_remote_code=trust_remote_code)
        with _worded(source), _quiet():
            config = AutoConfig.from_pretrained(source, **origin)
        refuse_other_types(config, f"{source}:")
        with (
            _worded(source),
            _quiet(),
            loading_tokenizer(Path(source), f"{source}: its tokenizer"),
        ):
            self.tokenizer = reads_text_only(
                AutoTokenizer.from_pretrained(source, config=config, **origin),
                config,
                source,
                **origin,
            )
            self.max_length = _complete_tokenizer(source, self.tokenizer, config, trust_remote_code)
        self.end_id = config.eos_token_id if head_looks_for_end(config, source, **origin) else None
        if config.num_labels < 2:
            raise ModelError(
                f"{source}: gives one score and no labels, so it is no text classifier."
            )
        self.labels = [str(config.id2label[label_id]) for label_id in range(config.num_labels)]
        self.is_multi_label = config.problem_type == "multi_label_classification"
        with _worded(source):
            self.decision = Decision.from_config(
                getattr(config, "decision", None) or {}, self.labels
            )
        self.padded_because: str | None = "ONNX Runtime reads padded batches"
        if is_graph(source):
            from trainer.delivery.predicting.onnx_runtime import TOKENS_PER_PASS, OnnxModel

            self.model, device = OnnxModel(Path(source)), "cpu"
        else:
            self.model = _load_weights(source, config, **origin).eval()
        self.device = torch.device(device or device_type(use_cpu=False))
        with _worded(source):
            self.model.to(self.device)
        if not is_graph(source):
            self.padded_because = pack(self.model)
        self.collate = Collator(self.tokenizer)
        self.equal_lengths = self.padded_because is not None and fit_collator(
            lambda batch: self.model(**batch).logits,
            config,
            self.device,
            self.collate,
            columns=getattr(self.model, "names", ("input_ids",)),
            tolerance=INT8_TOLERANCE if is_in_8_bits(source) else TOLERANCE,
        )
        self.tokens_per_pass = TOKENS_PER_PASS if is_graph(source) else tokens_per_pass(self.device)
        self._tokenizer_lock = (
            threading.Lock()
        )  # fast tokenizers keep the cut of the call in themselves

    def tokens(self, texts: Iterable[Text]) -> TokenisedRows:
        """Token ids of texts, cut at `max_length`; white space at their ends is left out, as in training."""
        texts = as_list(texts)
        pairs = [
            (text, None) if isinstance(text, str) else (text["text"], text.get("text_pair"))
            for text in texts
        ]
        most = CHARACTERS_PER_TOKEN * self.max_length
        firsts = [first.strip()[:most] for first, _ in pairs]
        seconds = [second if second is None else second.strip()[:most] for _, second in pairs]
        is_paired_N = np.array([second is not None for second in seconds], bool)
        rows: list[dict[str, Array]] = [{}] * len(texts)
        truncated_N = np.zeros(len(texts), bool)
        for is_paired in (False, True):
            chosen = np.flatnonzero(is_paired_N == is_paired)
            if not len(chosen):
                continue
            with self._tokenizer_lock:
                columns, lengths = encode_texts(
                    [firsts[n] for n in chosen],
                    [str(seconds[n]) for n in chosen] if is_paired else None,
                    self.tokenizer,
                    self.max_length,
                )
            truncated_N[chosen] = lengths.truncated
            ends = np.cumsum(lengths.lengths)[:-1]
            parts = {name: np.split(column, ends) for name, column in columns.items()}
            for place, n in enumerate(chosen):
                rows[n] = {name: part[place] for name, part in parts.items()}
        names = list(rows[0]) if rows else []
        offsets_N1 = np.r_[0, np.cumsum([len(row["input_ids"]) for row in rows], dtype=np.int64)]
        return TokenisedRows(
            {name: np.concatenate([row[name] for row in rows]) for name in names},
            offsets_N1,
            np.full(len(texts), IGNORED),
            truncated_N,
        )

    def logits(self, rows: TokenisedRows) -> Floats32:
        """Logits (N, C) in the order of the rows; where a GPU's memory is too small, in smaller batches from then on.

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
                    f"{self.name}: {self.device} has too little memory for a text of {longest} tokens."
                ) from error
            raise
        return found_NC

    def _logits(self, rows: TokenisedRows, tokens: int) -> Floats32:
        """The same, in batches of rows of like length, each of so many tokens at most."""
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
        """Rows that may stand in one batch: a head that looks for the end token wants equally many in each, and a pair has more of them."""
        if self.end_id is None:
            return [np.arange(len(rows))]
        before_T1 = (
            np.r_[0, np.cumsum(rows.columns["input_ids"] == self.end_id)]
            if len(rows)
            else np.zeros(1, np.int64)
        )
        counts_N = np.diff(before_T1[rows.offsets_N1])
        return [np.flatnonzero(counts_N == count) for count in np.unique(counts_N)]

    def judge(self, texts: Iterable[Text]) -> Judged:
        """Probabilities and decided labels of texts."""
        rows = self.tokens(texts)
        logits_NC = self.logits(rows)
        if self.is_multi_label:
            return Judged(
                np.exp(log_sigmoid(logits_NC)),
                assigned(logits_NC),
                rows.truncated_N,
                logits_NC.astype(np.float64),
            )
        log_p_NC = self.decision.log_probabilities(logits_NC)
        return Judged(
            np.exp(log_p_NC),
            self.decision.decide(log_p_NC),
            rows.truncated_N,
            self.decision.correct(logits_NC),
        )


def _load_weights(source: str, config: Any, **origin: Any) -> Any:
    """The model with weights of safetensors files alone, in float32.

    Raises:
        ModelError: weights that are missing or do not fit the config.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if Path(source).is_dir():
        refuse_other_weights([path.name for path in Path(source).iterdir()], f"{source}:", source)
    with _worded(source), _quiet():
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
            f"{source}: its weights lack {sorted(info['missing_keys'])[0]}, so it is no trained text classifier. Train it first."
        )
    return model


def find_models(source: str | Path) -> tuple[list[str], str | None]:
    """Model folders of a run, or the model folder or Hub id as it is; how an ensemble's members decide together, None without one.

    Raises:
        ModelError: nothing there, or no model.
        RunError: a run that is not finished or has lost its model.
    """
    name = str(source)
    path = (
        package_path(name, ModelError) if name.startswith("package:") else Path(name).expanduser()
    )
    if not path.exists():
        refuse_url(name, "model", "model", ModelError)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ModelError(
                f"{name}: does not exist.{did_you_mean(path.name, siblings)} Give a run folder, a model folder or a Hub id."
            )
        return [name], None
    if (path / "config.json").is_file() or not (path / "config.yaml").is_file():
        refuse_other_kinds(
            path,
            f"{name}:",
            "is neither a run folder (no config.yaml) nor a model folder (no config.json).",
        )
        return [str(path)], None
    if not (path / "metrics.json").is_file():
        raise RunError(
            f"{name}: is a run that is not finished. Start its training again, which then goes on."
        )
    ensemble = json.loads((path / "metrics.json").read_text(encoding="utf-8")).get("ensemble")
    folders = (
        [path / f"member-{number}" / "model" for number in range(1, ensemble["size"] + 1)]
        if ensemble
        else [path / "model"]
    )
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise RunError(
                f"{folder}: holds no config.json, so the run has lost its model. Copy the folder anew, or train with run.overwrite: true."
            )
    return [str(folder) for folder in folders], ensemble["combine"] if ensemble else None


def _hub_commit(repo_id: str, revision: str | None) -> str:
    """Commit of a Hub model, from the cache where there is no network.

    Raises:
        ModelError: unknown, closed, no model, or out of reach.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    is_offline = hub_is_unreachable()  # the client would repeat its request for 23 s
    try:
        return Path(
            hf_hub_download(repo_id, "config.json", revision=revision, local_files_only=is_offline)
        ).parent.name
    except GatedRepoError as error:
        raise ModelError(
            f"{repo_id}: is gated. Accept its terms on the Hub, and set HF_TOKEN or run hf auth login."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{repo_id}: is no folder here and no model on the Hub. Check the name; set HF_TOKEN for a private one."
        ) from error
    except NoRevision as error:
        raise ModelError(
            f"{repo_id}: has no revision '{revision}'. Give a branch, tag or commit of it."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repo_id}: is no folder here, and neither in the cache nor can the Hub be reached. Check the name and the network."
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"{repo_id}: holds no config.json, so it is no Transformers model."
        ) from error
    except (httpx.HTTPError, OSError) as error:
        raise ModelError(
            f"{repo_id}: could not be fetched from the Hub: {first_line(error)}"
        ) from error


def hub_is_unreachable() -> bool:
    """Whether the name of the Hub's host leads nowhere, as without a network; behind a proxy only the proxy can tell."""
    from huggingface_hub import constants

    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except socket.gaierror:
        return True
    return False


def _folder_identity(folder: Path) -> str:
    """Digest of the names and states of a model folder's files."""
    files = [(path.name, file_state(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.blake2b(repr(files).encode(), digest_size=16).hexdigest()


def _complete_tokenizer(source: str, tokenizer: Any, config: Any, trust_remote_code: bool) -> int:
    """Give tokenizer and config something to pad with; tokens that the model reads of a text, as its pipeline does.

    Raises:
        ModelError: a tokenizer without words, or with nothing to pad with.
    """
    from trainer.training.models.tokenizer import LONGEST_DEFAULT, complete_tokenizer

    limits = complete_tokenizer(
        tokenizer, config, f"{source}: its tokenizer", trust_remote_code=trust_remote_code
    )
    return min(limits, default=LONGEST_DEFAULT)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report of transformers' own while a model is loaded."""
    from transformers.utils import logging

    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


def _worded(source: str) -> AbstractContextManager[None]:
    """Turn the errors of libraries that load a model into a ModelError that names it."""
    return loading(source, f"{source}:", "set trust_remote_code (--trust-remote-code)")
