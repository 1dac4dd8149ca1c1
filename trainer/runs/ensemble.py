"""An ensemble: several training runs whose predictions are combined."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.config.config import Config
from trainer.errors import RunError
from trainer.evaluation.blocks import Taken, joined, release, room, row_slices
from trainer.launch import distributed, watch
from trainer.run_folder import writer
from trainer.run_folder.config_differences import flat
from trainer.run_folder.prediction_file import read_predictions, whole_path
from trainer.runs import training_run
from trainer.runs.existing_run import already_finished, complete
from trainer.runs.preparation import prepare
from trainer.runs.startup import start

if TYPE_CHECKING:
    from trainer.data.prepared_data import PreparedData
    from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision, MultiLabelPlan
    from trainer.evaluation.frequency_groups import FrequencyGroup
    from trainer.evaluation.outcome import Outcome


def train_ensemble(config: Config, *, resume: str = "auto") -> Path:
    """Train the members that are not finished, then combine their predictions.

    Each member is a training run with a run folder of its own, inside the folder of the ensemble.
    Every process of a launch calls this function.

    Args:
        resume: as in `training_run.train`.
    Returns:
        The run folder of the ensemble.
    Raises:
        TrainerError: as in `training_run.train`.
    """
    with watch.naming_lost_processes(), ExitStack() as run_lock:
        return _train_members(config, resume, run_lock)


def _train_members(config: Config, resume: str, run_lock: ExitStack) -> Path:
    from trainer.runs.run_decision import decision_plan

    folder = writer.RunFolder(config.run_path)
    config = start(config)
    training_run.check(config)  # all faults are found before an earlier run is touched
    values, size = config.to_dict(), config.ensemble.size
    members = [
        Config.model_validate(values | {"ensemble": values["ensemble"] | {"member": number}})
        for number in range(1, size + 1)
    ]
    data = prepare(members[0])
    decision_plan(config, data)
    distributed.from_main(lambda: run_lock.enter_context(writer.only_run(folder.path)))
    if already_finished(config, data, resume):
        return folder.path
    distributed.from_main(lambda: _open(folder, config, data, resume))
    for number, member in enumerate(members, 1):
        if _is_finished(member):
            continue
        if distributed.is_main():
            print(f"Member {number} of {size}: seed {member.member_seed}", flush=True)
        training_run.train(member, resume=resume)
    if distributed.is_main():
        _write_ensemble(folder, config, data, [member.run_path for member in members])
    distributed.wait_for_everyone()
    return folder.path


def _open(folder: writer.RunFolder, config: Config, data: "PreparedData", resume: str) -> None:
    """Start the ensemble's folder; keep finished members of the same config and rows."""
    from trainer.run_folder.environment import describe_environment

    was_finished = (folder.path / "metrics.json").is_file()
    fingerprint = data.clean.fingerprint
    writer.plan_run(
        folder.path,
        config.to_dict(),
        fingerprint,
        overwrite=config.run.overwrite,
        resume=resume,
    )
    starts_again = was_finished or resume == "never"
    writer.start_run(folder.path, config.to_dict(), keep_logs=not starts_again)
    writer.remove_members(folder.path, above=0 if starts_again else config.ensemble.size)
    folder.write_json(
        "environment.json",
        describe_environment(fingerprint, data.clean.counts, distributed.world_size()),
    )


def _is_finished(member: Config) -> bool:
    """Return whether a member is trained with this config and these rows; complete its files.

    The rows are prepared again for each member, since folds may have other synthetic rows.
    """
    path = member.run_path
    if not distributed.from_main((path / "metrics.json").is_file):
        return False
    fingerprint = prepare(member).clean.fingerprint
    is_finished = distributed.from_main(
        lambda: writer.is_finished(path, member.to_dict(), fingerprint)
    )
    if is_finished:
        distributed.from_main(lambda: complete(path))
    return is_finished


