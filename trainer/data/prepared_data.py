"""What training receives: the cleaned rows, their splits, the rows drawn, the class weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import xxhash

from trainer.arrays import Floats, Ints
from trainer.data.augmenting.augment import SyntheticRows
from trainer.data.balancing.balance import BalancePlan
from trainer.data.cleaning.clean import CleanRows
from trainer.data.labels.multi_label import answer_weights
from trainer.data.splitting.split import Splits
from trainer.data.summary import DataSummary


@dataclass(frozen=True)
class PreparedData:
    """Everything that training needs to know about the data.

    Attributes:
        plan: draws positions into `splits.train`.
        class_weights_C: one weight per class, with mean 1 over the rows drawn. Multi-label data
            have the positive weight of each label instead.
        domains: the domain id of every row and the names of the domains (`balance.by`).
        synthetic: rows that a language model wrote. They are the last rows of `clean` and of
            `splits.train`. None without `augment`.
    """

    clean: CleanRows
    splits: Splits
    plan: BalancePlan
    class_weights_C: Floats
    summary: DataSummary
    domains: tuple[Ints, list[str]] | None = None
    synthetic: SyntheticRows | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their ids."""
        return self.clean.labels.names

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.clean.label_matrix_NC is not None

    def loss_weights(self, weighting: str | Mapping[str, float]) -> Floats:
        """Return the class weights (C,) as the loss takes them.

        With multi-label data these are the weights of rows without and with each label, (2, C).

        Args:
            weighting: `weighting` of the section `loss`.
        """
        weights_C = self.class_weights_C
        return answer_weights(weights_C, weighting) if self.is_multi_label else weights_C

    @property
    def labels_per_row(self) -> str:
        """One sentence on the number of labels per row; empty unless the data are multi-label."""
        if self.clean.label_matrix_NC is None:
            return ""
        rows = np.concatenate(list(self.splits.named.values()))
        sizes_N = self.clean.label_matrix_NC[rows].sum(axis=1)
        return (
            f"Multi-label: {sizes_N.mean():.2f} labels a row; {(sizes_N > 1).mean():.1%} of the "
            f"rows have two or more, {(sizes_N == 0).mean():.1%} have none."
        )

    @property
    def balanced_sentence(self) -> str:
        """One sentence on how balancing changed the label counts of multi-label data.

        It is empty where each row has one label, or where every row is seen once.
        """
        matrix_NC, drawn_C = self.clean.label_matrix_NC, self.summary.counts["drawn"]
        positions = self.plan.positions()
        if matrix_NC is None or np.array_equal(positions, np.arange(len(self.splits.train))):
            return ""
        least, most = int(drawn_C.argmin()), int(drawn_C.argmax())
        unlabelled = int((matrix_NC[self.splits.train].sum(axis=1) == 0)[positions].sum())
        without = f", and {unlabelled:,} rows without one" if unlabelled else ""
        words = f"Balanced by label: an epoch sees {drawn_C[least]:,}"
        draws_S = self.plan.draws_S
        times = "" if draws_S is None else f" Every label is drawn {draws_S.max():,} times."
        if drawn_C[least] == drawn_C[most]:
            return f"{words} rows of every label{without}.{times}"
        return (
            f"{words} ({self.labels[least]}) to {drawn_C[most]:,} ({self.labels[most]}) rows of a "
            f"label{without}.{times} Labels that share rows cannot all have one count."
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests that all processes of a run must share: of the rows, the splits and the plan."""
        splits = {
            f"the fingerprint of {name} rows": xxhash.xxh3_64(ids_N.tobytes()).hexdigest()
            for name, ids_N in self.splits.named.items()
        }
        return {
            "the fingerprint of the data": self.clean.fingerprint,
            **splits,
            "the fingerprint of the rows and weights of training": self.plan_digest,
        }

    @property
    def streamed_sentence(self) -> str:
        """One sentence on what `data.streaming` read and chose; empty without streaming."""
        sizes = {name: len(ids) for name, ids in self.splits.named.items()}
        return self.clean.streamed.sentence(sizes) if self.clean.streamed else ""

    @property
    def time_sentence(self) -> str:
        """One sentence on the time range of each split; empty unless rows are split by time."""
        parts = [
            f"{name} from {first} to {last} ({len(self.splits.named[name]):,} rows)"
            for name, (first, last) in (self.splits.time_ranges or {}).items()
        ]
        return f"Split by time: {'; '.join(parts)}." if parts else ""

    @property
    def unused_rows(self) -> int:
        """Cleaned rows in no split, because of data.limit, balance.scope: all or data.streaming."""
        used = sum(len(ids) for ids in self.splits.named.values())
        return self.clean.counts["kept"] + self.clean.num_synthetic - used

    @property
    def plan_digest(self) -> str:
        """XXH3 digest of the rows that the first epoch sees and of the class weights."""
        positions, digest = self.plan.positions(), xxhash.xxh3_128()
        drawn = self.plan.row_keys_N[positions], self.plan.targets[positions]
        for numbers in (*drawn, self.class_weights_C):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    def with_synthetic(self, drawn_C: Ints, class_weights_C: Floats) -> "PreparedData":
        """Return the data after embeddings were synthesised.

        Args:
            drawn_C: embeddings of each class that training saw.
            class_weights_C: the class weights over them.
        """
        counts = self.summary.counts | {"drawn": drawn_C}
        summary = replace(self.summary, counts=counts)
        return replace(self, class_weights_C=class_weights_C, summary=summary)
