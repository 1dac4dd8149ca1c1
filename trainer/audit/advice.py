"""What to try first: a table of rules, each with its source, over the findings; table RULES.

All rules of kind 'data' that apply come first, because no balancing corrects wrong labels or
leakage between splits. Then comes the first rule of kind 'method' that applies. The conditions are
thresholds on Facts and nothing else. Rows with several labels have method rules of their own, in
label_set_rules.py.
"""

from trainer.audit.facts import PROJECT, Advice, Facts, Rule
from trainer.audit.label_set_rules import LABEL_SET_RULES, MANY_CLASSES
from trainer.data.cleaning.text_artifacts import REMEDIES
from trainer.data.summary import MILD_RATIO, MODERATE_RATIO

FEW_ROWS_PER_CLASS = 64
TINY_CLASS_ROWS = 50
PLENTY_ROWS_PER_CLASS = 10_000
FLOOR_SHARE = 0.05
"""A `min_share` that fits fewer than MANY_CLASSES classes: their shares add up to less than 1."""
DOUBTFUL_RATIO = 0.05
LEAST_MACRO_F1 = 0.6
"""A classifier with a lower macro F1 is wrong too often for its candidates to count."""
SOFT_LEAKAGE_RATIO = 0.01
CONFLICT_RATIO = 0.01
TRUNCATED_RATIO = 0.1
ODD_RATIO = 0.01


def advise(facts: Facts) -> list[Advice]:
    """Return every data rule that applies, then the first method rule that does."""
    chosen = [rule for rule in RULES if rule.kind == "data" and rule.applies(facts)]
    methods = LABEL_SET_RULES if facts.is_multi_label else RULES
    chosen.append(next(rule for rule in methods if rule.kind == "method" and rule.applies(facts)))
    return [rule.advice(facts) for rule in chosen]


def _rarest(facts: Facts) -> str:
    rows = f"{facts.smallest_rows:,} training row{'' if facts.smallest_rows == 1 else 's'}"
    return f"the rarest class, '{facts.minority_label}', has {rows}"


def _truncation(facts: Facts) -> str:
    words = f"{facts.truncated_ratio:.1%} of the rows are truncated at {facts.max_length:,} tokens"
    needed = facts.needed_tokens
    known = f"; 99 % of the rows have at most {needed:,} tokens" if needed else ""
    if facts.longer is None:
        return (
            f"Let the model read more: {words}, the most that this model reads{known}. Choose a"
            " model with a longer context, or move what decides the label to the start of the text."
        )
    limit = facts.position_limit
    reads = "has no limit" if limit is None else f"reads up to {limit:,}"
    return (
        f"Let the model read more: {words}{known}. The model {reads}: set model.max_length:"
        f" {facts.longer}. Longer texts take more time and memory."
    )


