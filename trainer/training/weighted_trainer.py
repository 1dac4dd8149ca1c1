"""A drop-in `transformers.Trainer` with a weighted or imbalance-aware loss.

Legend: N rows, C classes.

The stock Trainer divides the loss of a sequence classifier by the rows of each batch, so under
gradient accumulation and in several processes its gradient comes out too large
(https://github.com/huggingface/transformers/issues/47688). An override of `compute_loss` with
`CrossEntropyLoss(weight=...)` also divides by the weights of each batch. Here the loss is summed
over rows and divided once, by the rows of the whole optimizer step in all processes, so the
gradient depends on those rows alone, however they are cut into batches.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, Sampler
from transformers import Trainer, TrainingArguments

from trainer.arrays import Ints
from trainer.config.faults import checked_section
from trainer.config.sections.balancing import LOSS_SETTINGS, LossSection
from trainer.training.batches.class_balanced_sampler import ClassBalancedSampler
from trainer.training.losses.step_loss import LOSS_FAMILIES, step_loss
from trainer.training.training_labels import TrainingLabels, Weights, refuse_unknown

SAMPLERS = (None, "class_balanced", "group_by_length")


class WeightedTrainer(Trainer):
    """Train a sequence classifier on imbalanced rows: `transformers.Trainer` with another loss.

    It takes the datasets, collators, callbacks and arguments of its parent, by position or by name,
    and changes two things: the loss, and, on request, the sampler. Labels may be one class id per
    row, or, with `problem_type="multi_label_classification"`, a vector of 0 and 1 for each row.

    Args:
        model, args, others, kwargs: as for `transformers.Trainer`, without
            `compute_loss_func`.
        loss: `cross_entropy`, `focal`, `logit_adjusted` or `balanced_softmax`. For several labels a
            row: `cross_entropy` (then binary), `focal`, `ntr_focal`, `cb_ntr`,
            `distribution_balanced` or `asymmetric`.
        loss_settings: numbers of the loss, such as {"gamma": 2} of `focal` or {"tau": 1} of
            `logit_adjusted`, under their names in the section `loss:` of the YAML.
        class_weights: `balanced`, `sqrt` or `effective_number` compute the weights from the
            training labels; a mapping gives the weight of class ids or names, and 1 to the others.
            All these have mean 1 over the training rows, so the loss keeps its scale. A tensor (C,)
            is used as it is. The sum of weighted losses is divided by the rows, not by the sum of
            the weights as in `torch.nn.CrossEntropyLoss`. For several labels per row these are
            the `pos_weight` of `torch.nn.BCEWithLogitsLoss`; `effective_number` and a tensor (2, C)
            weigh the rows without and with each label.
        defer_weights: share of the training, in (0, 1), after which the class weights apply; until
            then every class has weight 1 (Cao et al. 2019, https://arxiv.org/abs/1906.07413).
        beta: of `effective_number`, in (0, 1). Default 0.999; for several labels per row 0.9.
        sampler: `class_balanced` draws every class equally often (ClassBalancedSampler); weights
            and losses that depend on counts then take the counts that are drawn (equal ones, if a
            row has one label), so that nothing is balanced twice. `group_by_length` puts rows of
            similar length together; None leaves it to `args`.
        class_counts: training rows of each class (C,), for datasets whose labels cannot be read, or
            only slowly: the rows of a dataset without columns are read one by one.
        num_rows: training rows of an epoch, if they are not all rows of the dataset.

    Raises:
        ValueError: arguments that do not fit together, or labels that cannot be read.

    Source: https://huggingface.co/blog/gradient_accumulation.

    Example:
        >>> from tempfile import mkdtemp
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
        >>> model = BertForSequenceClassification(BertConfig(num_hidden_layers=1, **sizes))
        >>> rows = [{"input_ids": [5, 6 + label], "label": label} for label in (0, 0, 0, 1)]
        >>> args = TrainingArguments(mkdtemp(), max_steps=2, report_to="none", disable_tqdm=True)
        >>> trainer = WeightedTrainer(
        ...     model, args, train_dataset=rows, loss="focal", class_weights="balanced"
        ... )
        >>> trainer.class_weights_C
        tensor([0.6667, 2.0000])
        >>> trainer.train().global_step
        {'train_runtime': ...}
        2
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *others: Any,
        loss: str = "cross_entropy",
        loss_settings: Mapping[str, float] | None = None,
        class_weights: Weights | None = None,
        defer_weights: float | None = None,
        beta: float | None = None,
        sampler: Literal["class_balanced", "group_by_length"] | None = None,
        class_counts: Sequence[int] | Ints | None = None,
        num_rows: int | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("WeightedTrainer sets compute_loss_func; use transformers.Trainer")
        refuse_unknown("sampler", sampler, SAMPLERS)
        args = args or TrainingArguments(output_dir="tmp_trainer")  # as the parent does
        args._n_gpu = min(args.n_gpu, 1)  # DataParallel would scale the loss by the GPUs
        super().__init__(model, args, *others, **kwargs)
        _refuse_unfit(self.model, self.train_dataset, sampler)
        self.sampler = sampler
        if sampler == "group_by_length":
            args.train_sampling_strategy = "group_by_length"
        config: Any = self.model.config  # type: ignore[union-attr]
        is_multi_label = config.problem_type == "multi_label_classification"
        family = LOSS_FAMILIES[is_multi_label]
        refuse_unknown("loss", loss, list(family.losses))
        if defer_weights is not None and (class_weights is None or not 0 < defer_weights < 1):
            raise ValueError(
                f"defer_weights is {defer_weights:g}; it needs class_weights and a share between 0"
                " and 1"
            )
        section = _loss_section(loss, loss_settings or {}, class_weights, beta)
        smoothing = args.label_smoothing_factor
        if smoothing and (is_multi_label or loss == "focal"):
            raise ValueError(f"label_smoothing_factor is {smoothing}; this loss takes none")
        self.labels = TrainingLabels(
            dataset=self.train_dataset,
            columns=args.label_names or (),
            names=[str(config.id2label[label_id]) for label_id in range(config.num_labels)],
            is_multi_label=is_multi_label,
            given_counts=class_counts,
            given_rows=num_rows,
            is_balanced=sampler == "class_balanced",
        )
        if sampler == "class_balanced" and self.train_dataset is not None:
            self.labels.refuse_unsampled()
        is_named = class_weights is None or isinstance(class_weights, str)
        self.class_weights_C = self.labels.weights(
            section.weighting if is_named else class_weights, beta
        )
        counts_C, num_rows = np.ones(1, np.int64), 1
        if loss in family.need_counts:
            counts_C = self.labels.counts_C
            num_rows = self.labels.num_rows if is_multi_label else counts_C.sum()
        options = family.options(loss, section.settings, counts_C, num_rows)
        self.defer_weights = defer_weights
        chosen = partial(step_loss, family.losses[loss], options=options, label_smoothing=smoothing)
        self._weighted_loss = chosen(self.class_weights_C)
        self._plain_loss = chosen(torch.ones_like(torch.as_tensor(self.class_weights_C)))
        self.compute_loss_func = self._loss_of_step

    def _loss_of_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the loss of the present step, with class weights once they apply."""
        is_early = self.defer_weights is not None and (
            self.state.global_step < self.defer_weights * self.state.max_steps
        )
        return (self._plain_loss if is_early else self._weighted_loss)(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Return the sampler of the training rows. (A private method of transformers.)"""
        if self.sampler != "class_balanced":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        labels = self.labels.labels
        return ClassBalancedSampler(labels > 0 if labels.ndim == 2 else labels, seed=seed)


def _loss_section(
    loss: str, settings: Mapping[str, float], class_weights: Weights | None, beta: float | None
) -> LossSection:
    """Return the checked section `loss:`, which has the same settings; ValueError names faults."""
    known = [key for key, users in LOSS_SETTINGS.items() if loss in users]
    for key in settings:
        refuse_unknown(f"a key of loss_settings for {loss}", key, known)
    weighting = class_weights if isinstance(class_weights, str) else "none"
    values = {"name": loss, "class_weights": weighting, "beta": beta}
    return checked_section(LossSection, {**values, **settings})


def _refuse_unfit(model: Any, train_dataset: Any, sampler: str | None) -> None:
    """Raise ValueError for a model that is no classifier, or rows that no sampler can choose."""
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(
            f"{type(model).__name__} has no config; WeightedTrainer reads num_labels, problem_type "
            "and id2label from model.config"
        )
    if config.num_labels < 2 and config.problem_type != "multi_label_classification":
        raise ValueError("model.config.num_labels is 1; WeightedTrainer needs two classes or more")
    if sampler and isinstance(train_dataset, IterableDataset):
        raise ValueError(
            f"sampler is {sampler!r}, but the rows of an iterable dataset come in its own order; "
            "use a map-style dataset, or leave sampler out"
        )
