"""Layers of real architectures: their depths, their learning rates, and new top layers."""

from collections import defaultdict

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from trainer.config.sections.model import ModelSection
from trainer.errors import ModelError
from trainer.training.models import model as loading
from trainer.training.models.encoder_layers import (
    reinitialise_layers,
    set_layer_rates,
    weight_depths,
)

USUAL = {
    "vocab_size": 30,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
MODELS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**USUAL)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=30, dim=8, hidden_dim=16, n_layers=3, n_heads=2)
    ),
    "modernbert": lambda: ModernBertForSequenceClassification(
        ModernBertConfig(**USUAL, pad_token_id=0)
    ),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(vocab_size=30, n_embd=8, n_layer=3, n_head=2)
    ),
    "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**USUAL)),
}
EMBEDDINGS = {
    "bert": "bert.embeddings",
    "distilbert": "distilbert.embeddings",
    "modernbert": "model.embeddings",
    "gpt2": "transformer.w",
    "llama": "model.embed_tokens",
}
LAYERS = {
    "bert": "bert.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "modernbert": "model.layers",
    "gpt2": "transformer.h",
    "llama": "model.layers",
}


def expected_depth(kind, name):
    """Depth by the name of a weight: head and final norm 0, layers 1 to 3, embeddings 4."""
    if name.startswith(EMBEDDINGS[kind]):
        return 4
    if name.startswith(f"{LAYERS[kind]}."):
        return 3 - int(name.removeprefix(f"{LAYERS[kind]}.").partition(".")[0])
    return 0


@pytest.mark.parametrize("kind", MODELS)
def test_depth_of_every_weight_is_that_of_its_layer(kind):
    model = MODELS[kind]()
    depths = weight_depths(model)
    names = {name: depths[id(weight)] for name, weight in model.named_parameters()}
    assert names == {name: expected_depth(kind, name) for name in names}
    assert set(names.values()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", MODELS)
def test_learning_rate_falls_from_layer_to_layer(kind):
    model = MODELS[kind]()
    norms = [weight for name, weight in model.named_parameters() if "norm" in name.lower()]
    others = [weight for name, weight in model.named_parameters() if "norm" not in name.lower()]
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    set_layer_rates(optimizer, weight_depths(model), 0.5)
    found = {id(w): group for group in optimizer.param_groups for w in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(found)
    for name, weight in model.named_parameters():
        group = found[id(weight)]
        assert group["lr"] == pytest.approx(1e-2 * 0.5 ** expected_depth(kind, name))
        assert group["weight_decay"] == (0.0 if "norm" in name.lower() else 0.1)
    assert optimizer.param_groups[0]["lr"] == 1e-2  # the rate of the head is the one in the log


@pytest.mark.parametrize("kind", MODELS)
def test_new_top_layers_are_drawn_by_the_rule_of_the_model(kind):
    model = MODELS[kind]()
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(7.0)
            weight._is_hf_initialized = True  # as weights from a checkpoint are
    torch.manual_seed(3)
    reinitialise_layers(model, 2)
    drawn = {name: weight.clone() for name, weight in model.named_parameters()}
    kept = defaultdict(set)
    for name, weight in drawn.items():
        in_head = not name.startswith(f"{model.base_model_prefix}.")
        is_kept = bool((weight == 7.0).all())
        kept[is_kept].add(name)
        assert is_kept == (in_head or expected_depth(kind, name) > 2), name
    spread = [w.std() for n, w in drawn.items() if n in kept[False] and w.ndim == 2]
    assert all(0 < std < 0.06 for std in spread)
    norms = [w for n, w in drawn.items() if n in kept[False] and "orm.weight" in n]
    assert all((weight == 1).all() for weight in norms)
    torch.manual_seed(3)
    reinitialise_layers(model, 2)
    assert all(torch.equal(drawn[name], weight) for name, weight in model.named_parameters())


def test_layers_that_cannot_be_told_apart_or_are_missing_are_refused():
    shared = AlbertForSequenceClassification(AlbertConfig(**USUAL, embedding_size=4))
    with pytest.raises(ModelError, match="AlbertForSequenceClassification has no list of 3 layers"):
        weight_depths(shared)
    with pytest.raises(ModelError, match="is 4, but BertForSequenceClassification has 3 layers"):
        reinitialise_layers(MODELS["bert"](), 4)


def test_loaded_model_has_new_top_layers_under_the_seed(narrow_model):
    def load(number):
        section = ModelSection(name=str(narrow_model), reinitialise_layers=number)
        pretrained = loading.load_pretrained_config(section)
        tokenizer, length = loading.load_tokenizer(section, pretrained)
        torch.manual_seed(5)
        model = loading.load_model(section, pretrained, ["a", "b"], tokenizer, length)
        return model.state_dict()

    plain, new, again = load(0), load(1), load(1)
    assert all(torch.equal(new[name], again[name]) for name in new)
    changed = {name for name in new if not torch.equal(plain[name], new[name])}
    assert "bert.encoder.layer.1.output.dense.weight" in changed
    assert "bert.pooler.dense.weight" in changed
    assert not [name for name in changed if "layer.0." in name or "embeddings" in name]
