"""comparison.json with plausible numbers, for tests of what is made of it."""

import numpy as np

from trainer.config.sections.compare import PRESETS
from trainer.evaluation.frequency_groups import frequency_groups

GAINS = {"none": 0.0, "undersample": 0.05, "oversample": 0.08, "class_weights": 0.11, "focal": 0.01}
"""What each strategy adds to macro F1; accuracy falls by a tenth of it."""
FIGURES = {
    "accuracy": 0.94,
    "macro_f1": 0.62,
    "balanced_accuracy": 0.6,
    "minority_recall": 0.21,
    "minority_f1": 0.3,
    "mcc": 0.88,
    "weighted_f1": 0.93,
}
FIGURES |= {"auroc_macro": 0.97, "ece": 0.03}
R8 = {
    "earn": 155,
    "acq": 92,
    "crude": 15,
    "trade": 13,
    "money-fx": 12,
    "interest": 11,
    "ship": 6,
    "grain": 3,
}
UNSURE = {"none": 0.0, "undersample": -0.1, "oversample": 0.01, "class_weights": 0.02}
"""Gains of which none is reliable: class_weights is the highest, none the winner, undersample
reliably worse.
"""
OWN = {"loss": {"name": "focal", "gamma": 2.0}}
"""What strategies set that are no presets."""


def difference(value, half):
    return {
        "difference": value,
        "low": None if half is None else value - half,
        "high": None if half is None else value + half,
    }


def groups_of(support):
    """The labels of head, medium and tail, as thirds of the classes by their rows."""
    labels = sorted(support, key=lambda label: -support[label])
    groups = frequency_groups(np.array([support[label] for label in labels]), "thirds")
    return {name: [labels[c] for c in group.label_ids] for name, group in groups.items()}


def validation(gains=GAINS, support=R8, num_seeds=5, metric="macro_f1", rng=None, apart=0.04):
    """The part 'validation': figures of seeds drawn around FIGURES and gains; intervals of 0.03 to
    either side, those of all pairs of `apart`.
    """
    rng = rng or np.random.default_rng(0)
    half = 0.03
    base, strategies = {}, {}
    for name, gain in gains.items():
        figures = {}
        for figure, level in FIGURES.items():
            shift = {"accuracy": -0.1, "ece": 0.2, "minority_recall": 3.0, "auroc_macro": 0.05}.get(
                figure, 1.0
            ) * gain
            of_seeds = (level + shift + 0.01 * rng.standard_normal(num_seeds)).clip(0, 1).tolist()
            mean = float(np.mean(of_seeds))
            deviation = float(np.std(of_seeds, ddof=1)) if num_seeds > 1 else None
            figures[figure] = {
                "mean": mean,
                "seed_deviation": deviation,
                "of_seeds": of_seeds,
                "low": mean - 0.04,
                "high": mean + 0.04,
            }
        base = base or figures
        differences = {
            figure: difference(figures[figure]["mean"] - base[figure]["mean"], half)
            for figure in FIGURES
        }
        per_class = {}
        for place, label in enumerate(support):
            effect = gain * 3 * place / len(support) - 0.02 + 0.02 * float(rng.standard_normal())
            f1 = max(0.0, 0.95 - 0.6 * place / len(support)) + (effect if strategies else 0)
            changed = difference(effect, half) if strategies else None
            per_class[label] = {
                "f1": f1,
                "recall": f1,
                "f1_difference": changed,
                "recall_difference": changed,
            }
        p = float(np.clip(0.5 * np.exp(-60 * abs(gain)), 1e-6, 1))
        against = None
        if strategies:
            of_metric = differences[metric]
            against = {
                **of_metric,
                "p": p,
                "p_holm": min(1, 2 * p),
                "degrees_of_freedom": 7.3,
                "seed_variance": 1e-4,
                "row_variance": 2e-4,
            }
            against |= {"is_reliable": 2 * p < 0.05}
        per_group = {}
        for group, labels in groups_of(support).items():
            changes = [per_class[label]["f1_difference"] for label in labels]
            mean = float(np.mean([change["difference"] for change in changes if change] or [0]))
            per_group[group] = {
                "macro_f1": float(np.mean([per_class[label]["f1"] for label in labels])),
                "difference": difference(mean, half) if strategies else None,
            }
        strategies[name] = {
            "figures": figures,
            "differences": differences if against else {},
            "against_baseline": against,
            "per_class": per_class,
            "per_group": per_group,
        }
    best = max(strategies, key=lambda name: strategies[name]["figures"][metric]["mean"])
    for name, values in strategies.items():
        less = values["figures"][metric]["mean"] - strategies[best]["figures"][metric]["mean"]
        values["against_best"] = (
            None
            if name == best
            else difference(less, apart) | {"is_distinguishable": less < -apart}
        )
    return {
        "metric": metric,
        "baseline": "none",
        "best": best,
        "level": 0.95,
        "num_rows": sum(support.values()),
        "num_tests": len(gains) - 1,
        "num_seeds": num_seeds,
        "labels": sorted(support),
        "support": dict(support),
        "minority_label": min(support, key=support.get),
        "groups": groups_of(support),
        "strategies": strategies,
    }


