"""The frozen encoder: its embeddings, the fitted head, and the saved ordinary model."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from encoders import ENCODERS
from test_bad_input import fails  # noqa: F401
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    pipeline,
)

from trainer import load_config
from trainer.config.sections.model import ModelSection
from trainer.errors import ConfigError, ModelError, TrainingError
from trainer.runs.training_run import train
from trainer.training.frozen.embed import embed
from trainer.training.frozen.head import Scaler
from trainer.training.frozen.linear_fit import fit_linear
from trainer.training.losses.one_label import cross_entropy
from trainer.training.losses.several_labels import binary_cross_entropy
from trainer.training.losses.step_loss import step_loss
from trainer.training.models.layers import final_layer, pass_through
from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer

pytestmark = pytest.mark.slow

PASSED = {
    "bert_without_pooler": "bert.pooler.dense",
    "distilbert": "pre_classifier",
    "roberta": "classifier.dense",
    "modernbert": "head.dense",
}
"""The untrained layer before the final one, where there is one."""


@pytest.fixture
def loaded(encoders):
    """Function (kind) -> (model, tokenizer) for three labels in mode head."""

    def load(kind):
        section = ModelSection(name=encoders(kind), mode="head")
        config = load_pretrained_config(section)
        tokenizer, max_length = load_tokenizer(section, config)
        return load_model(section, config, ["a", "b", "c"], tokenizer, max_length), tokenizer

    return load


def token_rows(texts, tokenizer):
    from trainer.data.tokens.tokenise import TokenisedRows

    ids = [tokenizer(text)["input_ids"] for text in texts]
    offsets = np.r_[0, np.cumsum([len(i) for i in ids])]
    return TokenisedRows(
        {"input_ids": np.concatenate(ids).astype(np.int32)},
        offsets,
        np.zeros(len(ids), np.int64),
        np.zeros(len(ids), bool),
    )


def embedded(model, tokenizer, rows, cache):
    from trainer.training.batches.batching import Collator

    return embed(model, rows, Collator(tokenizer), device="cpu", cache_dir=cache)


TEXTS = [
    "one",
    "two words",
    "a third text of some more words",
    "one",
    "yet another, and it is the longest of all of them",
    "six",
]


@pytest.mark.parametrize("kind", ENCODERS)
def test_saved_model_is_an_ordinary_one_whose_pipeline_predicts_what_the_head_predicted(
    kind, encoders, config_file, tweets
):
    run = train(
        load_config(
            config_file(
                model={"name": encoders(kind), "mode": "head", "head": {"l2": 0.01}},
                balance={"method": "none"},
            )
        )
    )
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    with tweets.open(encoding="utf-8", newline="") as file:
        texts = [row["text"].strip() for row in csv.DictReader(file)]
    found = pipeline("text-classification", str(run / "model"), top_k=None)(
        [texts[row] for row in table["row"]], truncation=True
    )
    for label in ("negative", "neutral", "positive"):
        ours = table[f"probability_{label}"].tolist()
        assert [{f["label"]: f["score"] for f in row}[label] for row in found] == pytest.approx(
            ours, abs=2e-5
        )
    assert table["predicted"].nunique() > 1  # the head has learnt something to compare


@pytest.mark.parametrize("kind", ENCODERS)
def test_embedding_is_the_input_of_the_final_layer_at_the_place_the_model_pools(
    kind, loaded, tmp_path
):
    model, tokenizer = loaded(kind)
    vectors = embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path)
    final = model.get_submodule(final_layer(model))
    with torch.no_grad():
        expected = torch.cat(
            [model(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits for text in TEXTS]
        )
        assert torch.allclose(final(torch.from_numpy(vectors)), expected, atol=1e-5)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, 16)


@pytest.mark.parametrize("kind", PASSED)
def test_untrained_layer_hands_on_what_the_encoder_gives(kind, loaded, tmp_path):
    model, tokenizer = loaded(kind)
    generator = np.random.default_rng(0)
    texts = [
        " ".join(tokenizer.convert_ids_to_tokens(generator.integers(2000, 8000, 8).tolist()))
        for _ in range(64)
    ]
    inputs = []
    hook = model.get_submodule(PASSED[kind]).register_forward_pre_hook(
        lambda _, arguments: inputs.append(arguments[0])
    )
    rows = token_rows(texts, tokenizer)
    vectors = embedded(model, tokenizer, rows, tmp_path)
    hook.remove()
    given = inputs[-1].reshape(len(texts), -1, 16)[:, 0].detach().numpy()
    order = np.argsort(-rows.lengths_N[np.unique(keys(rows), return_index=True)[1]], kind="stable")
    ours = vectors[np.unique(keys(rows), return_index=True)[1]][order]
    straight = [abs(np.corrcoef(given[:, h], ours[:, h])[0, 1]) for h in range(16)]
    assert min(straight) > 0.98  # a relu of a plain identity gives 0.86 or less


def keys(rows):
    from trainer.training.frozen.vector_cache import row_keys

    return row_keys(rows)


def test_trained_layer_before_the_final_one_is_kept(loaded, encoders):
    model, _ = loaded("bert")
    pretrained = BertModel.from_pretrained(encoders("bert"))
    assert torch.equal(model.bert.pooler.dense.weight, pretrained.pooler.dense.weight)
    assert pass_through(model, ["classifier.weight", "classifier.bias"]) == []


def test_rows_are_embedded_once_whatever_run_asks_for_them(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "trainer.training.frozen.embed.fit_collator", lambda *_: False
    )  # reads rows of its own
    model, tokenizer = loaded("distilbert")
    seen = []
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda **inputs: seen.append(len(inputs["input_ids"])) or forward(**inputs),
    )
    first = embedded(model, tokenizer, token_rows(TEXTS[:4], tokenizer), tmp_path)
    assert sum(seen) == 3  # 'one' stands twice
    again = embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path)
    assert sum(seen) == 5  # two are new
    assert (again[:4] == first).all()
    assert (
        embedded(model, tokenizer, token_rows(TEXTS[::-1], tokenizer), tmp_path) == again[::-1]
    ).all()
    assert sum(seen) == 5
    with torch.no_grad():
        model.classifier.weight.add_(1)  # not part of what is embedded
    embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path)
    assert sum(seen) == 5
    with torch.no_grad():
        model.distilbert.transformer.layer[0].ffn.lin1.weight.normal_()
    assert not np.allclose(
        embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path), again
    )
    assert sum(seen) == 10


def test_what_a_killed_run_embedded_is_kept(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "trainer.training.frozen.embed.fit_collator", lambda *_: False
    )  # reads rows of its own
    model, tokenizer = loaded("distilbert")
    monkeypatch.setattr("trainer.training.frozen.vector_cache.SHARD_ROWS", 2)
    seen, forward = [], model.forward

    def interrupted(**inputs):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path)
    monkeypatch.setattr(
        model,
        "forward",
        lambda **inputs: seen.append(len(inputs["input_ids"])) or forward(**inputs),
    )
    embedded(model, tokenizer, token_rows(TEXTS, tokenizer), tmp_path)
    assert seen == [2, 2, 1]


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.4, 1.1, 1.5]])
def test_head_reaches_the_optimum_of_scikit_learn(l2, weights):
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    label_ids = generator.integers(0, 3, 300)
    features = generator.normal(size=(300, 8)) + 0.6 * label_ids[:, None]
    weight, bias = torch.zeros(3, 8), torch.zeros(3)
    loss = step_loss(cross_entropy, torch.tensor(weights))
    mean_loss, iterations = fit_linear(
        torch.tensor(features, dtype=torch.float32),
        torch.tensor(label_ids),
        loss,
        weight,
        bias,
        l2=l2,
    )
    reference = LogisticRegression(
        C=1 / (300 * l2), class_weight=dict(enumerate(weights)), tol=1e-10, max_iter=10_000
    ).fit(features, label_ids)
    log_p = reference.predict_log_proba(features)[range(300), label_ids]
    expected = -(np.array(weights)[label_ids] * log_p).mean() + l2 / 2 * (reference.coef_**2).sum()
    assert mean_loss + l2 / 2 * weight.square().sum().item() == pytest.approx(expected, rel=1e-6)
    assert weight.detach().numpy() == pytest.approx(reference.coef_, abs=1e-3)
    assert 1 < iterations < 200


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 3.0, 20.0]], ids=["plain", "weighted"])
def test_head_of_several_labels_reaches_the_optimum_of_one_classifier_per_label(weights):
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    generator, l2 = np.random.default_rng(0), 1e-2
    targets = generator.random((300, 3)) < [0.5, 0.2, 0.05]
    features = generator.normal(size=(300, 8)) + targets @ generator.normal(size=(3, 8))
    weight, bias = torch.zeros(3, 8, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    mean_loss, _ = fit_linear(
        torch.tensor(features),
        torch.tensor(targets),
        step_loss(binary_cross_entropy, torch.tensor(weights)),
        weight,
        bias,
        l2=l2,
    )
    reference, C = np.empty((3, 8)), 1 / (300 * l2)
    for label, positive in enumerate(weights):
        fitted = LogisticRegression(C=C, class_weight={1: positive}, tol=1e-10, max_iter=10_000)
        reference[label] = fitted.fit(features, targets[:, label]).coef_[0]
    assert weight.detach().numpy() == pytest.approx(reference, abs=2e-3)
    if set(weights) == {1.0}:
        together = OneVsRestClassifier(LogisticRegression(C=C, tol=1e-10, max_iter=10_000))
        p = together.fit(features, targets).predict_proba(features)
        assert mean_loss == pytest.approx(
            -np.log(np.where(targets, p, 1 - p)).sum() / 300, abs=2e-4
        )
        assert np.array_equal(
            (features @ weight.detach().numpy().T + bias.detach().numpy()) >= 0, p >= 0.5
        )


def test_scaler_folded_into_the_layer_gives_the_same_logits_and_centres_only_with_a_bias():
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(50, 6)) * [1, 10, 0.01, 1, 1, 0] + 3).astype(np.float32)
    weight, bias = torch.randn(4, 6), torch.randn(4)
    for given in (bias, None):
        scaler = Scaler.of(features, centre=given is not None)
        scaled = scaler.scaled(features)
        assert scaled[:, :5].std(dim=0, correction=0).tolist() == pytest.approx([1] * 5, rel=1e-4)
        assert (abs(scaled.mean()) < 1e-3) == (given is not None)
        expected = torch.nn.functional.linear(scaled, weight, given)
        assert torch.allclose(
            torch.nn.functional.linear(torch.from_numpy(features), *scaler.fold(weight, given)),
            expected,
            atol=2e-2,
            rtol=1e-4,
        )


@pytest.fixture
def frozen(config_file):
    """Function (*overrides, **sections) -> run folder of a head on the tiny MiniLM, of all rows."""

    def run(*overrides, **sections):
        sections = {"model": {"mode": "head"}, "balance": {"method": "none"}} | sections
        return train(load_config(config_file(**sections), ["run.overwrite=true", *overrides]))

    return run


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_best_strength_on_validation_is_the_model_that_is_kept(frozen, capsys):
    folder = frozen()
    with (folder / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["l2"]) for row in rows] == [0.1, 0.01, 0.001, 0.0001, 0.00001]
    metrics = read_json(folder / "metrics.json")
    assert metrics["validation"]["macro_f1"] == pytest.approx(
        max(float(row["macro_f1"]) for row in rows)
    )
    assert metrics["training"]["steps"] == int(rows[-1]["step"])
    out = capsys.readouterr().out
    assert (
        "Training Loss  Fit  Step  Validation Loss  Accuracy  Macro F1  Minority Recall       L2"
        in out
    )
    assert "model.mode head: 1,155 of " in out  # 3 x 384 weights and 3 biases
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "the encoder is frozen" in card
    assert "chosen of 5 by `macro_f1` on validation" in card


def test_loss_as_the_metric_and_a_given_strength_are_honoured(frozen):
    folder = frozen("training.metric_for_best_model=loss")
    with (folder / "epochs.csv").open() as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    assert read_json(folder / "metrics.json")["validation"]["loss"] == pytest.approx(min(losses))
    folder = frozen("model.head.l2=0.5", "training.max_steps=3")
    assert read_json(folder / "metrics.json")["training"]["steps"] == 3
    assert "L2 strength 0.5, as configured" in (folder / "README.md").read_text(encoding="utf-8")


def test_same_config_gives_the_same_weights(frozen):
    weights = [
        (
            frozen("balance.method=smote", "model.head.l2=0.01") / "model/model.safetensors"
        ).read_bytes()
        for _ in range(2)
    ]
    assert weights[0] == weights[1]


def test_drawn_rows_are_trained_on_as_often_as_they_were_drawn(frozen):
    folder = frozen("balance.method=undersample", "training.max_steps=20", "model.head.l2=0.01")
    assert "84 of 168 training rows are seen" in (folder / "README.md").read_text(encoding="utf-8")
    folder = frozen("balance.method=oversample", "model.head.l2=0.01")
    oversampled = read_json(folder / "metrics.json")["validation"]
    folder = frozen(
        "loss.class_weights=balanced", "model.head.l2=0.01"
    )  # a row three times is a row of weight three
    weighted = read_json(folder / "metrics.json")["validation"]
    assert oversampled["loss"] == pytest.approx(weighted["loss"], abs=0.05)
    assert (
        oversampled["confusion_matrix"]
        != read_json(frozen("model.head.l2=0.01") / "metrics.json")["validation"][
            "confusion_matrix"
        ]
    )


def test_loss_of_the_config_is_minimised(frozen):
    counts = {}
    for name in ("cross_entropy", "logit_adjusted", "focal"):
        matrix = np.array(
            read_json(frozen(f"loss.name={name}", "model.head.l2=0.01") / "metrics.json")[
                "validation"
            ]["confusion_matrix"]
        )
        counts[name] = matrix.sum(axis=0).tolist()
    assert (
        counts["logit_adjusted"][2] > counts["cross_entropy"][2]
    )  # the rarest class is predicted more often
    assert counts["focal"] != counts["logit_adjusted"]


def test_synthetic_embeddings_are_counted_in_card_and_weights(frozen):
    from huggingface_hub import ModelCard

    folder = frozen(
        "balance.method=smote",
        "balance.neighbours=3",
        "loss.class_weights={positive: 2}",
        "decision.prior=natural",
        "model.head.l2=0.01",
    )
    card = ModelCard.load(folder / "README.md").text
    assert (
        "`balance.method: smote` with 3 neighbours adds 84 synthetic embeddings to those of the 168"
        " training rows" in card
    )
    assert "| positive | 28 | 84 | 6 | 6 |" in card
    assert read_json(folder / "class_weights.json") == pytest.approx(
        {"negative": 0.75, "neutral": 0.75, "positive": 1.5}
    )  # each class is a third
    decision = read_json(folder / "metrics.json")["decision"]
    assert decision["training_prior"] == pytest.approx(
        {"negative": 0.25, "neutral": 0.25, "positive": 0.5}
    )
    assert decision["prior_is_approximate"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model.mode=full"],
            (
                "balance.method smote makes new embeddings, never text, so it needs "
                "model.mode: head; model.mode is 'full'"
            ),
        ),
        (["model.mode=lora"], "model.mode is 'lora'"),
        (
            ["balance.resample_each_epoch=true"],
            "method smote adds embeddings to all training rows, once; remove resample_each_epoch",
        ),
        (
            ["balance.method=class_balanced_batches"],
            "model.mode head has none; use method power with alpha: 0",
        ),
        (
            ["balance.method=undersample", "balance.resample_each_epoch=true"],
            "model.mode head has no epochs",
        ),
        (["balance.neighbours=0"], "balance.neighbours is 0; needed: greater than or equal to 1"),
        (["model.head.l2=-1.0"], "model.head.l2 is -1.0; needed: greater than or equal to 0"),
        (["model.lora.r=0"], "model.lora.r is 0; needed: greater than or equal to 1"),
        (["model.mode=frozen"], "model.mode is 'frozen'; known: full, head, lora"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_config_load(config_file, overrides, words):
    with pytest.raises(ConfigError) as raised:
        load_config(config_file(model={"mode": "head"}, balance={"method": "smote"}), overrides)
    assert words in str(raised.value)


def test_too_few_rows_for_the_neighbours_are_told_before_a_model_is_loaded(fails, tmp_path):  # noqa: F811
    message = fails(
        model={"name": str(tmp_path / "no/such/model"), "mode": "head"},
        balance={"method": "smote", "neighbours": 28},
    )
    assert (
        "label 'positive' has 28 training row(s); 28 neighbours need 29. Set "
        "balance.neighbours: 27 or less."
    ) in message


def test_several_processes_are_refused(config_file, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ConfigError, match=r"model\.mode head runs in one process, but 2 were launched"
    ):
        train(load_config(config_file(model={"mode": "head"})))


def test_embeddings_that_are_not_numbers_stop_the_run(frozen, encoders, tmp_path):
    broken = AutoModelForSequenceClassification.from_pretrained(encoders("bert")).bert
    torch.nn.init.constant_(broken.pooler.dense.weight, float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(encoders("bert")).save_pretrained(tmp_path / "broken")
    with pytest.raises(TrainingError, match="embeddings contain values that are not finite"):
        frozen(model={"name": str(tmp_path / "broken"), "mode": "head"})


def test_model_without_a_final_layer_layer_is_told(loaded):
    model, _ = loaded("bert")
    model.classifier = torch.nn.Sequential()
    with pytest.raises(
        ModelError, match=r"and BertForSequenceClassification has none\. Set model\.mode: full"
    ):
        final_layer(model)
