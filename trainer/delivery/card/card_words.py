"""The sentences of model cards and pages on balancing, synthetic rows, training and decision."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.data.prepared_data import PreparedData
from trainer.delivery.card.card_tables import as_text, markdown_table, note
from trainer.display.shown_classes import (
    MOST_IN_CARD,
    MOST_NAMED,
    in_words,
    largest_and_rarest,
)

if TYPE_CHECKING:
    from trainer.config.config import Config

LOSS_WORDS = {
    "cross_entropy": "cross-entropy",
    "focal": "focal loss",
    "logit_adjusted": "logit-adjusted cross-entropy",
    "balanced_softmax": "balanced softmax cross-entropy",
}
MULTI_LABEL_LOSS_WORDS = {
    "cross_entropy": "binary cross-entropy",
    "focal": "binary focal loss",
    "ntr_focal": "binary focal loss with negative-tolerant regularisation",
    "cb_ntr": "class-balanced focal loss with negative-tolerant regularisation",
    "distribution_balanced": "distribution-balanced focal loss",
    "asymmetric": "asymmetric loss",
}
SHOWN_ARGUMENTS = {
    "learning_rate": None,
    "num_train_epochs": None,
    "per_device_train_batch_size": None,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0.0,
    "layerwise_learning_rate_decay": None,
    "lr_scheduler_type": "linear",
    "bf16": None,
}
"""{training argument of the card: its value if it is not set}."""


def balancing_words(config: "Config", data: PreparedData, *, list_weights: bool = True) -> str:
    """Say which rows are seen in training, and how the loss weights them."""
    return f"{_rows_words(config, data)} {_loss_words(config, data, list_weights=list_weights)}"


def _rows_words(config: "Config", data: PreparedData) -> str:
    balance = config.balance
    method = f"`balance.method: {balance.method}`"
    seen, natural = data.summary.totals["seen per epoch"], len(data.splits.train)
    kept = "validation and test keep their natural distribution."
    if balance.method == "none":
        words = f"Every training row is seen once per epoch ({method})."
    elif balance.row_method == "none":
        words = (
            f"{method} with {balance.neighbours} neighbours adds {seen - natural:,} synthetic"
            f" embeddings to those of the {natural:,} training rows; {kept}"
        )
    elif balance.scope == "all":
        words = (
            "The pool was cut to the size of its smallest class before the split"
            f" ({method}, `balance.scope: all`)."
        )
    else:
        drawn = ", resampled every epoch" if balance.resample_each_epoch else ""
        words = f"{method}: {seen:,} of {natural:,} training rows are seen per epoch{drawn}; {kept}"
    if balance.by and balance.row_method != "none":
        paired = " paired with the labels" if balance.by_label else ""
        words += f" The values of the column `{balance.by}`{paired} are balanced."
    return words


def _loss_words(config: "Config", data: PreparedData, *, list_weights: bool) -> str:
    weighting = config.loss.weighting
    words = MULTI_LABEL_LOSS_WORDS if data.is_multi_label else LOSS_WORDS
    loss = words[config.loss.name]
    if weighting == "none":
        return f"The loss is unweighted {loss}."
    values = zip(data.labels, data.class_weights_C, strict=True)
    weights = {as_text(label): f"{weight:.4g}" for label, weight in values}
    pairs = f": {in_words(weights, 'class_weights.json')}" if list_weights else ""
    name = weighting if isinstance(weighting, str) else "given per label"
    if data.is_multi_label:
        sides = "rows with and without a label, " if weighting == "effective_number" else ""
        against = "against those of other labels" if sides else "rows with a label against the rest"
        kind = f"positive weights ({name}; {sides}{against})"
    else:
        over = "the rows drawn" if config.loss.weights_mean == "rows" else "the classes"
        kind = f"class weights ({name}; mean 1 over {over})"
    deferred = config.loss.defer_weights
    when = f", after {deferred:.0%} of the training" if deferred is not None else ""
    return f"The loss is {loss} with {kind}{pairs}{when}."


def synthetic_words(config: "Config", data: PreparedData) -> str:
    """Say which model wrote how many rows of which class; empty without `augment`."""
    if data.synthetic is None:
        return ""
    augment, counts = config.augment, data.synthetic.outcomes
    is_remote = augment.generator == "endpoint"
    where = "through an OpenAI-compatible server" if is_remote else "on the training machine"
    words = (
        f"{len(data.synthetic.rows):,} training rows are synthetic. `{augment.model}` wrote them"
        f" {where} from few-shot prompts with training rows of their class. They were filtered for"
        " refusals, lengths, repetition, exact and near duplicates of any row, and agreement with"
        " a classifier of the real training rows. None is in validation or test. The imbalance"
        " ratio and the rarest class are those of the real rows."
    )
    by_size = sorted(counts, key=lambda label: -counts[label]["wanted"])
    shown = largest_and_rarest(by_size, MOST_IN_CARD)
    names = ("wanted", "prompts", "accepted")
    rows = [[as_text(c), *(f"{counts[c][name]:,}" for name in names)] for c in shown.labels]
    if not rows:
        return words
    table = markdown_table(["label", "missing rows", "prompts", "accepted"], rows)
    return f"{words}\n\n{table}{note(shown, 'metrics.json')}"


def training_words(config: "Config", described: list[str]) -> str:
    """Return a list of the training arguments and of what the trainer reports about itself."""
    training, seed = config.training_values, f"`seed`: {config.run.seed}"
    if config.model.mode == "head":
        return "\n".join(f"- {line}" for line in [*described, seed])
    known = {name: value for name, value in SHOWN_ARGUMENTS.items() if value is not None} | training
    has_max_steps = training.get("max_steps", -1) > 0  # which overrides num_train_epochs
    lines = [
        f"`{name}`: {known[name]}"
        for name in (
            "max_steps" if has_max_steps and name == "num_train_epochs" else name
            for name in SHOWN_ARGUMENTS
        )
        if name in known
    ]
    if config.model.mode == "lora":
        lora = config.model.lora
        layers = ", ".join(lora.target_modules or ["every linear layer of the encoder"])
        size = f"r {lora.r}, alpha {lora.alpha:g}, dropout {lora.dropout:g}"
        lines.insert(0, f"`model.mode`: lora ({size}) on {layers}; merged into the model")
    if number := config.model.reinitialise_layers:
        lines.insert(0, f"`model.reinitialise_layers`: {number}, drawn again before training")
    best = "the model of the last step"
    if training["load_best_model_at_end"]:
        best = f"best model by `{training['metric_for_best_model']}` on validation"
    return "\n".join(f"- {line}" for line in [*lines, seed, best, *described])


def decision_words(decided: dict[str, Any], shown: Callable[[str], str] = str) -> str:
    """Say how probabilities are corrected after training, and how the label is chosen.

    Args:
        shown: writes a label; escapes it in Markdown.
    """
    is_multi_label, parts = "at_least_one" in decided, _correction_words(decided, shown)
    if "thresholds" in decided:
        if is_multi_label:
            parts.append(_label_threshold_words(decided, shown))
        else:
            pairs = _pairs(decided["thresholds"], shown)
            parts.append(f"The label is the largest of probability / threshold ({pairs}).")
        if neutral := decided["neutral"]:
            left = len(neutral) - MOST_NAMED
            more = [f"{left:,} more, all in metrics.json"] if left > 0 else []
            names = "; ".join([*neutral[:MOST_NAMED], *more])
            kept = (
                "The common threshold was kept"
                if is_multi_label
                else "Neutral thresholds were kept"
            )
            parts.append(f"{kept} for {shown(names)}.")
    if is_multi_label:
        return " ".join([*parts, *_number_words(decided)])
    if "costs" in decided:
        parts.append(
            "The label is the one of least expected cost (`decision.costs` in `config.json`)."
        )
    if chooses(decided):
        parts.append(
            "The plain `pipeline()` returns the label of the largest probability instead, which"
            " may be another one."
        )
    return " ".join(parts)


def _label_threshold_words(decided: dict[str, Any], shown: Callable[[str], str]) -> str:
    """Say which labels a text gets, given thresholds; the common threshold is named once."""
    common = decided.get("common_threshold")
    own = {label: value for label, value in decided["thresholds"].items() if value != common}
    if not own:
        return f"A text gets each label that reaches its threshold ({common:.3g} for every label)."
    left = len(decided["thresholds"]) - len(own)
    others = f"; the others have the common threshold {common:.3g}" if left else ""
    return f"A text gets each label that reaches its threshold ({_pairs(own, shown)}{others})."


def _correction_words(decided: dict[str, Any], shown: Callable[[str], str]) -> list[str]:
    """Say how probabilities are corrected, and where this is stored."""
    parts = []
    if "target_prior" in decided:
        pairs = _pairs(decided["target_prior"], shown)
        about = "Probabilities are corrected to these shares of the classes: "
        parts.append(
            f"{about}{pairs}; this is approximate, since balancing or synthetic"
            " rows also changed what the rows of a class look like."
            if decided["prior_is_approximate"]
            else f"{about}{pairs}."
        )
    if decided["temperature"] != 1:
        parts.append(f"Scores are divided by a temperature of {decided['temperature']:.3g}.")
    if parts and decided["folded_into_weights"]:
        parts.append("The weights contain this, so `pipeline()` gives corrected probabilities.")
    elif parts:
        parts.append(
            "`config.json` contains this under `decision`, since the last layer has no bias: the"
            " plain `pipeline()` does not apply it."
        )
    return parts


def _pairs(values: dict[str, float], shown: Callable[[str], str]) -> str:
    numbers = {shown(label): f"{value:.3g}" for label, value in values.items()}
    return in_words(numbers, "metrics.json")


def _number_words(decided: dict[str, Any]) -> list[str]:
    """Say how many labels a text gets, and what the plain pipeline does not know."""
    parts, most = [], decided["at_most"]
    if decided["at_least_one"]:
        parts.append(
            "A text that no label reaches gets the label with the largest margin: the log odds of"
            " its probability less those of its threshold."
        )
    if most is not None:
        parts.append(f"A text keeps at most {most} of its labels, those with the largest margins.")
    if chooses(decided):
        parts.append("The plain `pipeline()` returns probabilities and knows nothing of this.")
    return parts


def chooses(decided: dict[str, Any]) -> bool:
    """Return whether the decision chooses labels by more than their probabilities."""
    return any(decided.get(name) for name in ("thresholds", "costs", "at_least_one", "at_most"))
