"""The rows of a search, prepared once by each worker: to train on, to search on, and held out.

The test rows are dropped here, so no trial can reach them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trainer.arrays import Ints
from trainer.comparison.shared_data import SharedData, prepare_shared
from trainer.config.config import Config
from trainer.data.splitting.splitter import Splitter
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import DataError, counted
from trainer.runs.preparation import tokenise_splits
from trainer.training.models.model import load_tokenizer


@dataclass
class SearchData:
    """The rows of a search.

    Attributes:
        shared: training rows, and the search rows as the validation rows; no test rows.
        whole: the same with all validation rows, to tokenise them again.
        search: positions of the search rows among the validation rows.
        held_out: positions of the held-out rows among them.
    """

    shared: SharedData
    whole: SharedData
    search: Ints
    held_out: Ints
    _by_length: dict[int | None, tuple[SharedData, TokenisedRows]] = field(default_factory=dict)

    @property
    def held_out_rows(self) -> Ints:
        """Return the row ids of the held-out rows."""
        return self.whole.first.rows.compared[self.held_out]

    @property
    def words(self) -> str:
        """Return the numbers of rows, in words."""
        return (
            f"{len(self.shared.first.rows.splits.train):,} training rows; the validation rows are"
            f" divided: {len(self.search):,} to search on, {len(self.held_out):,} held out for the"
            " final estimate. Test rows are not used."
        )

    def of(self, config: Config) -> tuple[SharedData, TokenisedRows]:
        """Return the shared data and the tokens of the held-out rows for `model.max_length`."""
        length = config.model.max_length
        if length not in self._by_length:
            self._by_length[length] = self._tokenised(config)
        return self._by_length[length]

    def _tokenised(self, config: Config) -> tuple[SharedData, TokenisedRows]:
        whole = self.whole
        if config.model.max_length == whole.config.model.max_length:
            return self.shared, whole.first.tokens["validation"].take(self.held_out)
        model = whole.config.model.model_copy(update={"max_length": config.model.max_length})
        tokenizer, max_length = load_tokenizer(model, whole.pretrained)
        tokens = tokenise_splits(whole.first.unbalanced, tokenizer, max_length)
        held_out = tokens["validation"].take(self.held_out)
        tokens |= {"validation": tokens["validation"].take(self.search)}
        fold = replace(self.shared.first, tokens=tokens)
        shared = replace(
            self.shared,
            config=whole.config.model_copy(update={"model": model}),
            tokenizer=tokenizer,
            max_length=max_length,
            folds={None: fold},
        )
        return shared, held_out


def prepare_search(config: Config) -> SearchData:
    """Return the rows of a search.

    Raises:
        TrainerError: the rows or the model cannot be used.
    """
    section = config.compare.model_copy(
        update={"selection": "last_step", "folds": None, "tune": None}
    )
    whole = prepare_shared(config.model_copy(update={"compare": section}))
    fold = whole.first
    whole = replace(whole, folds={None: replace(fold, test_rows=fold.test_rows[:0])})
    search, held_out = _divide(whole, config)
    compared = fold.rows.compared
    searched = replace(fold.rows.splits, validation=compared[search])
    tokens = fold.tokens | {"validation": fold.tokens["validation"].take(search)}
    of_search = replace(
        whole.first,
        rows=replace(fold.rows, splits=searched, compared=compared[held_out]),
        unbalanced=replace(fold.unbalanced, splits=searched),
        tokens=tokens,
    )
    return SearchData(replace(whole, folds={None: of_search}), whole, search, held_out)


def _divide(whole: SharedData, config: Config) -> tuple[Ints, Ints]:
    """Return the positions of search rows and of held-out rows among the validation rows.

    Classes keep their shares, and equal texts and groups stay together.
    """
    validation, share = whole.first.rows.compared, config.tune.held_out
    cutter = Splitter(whole.first.clean, validation, config.data, None, config.run.seed)
    parts: Any = cutter.cut(validation, [1 - share, share], "tune")
    search, held_out = (np.flatnonzero(np.isin(validation, part)) for part in parts)
    if not len(search) or not len(held_out):
        raise DataError(
            f"tune: {counted(len(validation), 'validation row')} cannot be divided into rows to"
            " search on and rows held out. Give more validation rows (split.validation)."
        )
    return search, held_out