def _write_ensemble(
    folder: writer.RunFolder, config: Config, data: "PreparedData", members: list[Path]
) -> None:
    """Write the rows, then metrics.json, which finishes the ensemble, then all the rest."""
    from trainer.delivery import completion
    from trainer.display import tables
    from trainer.evaluation.frequency_groups import frequency_groups
    from trainer.runs.results import deliver, figures, write_rows

    for member in members:
        if not (member / "predictions.parquet").is_file():
            raise RunError(
                f"{member}: lacks predictions.parquet, which the vote needs and only training can"
                " write. Remove the folder, then run the same command again."
            )
    single = [
        json.loads((member / "metrics.json").read_text(encoding="utf-8")) for member in members
    ]
    labels = single[0]["validation"]["labels"]
    groups = frequency_groups(data.summary.natural_C, config.report.groups)
    plan = _mean_threshold_plan(config, data)
    parts = {
        split: _vote(
            members, split, labels, config, groups, plan if split == "validation" else None
        )
        for split in ("validation", "test")
        if split in single[0]
    }
    outcomes = {split: outcome for split, (_, outcome) in parts.items()}
    headline = list(parts)[-1]
    scores = [member.get("decision", member)[headline]["macro_f1"] for member in single]
    ensemble = config.ensemble.model_dump(exclude={"member"}) | {
        "split": headline,
        "member_macro_f1": scores,
    }
    results: dict[str, Any] = {
        split: figures(outcome.final, {}, outcome.groups) for split, outcome in outcomes.items()
    }
    write_rows(folder, config, data, parts, labels)
    folder.finish(results | {"minority_label": single[0]["minority_label"], "ensemble": ensemble})
    with completion.warning_of("tables of the results", completion.command_of(folder.path)):
        tables.print_results(
            outcomes, folder.path, f"{members[0] / 'model'} to {members[-1] / 'model'}"
        )
        print(
            f"Members' macro F1 on {headline}: {', '.join(f'{score:.4f}' for score in scores)};"
            f" together {outcomes[headline].alone.macro_f1:.4f}."
        )
    for member in members:
        whole_path(member, "predictions.parquet").unlink(missing_ok=True)  # no longer needed
    deliver(folder)
    _log_vote(folder, config)


def _log_vote(folder: writer.RunFolder, config: Config) -> None:
    """Log the results of the ensemble to trackers, beside its members."""
    from trainer.training.arguments import build_arguments
    from trainer.training.trackers.tracked_run import TrackedRun
    from trainer.training.trackers.trackers import log_finished

    training = config.training_values
    if not training.get("report_to"):
        return
    arguments = build_arguments(training, checkpoints=folder.checkpoints, seed=config.run.seed)
    run = TrackedRun.of_group(
        config.run.name, "vote", folder.path / writer.LOGS, flat(config.to_dict())
    )
    log_finished(training.get("report_to"), run, arguments, folder.path)


def _vote(
    members: list[Path],
    split: str,
    labels: list[str],
    config: Config,
    groups: "dict[str, FrequencyGroup]",
    plan: "MultiLabelPlan | None",
) -> "tuple[Any, Outcome]":
    """Return the row ids of a split and the results of the vote on them.

    Members of folds have different rows. Each row then has one vote, from its own member.

    Args:
        plan: of thresholds that are fitted on these rows, so that they are cross-fitted.
    """
    from trainer.evaluation.decisions.vote import combine
    from trainer.evaluation.outcome import outcome_of
    from trainer.evaluation.scores import LogProbabilities

    read = [read_predictions(member, split, labels) for member in members]
    folder = members[0].parent
    if all(np.array_equal(rows, read[0][0]) for rows, *_ in read):
        rows, true_N = read[0][:2]
        votes = [(p_NC, predicted_N) for _, _, predicted_N, p_NC in read]
    else:
        order = np.argsort(np.concatenate([rows for rows, *_ in read]))
        rows, true_N, predicted_N = (
            np.concatenate(column)[order] for column in list(zip(*read, strict=True))[:3]
        )
        votes = [(Taken(joined([p_NC for *_, p_NC in read], folder), order), predicted_N)]
    is_multi_label = true_N.ndim > 1
    scores_NC = room((len(rows), len(labels)), np.float32, folder)
    voted_N = room(true_N.shape, true_N.dtype, folder)
    decision = _label_decision(members, labels) if is_multi_label else None
    for places in row_slices(scores_NC.shape):
        p_MBC = np.stack([p_NC[places] for p_NC, _ in votes])
        predicted_MB = np.stack([predicted_N[places] for _, predicted_N in votes])
        p_BC = p_MBC.mean(axis=0, dtype=np.float64)
        scores_NC[places] = _scores(p_BC, multi_label=is_multi_label)
        voted_N[places] = (
            combine(config.ensemble.combine, p_MBC, predicted_MB, decision)
            if len(votes) > 1
            else predicted_MB[0]
        )
        for array in (scores_NC, voted_N, *(p_NC for p_NC, _ in votes)):
            release(array)
    if plan and len(votes) > 1:
        voted_N = _cross_fitted([p for p, _ in votes], scores_NC, true_N, plan, config, folder)
    vote = LogProbabilities(scores_NC, multi_label=is_multi_label), voted_N
    outcome = outcome_of(scores_NC, true_N, labels, vote, None, groups)
    return rows, replace(outcome, alone=outcome.final, decided=None)


