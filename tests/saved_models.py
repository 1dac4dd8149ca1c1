"""Model and run folders as training leaves them, without training."""

import json
import shutil


def make_model(
    tiny_model,
    folder,
    labels=("negative", "neutral", "positive"),
    *,
    seed=0,
    problem_type="single_label_classification",
    max_length=48,
    **config,
):
    """A model folder as training writes it, with a random head that gives distinct scores."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    names = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: n for n, label in enumerate(labels)},
    }
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=len(labels), problem_type=problem_type, **names
    )
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    for key, value in config.items():
        setattr(model.config, key, value)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)
    return folder


def as_run(folder, models, metrics):
    """A run folder, or that of an ensemble, of the given models."""
    for number, model in enumerate(models, 1):
        shutil.copytree(model, folder / (f"member-{number}/model" if len(models) > 1 else "model"))
    (folder / "config.yaml").write_text("{}", encoding="utf-8")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def by_pipeline(folder, texts):
    """[{label: probability}] of transformers' own pipeline."""
    from transformers import pipeline

    found = pipeline("text-classification", str(folder), top_k=None)(texts, truncation=True)
    return [{score["label"]: score["score"] for score in scores} for scores in found]
