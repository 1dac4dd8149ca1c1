"""The final layer alone, trained on embeddings of a frozen encoder: L-BFGS over all rows at once.

Legend: N rows, H features, C classes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction, TrainerControl, TrainerState, TrainingArguments

from trainer.arrays import Array, Floats, Floats32, Ints
from trainer.data.labels.class_order import count_labels
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.blocks import MOST_IN_MEMORY, release, room
from trainer.training.batches.batching import Collator
from trainer.training.batches.widths import EQUAL_LENGTHS, fit_collator
from trainer.training.frozen.embed import embed
from trainer.training.frozen.linear_fit import MAX_ITERATIONS, fit_linear
from trainer.training.losses.step_loss import step_loss
from trainer.training.models.layers import final_layer
from trainer.training.peak_memory import PeakMemory
from trainer.training.progress import epoch_metrics, headings, table_line, table_row
from trainer.training.trackers.trackers import Trackers

L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths that are tried without `model.head.l2`; each fit starts from the one before.

For N rows, C of scikit-learn is 1 / (N l2). With several labels a row, this is C of each label.
"""


@dataclass(frozen=True)
class HeadRows:
    """The rows that a head is trained and chosen on.

    Attributes:
        train: training rows.
        positions: rows of `train` that are used; a repeated one counts as often as it occurs.
        validation: rows on which the best L2 strength is chosen.
        labels: names of the classes.
        minority_label: label whose recall is shown in the table.
    """

    train: TokenisedRows
    positions: Ints
    validation: TokenisedRows
    labels: list[str]
    minority_label: str


@dataclass(frozen=True)
class HeadFit:
    """What is minimised when a head is fitted.

    Attributes:
        loss: a loss of one of the LOSS_FAMILIES.
        loss_options: function (rows of each class) -> further arguments of the loss.
        weigh: function (rows of each class) -> class weights, as the loss takes them.
        l2: strength of the penalty; None chooses one of L2_GRID by the metric on validation.
        synthesise: function (features, label ids) -> the same with synthetic rows appended.
    """

    loss: Callable[..., Tensor]
    loss_options: Callable[[Ints], dict[str, Any]]
    weigh: Callable[[Ints], Floats]
    l2: float | None = None
    synthesise: Callable[[Floats32, Ints], tuple[Floats32, Ints]] | None = None


