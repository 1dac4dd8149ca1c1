"""A drop-in `transformers.Trainer` with a weighted or imbalance-aware loss.

Legend: N rows, C classes.

The stock Trainer divides the loss of a sequence classifier by the rows of each batch, so under
gradient accumulation and in several processes its gradient comes out too large
(https://github.com/huggingface/transformers/issues/47688). An override of `compute_loss` with
`CrossEntropyLoss(weight=...)` also divides by the weights of each batch. Here the loss is summed
over rows and divided once, by the rows of the whole optimizer step in all processes, so the
gradient depends on those rows alone, however they are cut into batches.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer

from trainer.arrays import Array, Ints
from trainer.data.balancing.weights import WEIGHTINGS
from trainer.data.balancing.weights import class_weights as weights_of_counts
from trainer.data.labels.multi_label import POSITIVE_WEIGHTINGS, positive_weights
from trainer.errors import did_you_mean
from trainer.training.class_balanced_sampler import ClassBalancedSampler
from trainer.training.losses import LOSSES, loss_options, step_loss

LABEL_COLUMNS = ("labels", "label", "label_ids")
Weights: TypeAlias = (
    Literal["none", "balanced", "sqrt", "effective_number"] | Mapping[Any, float] | Tensor
)


class WeightedTrainer(Trainer):
    """Train a sequence classifier on imbalanced rows: `transformers.Trainer` with another loss.

    It takes the datasets, collators, callbacks and arguments of its parent, by position or by name,
    and changes two things: the loss, and, on request, the sampler. Labels may be one class id per
    row, or, with `problem_type="multi_label_classification"`, a vector of 0 and 1 for each row.

    Args:
        args, kwargs: as for `transformers.Trainer`, without `compute_loss_func`.
        loss: `cross_entropy` (for several labels a row: binary cross-entropy), `focal`,
            `logit_adjusted` or `balanced_softmax`.
        gamma: of `focal`, by default 2.
        tau: of `logit_adjusted`, by default 1.
        class_weights: `balanced`, `sqrt` or `effective_number` compute the weights from the
            training labels; a mapping gives the weight of class ids or names, and 1 to the others.
            All these have mean 1 over the training rows, so the loss keeps its scale. A tensor (C,)
            is used as it is. The sum of weighted losses is divided by the rows, not by the sum of
            the weights as in `torch.nn.CrossEntropyLoss`. For several labels per row these are
            the `pos_weight` of `torch.nn.BCEWithLogitsLoss`.
        beta: of `effective_number`, in (0, 1).
        sampler: `class_balanced` draws every class equally often (ClassBalancedSampler),
            `group_by_length` puts rows of similar length together; None leaves it to `args`.
        class_counts: training rows of each class (C,), for datasets without a label column.

    Raises:
        ValueError: arguments that do not fit together, or labels that cannot be read.

    Source: https://huggingface.co/blog/gradient_accumulation.

    Example:
        >>> trainer = WeightedTrainer(  # doctest: +SKIP
        ...     model, args, train_dataset=train, eval_dataset=validation,
        ...     processing_class=tokenizer, loss="focal", class_weights="balanced",
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        *args: Any,
        loss: str = "cross_entropy",
        gamma: float | None = None,
        tau: float | None = None,
        class_weights: Weights | None = None,
        beta: float = 0.999,
        sampler: Literal["class_balanced", "group_by_length"] | None = None,
        class_counts: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("WeightedTrainer sets compute_loss_func; use transformers.Trainer")
        _refuse_unknown("loss", loss, LOSSES)
        _refuse_unknown("sampler", sampler, (None, "class_balanced", "group_by_length"))
        super().__init__(*args, **kwargs)
        self.args._n_gpu = min(self.args.n_gpu, 1)  # DataParallel would scale the loss by the GPUs
        self.sampler, self._class_counts = sampler, class_counts
        if sampler == "group_by_length":
            self.args.train_sampling_strategy = "group_by_length"
        config: Any = self.model.config  # type: ignore[union-attr]
        is_multi_label = config.problem_type == "multi_label_classification"
        smoothing = self.args.label_smoothing_factor
        if is_multi_label and loss != "cross_entropy":
            raise ValueError(f"loss is {loss!r}; rows with several labels take 'cross_entropy'")
        if smoothing and (is_multi_label or loss == "focal"):
            raise ValueError(f"label_smoothing_factor is {smoothing}; this loss takes none")
        needs_counts = loss in ("logit_adjusted", "balanced_softmax")
        counts_C = self.class_counts if needs_counts else np.ones(1, np.int64)
        options = loss_options(loss, gamma, tau, counts_C)
        self.class_weights_C = self._weights(class_weights, beta, is_multi_label)
        name = "binary_cross_entropy" if is_multi_label else loss
        self.compute_loss_func = step_loss(
            name, self.class_weights_C, options, label_smoothing=smoothing
        )

    @cached_property
    def class_counts(self) -> Ints:
        """The training rows of each class (C,), from `class_counts` or the label column.

        Raises:
            ValueError: labels that cannot be read, or lie outside [0, C).
        """
        num_labels = self.model.config.num_labels  # type: ignore[union-attr]
        if self._class_counts is not None:
            counts_C = np.asarray(self._class_counts, np.int64)
        else:
            labels = self._labels()
            counts_C = labels.sum(0) if labels.ndim == 2 else np.bincount(labels[labels >= 0])
            if labels.ndim == 1:
                counts_C = np.pad(counts_C, (0, max(num_labels - len(counts_C), 0)))
        if counts_C.shape != (num_labels,):
            raise ValueError(
                f"the labels or class_counts name {len(counts_C)} classes; "
                f"model.config.num_labels is {num_labels}"
            )
        return counts_C.astype(np.int64)

    def _labels(self) -> Array:
        """Return the labels of the training rows, (N,) class ids or (N, C) of 0 and 1."""
        dataset: Any = self.train_dataset
        names = (*(self.args.label_names or ()), *LABEL_COLUMNS)
        columns = getattr(dataset, "column_names", None)
        if columns is None and isinstance(dataset, Sequence) and len(dataset):
            columns = list(dataset[0])
        column = next((name for name in names if name in (columns or ())), None)
        if column is None:
            raise ValueError(
                f"the training labels cannot be read: {type(dataset).__name__} has no column named "
                f"{', '.join(dict.fromkeys(names))}; give class_counts=, the rows of each class"
            )
        is_table = hasattr(dataset, "column_names")
        found = dataset[column] if is_table else [row[column] for row in dataset]
        return np.asarray(list(found)).astype(np.int64)

    def _weights(self, given: Weights | None, beta: float, is_multi_label: bool) -> Tensor:
        """Return the class weights (C,) in float32."""
        config: Any = self.model.config  # type: ignore[union-attr]
        if given is None or (isinstance(given, str) and given == "none"):
            return torch.ones(config.num_labels)
        if isinstance(given, Tensor | np.ndarray):
            weights_C = torch.as_tensor(given, dtype=torch.float32)
            if weights_C.shape != (config.num_labels,):
                raise ValueError(
                    f"class_weights has the shape {tuple(weights_C.shape)}; "
                    f"give ({config.num_labels},), one weight a class"
                )
            return weights_C
        counts_C = self.class_counts
        names = [str(config.id2label[label_id]) for label_id in range(config.num_labels)]
        known = POSITIVE_WEIGHTINGS if is_multi_label else WEIGHTINGS
        if isinstance(given, str):
            _refuse_unknown("class_weights", given, known)
            named: Any = given
        else:
            named = _by_name(given, names)
        if is_multi_label:
            num_rows = len(self.train_dataset)  # type: ignore[arg-type]
            found_C = positive_weights(counts_C, num_rows, named, names)
        else:
            found_C = weights_of_counts(counts_C, named, names, beta=beta)
        return torch.as_tensor(found_C, dtype=torch.float32)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Return the sampler of the training rows. (A private method of transformers.)"""
        if self.sampler != "class_balanced":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return ClassBalancedSampler(self._labels(), seed=seed)


def _refuse_unknown(name: str, value: Any, known: Iterable[Any]) -> None:
    """Raise ValueError with the nearest known name."""
    if value not in known:
        hint = did_you_mean(str(value), [str(each) for each in known])
        raise ValueError(f"{name} is {value!r}; known: {', '.join(map(repr, known))}.{hint}")


def _by_name(weights: Mapping[Any, float], names: list[str]) -> dict[str, float]:
    """Return the weights by class name; keys are class ids or names.

    Raises:
        ValueError: a key that is no class.
    """
    found = {}
    for key, weight in weights.items():
        is_id = isinstance(key, int) and 0 <= key < len(names)
        if not is_id and key not in names:
            raise ValueError(f"class_weights names {key!r}; known: {', '.join(names)}")
        found[names[key] if is_id else str(key)] = float(weight)
    return found