def comparison(gains=GAINS, support=R8, num_seeds=5, metric="macro_f1", apart=0.04, **changes):
    """The whole of comparison.json; the winner is the highest that is reliably better than none, or
    none.
    """
    compared = validation(gains, support, num_seeds, metric, apart=apart)
    strategies = compared["strategies"]
    reliable = [
        name
        for name, values in strategies.items()
        if values["against_baseline"] and values["against_baseline"]["is_reliable"]
    ]
    winner = max(["none", *reliable], key=lambda name: strategies[name]["figures"][metric]["mean"])
    words = (
        f"No reliable difference in macro F1: {compared['best']} is the highest; none is the "
        f"simplest choice."
    )
    if winner != "none":
        d = strategies[winner]["against_baseline"]
        words = (
            f"{winner}: {d['difference']:+.2f} macro F1 [{d['low']:.2f}, {d['high']:.2f}] over "
            f"none; costs 1.1 points of accuracy"
        )
    tested = {name: gain for name, gain in gains.items() if name in ("none", winner)}
    return {
        "name": "topics",
        "version": "0.1.0",
        "command": "equipoise compare --config configs/topics.yaml",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "mode": "full",
        "budget": {
            "kind": "steps",
            "amount": 189,
            "evaluations": 3,
            "words": "189 optimizer steps of 32 rows for every strategy",
        },
        "seeds": list(range(42, 42 + num_seeds)),
        "folds": None,
        "selection": {
            "used": "last_step",
            "num_selection": 0,
            "num_compared": sum(support.values()),
            "words": "last_step: each training runs to its last step and chooses nothing",
        },
        "baseline_training": None,
        "overrides": {name: PRESETS.get(name, OWN) for name in gains},
        "seconds": {name: 61.0 + 7 * place for place, name in enumerate(gains)},
        "failed": {},
        "quick": None,
        "tune": None,
        "validation": compared,
        "test": validation(tested, support, num_seeds, metric, np.random.default_rng(1)),
        "winner": winner,
        "tested": [*tested],
        "recommendation": words,
        "total_seconds": 1834.5,
        "environment": {"python": "3.11.9", "packages": {"torch": "2.13.0"}, "cpu_count": 2},
        **changes,
    }


def quick(gains=GAINS):
    """The part 'quick': heads on the frozen encoder, two of which go on."""
    compared = validation(gains)
    ordered = sorted(
        gains, key=lambda name: -compared["strategies"][name]["figures"]["macro_f1"]["mean"]
    )
    return {
        "comparison": compared,
        "shortlist": [name for name in ordered if name != "none"][:2],
        "failed": {},
        "seconds": dict.fromkeys(gains, 1.4),
    }


def tuned(gains=GAINS, num_seeds=5):
    """The part 'tune': six settings of each strategy, one of which failed."""
    rng = np.random.default_rng(2)
    settings = {
        f"learning_rate {rate:g}, num_train_epochs {epochs}": {
            "learning_rate": rate,
            "num_train_epochs": epochs,
        }
        for rate in (5e-05, 2e-05, 1e-04)
        for epochs in (2, 4)
    }
    strategies = {}
    for name, gain in gains.items():
        scores = {}
        for place, setting in enumerate(settings):
            of_seeds = (0.5 + gain + 0.02 * place + 0.01 * rng.standard_normal(num_seeds)).tolist()
            scores[setting] = {"mean": float(np.mean(of_seeds)), "of_seeds": of_seeds}
        if name == "undersample":
            del scores["learning_rate 0.0001, num_train_epochs 4"]
        chosen = max(scores, key=lambda setting: scores[setting]["mean"])
        strategies[name] = {"chosen": [chosen], "scores": scores}
    return {
        "settings": settings,
        "budgets": {
            setting: f"{63 * values['num_train_epochs']} optimizer steps of 32 rows"
            for setting, values in settings.items()
        },
        "as_configured": next(iter(settings)),
        "num_trainings": len(gains) * len(settings) * num_seeds,
        "strategies": strategies,
        "edges": [
            "learning_rate 0.0001 is the largest value tried, and none, focal chose it: try larger"
            " values."
        ],
        "failed": {
            "undersample@learning_rate=0.0001,num_train_epochs=4": "the training loss is nan"
        },
        "common": validation(
            {name: 0.4 * gain for name, gain in gains.items()}, num_seeds=num_seeds
        ),
        "words": "Tuned on selection rows: class_weights with learning_rate 0.0001,"
        " num_train_epochs 4. At the setting of the config, none would be recommended.",
    }
