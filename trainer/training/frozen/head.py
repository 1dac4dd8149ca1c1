"""The head alone, on embeddings of a frozen encoder: L-BFGS over all rows at once. Legend: N rows, H features, C classes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction, TrainingArguments

from trainer.arrays import Floats, Floats32, Ints
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.blocks import MOST_IN_MEMORY, release, room
from trainer.training.batches.batching import Collator
from trainer.training.frozen.embed import embed
from trainer.training.losses import step_loss
from trainer.training.models.layers import final_layer, trainable_parameters
from trainer.training.models.model_checks import EQUAL_LENGTHS, fit_collator
from trainer.training.peak_memory import PeakMemory
from trainer.training.progress import COLUMNS, headings, table_line
from trainer.training.weighted_trainer import epoch_metrics

L2_GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths tried where `model.head.l2` is left out, each fit starting from the one before; for N rows, scikit-learn's C is 1 / (N l2)."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class Scaler:
    """Shift and scale of each feature to mean 0 and variance 1."""

    mean_H: Floats
    deviation_H: Floats

    @classmethod
    def of(cls, features_NH: Floats32, *, centre: bool) -> "Scaler":
        """Statistics of some rows; constant features keep their scale, and without `centre` the mean counts as 0."""
        deviation_H = features_NH.std(axis=0, dtype=np.float64)
        mean_H = features_NH.mean(axis=0, dtype=np.float64)
        return cls(
            mean_H if centre else np.zeros_like(mean_H),
            np.where(deviation_H > 1e-6 * (1 + np.abs(mean_H)), deviation_H, 1.0),
        )

    def scaled(self, features_NH: Floats32) -> Tensor:
        """Scaled features in float32."""
        return torch.from_numpy(((features_NH - self.mean_H) / self.deviation_H).astype(np.float32))

    def fold(self, weight_CH: Tensor, bias_C: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that give for raw features what these give for scaled ones."""
        folded_CH = weight_CH.detach().double() / torch.from_numpy(self.deviation_H)
        shift_C = folded_CH @ torch.from_numpy(self.mean_H)
        return folded_CH.float(), None if bias_C is None else (
            bias_C.detach().double() - shift_C
        ).float()


def fit_linear(
    features_NH: Tensor,
    label_ids_N: Tensor,
    loss: Callable[..., Tensor],
    weight_CH: Tensor,
    bias_C: Tensor | None,
    *,
    l2: float,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[float, int]:
    """Minimise mean loss + l2 / 2 |weight|^2 from the weight and bias given, which are changed in place.

    Args:
        loss: (outputs with .logits, label ids, number of rows) -> loss over that number, as `step_loss` gives.
        l2: strength of the penalty, which spares the bias, as scikit-learn's does.
    Returns:
        Mean loss without the penalty, in nats, and L-BFGS iterations.
    """
    parameters = [weight_CH] if bias_C is None else [weight_CH, bias_C]
    for parameter in parameters:
        parameter.requires_grad_()
    limits = {
        "max_iter": max_iterations,
        "max_eval": 4 * max_iterations,
        "tolerance_grad": 1e-6,
        "tolerance_change": 1e-10,
    }
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **limits)

    def mean_loss() -> Tensor:
        logits_NC = torch.nn.functional.linear(features_NH, weight_CH, bias_C)
        return loss(SimpleNamespace(logits=logits_NC), label_ids_N, len(label_ids_N))

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = mean_loss() + l2 / 2 * weight_CH.square().sum()
        value.backward()
        return value

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return mean_loss().item(), int(optimizer.state[weight_CH]["n_iter"])


