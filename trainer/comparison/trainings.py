"""Of the story: one training of a comparison, a cell: one strategy, one seed, one fold. Its folder is a run folder without test rows, pictures and card."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from trainer.arrays import Ints
from trainer.comparison.strategies import MULTI_LABEL
from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS, BalanceSection, LossSection
from trainer.data.augmenting.augment import SyntheticRows, write_rows
from trainer.data.balancing.balance import BalancePlan
from trainer.data.cleaning.clean import CleanRows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import hub_commits
from trainer.data.split_rows import Fold
from trainer.data.splitting.split import Splits
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.delivery.predicting.evaluate_file import classify_texts, logarithms
from trainer.delivery.predicting.predict import Classifier
from trainer.errors import ConfigError
from trainer.evaluation.outcome import outcome_of
from trainer.files.cache import cache_dir
from trainer.launch import distributed, stopping
from trainer.run_folder import writer
from trainer.run_folder.environment import Commits, describe_environment
from trainer.runs import results, training_run
from trainer.runs.preparation import tokenise_splits
from trainer.runs.trainers import build_head_trainer, build_trainer
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import refuse_small_steps
from trainer.training.frozen.synthesis import refuse_few_rows
from trainer.training.memory import naming_lack, release
from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer, pinned
from trainer.training.models.model_weights import check_weights
from trainer.training.resuming.checkpoints import saving

TEST_PREDICTIONS = "test.parquet"
"""What a cell said of the test rows, for the few cells that are asked."""
WARM_UP_STEPS, TIMED_STEPS = 3, 10
"""Of a strategy whose budget is in seconds, before anything is trained."""


@dataclass(frozen=True)
class Rows:
    """What all cells of a fold share.

    Attributes:
        splits: without test, which no cell is handed.
        test: row ids of test; empty without one.
        plain: the data without any balancing.
        tokens: of every training row and of validation.
    """

    clean: CleanRows
    splits: Splits
    test: Ints
    synthetic: SyntheticRows | None
    plain: PreparedData
    tokens: dict[str, TokenisedRows]


@dataclass(frozen=True)
class Ground:
    """What all cells of a comparison share.

    Attributes:
        config: as given, with what the hardware decides; its model is pinned to a commit.
        rows: by fold; without folds under None alone.
    """

    config: Config
    pretrained: Any
    tokenizer: Any
    max_length: int
    rows: dict[int | None, Rows]
    commits: Commits

    @property
    def words(self) -> str:
        """How many rows do what."""
        rows = next(iter(self.rows.values()))
        of_fold = "" if len(self.rows) == 1 else f" (in the first of {len(self.rows)} folds)"
        waiting = (
            f"{len(rows.test):,} test rows wait for the end"
            if self.has_test
            else "there are no test rows"
        )
        return f"{len(rows.splits.train):,} rows train, {len(rows.splits.validation):,} validate{of_fold}, {waiting}."

    @property
    def has_test(self) -> bool:
        """Whether there are test rows."""
        return len(next(iter(self.rows.values())).test) > 0

    @property
    def plain(self) -> PreparedData:
        """The data without any balancing, of the first fold."""
        return next(iter(self.rows.values())).plain


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        config: of a whole run; its run folder is the cell's.
        fold: which fold validates, from 0; None for the one validation split.
    """

    strategy: str
    config: Config
    fold: int | None = None

    @cached_property
    def path(self) -> Path:
        """The cell's folder."""
        return self.config.run_path

    @property
    def name(self) -> str:
        """What a progress bar calls it."""
        return f"{self.strategy}, seed {self.config.run.seed}" + (
            "" if self.fold is None else f", fold {self.fold + 1}"
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        found: dict[str, Any] = json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))
        return found

    def figure(self, name: str) -> float:
        """A figure of validation that counts: with the decision where there is one."""
        metrics = self.metrics
        final = metrics.get("decision", metrics)["validation"]
        kind, _, of_class = name.partition("_")
        return float(
            final["per_class"][metrics["minority_label"]][of_class]
            if kind == "minority"
            else final[name]
        )

    @property
    def is_finished(self) -> bool:
        """Whether its results lie there."""
        return (self.path / "metrics.json").is_file()


