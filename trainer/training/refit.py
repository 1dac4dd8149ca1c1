"""The second stage of a training: change the final layer over the trained encoder; table REFITS.

Source: Kang et al. 2020, https://arxiv.org/abs/1910.09217.

Legend: N rows, C classes.
"""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from trainer.arrays import Floats
from trainer.data.balancing.weights import class_weights
from trainer.launch.distributed import from_main
from trainer.training.frozen.head import HeadFit, HeadRows, HeadTrainer
from trainer.training.losses.one_label import LOSSES
from trainer.training.models.layers import final_linear
from trainer.training.trackers.trackers import Trackers

TAUS = tuple(round(0.1 * number, 1) for number in range(11))


def fit_balanced(trainer: Any, rows: HeadRows) -> str:
    """Fit the final layer of a trained classifier again, with balanced class weights (cRT).

    The weights stand for class-balanced batches, since L-BFGS sees all rows at once. The main
    process fits, and the others take its result.

    Returns:
        A sentence about it.
    """
    args, model = copy(trainer.args), trainer.model
    args.max_steps = -1  # the fit has iterations of its own

    def fit() -> list[torch.Tensor]:
        print("Fitting the head again on class-balanced rows (training.refit_head)", flush=True)
        folder = Path(str(args.output_dir)).parent
        with TemporaryDirectory(dir=folder, prefix="embeddings-") as cache:
            head = HeadTrainer(
                model=model,
                tokenizer=trainer.processing_class,
                args=args,
                rows=rows,
                fit=HeadFit(
                    loss=LOSSES["cross_entropy"],
                    loss_options=lambda counts_C: {},
                    weigh=lambda counts_C: class_weights(counts_C, "balanced", rows.labels),
                ),
                cache_dir=Path(cache),
                write_epochs=lambda fits: None,
                trackers=Trackers(),
            )
            head.run()
        return [weight.detach().cpu() for weight in final_linear(model).parameters()]

    fitted = from_main(fit)
    with torch.no_grad():
        for weight, value in zip(final_linear(model).parameters(), fitted, strict=True):
            weight.copy_(value)
    return "final layer fitted again on class-balanced rows (`training.refit_head`: balanced)"


def tau_normalise(trainer: Any, rows: HeadRows) -> str:
    """Divide the final weights of each class by a power of their norm (tau-normalisation).

    Frequent classes have larger norms, which this evens out. The power that is best on validation
    by the metric of the training is used, the smallest of equal ones. The mean scale of the logits
    stays.

    Returns:
        A sentence about it.
    """
    final, args = final_linear(trainer.model), trainer.args
    norms_C = final.weight.detach().double().norm(dim=1).cpu().numpy()
    logits_NC = np.asarray(trainer.predict_logits(rows.validation))
    sign = 1 if args.greater_is_better else -1

    def score(tau: float) -> float:
        scaled_NC = (logits_NC / scales(norms_C, tau)).astype(np.float32)
        prediction = EvalPrediction(scaled_NC, rows.validation.label_ids_N)
        return sign * float(trainer.compute_metrics(prediction)[args.metric_for_best_model])

    tau = max(TAUS, key=score)  # the first of equal ones
    with torch.no_grad():
        scales_C = torch.from_numpy(scales(norms_C, tau)).to(final.weight)
        final.weight /= scales_C[:, None]
        if final.bias is not None:
            final.bias /= scales_C
    return (
        f"final weights of each class divided by their norm to the power of {tau:g}, the best by"
        f" `{args.metric_for_best_model}` on validation (`training.refit_head`: tau_normalised)"
    )


def scales(norms_C: Floats, tau: float) -> Floats:
    """Return norm ** tau of each class, divided by the geometric mean."""
    logarithms_C = np.log(norms_C)
    found: Floats = np.exp(tau * (logarithms_C - logarithms_C.mean()))
    return found


REFITS: dict[str, Callable[[Any, HeadRows], str]] = {
    "balanced": fit_balanced,
    "tau_normalised": tau_normalise,
}
"""{value of `training.refit_head`: function (trainer, rows) -> sentence for the card}."""
