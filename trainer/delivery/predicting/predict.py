"""Predict the labels of texts, for files, HTTP and Python. Legend: M models, N texts, C labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import overload

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.delivery.predicting.model_source import find_models
from trainer.delivery.predicting.saved_model import Answers, SavedModel
from trainer.delivery.predicting.texts import Text, as_list, is_single
from trainer.errors import ModelError, listing
from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision, mean_decision
from trainer.evaluation.decisions.vote import combine

__all__ = ["Answers", "Classifier", "Prediction", "Text"]


@dataclass(frozen=True)
class Prediction:
    """The answer of a classifier for one text.

    Attributes:
        label: the decided label, with thresholds and costs, so it may differ from the most
            probable one; for a multi-label model the most probable label.
        score: probability of `label`, in [0, 1].
        probabilities: one for each label; their sum is 1 unless the model is multi-label.
        labels: all labels of the text for a multi-label model, possibly none; otherwise `label`.

    Example:
        >>> from trainer import Classifier
        >>> answer = Classifier.load("runs/run").predict("What a lovely day!")
        >>> answer.label in answer.labels, round(sum(answer.probabilities.values()), 6)
        (True, 1.0)
    """

    label: str
    score: float
    probabilities: dict[str, float]
    labels: tuple[str, ...]


class Classifier:
    """A trained model, or several that vote, with the decision that training fitted.

    Without thresholds and costs, labels and probabilities equal those of `transformers.pipeline`.

    Args:
        members: models, or classifiers, with the same labels.
        vote: how several models decide: `majority` (most votes; after a tie the larger mean
            probability) or `mean` (the largest mean probability). Several labels a text: `majority`
            gives a label that most models give; `mean` gives one whose mean probability reaches the
            mean of the models' thresholds, which also decides ties.
        name: of the classifier; default: the names of its members.
    Attributes:
        labels: names in the order of the columns of `probabilities`.
        name: the source from which it was loaded.
        is_multi_label: whether a text may have any number of labels.
    Raises:
        ModelError: members with different labels, or of different kinds.

    Example:
        >>> from trainer import Classifier
        >>> classifier = Classifier.load("runs/run")
        >>> classifier.labels
        ['negative', 'neutral', 'positive']
        >>> [answer.label in classifier.labels for answer in classifier.predict(["One", "Two"])]
        [True, True]
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
        self.name = name or " + ".join(member.name for member in members)
        self.labels, self.is_multi_label = first.labels, first.is_multi_label
        for member in self.members:
            if member.is_multi_label != first.is_multi_label:
                kinds = {True: "any number of labels", False: "one label"}
                raise ModelError(
                    f"{first.name} gives a text {kinds[first.is_multi_label]}, and {member.name}"
                    f" gives {kinds[member.is_multi_label]}. Only models of one kind can vote."
                )
            if set(member.labels) != set(first.labels):
                raise ModelError(
                    f"{member.name} has the labels {listing(member.labels)}; {first.name} has"
                    f" {listing(first.labels)}. Only models with equal labels can vote."
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
        """Return the classifier of a run folder, a model folder or a Hub id.

        The run folder of an ensemble gives all its members, which vote as the run decided.

        Args:
            source: path of a run or a model folder, or the id of a model on the Hub.
            revision: branch, tag or commit on the Hub.
            trust_remote_code: run Python code of the model; only for sources that you trust.
            device: "cpu", "cuda", "cuda:1" ...; default: the accelerator if there is one.
        Raises:
            ModelError: not found, incomplete, or no text classifier.
            RunError: the run is not finished, or its model is missing.

        Example:
            >>> Classifier.load("runs/run", device="cpu").name
            'runs/run'
        """
        sources, vote = find_models(source)
        if revision and Path(source).expanduser().exists():
            raise ModelError(
                f"{source}: is a local folder, so it has no revision '{revision}'."
                " Only models on the Hub have revisions. Leave it out."
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
        """Return the classifier of one source, or of several that vote.

        Args:
            sources: a source, or several, as for `load`.
            vote: `majority` or `mean`; default: the choice of an ensemble's run, or majority.
            revision, trust_remote_code, device: as for `load`.
        Raises:
            ModelError, RunError: as for `load`; models with different labels or of different
                kinds; a vote with one model.

        Example:
            >>> len(Classifier.load_several(["runs/run", "runs/run"], vote="mean").models)
            2
        """
        sources = [sources] if isinstance(sources, str) else sources
        if vote and len(sources) == 1 and len(find_models(sources[0])[0]) == 1:
            raise ModelError(
                f"--vote is '{vote}', but {sources[0]} is one model."
                " Leave it out, or give several models."
            )
        members = [
            cls.load(source, revision=revision, trust_remote_code=trust_remote_code, device=device)
            for source in sources
        ]
        together = members[0] if len(members) == 1 else cls(members)
        together.vote = vote or together.vote
        return together

    def classify(self, texts: Text | Iterable[Text]) -> Answers:
        """Return probabilities and decided labels as arrays with one row for each text.

        Args:
            texts: as for `predict`.
        Raises:
            TypeError: as for `predict`.

        Example:
            >>> answers = Classifier.load("runs/run").classify(["One text", "Another"])
            >>> answers.probabilities_NC.shape, answers.decided.shape
            ((2, 3), (2,))
        """
        texts = as_list(texts)
        each = [self._in_order(member.labels, member.classify(texts)) for member in self.members]
        if len(each) == 1:
            return each[0]
        p_MNC = np.stack([answers.probabilities_NC for answers in each])
        predicted = np.stack([answers.decided for answers in each])
        return Answers(
            p_MNC.mean(axis=0),
            combine(self.vote, p_MNC, predicted, self._label_decision()),
            reduce(np.logical_or, (answers.truncated_N for answers in each)),
        )

    def probabilities(self, texts: Text | Iterable[Text]) -> Floats:
        """Return probabilities in the order of `labels`, with the decision's prior and temperature.

        Several models give the mean of their probabilities.

        Args:
            texts: as for `predict`.
        Returns:
            (N, C) for several texts, (C,) for one.
        Raises:
            TypeError: as for `predict`.

        Example:
            >>> Classifier.load("runs/run").probabilities("One text").shape
            (3,)
        """
        p_NC = self.classify(texts).probabilities_NC
        return p_NC[0] if is_single(texts) else p_NC

    @overload
    def predict(self, texts: Text) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, texts: Iterable[Text]) -> list[Prediction]: ...
    def predict(self, texts: Text | Iterable[Text]) -> Prediction | list[Prediction]:
        """Return a Prediction for each text; for a single text one Prediction, not a list.

        Args:
            texts: a text, a pair {"text": ..., "text_pair": ...}, or any iterable of them: a list,
                a column, an array, a generator.
        Raises:
            TypeError: another type, or a value that is no text.

        Example:
            >>> classifier = Classifier.load("runs/run")
            >>> len(classifier.predict(["One text", "Another"]))
            2
            >>> 0 < classifier.predict("One text").score < 1
            True
        """
        predictions = self.predictions(self.classify(texts))
        return predictions[0] if is_single(texts) else predictions

    def predictions(self, answers: Answers) -> list[Prediction]:
        """Return a Prediction for each row.

        Args:
            answers: of `classify`.

        Example:
            >>> classifier = Classifier.load("runs/run")
            >>> answers = classifier.classify(["One text"])
            >>> classifier.predictions(answers) == classifier.predict(["One text"])
            True
        """
        found = []
        for p_C, decided in zip(answers.probabilities_NC, answers.decided, strict=True):
            label_id = int(p_C.argmax()) if self.is_multi_label else int(decided)
            given = np.flatnonzero(decided) if self.is_multi_label else [label_id]
            found.append(
                Prediction(
                    label=self.labels[label_id],
                    score=float(p_C[label_id]),
                    probabilities=dict(zip(self.labels, p_C.tolist(), strict=True)),
                    labels=tuple(self.labels[c] for c in given),
                )
            )
        return found

    def num_tokens(self, texts: Text | Iterable[Text]) -> Ints:
        """Return the tokens that the first model reads of each text; safe to call from any thread.

        Special tokens count; the most is `max_length`.

        Args:
            texts: as for `predict`.
        Raises:
            TypeError: as for `predict`.

        Example:
            >>> Classifier.load("runs/run").num_tokens(["Yes", "Yes yes"])
            array([3, 4])
        """
        first = self.members[0]
        return (
            first.num_tokens(texts)
            if isinstance(first, Classifier)
            else first.tokens(texts).lengths_N
        )

    @property
    def models(self) -> list[SavedModel]:
        """All models of the classifier and of its members.

        Example:
            >>> [model.name for model in Classifier.load("runs/run").models]
            ['runs/run/model']
        """
        return [
            model
            for member in self.members
            for model in (member.models if isinstance(member, Classifier) else [member])
        ]

    def _label_decision(self) -> MultiLabelDecision | None:
        """Return the decision of a multi-label model, or of several; None for one label a text."""
        found = []
        for member in self.members:
            decision = (
                member._label_decision() if isinstance(member, Classifier) else member.decision
            )
            if not isinstance(decision, MultiLabelDecision):
                return None
            order_C = [member.labels.index(label) for label in self.labels]
            found.append(replace(decision, thresholds_C=decision.each_threshold_C[order_C]))
        return mean_decision(found)

    def _in_order(self, labels: list[str], answers: Answers) -> Answers:
        """Return the answers of a member in the order of our labels."""
        if labels == self.labels:
            return answers
        order_C = np.array([labels.index(label) for label in self.labels])
        decided = (
            answers.decided[:, order_C]
            if self.is_multi_label
            else np.argsort(order_C)[answers.decided]
        )
        logits_NC = None if answers.logits_NC is None else answers.logits_NC[:, order_C]
        return Answers(
            answers.probabilities_NC[:, order_C], decided, answers.truncated_N, logits_NC
        )
