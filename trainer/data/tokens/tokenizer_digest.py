"""A digest of everything that decides token ids; it is part of the key of the token cache."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.data.tokens.word_tokens import without_limits

SETTINGS = ("truncation_side", "model_input_names", "split_special_tokens", "special_tokens_map")
"""Attributes of a tokenizer that decide token ids, besides its backend."""
NOT_SETTINGS = (
    "_file",
    "name_or_path",
    "init_kwargs",
    "init_inputs",
    "deprecation_warnings",
    "files_loaded",
)
"""Ends of attribute names of a Python tokenizer that do not decide token ids, such as its path."""


def tokenizer_digest(tokenizer: Any) -> str:
    """Return a digest of all that decides the token ids of a text; the folder does not count.

    It covers the backend with its vocabulary, rules and added tokens (for tokenizers in Python
    their saved files and their settings), the attributes in SETTINGS, the code of a remote
    tokenizer, and the versions of the libraries.
    """
    import tokenizers
    import transformers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = [
        transformers.__version__,
        tokenizers.__version__,
        type(tokenizer).__name__,
        {name: _plain(getattr(tokenizer, name, None)) for name in SETTINGS},
        code_digest(type(tokenizer)),
        _files_and_settings(tokenizer) if backend is None else without_limits(backend).to_str(),
    ]
    return _digest(json.dumps(parts, sort_keys=True).encode())


def code_digest(kind: type) -> str:
    """Return a digest of the Python code that came with a model (`trust_remote_code`).

    It is empty for classes of installed libraries.
    """
    if not kind.__module__.startswith("transformers_modules."):
        return ""
    package = kind.__module__.rpartition(".")[0]
    modules = [
        module for name, module in list(sys.modules.items()) if name.startswith(f"{package}.")
    ]
    files = {str(module.__file__) for module in modules if getattr(module, "__file__", None)}
    return _digest(b"".join(Path(file).read_bytes() for file in sorted(files)))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _files_and_settings(tokenizer: Any) -> list[Any]:
    """Return what describes a tokenizer in Python: its files, tokens and settings.

    The files also contain merges and scores. Settings are what its constructor and its user set.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = {
            path.name: _digest(path.read_bytes())
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file() and path.name != "tokenizer_config.json"
        }
    added = {number: repr(token) for number, token in tokenizer.added_tokens_decoder.items()}
    settings = {
        name: _plain(value)
        for name, value in vars(tokenizer).items()
        if not name.startswith("_")
        and not name.endswith(NOT_SETTINGS)
        and isinstance(value, str | int | float | list | tuple | dict | None)
    }
    return [files, added, sorted(tokenizer.get_vocab().items()), settings]


def _plain(value: Any) -> Any:
    """Return a setting as values that JSON knows; tokens become their full `repr`."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, bool | int | None) else repr(value)
