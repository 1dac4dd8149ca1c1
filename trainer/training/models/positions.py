"""The longest text that a model can read, in tokens."""

import json
import subprocess
import sys
import warnings
from contextlib import suppress
from typing import Any

PROBE_TOKENS = 8
NOT_ARCHITECTURE = (
    "id2label",
    "label2id",
    "problem_type",
    "_name_or_path",
    "transformers_version",
    "decision",
    "train_rows",
)
"""Keys of a model's config that do not change what its encoder computes."""
ASK_IN_CHILD = (
    "import sys; from trainer.config.sections.model import ModelSection;"
    "from trainer.training.models import model, positions;"
    "section = ModelSection.model_validate_json(sys.argv[1]);"
    "config, trust = model.pretrained_config(section), section.trust_remote_code;"
    "print(positions.position_limit(config, trust_remote_code=trust))"
)
_sizes_by_architecture: dict[tuple[str, bool], list[int]] = {}


def architecture(config: Any) -> dict[str, Any]:
    """Return the keys of a model's config that decide what its encoder computes."""
    return {k: value for k, value in config.to_dict().items() if k not in NOT_ARCHITECTURE}


def stated_limit(config: Any) -> int | None:
    """Return the number of positions that a config states, or None if it states none."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(limit) if limit and limit > 0 else None


def position_limit(config: Any, *, trust_remote_code: bool = False) -> int | None:
    """Return the tokens of the longest text that a model has positions for, None without a limit.

    Some models give their first tokens a position above 0, so they read fewer tokens than their
    config states. The limit is therefore measured once for each architecture: the model is built
    without weights and reads a few tokens. Without torch (`--check`) the stated number is returned.
    """
    limits = [stated_limit(config)]
    if sys.modules.get("torch", ...) is not None:
        text = json.dumps(architecture(config), sort_keys=True, default=str)
        key = (f"{type(config)} {text}", trust_remote_code)
        if key not in _sizes_by_architecture:
            _sizes_by_architecture[key] = _sizes_of_position_tables(config, trust_remote_code)
        limits += _sizes_by_architecture[key]
    return min((limit for limit in limits if limit is not None), default=None)


def limit_of(model: Any, config: Any) -> int | None:
    """Return `position_limit` of a `model:` section.

    A check runs without torch. If its `max_length` is so close to the stated limit that the
    first position decides, a child process measures the limit.
    """
    stated = stated_limit(config)
    is_without_torch = sys.modules.get("torch", ...) is None
    first = (getattr(config.get_text_config(), "pad_token_id", None) or 0) + 2
    first = first if stated and first < stated else 2  # no model starts after its last position
    if not (is_without_torch and stated and model.max_length and model.max_length > stated - first):
        return position_limit(config, trust_remote_code=model.trust_remote_code)
    command = [sys.executable, "-P", "-c", ASK_IN_CHILD, model.model_dump_json()]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    last = asked.stdout.split()[-1:] or [""]
    if not last[0].isdigit():
        warnings.warn(
            f"The number of tokens that '{model.name}' reads could not be measured;"
            f" its config states {stated}.",
            stacklevel=2,
        )
        return stated
    return int(last[0])


def _sizes_of_position_tables(config: Any, trust_remote_code: bool) -> list[int]:
    """Return the number of tokens that each table of positions of a model suffices for."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import AutoModelForSequenceClassification
    from transformers.initialization import no_init_weights

    from trainer.training.models.probe import probe_batch

    limits: list[int] = []

    class Lookups(TorchDispatchMode):
        """Record lookups of consecutive rows of a table, until the first attention."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = str(func)
            if "softmax" in name or "scaled_dot_product" in name:
                raise _PositionsAreKnownError
            if name in ("aten.embedding.default", "aten.index.Tensor"):
                table, indices = args[0], args[1]
                first = _first_of_consecutive(indices[0] if isinstance(indices, list) else indices)
                if first is not None and len(table) > PROBE_TOKENS:
                    limits.append(len(table) - first)
            return func(*args, **(kwargs or {}))

    batch = probe_batch(config, [PROBE_TOKENS])
    batch["input_ids"][0, :-1] = batch["input_ids"][0, 0]  # so that token ids are not consecutive
    # a model without weights may raise anything; the lookups until then are what counts
    with suppress(Exception), torch.no_grad():
        with no_init_weights():
            kind = AutoModelForSequenceClassification
            model = kind.from_config(config, trust_remote_code=trust_remote_code).eval()
        with Lookups():
            model(**batch)
    return limits


class _PositionsAreKnownError(Exception):
    """The end of a forward pass at the first attention, when all positions have been looked up."""


def _first_of_consecutive(index: Any) -> int | None:
    """Return the first number of an index whose rows all begin with the same consecutive ones."""
    if index is None or index.dtype.is_floating_point or index.shape[-1:] < (PROBE_TOKENS,):
        return None
    rows = index.reshape(-1, index.shape[-1])[:, :PROBE_TOKENS].tolist()
    first = int(rows[0][0])
    return first if all(row == list(range(first, first + PROBE_TOKENS)) for row in rows) else None
