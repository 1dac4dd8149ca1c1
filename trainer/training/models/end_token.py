"""The end token written in a text, for models whose head looks for that token among the token ids.

Such heads (BART, mBART, T5 and their relatives) read the hidden state of the last end token and refuse batches whose rows hold different
numbers of them. A text that holds `</s>` would then fail, and with it its batch.
"""

import ast
import json
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""Other forms of the ASCII characters, which some tokenizers replace by these."""


class Origin(TypedDict):
    """Of which commit a model is, and whether the code that it brings may be used."""

    revision: str | None
    trust_remote_code: bool


def reads_text_only(
    tokenizer: Any,
    config: Any,
    source: str,
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> Any:
    """Return a tokenizer that reads the end token in a text as ordinary characters, if the model's head looks for that token.

    The tokenizer is changed where that is enough (`split_special_tokens`, saved with it). Unigram vocabularies hold the end token as a
    piece of text too; then its characters are parted by a normalizer, and the tokenizer becomes a plain `TokenizersBackend`, whose
    class rebuilds nothing when it is loaded. Other tokenizers are returned as they are.
    """
    end_id = getattr(config, "eos_token_id", None)
    if not isinstance(end_id, int) or not head_looks_for_end(
        config, source, trust_remote_code=trust_remote_code, revision=revision
    ):
        return tokenizer
    end = tokenizer.convert_ids_to_tokens(end_id)
    if not end or not _is_read(tokenizer, end, end_id):
        return tokenizer
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    if (
        not _is_read(tokenizer, end, end_id)
        or getattr(tokenizer, "backend_tokenizer", None) is None
    ):
        return tokenizer
    return _parted(tokenizer, end)


def head_looks_for_end(
    config: Any, source: str, *, trust_remote_code: bool = False, revision: str | None = None
) -> bool:
    """Whether the code of the model's sequence classifier reads `eos_token_id`; the code is looked at, not run.

    Args:
        source: folder or Hub id, for the code of models that bring their own.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )
    from transformers.utils import cached_file

    reference = (getattr(config, "auto_map", None) or {}).get("AutoModelForSequenceClassification")
    if reference and trust_remote_code:
        repository, _, name = reference.rpartition("--")
        module, _, classifier = name.rpartition(".")
        path = cached_file(
            repository or source,
            f"{module.replace('.', '/')}.py",
            revision=None if repository else revision,
        )
        return path is not None and _reads_end(Path(path), classifier)
    classifier = CLASSIFIERS.get(config.model_type, "")
    path = _file_of(classifier)
    return path is not None and _reads_end(path, classifier)


@cache
def _file_of(classifier: str) -> Path | None:
    """The file of one of transformers' own sequence classifiers."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    for model_type, name in CLASSIFIERS.items():
        if name == classifier:
            module = model_type_to_module_name(model_type)
            spec = find_spec(f"transformers.models.{module}.modeling_{module}")
            return Path(spec.origin) if spec and spec.origin else None
    return None


@cache
def _reads_end(path: Path, classifier: str) -> bool:
    """Whether a class of a file, or a sequence classifier that it is made from, reads an attribute `eos_token_id`."""
    classes = {
        node.name: node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    if classifier not in classes:
        return False
    if any(
        isinstance(node, ast.Attribute) and node.attr == "eos_token_id"
        for node in ast.walk(classes[classifier])
    ):
        return True
    for base in (base.id for base in classes[classifier].bases if isinstance(base, ast.Name)):
        own = path if base in classes else _file_of(base)
        if own and _reads_end(own, base):
            return True
    return False


def _is_read(tokenizer: Any, end: str, end_id: int) -> bool:
    """Whether some text that holds the end token's characters gets its id."""
    texts = [end, f"a {end} b", f"a{end}b", f"a {end.translate(FULL_WIDTH)} b"]
    return any(end_id in ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def _parted(tokenizer: Any, end: str) -> Any:
    """The same tokenizer, saved and loaded again with a normalizer that puts a space behind the end token's first character."""
    from tokenizers import Tokenizer, normalizers
    from transformers import TokenizersBackend

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    part = normalizers.Replace(end, f"{end[0]} {end[1:]}" if len(end) > 1 else " ")
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence(
        [part, *own, part]
    )  # a space is still one before the own; other forms are this one behind it
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder, "tokenizer_config.json")
        settings = json.loads(path.read_text(encoding="utf-8")) | {
            "tokenizer_class": "TokenizersBackend"
        }
        path.write_text(json.dumps(settings), encoding="utf-8")
        backend.save(str(Path(folder, "tokenizer.json")))
        parted = TokenizersBackend.from_pretrained(folder)
    parted.name_or_path = tokenizer.name_or_path
    return parted
