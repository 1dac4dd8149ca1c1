"""Texts to labels: the one way of predicting behind every door (files, HTTP, Python). Legend: M models, N texts, C labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import overload

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.delivery.predicting.saved_model import Judged, SavedModel, find_models
from trainer.delivery.predicting.texts import Text, as_list, is_single
from trainer.errors import ModelError, listing
from trainer.evaluation.vote import COMBINERS, MULTI_LABEL_COMBINERS

__all__ = ["Classifier", "Judged", "Prediction", "Text"]


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one text.

    Attributes:
        label: the decided label, thresholds and costs included, so not always the most probable one; of a multi-label model the most probable.
        score: probability of `label`, in [0, 1].
        probabilities: of every label; they add up to 1 unless the model is multi-label.
        labels: of a multi-label model all that the text is given, perhaps none; else `label` alone.
    """

    label: str
    score: float
    probabilities: dict[str, float]
    labels: tuple[str, ...]


class Classifier:
    """A trained model, or several that vote, with the decision that training fitted.

    >>> from trainer import Classifier
    >>> classifier = Classifier.load("runs/quickstart")  # doctest: +SKIP
    >>> classifier.predict("What a lovely day!").label  # doctest: +SKIP
    'positive'
    >>> [answer.label for answer in classifier.predict(["What a lovely day!", "I hate this."])]  # doctest: +SKIP
    ['positive', 'negative']

    Where a model carries no thresholds and costs, labels and probabilities are those of the plain `transformers.pipeline`.

    Args:
        members: models, or classifiers, of the same labels.
        vote: how several decide together: `majority` (most votes, on a tie the larger mean probability) or `mean` (probability).
    Attributes:
        labels: names in the order of the columns of `probabilities`.
        name: what it was loaded from.
        is_multi_label: whether a text is given any number of labels.
    Raises:
        ModelError: members of other labels, or of another kind.
    """

    labels: list[str]
    name: str
    is_multi_label: bool

    def __init__(
        self,
        members: "Sequence[SavedModel | Classifier]",
        *,
        vote: str = "majority",
        name: str = "",
    ) -> None:
        first = members[0]
        self.members, self.vote = list(members), vote
        self.name, self.labels, self.is_multi_label = (
            name or " + ".join(member.name for member in members),
            first.labels,
            first.is_multi_label,
        )
        for member in self.members:
            if member.is_multi_label != first.is_multi_label:
                kinds = {True: "any number of labels", False: "one label"}
                raise ModelError(
                    f"{first.name} gives a text {kinds[first.is_multi_label]}, {member.name} {kinds[member.is_multi_label]}; models of one kind can vote."
                )
            if set(member.labels) != set(first.labels):
                raise ModelError(
                    f"{member.name} has the labels {listing(member.labels)}; {first.name} has {listing(first.labels)}. Only equal ones can vote."
                )

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> "Classifier":
        """The classifier of a run folder, a model folder or a Hub id; of an ensemble's run folder all members, which vote as the run decided.

        Args:
            revision: branch, tag or commit on the Hub.
            trust_remote_code: run Python code that comes with the model; only for sources you trust.
            device: 'cpu', 'cuda', 'cuda:1' ...; left out: the accelerator where there is one.
        Raises:
            ModelError: not found, not whole, or no text classifier.
            RunError: a run that is not finished or has lost its model.
        """
        sources, vote = find_models(source)
        if revision and Path(source).expanduser().exists():
            raise ModelError(
                f"{source}: is here, so it has no revision '{revision}', which tells states of a Hub model apart. Leave it out."
            )
        models = [
            SavedModel(found, revision=revision, trust_remote_code=trust_remote_code, device=device)
            for found in sources
        ]
        return cls(models, vote=vote or "majority", name=str(source))

    @classmethod
    def load_several(
        cls,
        sources: str | Sequence[str],
        *,
        vote: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> "Classifier":
        """The classifier of one source, or of several that vote.

        Args:
            vote: `majority` or `mean`; left out: as an ensemble's run decided, else majority.
        Raises:
            ModelError, RunError: as for `load`; models of other labels or another kind; a vote of one model.
        """
        sources = [sources] if isinstance(sources, str) else sources
        if vote and len(sources) == 1 and len(find_models(sources[0])[0]) == 1:
            raise ModelError(
                f"--vote is '{vote}', but {sources[0]} is one model. Leave it out, or give several."
            )
        members = [
            cls.load(source, revision=revision, trust_remote_code=trust_remote_code, device=device)
            for source in sources
        ]
        together = members[0] if len(members) == 1 else cls(members)
        together.vote = vote or together.vote
        return together

    def judge(self, texts: Text | Iterable[Text]) -> Judged:
        """Probabilities and decided labels of texts, as arrays with one row for each; of one text with one row."""
        texts = as_list(texts)
        each = [self._in_order(member.labels, member.judge(texts)) for member in self.members]
        if len(each) == 1:
            return each[0]
        p_MNC, decided = (
            np.stack([judged.probabilities_NC for judged in each]),
            np.stack([judged.decided for judged in each]),
        )
        combine = (MULTI_LABEL_COMBINERS if self.is_multi_label else COMBINERS)[self.vote]
        return Judged(
            p_MNC.mean(axis=0),
            combine(p_MNC, decided),
            reduce(np.logical_or, (judged.truncated_N for judged in each)),
        )

    def probabilities(self, texts: Text | Iterable[Text]) -> Floats:
        """Probabilities in the order of `labels`, the decision's prior and temperature included; of several models their mean.

        Args:
            texts: as for `predict`.
        Returns:
            (N, C) of several texts, (C,) of one.
        Raises:
            TypeError: as for `predict`.
        """
        p_NC = self.judge(texts).probabilities_NC
        return p_NC[0] if is_single(texts) else p_NC

    @overload
    def predict(self, texts: Text) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Iterable[Text]) -> list[Prediction]: ...
    def predict(self, texts: Text | Iterable[Text]) -> Prediction | list[Prediction]:
        """Return what it says of each text; of one text one Prediction, and no list.

        Args:
            texts: a text, a pair {"text": ..., "text_pair": ...}, or any iterable of them: a list, a column, an array, a generator.
        Raises:
            TypeError: something else, or a value that is no text.
        """
        predictions = self.predictions(self.judge(texts))
        return predictions[0] if is_single(texts) else predictions

    def predictions(self, judged: Judged) -> list[Prediction]:
        """What was judged, text by text."""
        return [
            self._prediction(p_C, decided)
            for p_C, decided in zip(judged.probabilities_NC, judged.decided, strict=True)
        ]

    def num_tokens(self, texts: Text | Iterable[Text]) -> Ints:
        """Tokens that the (first) model reads of each text, special ones included; at most its `max_length`. Any thread may ask."""
        first = self.members[0]
        return (
            first.num_tokens(texts)
            if isinstance(first, Classifier)
            else first.tokens(texts).lengths_N
        )

    @property
    def models(self) -> list[SavedModel]:
        """The models behind it."""
        return [
            model
            for member in self.members
            for model in (member.models if isinstance(member, Classifier) else [member])
        ]

    def _in_order(self, labels: list[str], judged: Judged) -> Judged:
        """What a member judged, in the order of our labels."""
        if labels == self.labels:
            return judged
        order_C = np.array([labels.index(label) for label in self.labels])
        decided = (
            judged.decided[:, order_C]
            if self.is_multi_label
            else np.argsort(order_C)[judged.decided]
        )
        logits_NC = None if judged.logits_NC is None else judged.logits_NC[:, order_C]
        return Judged(judged.probabilities_NC[:, order_C], decided, judged.truncated_N, logits_NC)

    def _prediction(self, p_C: Floats, decided: Bools | np.int64) -> Prediction:
        label_id = int(p_C.argmax()) if self.is_multi_label else int(decided)  # type: ignore[arg-type]
        label = self.labels[label_id]
        labels = (
            tuple(self.labels[c] for c in np.flatnonzero(decided))
            if self.is_multi_label
            else (label,)
        )
        return Prediction(
            label, float(p_C[label_id]), dict(zip(self.labels, p_C.tolist(), strict=True)), labels
        )
