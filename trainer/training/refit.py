"""The second stage of a training: fit the final layer again, on class-balanced rows.

The encoder stays as it was trained. Balanced class weights stand for class-balanced batches, since
L-BFGS sees all rows at once.

Source: Kang et al. 2020, https://arxiv.org/abs/1910.09217 (classifier re-training, cRT).
"""

from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import TrainingArguments

from trainer.data.balancing.weights import class_weights
from trainer.launch.distributed import from_main
from trainer.training.frozen.head import HeadFit, HeadRows, HeadTrainer
from trainer.training.models.layers import final_linear
from trainer.training.trackers.trackers import Trackers


def refit_head(
    model: Any, tokenizer: Any, args: TrainingArguments, rows: HeadRows, folder: Path
) -> None:
    """Replace the final layer of a trained classifier by one that is fitted to balanced classes.

    The main process fits it, and the others take its weights.

    Args:
        args: arguments of the training.
        rows: rows to fit on, and to choose the L2 strength on.
        folder: folder for the embeddings, which are removed afterwards.
    """
    own = copy(args)
    own.max_steps = -1  # the fit has iterations of its own

    def fit() -> list[torch.Tensor]:
        print("Fitting the head again on class-balanced rows (training.refit_head)", flush=True)
        with TemporaryDirectory(dir=folder, prefix="embeddings-") as cache:
            head = HeadTrainer(
                model=model,
                tokenizer=tokenizer,
                args=own,
                rows=rows,
                fit=HeadFit(
                    loss="cross_entropy",
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
