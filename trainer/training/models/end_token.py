"""Tokenizers that read an end token in a text as ordinary characters.

The heads of BART, mBART, T5 and their relatives read the hidden state of the last end token. They
refuse batches whose rows have different numbers of end tokens, so a text that contains `</s>`
would make its whole batch fail.
"""

import ast
import json
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""Full-width forms of ASCII characters, which some tokenizers replace by the usual ones."""


class Origin(TypedDict):
    """The commit of a model, and whether code that comes with it may be used."""

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
    """Return a tokenizer that reads the end token in a text as characters, if the head needs that.

    Mostly `split_special_tokens` is set, which is saved with the tokenizer. Unigram vocabularies
    also contain the end token as a piece of text. For them a normalizer separates its characters,
    and the result is a plain `TokenizersBackend`, which rebuilds nothing when it is loaded.
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
    return _separated(tokenizer, end)


def head_looks_for_end(
    config: Any, source: str, *, trust_remote_code: bool = False, revision: str | None = None
) -> bool:
    """Return whether the code of the model's sequence classifier reads `eos_token_id`.

    The code is parsed, not run.

    Args:
        source: folder or Hub id, for models with code of their own.
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
    own = _file_of(classifier)
    return own is not None and _reads_end(own, classifier)


@cache
def _file_of(classifier: str) -> Path | None:
    """Return the file of one of transformers' own sequence classifiers."""
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
    """Return whether a class of a file, or one of its bases, reads an attribute `eos_token_id`."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    if classifier not in classes:
        return False
    attributes = (n.attr for n in ast.walk(classes[classifier]) if isinstance(n, ast.Attribute))
    if "eos_token_id" in attributes:
        return True
    bases = [base.id for base in classes[classifier].bases if isinstance(base, ast.Name)]
    files = [(path if base in classes else _file_of(base), base) for base in bases]
    return any(file is not None and _reads_end(file, base) for file, base in files)


def _is_read(tokenizer: Any, end: str, end_id: int) -> bool:
    """Return whether a text with the characters of the end token gets its id."""
    texts = [end, f"a {end} b", f"a{end}b", f"a {end.translate(FULL_WIDTH)} b"]
    return any(end_id in ids for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def _separated(tokenizer: Any, end: str) -> Any:
    """Return the tokenizer with a space after the first character of an end token in a text."""
    from tokenizers import Tokenizer, normalizers
    from transformers import TokenizersBackend

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    part = normalizers.Replace(end, f"{end[0]} {end[1:]}" if len(end) > 1 else " ")
    own = [] if backend.normalizer is None else [backend.normalizer]
    # the model's own normalizer may change spaces, and may turn other forms into the end token
    backend.normalizer = normalizers.Sequence([part, *own, part])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder, "tokenizer_config.json")
        plain = {"tokenizer_class": "TokenizersBackend"}
        settings = json.loads(path.read_text(encoding="utf-8")) | plain
        path.write_text(json.dumps(settings), encoding="utf-8")
        backend.save(str(Path(folder, "tokenizer.json")))
        separated = TokenizersBackend.from_pretrained(folder)
    separated.name_or_path = tokenizer.name_or_path
    return separated
