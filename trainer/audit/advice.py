"""What to try first: a table of rules, each with its source, over the findings; table RULES.

All rules of kind 'data' that apply come first, because no balancing corrects wrong labels or
leakage between splits. Then come the rules of kind 'training', and the first rule of kind 'method'
that applies. The conditions are thresholds on Facts and nothing else. A rule of kind 'method' names
what was measured for it, on the page docs/explanation/benchmarks.md; figures are macro F1. Rows
with several labels have method rules of their own, in label_set_rules.py.
"""

from trainer.audit.facts import PROJECT, Advice, Facts, Rule
from trainer.audit.label_set_rules import LABEL_SET_RULES, MANY_CLASSES
from trainer.data.cleaning.text_artifacts import REMEDIES
from trainer.data.summary import MILD_RATIO, MODERATE_RATIO
from trainer.training.length import STEPS, STEPS_PER_CLASS, PlannedLength

TINY_CLASS_ROWS = 50
"""With fewer training rows, validation has too few to fit a threshold."""
DOUBTFUL_RATIO = 0.05
LEAST_MACRO_F1 = 0.6
"""A classifier with a lower macro F1 is wrong too often for its candidates to count."""
SOFT_LEAKAGE_RATIO = 0.01
CONFLICT_RATIO = 0.01
TRUNCATED_RATIO = 0.1
ODD_RATIO = 0.01


def advise(facts: Facts) -> list[Advice]:
    """Return every rule of data and training that applies, then the first method rule that does."""
    chosen = [rule for rule in RULES if rule.kind != "method" and rule.applies(facts)]
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


def _training_settings(planned: PlannedLength | None) -> str:
    values = planned.settings if planned else {}
    return "".join(f"training: {{{key}: {value}}}" for key, value in values.items())


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
        "few_steps",
        "training",
        f"fewer than {STEPS} optimizer steps, or {STEPS_PER_CLASS} for each class",
        lambda f: bool(f.planned and f.planned.sentence),
        lambda f: f.planned.sentence if f.planned else "",
        lambda f: _training_settings(f.planned),
        "Mosbach et al. 2021, https://arxiv.org/abs/2006.04884; Galke et al. 2022,"
        " https://arxiv.org/abs/2204.03954",
        "on CLINC150 (151 intents of 42 rows on average) 0.95 after 3,200 steps at 1e-4, 0.57 after"
        " 600 steps at 5e-5, and 0.89 with model.mode: head, which takes seconds",
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
        "mild",
        "method",
        f"imbalance ratio up to {MILD_RATIO}",
        lambda f: f.imbalance_ratio <= MILD_RATIO,
        lambda f: (
            f"Start without balancing: a ratio of {f.imbalance_ratio:.3g} is mild, and a"
            " pretrained model usually copes with it. Watch the recall of"
            f" '{f.minority_label}'. If it is low, try decision.thresholds: f1 next, which needs no"
            " other training."
        ),
        lambda f: "balance: {method: none}\nloss: {class_weights: none}",
        "Buda et al. 2018, https://arxiv.org/abs/1710.05381 (harm grows with the ratio);"
        f" thresholds: {PROJECT}",
        "on TweetEval emotion (ratio 4.8, two epochs), no balancing was reliably better than none",
    ),
    Rule(
        "long_tail",
        "method",
        f"imbalance ratio above {MODERATE_RATIO}, and at least {MANY_CLASSES} classes",
        lambda f: f.imbalance_ratio > MODERATE_RATIO and f.num_classes >= MANY_CLASSES,
        lambda f: (
            f"Weight the loss by the square root of the class sizes: with {f.num_classes} classes"
            f" and a ratio of {f.imbalance_ratio:.3g}, undersampling would drop almost all rows,"
            " and balanced weights become extreme. Compare with loss.name: balanced_softmax."
        ),
        lambda f: "loss: {class_weights: sqrt}",
        "Mahajan et al. 2018, https://arxiv.org/abs/1805.00932 (square root of the class sizes);"
        " Ren et al. 2020, https://arxiv.org/abs/2007.10740",
        "0.79 with sqrt, 0.75 with balanced and 0.40 without weights after 60 steps on Reuters R8"
        " (8 classes, ratio 69); nothing yet with so many classes",
    ),
    Rule(
        "tiny_minority",
        "method",
        f"imbalance ratio above {MILD_RATIO}, and fewer than {TINY_CLASS_ROWS} rows in the"
        " rarest class",
        lambda f: f.imbalance_ratio > MILD_RATIO and f.smallest_rows < TINY_CLASS_ROWS,
        lambda f: (
            f"Weight the loss by class: {_rarest(f)}, too few to fit a threshold on validation."
            " Compare with balance.method: oversample, and with rows that a language model writes"
            " (augment)."
        ),
        lambda f: "loss: {class_weights: balanced}",
        "King and Zeng 2001, https://doi.org/10.1093/oxfordjournals.pan.a004868; Buda et al."
        " 2018, https://arxiv.org/abs/1710.05381 (oversampling)",
        "+0.35 with weights and +0.36 with oversample over 0.54 on Reuters R8 (2,000 rows, ratio"
        " 69, two epochs); +0.16 with weights on all its rows",
    ),
    Rule(
        "thresholds",
        "method",
        f"imbalance ratio above {MILD_RATIO}",
        lambda f: True,
        lambda f: (
            "Train without balancing, and fit a threshold for each class on validation: the ratio"
            f" is {f.imbalance_ratio:.3g}, but {_rarest(f)}, so they can be learnt. Thresholds cost"
            " no training. Compare with loss.class_weights: balanced."
        ),
        lambda f: "decision: {thresholds: f1}",
        "Lipton et al. 2014, https://arxiv.org/abs/1402.1892 (thresholds for F1)",
        "+0.034 over 0.737 on rows with ratio 13 (class weights +0.025, class-balanced batches"
        " +0.003); +0.08 over 0.55 on TweetEval emotion after 60 steps (class weights +0.14)",
    ),
)
"""The decision table, in the order in which it is read."""