def _scores(p_NC: Floats, *, multi_label: bool) -> Floats:
    """Return log probabilities, or the log odds of each label."""
    from trainer.evaluation.decisions.vote import LEAST

    log_p_NC: Floats = np.log(np.maximum(p_NC, LEAST))
    return log_p_NC - np.log(np.maximum(1 - p_NC, LEAST)) if multi_label else log_p_NC


def _mean_threshold_plan(config: Config, data: "PreparedData") -> "MultiLabelPlan | None":
    """Return the plan of fitted thresholds whose means decide; None if there are none."""
    from trainer.evaluation.decisions.label_thresholds import LABEL_OBJECTIVES
    from trainer.evaluation.decisions.multi_label_decision import MultiLabelPlan
    from trainer.runs.run_decision import decision_plan

    plan = decision_plan(config, data)
    if config.ensemble.combine != "mean" or not isinstance(plan, MultiLabelPlan):
        return None
    return plan if plan.thresholds in LABEL_OBJECTIVES else None


def _cross_fitted(
    p_MNC: list[Any],
    scores_NC: Any,
    true_NC: Any,
    plan: "MultiLabelPlan",
    config: Config,
    folder: Path,
) -> Any:
    """Return the labels of validation rows, from mean thresholds that are fitted without the row.

    The members' probabilities contain their temperature and prior already, cross-fitted.
    """
    from trainer.evaluation.decisions.cross_fitting import cross_fit
    from trainer.evaluation.decisions.decision import LEAST_ROWS
    from trainer.evaluation.decisions.multi_label_decision import (
        MultiLabelDecision,
        fit_label_decision,
        mean_decision,
    )

    plan = replace(plan, temperature=False, log_odds_target_C=None)
    fitted_C = true_NC.sum(axis=0) >= LEAST_ROWS
    scores_MNC = [room(p_NC.shape, np.float32, folder) for p_NC in p_MNC]
    for own_NC, p_NC in zip(scores_MNC, p_MNC, strict=True):
        for places in row_slices(own_NC.shape):
            own_NC[places] = _scores(np.asarray(p_NC[places], np.float64), multi_label=True)
            release(own_NC)

    def fit(rows: Ints) -> MultiLabelDecision:
        return mean_decision(
            [
                fit_label_decision(Taken(own_NC, rows), true_NC[rows], plan, fitted_C)
                for own_NC in scores_MNC
            ]
        )

    return cross_fit(scores_NC, true_NC, fit, seed=config.run.seed, folder=folder)[1]


def _label_decision(members: list[Path], labels: list[str]) -> "MultiLabelDecision":
    """Return the decision of multi-label members together, as `Classifier` applies it."""
    from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision, mean_decision

    saved = [json.loads((member / "model/config.json").read_text("utf-8")) for member in members]
    return mean_decision(
        [MultiLabelDecision.from_config(each.get("decision") or {}, labels) for each in saved]
    )
