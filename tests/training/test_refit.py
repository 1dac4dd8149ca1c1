"""The final layer after training: fitted again, against scikit-learn, or scaled by its norms."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from small_runs import train
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainer import load_config
from trainer.config.sections.training import OWN_SPECS
from trainer.runs.preparation import prepare
from trainer.training.refit import REFITS, scales


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


def test_every_refit_is_a_choice_of_the_config():
    assert list(REFITS) == OWN_SPECS["refit_head"]["choices"]


def test_scales_even_out_the_norms_and_keep_their_geometric_mean():
    norms_C = np.array([1.0, 4.0, 16.0])
    assert scales(norms_C, 0.0) == pytest.approx([1, 1, 1])
    assert scales(norms_C, 0.5) == pytest.approx([0.5, 1, 2])
    assert norms_C / scales(norms_C, 1.0) == pytest.approx([4, 4, 4])


@pytest.mark.exhaustive
def test_weights_are_divided_by_a_power_of_their_norms_that_is_chosen_on_validation(
    small_config, tmp_path
):
    own = {"decision": {}}
    plain = train(small_config(tmp_path / "plain", **own))
    normalised = train(
        small_config(tmp_path / "tau", **own), **{"training.refit_head": "tau_normalised"}
    )
    before, after = (load_file(run / "model/model.safetensors") for run in (plain, normalised))
    card = (normalised / "README.md").read_text(encoding="utf-8")
    tau = float(re.search(r"their norm to the power of ([\d.]+), the best by `macro_f1`", card)[1])
    norms_C = before["classifier.weight"].double().norm(dim=1).numpy()
    factor_C = torch.from_numpy(scales(norms_C, tau)).float()
    weight_CH = before.pop("classifier.weight") / factor_C[:, None]
    assert torch.allclose(weight_CH, after["classifier.weight"])
    assert torch.allclose(before.pop("classifier.bias") / factor_C, after["classifier.bias"])
    assert all(torch.equal(value, after[name]) for name, value in before.items())
