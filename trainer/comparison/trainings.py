"""One training of a comparison: one strategy, one seed and, with folds, one fold.

Its folder is a run folder without test rows, pictures and model card.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.comparison.compared_predictions import (
    DECIDED,
    SELECTION,
    THRESHOLDS,
    evaluate,
    metric_of,
    save_labels,
    thresholded_labels,
)
from trainer.comparison.shared_data import SharedData
from trainer.comparison.strategies import with_thresholds
from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.prepare import balance_splits
from trainer.data.prepared_data import PreparedData
from trainer.delivery.predicting.evaluate_file import classify_texts, logarithms
from trainer.delivery.predicting.predict import Classifier
from trainer.evaluation.outcome import outcome_of
from trainer.evaluation.scores import LogProbabilities
from trainer.files.cache import cache_dir
from trainer.launch import distributed, stopping
from trainer.run_folder import config_differences, writer
from trainer.run_folder.environment import describe_environment
from trainer.runs import run_decision, training_run
from trainer.runs.trainers import build_head_trainer, build_trainer
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import refuse_small_steps
from trainer.training.frozen.synthesis import refuse_few_rows
from trainer.training.memory import naming_lack, release
from trainer.training.models.model import load_model
from trainer.training.resuming.checkpoints import saving
from trainer.training.trackers.tracked_run import TrackedRun
from trainer.training.trackers.trackers import Trackers

ROWS = "rows.json"
"""The file that says which rows a training chose on, and which rows are compared."""
EVALUATIONS = "evaluations"
"""Step and macro F1 of each evaluation along the training, in metrics.json."""
TEST_PREDICTIONS = "test.parquet"
"""The predictions for the test rows, in the folders of the few trainings that make them."""


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        strategy: its group, which is the strategy unless it has a setting of `compare.tune`.
        config: the config of a whole run, in the folder of this training.
        fold: index of the fold that validates; None without folds.
        for_shortlist: whether it is judged on the rows that it chose on, since it serves to choose
            the strategies that are compared.
    """

    strategy: str
    config: Config
    fold: int | None = None
    for_shortlist: bool = False

    @cached_property
    def path(self) -> Path:
        """Return the folder."""
        return self.config.run_path

    @property
    def name(self) -> str:
        """Return the name for a progress bar."""
        fold = "" if self.fold is None else f", fold {self.fold + 1}"
        return f"{self.strategy}, seed {self.config.run.seed}{fold}"

    @property
    def is_finished(self) -> bool:
        """Return whether its results exist."""
        return (self.path / "metrics.json").is_file()

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the values of metrics.json."""
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    def figure(self, name: str, *, thresholds: bool = False) -> float:
        """Return a metric on the compared rows, with the decision or the thresholds if any."""
        return figure_of(self.metrics, name, thresholds=thresholds)

    def clock(self, name: str) -> float:
        """Return a time in seconds: `seconds` of training, or `wall_seconds` with evaluation."""
        return float(self.metrics["training"][name])

    def selection_score(self, name: str, *, thresholds: bool = False) -> float:
        """Return a metric on the selection rows, with the decision or the thresholds if any."""
        return float(self.metrics[SELECTION][THRESHOLDS if thresholds else DECIDED][name])

    def rows_note(self, shared: SharedData) -> dict[str, Any]:
        """Return what rows.json says of this training."""
        has_thresholds = with_thresholds(self.config) is not None
        return {
            "digest": shared.folds[self.fold].rows.digest,
            "for_shortlist": self.for_shortlist,
            "thresholds": has_thresholds,
        }


def figure_of(metrics: dict[str, Any], name: str, *, thresholds: bool = False) -> float:
    """Return a validation metric of metrics.json, with the decision or the thresholds if any."""
    with_decision = metrics.get("decision", metrics)
    final = (metrics[THRESHOLDS] if thresholds else with_decision)["validation"]
    found = metric_of(final, name, metrics["minority_label"])
    assert found is not None
    return found


def balanced_data(training: Training, shared: SharedData) -> PreparedData:
    """Return the rows as the training's strategy samples and weights them.

    Raises:
        TrainerError: the strategy cannot use these rows or labels.
    """
    config, fold = training.config, shared.folds[training.fold]
    data = balance_splits(
        fold.clean,
        fold.rows.splits,
        config.balance,
        config.loss,
        seed=config.run.seed,
        synthetic=fold.synthetic,
    )
    method, values = config.balance.method, config.training_values
    if method in SYNTHESIS_METHODS:
        refuse_few_rows(method, data.plan.counts_C, data.labels, config.balance.neighbours)
    if data.plan.balanced_batches:
        accumulated = values.get("gradient_accumulation_steps") or 1
        rows_per_batch = values["per_device_train_batch_size"]
        refuse_small_steps(len(data.labels), rows_per_batch, accumulated, 1)
    run_decision.decision_plan(config, data)
    return data


def train(training: Training, shared: SharedData, *, keeps_model: bool) -> None:
    """Train or resume a training, and write its results on the compared rows.

    Output goes to training.log in its folder.

    Args:
        keeps_model: whether to keep the model for the test rows.
    Raises:
        TrainerError: the strategy or the training fails; Stopped on a signal, after a checkpoint.
    """
    begin, config, data = time.perf_counter(), training.config, balanced_data(training, shared)
    with opened_folder(training, data, shared) as (folder, checkpoint):
        folder.write_json(ROWS, training.rows_note(shared))
        build = trainer_builder(training, shared, data, folder)
        trainer, clock = training_run.run_trainer(build, folder, checkpoint)
        if config.model.mode == "lora":
            trainer.merge_adapter(folder.path / "adapter.partial")
        if config.balance.method in SYNTHESIS_METHODS:
            data = data.with_synthetic(trainer.counts_C, trainer.class_weights_C)
        tokens, rows = shared.folds[training.fold].tokens, shared.folds[training.fold].rows
        judged = (rows.compared, tokens["compared"])
        if training.for_shortlist:
            judged = (data.splits.validation, tokens["validation"])
        metrics = evaluate(config, data, folder, trainer, tokens["validation"], judged)
        metrics[EVALUATIONS] = [[row["step"], row["macro_f1"]] for row in trainer.epoch_rows()]
        if keeps_model:
            with saving(folder.model, folder.checkpoints):
                trainer.save_model(str(folder.path / "model.partial"))
            folder.publish_model()
        clock |= {"wall_seconds": time.perf_counter() - begin}  # since the last start
        folder.finish(metrics | {"training": clock})
        trainer.trackers.finish(folder.path)


@contextmanager
def opened_folder(
    training: Training, data: PreparedData, shared: SharedData
) -> Iterator[tuple[writer.RunFolder, str | None]]:
    """Yield the folder of a training, and the checkpoint to resume from if there is one.

    Output goes to training.log there.
    """
    release()  # the model of the training before
    config, clean, folder = training.config, data.clean, writer.RunFolder(training.path)
    checkpoint = writer.plan_run(
        folder.path, config.to_dict(), clean.fingerprint, overwrite=True, resume="auto"
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
            clean.fingerprint, clean.counts, distributed.world_size(), shared.commits
        )
        folder.write_json("environment.json", environment)
        yield folder, checkpoint


def trainer_builder(
    training: Training, shared: SharedData, data: PreparedData, folder: writer.RunFolder
) -> Callable[[], Any]:
    """Return a function that builds the trainer.

    Every call starts from the pretrained weights, with the classification head of the seed.
    """
    from transformers import set_seed

    config, tokens = training.config, shared.folds[training.fold].tokens
    section = shared.config.model.model_copy(update={"mode": config.model.mode})
    given = {"train": tokens["train"].take(data.plan.seen), "validation": tokens["validation"]}
    arguments = build_arguments(
        config.training_values, checkpoints=folder.checkpoints, seed=config.run.seed
    )

    def build() -> Any:
        set_seed(config.run.seed)
        tokenizer = shared.tokenizer
        model = load_model(
            section,
            shared.pretrained,
            data.labels,
            tokenizer,
            shared.max_length,
            multi_label=data.is_multi_label,
        )
        trackers = Trackers(config.training_values.get("report_to"), tracked_run(training))
        common = config, arguments, data, model, tokenizer, given, folder, trackers
        if config.model.mode == "head":
            return build_head_trainer(*common, cache_dir())
        return build_trainer(*common)

    return build


def tracked_run(training: Training) -> TrackedRun:
    """Return a training as trackers show it. All trainings of a comparison share its logs."""
    folder = training.path.parents[2]
    key = str(training.path.relative_to(folder)).removeprefix("trainings/")
    values = config_differences.flat(training.config.to_dict())
    return TrackedRun.of_group(folder.name, key, folder / writer.LOGS, values)


def predict_test(training: Training, shared: SharedData) -> None:
    """Write the saved model's predictions for the test rows, unless they exist.

    The model predicts as in production. If it was not kept, it is trained again.
    """
    if (training.path / TEST_PREDICTIONS).is_file():
        return
    source, again = training.path, training.path.with_name(f"{training.path.name}.again")
    if not (training.path / "model").is_dir():
        print(f"{training.name}: the model was not kept, so it is trained again.", flush=True)
        values = training.config.to_dict()
        values["run"] |= {"name": again.name}
        copy = replace(training, config=Config.model_validate(values))
        if not copy.is_finished:
            train(copy, shared, keeps_model=True)
        source = again
    fold = shared.folds[training.fold]
    classifier = Classifier.load(
        source / "model",
        trust_remote_code=shared.config.model.trust_remote_code,
        device=distributed.device_type(use_cpu=shared.config.uses_cpu),
    )
    p_NC, decided_N = classify_texts(classifier, fold.clean.rows, fold.test_rows, training.path)
    is_multi_label = classifier.is_multi_label
    scores_NC = logarithms(p_NC, training.path, multi_label=is_multi_label)
    log_p_NC = LogProbabilities(scores_NC, multi_label=is_multi_label)
    targets = fold.clean.targets[fold.test_rows]
    outcome = outcome_of(scores_NC, targets, classifier.labels, (log_p_NC, decided_N), None)
    thresholded_N = thresholded_labels(training.metrics, classifier.labels, log_p_NC)
    if thresholded_N is not None:
        save_labels(training.path, TEST_PREDICTIONS, thresholded_N)
    writer.RunFolder(training.path).write_predictions(
        {"test": (fold.test_rows, outcome)}, classifier.labels, TEST_PREDICTIONS, keep_all=True
    )
    shutil.rmtree(again, ignore_errors=True)
