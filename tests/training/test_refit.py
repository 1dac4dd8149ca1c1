"""The head that is fitted again after training, against scikit-learn on the same embeddings."""

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from small_runs import train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainer import load_config
from trainer.runs.preparation import prepare


def test_head_is_refitted_to_balanced_classes_over_the_trained_encoder(
    small_config, tmp_path, capsys
):
    own = {"decision": {}}
    plain = train(small_config(tmp_path / "plain", **own))
    config = small_config(tmp_path / "refitted", **own)
    refitted = train(config, **{"training.refit_head": "balanced"})
    said = capsys.readouterr().out
    assert "Fitting the head again on class-balanced rows" in said
    before, after = (load_file(run / "model/model.safetensors") for run in (plain, refitted))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert not list(refitted.glob("embeddings-*"))

    data = prepare(load_config(str(config)))
    model = AutoModelForSequenceClassification.from_pretrained(refitted / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(refitted / "model")
    texts = [data.clean.rows.table["text"][int(row)].as_py() for row in data.splits.train]
    labels_N = data.clean.label_ids_N[data.splits.train]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        features_NH = model.bert(**batch).pooler_output.numpy().astype(np.float64)
        found_NC = model(**batch).logits.softmax(1).numpy()
    scaled_NH = (features_NH - features_NH.mean(0)) / features_NH.std(0)
    errors = []
    for l2 in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):  # one of them was chosen on validation
        reference = LogisticRegression(
            C=1 / (len(labels_N) * l2), class_weight="balanced", max_iter=10_000, tol=1e-8
        )
        reference.fit(scaled_NH, labels_N)
        errors.append(np.abs(reference.predict_proba(scaled_NH) - found_NC).max())
    assert min(errors) < 5e-3, errors
