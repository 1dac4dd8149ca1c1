"""Fine-tune with WeightedTrainer, and check the gradient of three trainers.

    python scripts/weighted_trainer.py

The rows are made up and the model has random weights, so nothing is downloaded. The stock
Trainer and the usual override of `compute_loss` fail the check; WeightedTrainer passes it.
"""

import tempfile

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from trainer import WeightedTrainer, check_gradient


class UsualOverride(Trainer):
    """The weighted trainer of blogs."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):  # type: ignore[no-untyped-def]
        """Return the weighted mean of each batch, which depends on how a step is cut."""
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.5, 3.0]))(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss


def main() -> None:
    """Train, and print what the check finds for each trainer."""
    labels = [int(row % 6 == 0) for row in range(240)]
    rows = [
        {"input_ids": [5 + label, 9 + row % 80], "labels": label}
        for row, label in enumerate(labels)
    ]
    data = Dataset.from_list(rows).train_test_split(0.25, seed=1)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    model = BertForSequenceClassification(BertConfig(vocab_size=100, num_labels=2, **shape))
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(folder, num_train_epochs=3, learning_rate=3e-3, report_to=[])
        given = {"train_dataset": data["train"], "eval_dataset": data["test"]}
        weighted = WeightedTrainer(model, args, class_weights="balanced", **given)
        weighted.train()
        for trainer in (
            weighted,
            Trainer(model, args, **given),
            UsualOverride(model, args, **given),
        ):
            print(f"{type(trainer).__name__}: {check_gradient(trainer)}")


if __name__ == "__main__":
    main()
