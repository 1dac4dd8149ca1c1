"""The plan of which training rows an epoch draws, and the domains that `balance.by` balances."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.arrays import Ints
from trainer.config.sections.balancing import BalanceSection
from trainer.data.balancing.balance import BalancePlan, plan_balance
from trainer.data.balancing.label_balance import plan_label_balance
from trainer.data.cleaning.clean import CleanRows

NO_DOMAIN = "(none)"
Domains = tuple[Ints, list[str]]
"""The domain id of each row, and the names of the domains."""


def plan_training(
    clean: CleanRows, train: Ints, domains: Domains | None, balance: BalanceSection, seed: int
) -> BalancePlan:
    """Return which of the training rows are drawn: by class, or by label of multi-label rows.

    Args:
        train: ids of the training rows.
        domains: the domain of every row, not only of the training rows.
    """
    common: dict[str, Any] = {
        "labels": clean.labels.names,
        "method": "none" if balance.scope == "all" else balance.row_method,
        "parameter": balance.parameter,
        "seed": seed,
        "resample_each_epoch": balance.resample_each_epoch,
    }
    keys_N = clean.text_hashes_N[train]
    strata = (domains[0][train], domains[1]) if domains else None
    if clean.label_matrix_NC is not None:
        return plan_label_balance(
            clean.label_matrix_NC[train],
            keys_N,
            domains=strata and _present(*strata),
            by_label=balance.by_label,
            **common,
        )
    label_ids_N, labels = clean.label_ids_N[train], clean.labels.names
    if strata and balance.by_label:
        pairs = [f"{domain} / {label}" for domain in strata[1] for label in labels]
        strata = strata[0] * len(labels) + label_ids_N, pairs
    return plan_balance(label_ids_N, keys_N, domains=strata and _present(*strata), **common)


def domains_of(clean: CleanRows) -> Domains:
    """Return the domain of every row; rows without one form the domain NO_DOMAIN."""
    column = pc.fill_null(clean.rows.table["domain"], NO_DOMAIN)
    names = sorted(pc.unique(column).to_pylist())
    return pc.index_in(column, value_set=pa.array(names)).to_numpy().astype(np.int64), names


def _present(ids_N: Ints, names: list[str]) -> Domains:
    """Renumber the ids so that they count only the names that have rows, and return these names."""
    present, ids_N = np.unique(ids_N, return_inverse=True)
    return ids_N.astype(np.int64), [names[s] for s in present]
