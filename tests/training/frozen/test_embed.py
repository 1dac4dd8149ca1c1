import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import PartialState

from trainer.config.sections.model import ModelSection
from trainer.data.tokens.tokenise import tokenise
from trainer.errors import ModelError
from trainer.files.cache import clear
from trainer.launch import distributed
from trainer.training.frozen import embed, vector_cache
from trainer.training.models.model import load_encoder, load_pretrained_config, load_tokenizer

TEXTS = ["short", "a rather longer text about nothing at all", "three words here", "x " * 200]


@pytest.fixture
def parts(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "gains_from_bf16", lambda device: False)
    model = ModelSection(name=str(tiny_model), max_length=32)
    config = load_pretrained_config(model)
    tokenizer, max_length = load_tokenizer(model, config)
    table = pa.table({"text": TEXTS, "text_pair": pa.nulls(len(TEXTS), pa.string())})
    rows = tokenise(
        table,
        np.arange(len(TEXTS)),
        np.zeros(len(TEXTS), int),
        tokenizer,
        max_length=max_length,
        fingerprint="f",
        cache_dir=tmp_path,
    )
    return rows, load_encoder(model, config), tokenizer


def test_embedding_is_the_mean_of_the_last_hidden_states_of_each_text_alone(parts, tmp_path):
    rows, encoder, tokenizer = parts
    found_ND = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path)
    assert found_ND.dtype == np.float32
    for text, found_D in zip(TEXTS, found_ND, strict=True):
        with torch.no_grad():
            alone = (
                encoder(**tokenizer(text, truncation=True, max_length=32, return_tensors="pt"))
                .last_hidden_state[0]
                .mean(dim=0)
            )
        assert found_D == pytest.approx(alone.numpy(), abs=1e-5)


def test_size_of_the_batches_changes_nothing(parts, monkeypatch, tmp_path):
    rows, encoder, tokenizer = parts
    whole_ND = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path / "whole")
    monkeypatch.setattr(embed, "tokens_per_pass", lambda device: 1)
    assert embed.embed_means(
        encoder, rows, tokenizer, cache_dir=tmp_path / "single"
    ) == pytest.approx(whole_ND, abs=1e-5)


def test_where_memory_is_too_small_batches_get_smaller(parts, monkeypatch, tmp_path):
    rows, encoder, tokenizer = parts
    whole_ND = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path / "whole")
    forward = encoder.forward

    def small(**inputs):
        if inputs["input_ids"].numel() > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(**inputs)

    monkeypatch.setattr(encoder, "forward", small)
    limit = 40
    assert embed.embed_means(
        encoder, rows, tokenizer, cache_dir=tmp_path / "small"
    ) == pytest.approx(whole_ND, abs=1e-5)
    limit = 10
    with pytest.raises(torch.OutOfMemoryError):
        embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path / "none")


def test_cpu_that_was_asked_for_embeds_whatever_gpu_there_is(parts, monkeypatch, tmp_path):
    rows, encoder, tokenizer = parts
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda")
    )
    PartialState._reset_state()
    distributed.start_processes(1, 1, use_cpu=True)
    embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path)
    assert encoder.device == torch.device("cpu")


def test_second_audit_calls_no_encoder_and_another_precision_is_kept_apart(
    parts, monkeypatch, tmp_path
):
    rows, encoder, tokenizer = parts
    calls, forward = [], encoder.forward
    monkeypatch.setattr(
        encoder,
        "forward",
        lambda **inputs: calls.append(len(inputs["input_ids"])) or forward(**inputs),
    )
    first_ND = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path)
    num_read = sum(calls)
    assert num_read > len(TEXTS), "the texts, and some rows that tell what padding does"
    assert np.array_equal(embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path), first_ND)
    assert sum(calls) == num_read
    monkeypatch.setattr(embed, "gains_from_bf16", lambda device: True)
    assert not np.array_equal(
        embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path), first_ND
    )
    assert sum(calls) == 2 * num_read


def test_embeddings_that_a_process_is_making_are_not_cleared(parts, monkeypatch, tmp_path):
    rows, encoder, tokenizer = parts
    found = []

    def clear_and_write(*arguments):
        found.append(clear(tmp_path))
        write(*arguments)

    write = vector_cache._write_shard
    monkeypatch.setattr(vector_cache, "_write_shard", clear_and_write)
    vectors = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path)
    assert len(vectors) == len(rows)
    ((deleted, in_use),) = found
    assert (
        ["embeddings" for entry in deleted if entry.kind == "embeddings"],
        sorted(entry.kind for entry in in_use),
    ) == ([], ["embeddings", "tokens"])
    assert [entry.kind for entry in clear(tmp_path)[0] if entry.kind == "embeddings"] == [
        "embeddings"
    ]


def test_encoder_without_safetensors_weights_is_refused(tiny_model, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    model = ModelSection(name=str(folder))
    with pytest.raises(ModelError, match=r"model.name: '.*bare' cannot be loaded"):
        load_encoder(model, load_pretrained_config(model))