RULES = (
    Rule(
        "label_issues",
        "data",
        f"label noise candidates are at least {DOUBTFUL_RATIO:.0%} of the rows, by a classifier"
        f" with a macro F1 of at least {LEAST_MACRO_F1}",
        lambda f: f.doubtful_ratio >= DOUBTFUL_RATIO and f.classifier_macro_f1 >= LEAST_MACRO_F1,
        lambda f: (
            f"Look at the labels first: {f.doubtful_ratio:.1%} of the rows are candidates for a"
            " wrong label. Read the first 50 of the list. If most are wrong, correct them before"
            " you balance, because oversampling and class weights multiply the errors of rare"
            " classes."
        ),
        lambda f: "",
        "Northcutt et al. 2021, https://arxiv.org/abs/1911.00068 and"
        " https://arxiv.org/abs/2103.14749",
    ),
    Rule(
        "soft_leakage",
        "data",
        f"at least {SOFT_LEAKAGE_RATIO:.0%} of the validation or test rows are near duplicates of"
        " training rows",
        lambda f: f.soft_leakage_ratio >= SOFT_LEAKAGE_RATIO,
        lambda f: (
            f"Group or clean the rows before you trust a score: {f.soft_leakage_ratio:.1%} of the"
            " validation or test rows nearly repeat a training row, so a model that memorises"
            " looks better than it is. Drop the copies, or name the column of their common origin"
            " (author, thread, template) in data.group_column."
        ),
        lambda f: "data: {group_column: <column of the origin>}",
        "Lee et al. 2022, https://arxiv.org/abs/2107.06499",
    ),
    Rule(
        "conflicting_labels",
        "data",
        f"at least {CONFLICT_RATIO:.0%} of the rows have the same or nearly the same text as rows"
        " with another label",
        lambda f: f.conflict_ratio >= CONFLICT_RATIO,
        lambda f: (
            f"Write down how the labels differ: {f.conflict_ratio:.1%} of the rows have the same"
            " or nearly the same text as rows with another label. The conflicts below show which"
            " classes are confused. No model can separate them better than the labelling"
            " guideline does."
        ),
        lambda f: "",
        "Northcutt et al. 2021, https://arxiv.org/abs/2103.14749",
    ),
    Rule(
        "odd_characters",
        "data",
        f"at least {ODD_RATIO:.0%} of the rows contain one kind of odd characters (mojibake, HTML"
        " entities, control or invisible characters)",
        lambda f: f.odd_ratio >= ODD_RATIO,
        lambda f: (
            f"Repair the texts first: {f.odd_ratio:.1%} of the rows contain traces of a broken"
            f" conversion ({f.odd_kind}). In short, {REMEDIES[f.odd_kind]}. Treat the texts that"
            " the model gets later in the same way."
        ),
        lambda f: "",
        PROJECT,
    ),
    Rule(
        "truncation",
        "data",
        f"at least {TRUNCATED_RATIO:.0%} of the rows are longer than the model reads",
        lambda f: f.truncated_ratio >= TRUNCATED_RATIO,
        _truncation,
        lambda f: "" if f.longer is None else f"model: {{max_length: {f.longer}}}",
        PROJECT,
    ),
    Rule(
        "few_rows",
        "method",
        f"fewer than {FEW_ROWS_PER_CLASS} training rows a class on average",
        lambda f: f.mean_rows < FEW_ROWS_PER_CLASS,
        lambda f: (
            f"Keep the encoder frozen and train only the head: a class has {f.mean_rows:.0f}"
            " training rows on average, too few to tune millions of weights. Balanced class"
            " weights cost nothing there. Then compare with model.mode: lora."
        ),
        lambda f: "model: {mode: head}\nloss: {class_weights: balanced}",
        "Tunstall et al. 2022 (few rows: a head on sentence embeddings),"
        " https://arxiv.org/abs/2209.11055",
    ),
    Rule(
        "balanced",
        "method",
        "imbalance ratio 1",
        lambda f: f.imbalance_ratio == 1,
        lambda f: "Do not balance: all classes have the same number of rows.",
        lambda f: "balance: {method: none}\nloss: {class_weights: none}",
        PROJECT,
    ),
    Rule(
        "mild_and_large",
        "method",
        f"imbalance ratio up to {MILD_RATIO}, and at least {PLENTY_ROWS_PER_CLASS:,} rows in the"
        " rarest class",
        lambda f: f.imbalance_ratio <= MILD_RATIO and f.smallest_rows >= PLENTY_ROWS_PER_CLASS,
        lambda f: (
            f"Undersample: {_rarest(f)}. That is enough to learn from, and more rows of the others"
            " mostly cost time. If they are drawn again every epoch, no row is wasted. Compare"
            " with balance.method: none, which may do as well."
        ),
        lambda f: "balance: {method: undersample, resample_each_epoch: true}",
        PROJECT,
    ),
    Rule(
        "mild",
        "method",
        f"imbalance ratio up to {MILD_RATIO}",
        lambda f: f.imbalance_ratio <= MILD_RATIO,
        lambda f: (
            f"Start without balancing: a ratio of {f.imbalance_ratio:.3g} is mild, and a"
            " pretrained model usually copes with it. Watch the recall of"
            f" '{f.minority_label}'. If it is low, try loss.class_weights: balanced next."
        ),
        lambda f: "balance: {method: none}\nloss: {class_weights: none}",
        "Buda et al. 2018, https://arxiv.org/abs/1710.05381 (harm grows with the ratio);"
        f" thresholds: {PROJECT}",
    ),
    Rule(
        "long_tail",
        "method",
        f"imbalance ratio above {MODERATE_RATIO}, and at least {MANY_CLASSES} classes",
        lambda f: f.imbalance_ratio > MODERATE_RATIO and f.num_classes >= MANY_CLASSES,
        lambda f: (
            f"Adjust the loss for the long tail: with {f.num_classes} classes and a ratio of"
            f" {f.imbalance_ratio:.3g}, undersampling would drop almost all rows, and balanced"
            " weights become extreme. Balanced softmax has no parameter to tune. Compare with"
            " loss.class_weights: sqrt."
        ),
        lambda f: "loss: {name: balanced_softmax}",
        "Ren et al. 2020, https://arxiv.org/abs/2007.10740; Menon et al. 2021,"
        " https://arxiv.org/abs/2007.07314",
    ),
    Rule(
        "tiny_minority",
        "method",
        f"imbalance ratio above {MODERATE_RATIO}, and fewer than {TINY_CLASS_ROWS} rows in the"
        " rarest class",
        lambda f: f.imbalance_ratio > MODERATE_RATIO and f.smallest_rows < TINY_CLASS_ROWS,
        lambda f: (
            f"Raise rare classes to a floor and write new rows for them: {_rarest(f)}, and most"
            " batches contain none of them. Oversampling to a floor shows them often enough, and"
            " augment adds wordings that the few rows lack. Compare with loss.class_weights:"
            " balanced alone."
        ),
        lambda f: (
            f"balance: {{method: floor, min_share: {FLOOR_SHARE}}}\naugment: {{generator: local,"
            f" model: <language model>, target_rows: {TINY_CLASS_ROWS}}}"
        ),
        "Buda et al. 2018, https://arxiv.org/abs/1710.05381 (oversampling); Anaby-Tavor et al."
        " 2020, https://arxiv.org/abs/1911.03118 (new rows)",
    ),
    Rule(
        "severe",
        "method",
        f"imbalance ratio above {MODERATE_RATIO}",
        lambda f: f.imbalance_ratio > MODERATE_RATIO,
        lambda f: (
            f"Adjust the logits by the class shares: a ratio of {f.imbalance_ratio:.3g} is severe,"
            f" but {_rarest(f)}, so every row can be kept. Compare with loss.class_weights:"
            " balanced, and with balance.method: floor."
        ),
        lambda f: "loss: {name: logit_adjusted}",
        "Menon et al. 2021, https://arxiv.org/abs/2007.07314",
    ),
    Rule(
        "moderate",
        "method",
        f"imbalance ratio above {MILD_RATIO} and up to {MODERATE_RATIO}",
        lambda f: True,
        lambda f: (
            f"Weight the loss by class: a ratio of {f.imbalance_ratio:.3g} is moderate. Balanced"
            " weights keep every row, and mistakes in rare classes count as much as mistakes in"
            " frequent ones. Compare with loss.name: logit_adjusted."
        ),
        lambda f: "loss: {class_weights: balanced}",
        "King and Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868; Menon et al."
        " 2021, https://arxiv.org/abs/2007.07314",
    ),
)
"""The decision table, in the order in which it is read."""
