"""What to try first for rows with several labels; table LABEL_SET_RULES.

Each label divides the rows into those that have it and those that lack it, so a label can be rare
although all labels are equally frequent.
"""

from trainer.audit.facts import PROJECT, Facts, Rule
from trainer.data.summary import MILD_RATIO, MODERATE_RATIO
from trainer.errors import counted

MANY_CLASSES = 20
LARGE_SHARE = 0.1
"""A label that so many rows have is not rare against the rows without it."""


def _rarest(facts: Facts) -> str:
    return (
        f"the rarest label, '{facts.minority_label}', is in"
        f" {counted(facts.smallest_rows, 'training row')} ({facts.smallest_share:.2%} of all)"
    )


LABEL_SET_RULES = (
    Rule(
        "frequent_labels",
        "method",
        f"several labels a row, imbalance ratio up to {MILD_RATIO}, and every label in at least"
        f" {LARGE_SHARE:.0%} of the training rows",
        lambda f: f.imbalance_ratio <= MILD_RATIO and f.smallest_share >= LARGE_SHARE,
        lambda f: (
            f"Start without balancing: {_rarest(f)}, which is enough for plain binary"
            " cross-entropy. If its recall is low, fit thresholds: decision.thresholds: f1."
        ),
        lambda f: "balance: {method: none}\nloss: {class_weights: none}",
        PROJECT,
    ),
    Rule(
        "long_tail_of_labels",
        "method",
        f"several labels a row, imbalance ratio above {MODERATE_RATIO}, and at least"
        f" {MANY_CLASSES} labels",
        lambda f: f.imbalance_ratio > MODERATE_RATIO and f.num_classes >= MANY_CLASSES,
        lambda f: (
            f"Use a loss for the long tail of labels that occur together: there are"
            f" {f.num_classes:,} labels, and {_rarest(f)}. Compare with loss.name: asymmetric."
            " One threshold for all labels (decision.thresholds: common) was better than one each,"
            " which rare labels cannot fit."
        ),
        lambda f: "loss: {name: distribution_balanced}",
        "Wu et al. 2020, https://arxiv.org/abs/2007.09654; Huang et al. 2021,"
        f" https://arxiv.org/abs/2109.04712; {PROJECT}",
        measured="on the 90 topics of Reuters, macro F1 was 0.52 instead of 0.44 with binary"
        " cross-entropy (heads); published: 0.64 instead of 0.47 (BERT)",
    ),
    Rule(
        "rare_labels",
        "method",
        "several labels a row, any other case",
        lambda f: True,
        lambda f: (
            "Use a loss that weighs the many rows without a label less, and fit a threshold for"
            f" each label: {_rarest(f)}. After a short training no label may reach a probability"
            " of 0.5; then the thresholds help most."
        ),
        lambda f: "loss: {name: asymmetric}\ndecision: {thresholds: f1}",
        f"Ridnik et al. 2021, https://arxiv.org/abs/2009.14119; {PROJECT}",
        measured="on 14 tactics of attackers (ratio 25), macro F1 on test was 0.811; class weights"
        " with the same thresholds gave 0.775",
    ),
)
"""The method rules of rows with several labels, in the order in which they are read."""
