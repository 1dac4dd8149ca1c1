"""A saved model to labels and probabilities, with the decision that its config carries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.decision import Decision


class Classifier:
    """Labels of texts as the run that trained the model decided them: prior, temperature, thresholds and costs included.

    The plain `transformers.pipeline` gives the same probabilities where the decision is folded into the weights, and the label
    of the largest one.

    Args:
        model: folder or Hub id of a single-label model.
    """

    def __init__(self, model: str) -> None:
        from transformers import pipeline

        self.scores = pipeline("text-classification", model, top_k=None, function_to_apply="none")
        config = self.scores.model.config
        self.labels = [config.id2label[label_id] for label_id in range(config.num_labels)]
        self.decision = Decision.from_config(getattr(config, "decision", None) or {}, self.labels)

    def __call__(self, texts: Sequence[str | dict[str, str]], batch_size: int = 32) -> tuple[list[str], NDArray[np.float64]]:
        """Label of each text, and probabilities (N, C) in the order of `labels`.

        Args:
            texts: texts, or {"text": ..., "text_pair": ...}.
        """
        found: list[list[dict[str, Any]]] = self.scores(list(texts), truncation=True, batch_size=batch_size) if texts else []
        by_label = [{score["label"]: score["score"] for score in row} for row in found]
        logits_NC = np.array([[row[label] for label in self.labels] for row in by_label]).reshape(len(by_label), len(self.labels))
        log_p_NC = self.decision.log_probabilities(logits_NC)
        return [self.labels[label_id] for label_id in self.decision.decide(log_p_NC)], np.exp(log_p_NC)
