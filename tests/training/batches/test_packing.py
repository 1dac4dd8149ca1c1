"""Packed batches against padded ones: the same logits and gradients."""

import copy

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from trainer.training.batches import packed_attention, packing
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.batches.packing import pack

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 300,
    "num_labels": 3,
}
SIZES |= {"initializer_range": 0.3, "pad_token_id": 0}
DECODER = {"num_key_value_heads": 2, "max_position_embeddings": 64}
MODERN = {
    "local_attention": 8,
    "global_attn_every_n_layers": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DISTIL = {
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "vocab_size": 300,
    "num_labels": 3,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
QWEN = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MOE = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "vocab_size": 300,
}
BART |= {
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_labels": 3,
    "max_position_embeddings": 64,
}

PACKED = {
    "bert": ("Bert", SIZES),
    "distilbert": ("DistilBert", DISTIL),
    "roberta": ("Roberta", SIZES | {"max_position_embeddings": 64, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRoberta", SIZES | {"max_position_embeddings": 64, "pad_token_id": 1}),
    "electra": ("Electra", SIZES | {"embedding_size": 16}),
    "modernbert": ("ModernBert", SIZES | MODERN),
    "modernbert-mean": ("ModernBert", SIZES | MODERN | {"classifier_pooling": "mean"}),
    "llama": ("Llama", SIZES | DECODER),
    "qwen2-sliding": ("Qwen2", SIZES | DECODER | QWEN),
    "gpt2": (
        "GPT2",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "vocab_size": 300,
            "num_labels": 3,
            "pad_token_id": 0,
            "initializer_range": 0.3,
        },
    ),
}
PADDED = {
    "debertav2": ("DebertaV2", SIZES),
    "gemma2": ("Gemma2", SIZES | DECODER | {"head_dim": 8}),
    "phimoe, window told to nobody": (
        "Phimoe",
        SIZES | DECODER | {"sliding_window": 8, "num_local_experts": 2},
    ),
    "qwen2moe, window told to nobody": ("Qwen2Moe", SIZES | DECODER | QWEN | MOE),
    "bart, which wants ends of sentences": ("Bart", BART),
    "albert": ("Albert", SIZES | {"embedding_size": 16}),
}
LENGTHS = {
    "some equal": [20, 20, 9, 9, 9, 3],
    "equal": [12, 12, 12, 12],
    "all different": list(range(12, 2, -1)),
    "one row": [7],
    "unsorted": [3, 15, 4, 15, 1],
}


def build(name, sizes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


def batch_of(lengths, model, seed=0, left=False):
    torch.manual_seed(seed)
    pad = model.config.pad_token_id or 0
    ids = torch.randint(5, 299, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    mask = mask.flip(1) if left else mask
    return {"input_ids": torch.where(mask, ids, pad), "attention_mask": mask.long()}


def logits_and_gradients(model, batch):
    model.zero_grad()
    logits = model(**batch).logits
    torch.nn.functional.cross_entropy(
        logits, torch.arange(len(logits)) % 3, reduction="sum"
    ).backward()
    return logits.detach(), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


def close(gradients, expected):
    """Compare to 1e-5 of the largest gradient; some, such as of a key's bias, are only rounding."""
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(
            gradients[name],
            gradient,
            rtol=1e-5,
            atol=1e-5 * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("kind", PACKED)
def test_packed_batch_gives_the_logits_and_gradients_of_the_padded_one(kind):
    padded = build(*PACKED[kind])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    for lengths in LENGTHS.values():
        batch = batch_of(lengths, padded)
        expected, expected_gradients = logits_and_gradients(padded, batch)
        found, gradients = logits_and_gradients(packed, batch)
        assert expected.std() > 0.01  # else equality would say little
        torch.testing.assert_close(
            found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
        )
        close(gradients, expected_gradients)


@pytest.mark.parametrize("kind", PACKED)
def test_tokens_that_fill_up_a_batch_in_half_precision_change_nothing(monkeypatch, kind):
    model = build(*PACKED[kind])
    assert pack(model) is None

    def logits_and_gradients_of_rows(more):
        monkeypatch.setattr(packing, "_filled_up", lambda num_tokens: num_tokens + more)
        with torch.autocast("cpu", torch.bfloat16):
            logits, gradients = logits_and_gradients(model, batch_of(lengths, model))
        return logits.float(), torch.cat([gradients[name].flatten() for name in sorted(gradients)])

    for lengths in LENGTHS.values():
        pairs = zip(
            logits_and_gradients_of_rows(more=40), logits_and_gradients_of_rows(0), strict=True
        )
        for found, expected in pairs:
            error = (found - expected).norm() / expected.norm()
            assert error < 0.02, (lengths, float(error))


@given(num_tokens=st.integers(1, 100_000))
def test_batches_are_filled_up_to_few_sizes_that_are_hardly_larger(num_tokens):
    filled = packing._filled_up(num_tokens)
    assert filled % 8 == 0
    assert num_tokens <= filled < num_tokens + max(8, num_tokens / packing.SIZES_PER_DOUBLING)
    assert packing._filled_up(filled) == filled
    sizes = {packing._filled_up(each) for each in range(1025, 2049)}
    assert len(sizes) == packing.SIZES_PER_DOUBLING


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", PACKED)
def test_attention_in_training_gives_the_logits_and_gradients_of_padded_rows(
    monkeypatch, kind, dtype
):
    """With a rate above 0, a CPU multiplies the matrices of attention itself."""
    calls = []

    def kept(states, p):
        calls.append(p)
        return states

    monkeypatch.setattr(packed_attention, "dropout", kept)
    padded = build(*PACKED[kind])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    own = packed_attention.packed_attention
    monkeypatch.setitem(
        transformers.AttentionInterface._global_mapping,
        packing.NAME,
        lambda *args, **kwargs: own(*args, **kwargs | {"dropout": 0.1}),
    )
    monkeypatch.setattr(
        packed_attention, "packed_attention", lambda *a, **k: own(*a, **k | {"dropout": 0.1})
    )
    precision = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def all_values(model):
        logits, gradients = logits_and_gradients(model, batch)
        return torch.cat([logits.flatten().float(), *(gradients[n].flatten() for n in names)])

    names = [name for name, weight in padded.named_parameters() if weight.requires_grad]
    for lengths in LENGTHS.values():
        batch = batch_of(lengths, padded)
        exact = all_values(padded)
        with precision:
            rounded, found = all_values(padded), all_values(packed)
        most = 3 * (rounded - exact).norm() + 1e-5 * exact.norm()
        assert (found - exact).norm() <= most, lengths
    assert set(calls) == {0.1}


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_batch_padded_on_the_left_is_read_as_its_rows(kind):
    padded = build(*PACKED[kind])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    right, left = batch_of([9, 4, 2], padded), batch_of([9, 4, 2], padded, left=True)
    left["input_ids"] = torch.stack(
        [row.roll(shift) for row, shift in zip(right["input_ids"], (0, 5, 7), strict=True)]
    )
    torch.testing.assert_close(packed(**left).logits, padded(**right).logits, rtol=1e-4, atol=1e-5)


def test_rows_given_by_the_caller_and_a_second_kind_of_token_are_honoured():
    padded = build(*PACKED["bert"])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    batch = batch_of([8, 5, 5], padded)
    batch["token_type_ids"] = (torch.arange(8) > 2).long().expand(3, 8) * batch["attention_mask"]
    rows = PackedRows(batch["attention_mask"].bool(), torch.device("cpu"))
    torch.testing.assert_close(packed(**batch, packed_rows=rows).logits, padded(**batch).logits)
    plain = {name: value for name, value in batch.items() if name != "token_type_ids"}
    assert not torch.allclose(padded(**plain).logits, padded(**batch).logits, atol=1e-3)


@pytest.mark.parametrize("kind", PADDED)
def test_model_that_cannot_be_packed_is_left_as_it_was_with_a_reason(kind):
    model = build(*PADDED[kind])
    batch = batch_of([9, 9], model)
    if kind.startswith("bart"):
        batch["input_ids"][:, -1] = model.config.eos_token_id
    before, attention = model(**batch).logits, model.config._attn_implementation
    assert pack(model)
    assert torch.equal(model(**batch).logits, before)
    assert model.config._attn_implementation == attention
    assert not model.base_model._forward_pre_hooks
    assert not model.base_model._forward_hooks


def test_layers_of_an_unknown_kind_are_not_packed():
    model = build(*PACKED["llama"])
    model.config.layer_types = ["chunked_attention"] * 3
    assert pack(model) == "its attention (chunked_attention) cannot be replaced"


@pytest.mark.parametrize("part", ["_attend", "_attend_padded", "_attend_equal"])
def test_model_that_gives_other_logits_packed_is_trained_padded(monkeypatch, part):
    model = build(*PACKED["bert"])
    own = getattr(packed_attention, part)
    monkeypatch.setattr(
        packed_attention, part, lambda *args, **kwargs: own(*args, **kwargs).roll(1, 0)
    )
    assert pack(model) == "its logits would change"


def test_model_whose_logits_say_nothing_is_trained_padded():
    model = build(*PACKED["bert"])
    torch.nn.init.zeros_(model.classifier.weight)
    assert pack(model) == "its logits would change"


@pytest.mark.parametrize("lengths", [[1, 1, 1], [3, 1, 1]])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_rows_of_one_token_in_a_wider_batch_are_read(kind, left, lengths):
    padded = build(*PACKED[kind])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    narrow = batch_of(lengths, padded)
    wide = {
        name: torch.nn.functional.pad(value, (5, 0) if left else (0, 5))
        for name, value in narrow.items()
    }
    if left:
        shift = [max(lengths) - length for length in lengths]
        wide = {
            name: torch.stack([row.roll(by) for row, by in zip(value, shift, strict=True)])
            for name, value in wide.items()
        }
    torch.testing.assert_close(packed(**wide).logits, padded(**narrow).logits, rtol=1e-4, atol=1e-5)


def test_row_without_a_token_reads_one_of_its_padding():
    model = build(*PACKED["bert"])
    batch = batch_of([4, 1], model)
    assert pack(model) is None
    batch["input_ids"][1, 0] = 0
    expected = model(**batch).logits
    batch["attention_mask"][1, 0] = 0
    assert torch.equal(model(**batch).logits, expected)


def test_activation_checkpointing_recomputes_the_same_rows():
    padded = build(*PACKED["bert"]).train()
    for module in padded.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    # transformers 5.22 has the former name of the method alone
    former = packed.gradient_checkpointing_enable
    getattr(packed, "activation_checkpointing_enable", former)()
    batch = batch_of([8, 5, 5, 3], padded)
    close(logits_and_gradients(packed, batch)[1], logits_and_gradients(padded, batch)[1])


@pytest.mark.parametrize("lengths", [LENGTHS["unsorted"], LENGTHS["equal"]])
def test_dropout_of_attention_stays_on_in_training(lengths):
    model = build("Bert", SIZES | {"attention_probs_dropout_prob": 0.5, "hidden_dropout_prob": 0.0})
    assert pack(model) is None
    batch = batch_of(lengths, model)
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    model.train()
    assert not torch.allclose(model(**batch).logits, model(**batch).logits)


def test_padded_rows_whose_window_holds_no_token_give_no_nan_in_training():
    sizes = SIZES | DECODER | QWEN | {"attention_dropout": 0.1}
    model = build("Qwen2", sizes)
    assert pack(model) is None
    model.train()
    logits, gradients = logits_and_gradients(model, batch_of([20, 3], model))
    assert logits.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_padded_to_a_width_that_kernels_take(device):
    mask_BL = torch.arange(13) < torch.tensor([13, 9, 5])[:, None]
    width = PackedRows(mask_BL, torch.device(device)).right_mask_BL.shape[1]
    assert width == 16