@dataclass(frozen=True)
class Budget:
    """What every strategy may spend. Legend: B rows of an optimizer step.

    Attributes:
        kind: steps, rows or seconds; `fit` where a head is fitted to its end.
        amount: how many of them.
        evaluations: how often each is evaluated on validation, evenly; None as the config says.
    """

    kind: str
    amount: float
    evaluations: int | None
    rows_per_step: int

    @property
    def words(self) -> str:
        """The budget as people say it."""
        if self.kind == "fit":
            return "every head is fitted to its end, on embeddings of the frozen encoder"
        amount = (
            f"{self.amount:,.0f} optimizer steps of {self.rows_per_step:,} rows"
            if self.kind == "steps"
            else f"{self.amount:,g} {self.kind} of training"
        )
        return f"{amount} for every strategy" + (
            f", evaluated {self.evaluations} times"
            if self.evaluations and self.evaluations > 1
            else ""
        )

    def training(self, steps: int) -> dict[str, Any]:
        """Keys of the `training` section that make a run of so many steps, rounded up to whole evaluations."""
        fixed = {"early_stopping_patience": None}
        if self.evaluations is None:
            return fixed | {"max_steps": steps}
        each = max(1, math.ceil(steps / self.evaluations))
        every = {
            f"{what}_{key}": value
            for what in ("eval", "save", "logging")
            for key, value in (("strategy", "steps"), ("steps", each))
        }
        return fixed | every | {"max_steps": each * self.evaluations}

    @classmethod
    def of(cls, config: Config, plain: PreparedData, mode: str) -> "Budget":
        """As the config says, for the training rows as they are."""
        training, asked = config.training_values, config.compare
        rows_per_step = training["per_device_train_batch_size"] * (
            training.get("gradient_accumulation_steps") or 1
        )
        if mode == "head":
            return cls("fit", 0, None, rows_per_step)
        epochs, (num_rows, num_steps) = (
            training["num_train_epochs"],
            _epoch(plain.plan, rows_per_step, training),
        )
        given = training.get("max_steps") or -1
        steps = given if given > 0 else math.ceil(epochs * num_steps)
        rows = given * rows_per_step if given > 0 else math.ceil(epochs * num_rows)
        evaluations = {
            "epoch": round(epochs),
            "steps": steps // max(1, int(training.get("eval_steps") or 1)),
            "no": 0,
        }[training["eval_strategy"]]
        amount = asked.amount or {"steps": steps, "rows": rows}[asked.budget]
        budget = cls(
            asked.budget,
            amount,
            None if training["eval_strategy"] == "no" else max(1, evaluations),
            rows_per_step,
        )
        return (
            replace(budget, amount=budget.training(math.ceil(amount))["max_steps"])
            if asked.budget == "steps"
            else budget
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for comparison.json."""
        return {
            "kind": self.kind,
            "amount": self.amount,
            "evaluations": self.evaluations,
            "words": self.words,
        }

    def steps_of(self, plan: BalancePlan, training: dict[str, Any]) -> int:
        """Steps in which a strategy sees the budget's rows."""
        num_rows, num_steps = _epoch(plan, self.rows_per_step, training)
        epochs, rest = divmod(math.ceil(self.amount), max(1, num_rows))
        return epochs * num_steps + math.ceil(rest * num_steps / max(1, num_rows))


def _epoch(plan: BalancePlan, rows_per_step: int, training: dict[str, Any]) -> tuple[int, int]:
    """Rows and optimizer steps of an epoch, as `StepBatchSampler` makes them: balanced steps hold every class equally, and the last may be left out."""
    each = (
        rows_per_step // plan.num_labels * plan.num_labels
        if plan.balanced_batches
        else rows_per_step
    )
    whole, rest = divmod(len(plan.positions()), max(1, each))
    return (
        (whole * each, whole)
        if training.get("dataloader_drop_last")
        else (whole * each + rest, whole + (rest > 0))
    )


def prepare_ground(config: Config) -> Ground:
    """Rows read, cleaned, split and tokenised, once for all cells.

    Raises:
        TrainerError: bad rows or a bad model; data that have several labels a row.
    """
    pretrained = load_pretrained_config(config.model)
    model = pinned(config.model)
    commits: Commits = {
        "model": {} if model is config.model else {config.model.name: model.revision},
        "data": hub_commits(config.data),
    }
    tokenizer, max_length = load_tokenizer(model, pretrained)
    check_weights(model)
    folds = [None] if config.compare.folds is None else list(range(config.compare.folds))
    rows = {fold: _prepare_rows(config, fold, tokenizer, max_length) for fold in folds}
    return Ground(
        config.model_copy(update={"model": model}), pretrained, tokenizer, max_length, rows, commits
    )


def _prepare_rows(config: Config, fold: int | None, tokenizer: Any, max_length: int) -> Rows:
    seed, folder, number = (
        config.run.seed,
        cache_dir(),
        None if fold is None else Fold(fold, config.compare.folds or 0),
    )
    clean, splits = read_splits(
        config.data,
        config.split,
        BalanceSection(by=config.balance.by),
        seed=seed,
        cache_dir=folder,
        fold=number,
    )
    if clean.label_matrix_NC is not None:
        raise ConfigError(MULTI_LABEL)
    synthetic = (
        None
        if config.augment.generator == "none"
        else write_rows(clean, splits, config.augment, seed=seed, cache_dir=folder)
    )
    test, splits = (
        splits.test,
        replace(splits, test=splits.test[:0]),
    )  # which were needed to reject synthetic rows that are like them
    plain = balance_splits(
        clean, splits, BalanceSection(), LossSection(), seed=seed, synthetic=synthetic
    )
    return Rows(
        clean,
        splits,
        test,
        synthetic,
        plain,
        tokenise_splits(plain, tokenizer, max_length),
    )


def balance_cell(cell: Cell, ground: Ground) -> PreparedData:
    """The rows as the cell's strategy draws and weighs them.

    Raises:
        TrainerError: rows or labels that the strategy cannot work with.
    """
    config, rows = cell.config, ground.rows[cell.fold]
    data = balance_splits(
        rows.clean,
        rows.splits,
        config.balance,
        config.loss,
        seed=config.run.seed,
        synthetic=rows.synthetic,
    )
    if config.balance.method in SYNTHESIS_METHODS:
        refuse_few_rows(
            config.balance.method, data.plan.counts_C, data.labels, config.balance.neighbours
        )
    if data.plan.balanced_batches:
        training = config.training_values
        refuse_small_steps(
            len(data.labels),
            training["per_device_train_batch_size"],
            training.get("gradient_accumulation_steps") or 1,
            1,
        )
    results.decision_plan(config, data)
    return data


def train_cell(cell: Cell, ground: Ground, *, keeps_model: bool) -> None:
    """Train the cell, or go on with it, and write what it did on validation; what it prints goes into its training.log.

    Args:
        keeps_model: the saved model will be asked about test rows.
    Raises:
        TrainerError: what the strategy cannot do, or the training; Stopped on a signal, after a checkpoint.
    """
    begin, config, data = time.perf_counter(), cell.config, balance_cell(cell, ground)
    release()  # the model of the cell before
    folder = writer.RunFolder(cell.path)
    checkpoint = writer.plan_run(
        folder.path, config.to_dict(), data.clean.fingerprint, overwrite=True, resume="auto"
    )
    if not checkpoint:
        writer.start_run(folder.path, config.to_dict())
    with (
        (folder.path / "training.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
        naming_lack(config.model.name),
        stopping.at_agreed_steps(),
    ):
        environment = describe_environment(
            data.clean.fingerprint, data.clean.counts, distributed.world_size(), ground.commits
        )
        folder.write_json("environment.json", environment)
        build = trainer_builder(cell, ground, data, folder)
        trainer, clock = training_run.run_trainer(build, folder, checkpoint)
        if config.model.mode == "lora":
            trainer.merge_adapter(folder.path / "adapter.partial")
        if config.balance.method in SYNTHESIS_METHODS:
            data = data.with_synthetic(trainer.counts_C, trainer.class_weights_C)
        metrics = _judge(cell, folder, data, ground, trainer, keeps_model=keeps_model)
        folder.finish(
            metrics | {"training": clock | {"wall_seconds": time.perf_counter() - begin}}
        )  # since its last start
        trainer.finish_trackers()


def trainer_builder(
    cell: Cell, ground: Ground, data: PreparedData, folder: writer.RunFolder
) -> Callable[[], Any]:
    """Function that makes the cell's trainer, each time from the pretrained weights and with the head of the cell's seed."""
    from transformers import set_seed

    config, tokens = cell.config, ground.rows[cell.fold].tokens
    model_section = ground.config.model.model_copy(update={"mode": config.model.mode})
    given = {"train": tokens["train"].take(data.plan.seen), "validation": tokens["validation"]}
    arguments = build_arguments(
        config.training_values, checkpoints=folder.checkpoints, seed=config.run.seed
    )

    def build() -> Any:
        set_seed(config.run.seed)
        model = load_model(
            model_section, ground.pretrained, data.labels, ground.tokenizer, ground.max_length
        )
        if config.model.mode == "head":
            return build_head_trainer(
                config, arguments, data, model, ground.tokenizer, given, folder, cache_dir()
            )
        return build_trainer(config, arguments, data, model, ground.tokenizer, given, folder)

    return build


def _judge(
    cell: Cell,
    folder: writer.RunFolder,
    data: PreparedData,
    ground: Ground,
    trainer: Any,
    *,
    keeps_model: bool,
) -> dict[str, Any]:
    """What metrics.json holds of validation; predictions, and the model with its decision, are written."""
    plan, validation = (
        results.decision_plan(cell.config, data),
        {"validation": ground.rows[cell.fold].tokens["validation"]},
    )
    outcomes, decision = results.evaluate_splits(
        trainer, data, validation, plan, cell.config.run.seed
    )
    decided = (
        results.apply_decision(cell.config, data, trainer.model, decision, plan)
        if decision and plan
        else None
    )
    if keeps_model:
        with saving(folder.model, folder.checkpoints):
            trainer.save_model(str(folder.path / "model.partial"))
        folder.publish_model()
    outcome = outcomes["validation"]
    folder.write_predictions(
        {"validation": (data.splits.validation, outcome)}, data.labels, keep_all=True
    )
    metrics: dict[str, Any] = {
        "validation": outcome.alone.to_dict(),
        "minority_label": data.summary.minority_label,
    }
    return metrics | (
        {"decision": decided | {"validation": outcome.final.to_dict()}} if decided else {}
    )


def steps_in(seconds: float, cell: Cell, ground: Ground) -> int:
    """Optimizer steps of the cell's strategy that take so long here, measured on a few that are thrown away."""
    nothing = {
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "load_best_model_at_end": False,
        "early_stopping_patience": None,
    }
    data = balance_cell(cell, ground)
    with (
        tempfile.TemporaryDirectory() as scratch,
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
        stopping.at_agreed_steps(),
    ):
        folder = writer.RunFolder(Path(scratch))
        for steps in (WARM_UP_STEPS, TIMED_STEPS):
            timed = replace(cell, config=cell.config.with_training(**nothing, max_steps=steps))
            build = trainer_builder(timed, ground, data, folder)
            trainer, clock = training_run.run_trainer(build, folder, None)
            trainer.finish_trackers()
            del trainer  # the next one needs its memory
            release()
    return max(1, int(seconds * clock["steps"] / clock["seconds"]))


def judge_test(cell: Cell, ground: Ground) -> None:
    """Let the cell's saved model judge the test rows, once, as every deployed model judges; where the model is gone, it is trained again."""
    if (cell.path / TEST_PREDICTIONS).is_file():
        return
    source, again = cell.path, cell.path.with_name(f"{cell.path.name}.again")
    if not (cell.path / "model").is_dir():
        print(
            f"{cell.name}: its model was not kept; it is trained again for the test rows.",
            flush=True,
        )
        values = cell.config.to_dict()
        copy = replace(
            cell,
            config=Config.model_validate(values | {"run": values["run"] | {"name": again.name}}),
        )
        if not copy.is_finished:
            train_cell(copy, ground, keeps_model=True)
        source = again
    rows = ground.rows[cell.fold]
    classifier = Classifier.load(
        source / "model",
        trust_remote_code=ground.config.model.trust_remote_code,
        device=distributed.device_type(use_cpu=ground.config.uses_cpu),
    )
    p_NC, decided_N = classify_texts(classifier, rows.clean.rows, rows.test, cell.path)
    log_p_NC = logarithms(p_NC, cell.path)
    outcome = outcome_of(
        log_p_NC, rows.clean.label_ids_N[rows.test], classifier.labels, (log_p_NC, decided_N), None
    )
    writer.RunFolder(cell.path).write_predictions(
        {"test": (rows.test, outcome)}, classifier.labels, TEST_PREDICTIONS, keep_all=True
    )
    shutil.rmtree(again, ignore_errors=True)
