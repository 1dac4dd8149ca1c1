"""The result of a search: tuning.json, its conclusion in a sentence, and best.yaml."""

import textwrap
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainer import __version__
from trainer.comparison.statistics.comparison_result import AgainstBaseline, Comparison
from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.config.config import Config
from trainer.config.yaml_source import dump_yaml
from trainer.display.figure_words import TITLES
from trainer.run_folder.prediction_file import read_predictions
from trainer.tuning.rows import SearchData
from trainer.tuning.search import REASON, SECONDS, Search
from trainer.tuning.space import with_values
from trainer.tuning.trials import HELD_OUT
from trainer.tuning.workers import STATES

BEST_YAML = "best.yaml"
DEFAULT, BEST = "config as it is", "best trial"
"""The names of both configs in the comparison on the held-out rows."""
LEAST_FOR_IMPORTANCES = 5
"""Complete trials below which no importances are computed."""


def result_of(search: Search, data: SearchData, command: str, identity: str) -> dict[str, Any]:
    """Return the values of tuning.json."""
    config, best = search.config, search.complete[0]
    compared = compare_held_out(search, data, best)
    states = [STATES[trial.state] for trial in search.finished]
    fold = data.shared.first
    return {
        "name": config.run.name,
        "version": __version__,
        "command": command,
        "train_command": f"equipoise train {search.path / BEST_YAML}",
        "identity": identity,
        "model": config.model.name,
        "mode": config.model.mode,
        "metric": config.tune.metric,
        "rows": {
            "train": len(fold.rows.splits.train),
            "search": len(data.search),
            "held_out": len(data.held_out),
        },
        "space": {each.key: each.to_dict() for each in search.space},
        "trials": [_row(search, trial) for trial in search.finished],
        "counts": {name: states.count(name) for name in ("complete", "pruned", "failed")},
        "seconds": search.seconds,
        "best": best.number,
        "importances": importances(search),
        "held_out": compared.to_dict(),
        "conclusion": conclude(compared, best),
    }


def _row(search: Search, trial: FrozenTrial) -> dict[str, Any]:
    """Return the values of a trial."""
    is_complete = trial.state == TrialState.COMPLETE
    return {
        "number": trial.number,
        "state": STATES[trial.state],
        "value": trial.value if is_complete else None,
        "evaluations": {f"{step / 10:g}": f1 for step, f1 in trial.intermediate_values.items()},
        "seconds": trial.user_attrs.get(SECONDS, 0.0),
        "reason": trial.user_attrs.get(REASON, ""),
        "values": search.values_of(trial),
    }


def importances(search: Search) -> dict[str, float]:
    """Return {key: share of the differences between complete trials}, the largest first (fANOVA).

    It is empty if there are few trials, or if all have the same value.
    """
    found = search.complete
    if len(found) < LEAST_FOR_IMPORTANCES or found[0].value == found[-1].value:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=search.config.run.seed)
    shares = optuna.importance.get_param_importances(search.study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


def compare_held_out(search: Search, data: SearchData, best: FrozenTrial) -> Comparison:
    """Return the comparison of the best trial with the config as it is, on the held-out rows."""
    rows = data.shared.first.unbalanced
    numbers = {DEFAULT: 0} | ({BEST: best.number} if best.number else {})
    predictions = {}
    for name, number in numbers.items():
        _, true_N, predicted_N, p_NC = read_predictions(
            search.folder_of(number), "held_out", rows.labels, HELD_OUT
        )
        predictions[name] = SeedPredictions(predicted_N[None], [p_NC])
    metric, minority = search.config.tune.metric, rows.summary.minority_label
    minority_id = rows.labels.index(minority)
    has_minority_N = true_N == minority_id if true_N.ndim == 1 else true_N[:, minority_id]
    if metric.startswith("minority") and not has_minority_N.any():
        metric = "macro_f1"
    return compare(
        true_N,
        predictions,
        rows.labels,
        minority_label=minority,
        metric=metric,
        baseline=DEFAULT,
    )


def conclude(compared: Comparison, best: FrozenTrial) -> str:
    """Return what the search gained, in words."""
    title, metric = TITLES[compared.metric], compared.metric
    own = compared.strategies[DEFAULT].figures[metric].mean
    rows = f"the {compared.num_rows:,} held-out rows"
    if best.number == 0:
        return (
            f"No trial is better than the config as it is on the search rows. On {rows} its"
            f" {title} is {own:.3f}."
        )
    against = compared.others[BEST]
    found = compared.strategies[BEST].figures[metric].mean
    return (
        f"Trial {best.number} has {title} {found:.3f} on {rows}, the config as it is {own:.3f}:"
        f" {difference_words(against)}. {_verdict(against)}"
    )


def difference_words(against: AgainstBaseline) -> str:
    """Return '+0.021, 95 % interval -0.004 to +0.046'."""
    words = f"{against.difference:+.3f}"
    if against.low is None or against.high is None:
        return words
    return f"{words}, 95 % interval {against.low:+.3f} to {against.high:+.3f}"


def _verdict(against: AgainstBaseline) -> str:
    if against.is_reliable and against.difference > 0:
        return "The gain is reliable for these two trainings; other seeds may differ."
    if against.is_reliable:
        return "The loss is reliable for these two trainings: keep your config."
    return "These rows cannot tell the two apart: keep your config, or search with more rows."


def best_yaml(given: Config, result: dict[str, Any]) -> str:
    """Return the given config with the values of the best trial, ready to train.

    Args:
        given: the config before defaults of this hardware were filled in.
    """
    best = result["trials"][result["best"]]
    values = given.model_dump(exclude_unset=True, exclude={"compare", "tune"})
    left_out = ("overwrite", "num_processes")
    run = {key: value for key, value in values.get("run", {}).items() if key not in left_out}
    values["run"] = run | {"name": f"{given.run.name}-best"}
    if best["number"]:
        values = with_values(values, best["values"])
    comment = [
        *textwrap.wrap(result["conclusion"], 98),
        f"Trial {best['number']} of {len(result['trials'])}; {result['metric']} on the search rows:"
        f" {best['value']:.4f}.",
        f"  {result['train_command']}",
    ]
    yaml = dump_yaml({key: value for key, value in values.items() if value != {}})
    return "".join(f"# {line}\n" for line in comment) + yaml