@dataclass(frozen=True)
class Scaler:
    """Shift and scale of each feature to mean 0 and variance 1."""

    mean_H: Floats
    deviation_H: Floats

    @classmethod
    def of(cls, features_NH: Floats32, *, centre: bool) -> "Scaler":
        """Return the scaler of some rows; constant features keep their scale.

        Args:
            features_NH: features of the rows.
            centre: whether to shift the mean to 0.
        """
        deviation_H = features_NH.std(axis=0, dtype=np.float64)
        mean_H = features_NH.mean(axis=0, dtype=np.float64)
        return cls(
            mean_H if centre else np.zeros_like(mean_H),
            np.where(deviation_H > 1e-6 * (1 + np.abs(mean_H)), deviation_H, 1.0),
        )

    def scaled(self, features_NH: Floats32) -> Tensor:
        """Return scaled features in float32."""
        return torch.from_numpy(((features_NH - self.mean_H) / self.deviation_H).astype(np.float32))

    def fold(self, weight_CH: Tensor, bias_C: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias for raw features that give the same logits as for scaled ones."""
        folded_CH = weight_CH.detach().double() / torch.from_numpy(self.deviation_H)
        if bias_C is None:
            return folded_CH.float(), None
        shift_C = folded_CH @ torch.from_numpy(self.mean_H)
        return folded_CH.float(), (bias_C.detach().double() - shift_C).float()


class HeadTrainer:
    """A trainer of the final Linear layer of a model whose other weights stay unchanged.

    Args:
        model: text classifier; its final layer is replaced.
        tokenizer: tokenizer that is saved with the model.
        args: arguments, of which label_smoothing_factor, metric_for_best_model, greater_is_better,
            max_steps (iterations of one fit) and the device are used.
        rows: rows to train and to choose on.
        fit: what is minimised.
        cache_dir: folder of the embeddings.
        write_epochs: function that saves the table of fits.
        trackers: the trackers of `training.report_to`, which log each fit.
    Attributes:
        counts_C: rows of each class that the head was trained on, with synthetic rows.
        class_weights_C: their weights.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        args: TrainingArguments,
        rows: HeadRows,
        fit: HeadFit,
        cache_dir: Path,
        write_epochs: Callable[[list[dict[str, float]]], None],
        trackers: Trackers,
    ) -> None:
        self.model, self.tokenizer, self.args = model, tokenizer, args
        self.rows, self.fit = rows, fit
        self.cache_dir, self.write_epochs = cache_dir, write_epochs
        self.trackers, self.state = trackers, TrainerState()
        self.metrics = epoch_metrics(rows.labels, rows.minority_label)
        self.final = model.get_submodule(final_layer(model))
        self.fits: list[dict[str, float]] = []
        self.best_step: int | None = None
        self._weigh(rows.train.label_ids_N[rows.positions])
        model.requires_grad_(False)
        self.final.requires_grad_(True)
        self.num_trained = model.num_parameters(only_trainable=True)
        self.num_parameters = model.num_parameters()

    def _weigh(self, targets: Array) -> None:
        self.counts_C = count_labels(targets, len(self.rows.labels))
        self.class_weights_C = self.fit.weigh(self.counts_C)

    def run(self, checkpoint: str | None = None) -> dict[str, Any]:
        """Embed the rows, fit each strength, and keep the best one on validation.

        Returns:
            The entries of metrics.json under `training`.
        """
        moment = self.args, self.state, TrainerControl()
        self.trackers.on_train_begin(*moment, model=self.model)
        begin, peak = time.perf_counter(), PeakMemory(self.args.device)
        positions = self.rows.positions
        features_NH = self._features(self.rows.train)[positions]
        targets = self.rows.train.label_ids_N[positions]
        validation_NH = self._features(self.rows.validation)
        embedded = time.perf_counter()
        if self.fit.synthesise:
            features_NH, targets = self.fit.synthesise(features_NH, targets)
            self._weigh(targets)
        iterations = self._fit_grid(features_NH, targets, validation_NH)
        seconds = time.perf_counter() - embedded
        self.trackers.on_train_end(*moment)
        return {
            "seconds": seconds,
            "rows_per_second": iterations * len(targets) / seconds,
            **peak.figures(),
            "steps": iterations,
            "embedding_seconds": embedded - begin,
        }

    def _fit_grid(self, features_NH: Floats32, targets: Array, validation_NH: Floats32) -> int:
        """Fit every strength, the strongest first, and keep the best; return all iterations."""
        args, bias = self.args, self.final.bias
        scaler = Scaler.of(features_NH, centre=bias is not None)
        scaled_NH = scaler.scaled(features_NH)
        targets_of_rows = torch.from_numpy(np.ascontiguousarray(targets))
        answers_per_row = targets[0].size  # 1, or the labels
        loss = step_loss(
            self.fit.loss,
            self.class_weights_C,
            self.fit.loss_options(self.counts_C),
            label_smoothing=args.label_smoothing_factor,
        )
        weight_CH = torch.zeros(self.final.weight.shape)
        bias_C = None if bias is None else torch.zeros(bias.shape)
        cap = args.max_steps if args.max_steps > 0 else MAX_ITERATIONS
        sign = 1 if args.greater_is_better else -1
        best, iterations = -np.inf, 0
        print("  ".join(headings(head=True)))
        for number, l2 in enumerate(L2_GRID if self.fit.l2 is None else (self.fit.l2,), start=1):
            training_loss, steps = fit_linear(
                scaled_NH, targets_of_rows, loss, weight_CH, bias_C, l2=l2, max_iterations=cap
            )
            iterations += steps
            training_loss /= answers_per_row
            folded = scaler.fold(weight_CH, bias_C)
            logits_NC = self._logits(validation_NH, *folded)
            measured = self.metrics(EvalPrediction(logits_NC, self.rows.validation.label_ids_N))
            self.fits.append(table_row(training_loss, number, iterations, measured) | {"l2": l2})
            print(table_line(self.fits[-1]), flush=True)
            self.write_epochs(self.fits)
            self._track({"loss": training_loss, "l2": l2}, number, iterations, measured)
            score = sign * measured[str(args.metric_for_best_model)]
            if score > best:  # the stronger penalty wins a tie
                best, self.best_step = score, iterations
                with torch.no_grad():
                    for parameter, value in zip(self.final.parameters(), folded, strict=False):
                        parameter.copy_(value)
        return iterations

    def _track(
        self, logs: dict[str, float], number: int, step: int, measured: dict[str, float]
    ) -> None:
        """Log a fit to the trackers."""
        self.state.global_step, self.state.epoch = step, number
        logs |= {"epoch": number} | {f"eval_{name}": value for name, value in measured.items()}
        self.trackers.on_log(self.args, self.state, TrainerControl(), logs=logs)

    def epoch_rows(self) -> list[dict[str, float]]:
        """Return the table, with one row for each strength.

        `epoch` is the number of the fit, and `step` counts the iterations of L-BFGS so far.
        """
        return self.fits

    def describe(self) -> list[str]:
        """Return sentences about the training for the model card."""
        best = next(row for row in self.fits if row["step"] == self.best_step)
        chosen = (
            f"chosen of {len(self.fits)} by `{self.args.metric_for_best_model}` on validation"
            if len(self.fits) > 1
            else "as configured"
        )
        model, collate = self.model, Collator(self.tokenizer)
        needs_equal_lengths = fit_collator(
            lambda batch: model(**batch).logits, model.config, model.device, collate
        )
        return [
            *([EQUAL_LENGTHS] if needs_equal_lengths else []),
            f"`model.mode`: head, {self.num_trained:,} of {self.num_parameters:,} parameters;"
            " the encoder is frozen, each row was embedded once",
            "final layer fitted by L-BFGS over all rows at once;"
            f" L2 strength {best['l2']:g}, {chosen}",
        ]

    def predict_logits(self, dataset: TokenisedRows) -> Floats32:
        """Return the logits in the order of the rows, from cached embeddings."""
        return self._logits(self._features(dataset), self.final.weight, self.final.bias)

    def _logits(self, features_NH: Floats32, weight_CH: Tensor, bias_C: Tensor | None) -> Floats32:
        """Return the logits of a final layer, computed in blocks of rows to save memory."""
        num_labels, folder = len(self.rows.labels), Path(str(self.args.output_dir)).parent
        logits_NC: Floats32 = room((len(features_NH), num_labels), np.float32, folder)
        size = max(1, MOST_IN_MEMORY // (4 * num_labels))
        for start in range(0, len(features_NH), size):
            block = slice(start, start + size)
            with torch.no_grad():
                logits_NC[block] = torch.nn.functional.linear(
                    torch.from_numpy(features_NH[block]), weight_CH, bias_C
                ).numpy()
            release(logits_NC)
        return logits_NC

    def save_model(self, folder: str) -> None:
        """Save the whole model, as an ordinary sequence classifier, and its tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _features(self, rows: TokenisedRows) -> Floats32:
        """Return the embeddings (N, H) in the order of the rows."""
        return embed(
            self.model,
            rows,
            Collator(self.tokenizer),
            device=self.args.device,
            cache_dir=self.cache_dir,
        )
