"""The trainer of a run: the loss of `weighted_trainer.py`, with packing, passes and resuming.

Legend: C classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import EvalPrediction, TrainingArguments

from trainer.arrays import Floats
from trainer.evaluation.multi_label import evaluate
from trainer.training.losses import step_loss
from trainer.training.run_trainer import RunTrainer


class WeightedRunTrainer(RunTrainer):
    """Trainer of tokenised rows whose loss is summed and divided once by the rows of a step.

    Args:
        model: sequence classifier.
        args: arguments, of which label_smoothing_factor changes the loss.
        class_weights_C: one weight per class, or the positive weights of multi-label rows; None
            for 1.
        loss: an entry of trainer.training.losses.LOSSES or MULTI_LABEL_LOSSES.
        loss_options: further arguments of the loss.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        class_weights_C: Floats | None = None,
        loss: str = "cross_entropy",
        loss_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if class_weights_C is None:
            class_weights_C = np.ones(model.config.num_labels)
        smoothing = args.label_smoothing_factor
        compute = step_loss(loss, class_weights_C, loss_options, label_smoothing=smoothing)
        super().__init__(model=model, args=args, compute_loss_func=compute, **kwargs)


def epoch_metrics(
    labels: list[str], minority_label: str
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the `compute_metrics` of transformers.Trainer.

    It gives the numbers of an Evaluation and the recall of the minority class.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits_NC: Any = prediction.predictions
        targets: Any = prediction.label_ids
        evaluation = evaluate(logits_NC, targets, labels)
        values = evaluation.to_dict().items()
        numbers = {name: value for name, value in values if isinstance(value, int | float)}
        return numbers | {"minority_recall": evaluation.per_class[minority_label]["recall"]}

    return compute