class HeadTrainer:
    """What pipeline needs of a trainer, for the final Linear layer of a model whose other weights stay.

    Args:
        model: its final layer is replaced; the layers before it are left as they are.
        args: of which label_smoothing_factor, metric_for_best_model, greater_is_better, max_steps
            (iterations of one fit) and the device are used.
        positions: rows of `train_rows` to train on; one that stands there twice counts twice.
        synthesise: (features, label ids) -> the same with synthetic rows behind, or None.
        weigh: rows of each class -> class weights.
        loss: an entry of trainer.training.losses.LOSSES.
        loss_options: rows of each class -> what that loss takes beside class weights.
        l2: strength of the penalty; None chooses from L2_GRID by the metric on validation.
    Attributes:
        counts_C: rows of each class that the head was trained on, synthetic ones among them.
        class_weights_C: their weights.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Any,
        args: TrainingArguments,
        train_rows: TokenisedRows,
        positions: Ints,
        validation_rows: TokenisedRows,
        labels: list[str],
        minority_label: str,
        weigh: Callable[[Ints], Floats],
        loss: str,
        loss_options: Callable[[Ints], dict[str, Any]],
        synthesise: Callable[[Floats32, Ints], tuple[Floats32, Ints]] | None,
        l2: float | None,
        cache_dir: Path,
        write_epochs: Callable[[list[dict[str, float]]], None],
    ) -> None:
        self.model, self.tokenizer, self.args, self.labels = model, tokenizer, args, labels
        self.train_rows, self.positions, self.validation_rows = (
            train_rows,
            positions,
            validation_rows,
        )
        self.weigh, self.loss, self.loss_options, self.synthesise, self.l2 = (
            weigh,
            loss,
            loss_options,
            synthesise,
            l2,
        )
        self.cache_dir, self.write_epochs = cache_dir, write_epochs
        self.metrics = epoch_metrics(labels, minority_label)
        self.final = model.get_submodule(final_layer(model))
        self.rows: list[dict[str, float]] = []
        self.best_step: int | None = None
        self.counts_C: Ints = np.bincount(train_rows.label_ids_N[positions], minlength=len(labels))
        self.class_weights_C = weigh(self.counts_C)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.final.parameters():
            parameter.requires_grad_(True)
        self.num_trained, self.num_parameters = trainable_parameters(model)

    def run(self, checkpoint: str | None = None) -> dict[str, Any]:
        """Embed, fit each strength, keep the best on validation; what metrics.json holds under `training`."""
        begin, peak = time.perf_counter(), PeakMemory(self.args.device)
        features_NH, label_ids_N = (
            self._features(self.train_rows)[self.positions],
            self.train_rows.label_ids_N[self.positions],
        )
        validation_NH = self._features(self.validation_rows)
        embedded = time.perf_counter()
        if self.synthesise:
            features_NH, label_ids_N = self.synthesise(features_NH, label_ids_N)
            self.counts_C = np.bincount(label_ids_N, minlength=len(self.labels))
            self.class_weights_C = self.weigh(self.counts_C)
        iterations = self._fit_grid(features_NH, label_ids_N, validation_NH)
        seconds = time.perf_counter() - embedded
        return {
            "seconds": seconds,
            "rows_per_second": iterations * len(label_ids_N) / seconds,
            **peak.figures(),
            "steps": iterations,
            "embedding_seconds": embedded - begin,
        }

    def _fit_grid(self, features_NH: Floats32, label_ids_N: Ints, validation_NH: Floats32) -> int:
        """Fit every strength from strong to weak, note a line of the table for each, keep the best; L-BFGS iterations of all."""
        scaler = Scaler.of(features_NH, centre=self.final.bias is not None)
        scaled_NH, targets_N = (
            scaler.scaled(features_NH),
            torch.from_numpy(np.ascontiguousarray(label_ids_N)),
        )
        smoothing = (
            {"label_smoothing": self.args.label_smoothing_factor}
            if self.args.label_smoothing_factor
            else {}
        )
        weights_C = torch.as_tensor(self.class_weights_C, dtype=torch.float32)
        loss = step_loss(self.loss, weights_C, self.loss_options(self.counts_C) | smoothing)
        weight_CH = torch.zeros(self.final.weight.shape)
        bias_C = None if self.final.bias is None else torch.zeros(len(self.labels))
        sign = 1 if self.args.greater_is_better else -1
        best, iterations = -np.inf, 0
        print("  ".join(headings(head=True)))
        for number, l2 in enumerate(L2_GRID if self.l2 is None else (self.l2,), start=1):
            cap = self.args.max_steps if self.args.max_steps > 0 else MAX_ITERATIONS
            training_loss, steps = fit_linear(
                scaled_NH, targets_N, loss, weight_CH, bias_C, l2=l2, max_iterations=cap
            )
            iterations += steps
            folded = scaler.fold(weight_CH, bias_C)
            logits_NC = self._logits(validation_NH, *folded)
            measured = self.metrics(EvalPrediction(logits_NC, self.validation_rows.label_ids_N))
            values = (
                training_loss,
                number,
                iterations,
                *(measured[name] for name in ("loss", *COLUMNS[4:])),
            )
            self.rows.append(dict(zip(COLUMNS, values, strict=True)) | {"l2": l2})
            print(table_line(self.rows[-1]), flush=True)
            self.write_epochs(self.rows)
            score = sign * measured[str(self.args.metric_for_best_model)]
            if score > best:  # of equals the stronger penalty
                best, self.best_step = score, iterations
                self._keep(*folded)
        return iterations

    def _keep(self, weight_CH: Tensor, bias_C: Tensor | None) -> None:
        with torch.no_grad():
            self.final.weight.copy_(weight_CH)
            if bias_C is not None:
                self.final.bias.copy_(bias_C)

    def epoch_rows(self) -> list[dict[str, float]]:
        """The table, a line for each strength tried: `epoch` counts them, `step` the L-BFGS iterations so far."""
        return self.rows

    def finish_trackers(self) -> None:
        """It has none: nothing is logged to trackers while a head is fitted."""

    def describe(self) -> list[str]:
        """What the card says of the training, a sentence each."""
        best = next(row for row in self.rows if row["step"] == self.best_step)
        chosen = (
            f"chosen of {len(self.rows)} by `{self.args.metric_for_best_model}` on validation"
            if len(self.rows) > 1
            else "as configured"
        )
        model, collate = self.model, Collator(self.tokenizer)
        needs_equal_lengths = fit_collator(
            lambda batch: model(**batch).logits, model.config, model.device, collate
        )
        return [
            *([EQUAL_LENGTHS] if needs_equal_lengths else []),
            f"`model.mode`: head, {self.num_trained:,} of {self.num_parameters:,} parameters; the encoder is frozen, each row was embedded once",
            f"final layer fitted by L-BFGS over all rows at once; L2 strength {best['l2']:g}, {chosen}",
        ]

    def predict_logits(self, dataset: TokenisedRows) -> Floats32:
        """Logits in the order of `dataset`, from the cached embeddings and the final layer that is saved."""
        return self._logits(self._features(dataset), self.final.weight, self.final.bias)

    def _logits(self, features_NH: Floats32, weight_CH: Tensor, bias_C: Tensor | None) -> Floats32:
        """What a final layer makes of features, in blocks of rows that are small beside what is held."""
        logits_NC: Floats32 = room(
            (len(features_NH), len(self.labels)), np.float32, Path(str(self.args.output_dir)).parent
        )
        size = max(1, MOST_IN_MEMORY // (4 * len(self.labels)))
        for start in range(0, len(features_NH), size):
            rows = slice(start, start + size)
            with torch.no_grad():
                logits_NC[rows] = torch.nn.functional.linear(
                    torch.from_numpy(features_NH[rows]), weight_CH, bias_C
                ).numpy()
            release(logits_NC)
        return logits_NC

    def save_model(self, folder: str) -> None:
        """Write the whole model, an ordinary one for sequence classification, and its tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _features(self, rows: TokenisedRows) -> Floats32:
        """Embeddings (N, H) of the rows as they stand."""
        return embed(
            self.model,
            rows,
            Collator(self.tokenizer),
            device=self.args.device,
            cache_dir=self.cache_dir,
        )
