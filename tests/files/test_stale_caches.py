"""No cache is used for other content than its own, and missing or damaged parts are made again."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from hub_server import HubServer

from trainer.config.sections.augment import AugmentSection
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
from trainer.data.augmenting.completion_cache import CompletionCache
from trainer.data.augmenting.model_files import model_identity
from trainer.data.prepare import read_splits
from trainer.data.reading.sources import read_rows
from trainer.data.tokens.tokenise import tokenise
from trainer.data.tokens.tokenizer_digest import tokenizer_digest
from trainer.files.content import WHOLE_BYTES, content_sample
from trainer.training.batches.batching import Collator
from trainer.training.frozen import embed

OLD, NEW = "text,label\nold text,a\nmore,b\n", "text,label\nnew text,a\nmore,b\n"


def replace_in_place(path, content, stat):
    path.write_text(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_rename(path, content, stat):
    """As rsync -t and tar do."""
    other = path.with_name("incoming")
    replace_in_place(other, content, stat)
    other.replace(path)


@pytest.mark.parametrize("replace", [replace_in_place, replace_by_rename])
@pytest.mark.parametrize("streaming", [False, True])
def test_file_with_other_content_of_the_same_size_and_time_is_read_again(
    tmp_path, replace, streaming
):
    path = tmp_path / "rows.csv"
    rows = [f"{word} {n},{'ab'[n % 2]}\n" for n in range(400) for word in ("old",)]
    path.write_text("text,label\n" + "".join(rows))

    def texts():
        data = DataSection(source=str(path), streaming=streaming)
        clean, _ = read_splits(data, None, BalanceSection(), seed=1, cache_dir=tmp_path / "cache")
        return {text.split()[0] for text in clean.rows.table["text"].to_pylist()}

    assert texts() == {"old"}
    stat = path.stat()
    replace(path, path.read_text().replace("old", "new"), stat)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert texts() == {"new"}


def test_saved_data_set_with_other_content_of_the_same_size_and_times_is_read_again(tmp_path):
    from datasets import Dataset

    for name in ("old", "new"):
        Dataset.from_dict({"text": [f"{name} text", "more"], "label": ["a", "b"]}).save_to_disk(
            tmp_path / name
        )
    data, cache = DataSection(source=str(tmp_path / "old")), tmp_path / "cache"
    assert read_rows(data, cache).table["text"].to_pylist() == ["old text", "more"]
    for path in (tmp_path / "old").iterdir():
        stat = path.stat()
        shutil.copy(tmp_path / "new" / path.name, path)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_rows(data, cache).table["text"].to_pylist() == ["new text", "more"]


def test_unchanged_file_is_read_once(tmp_path):
    path, cache = tmp_path / "rows.csv", tmp_path / "cache"
    path.write_text(OLD)
    for _ in range(2):
        read_rows(DataSection(source=str(path)), cache)
    assert len(list(cache.glob("rows-*.arrow"))) == 1


@pytest.mark.parametrize("place", [0, WHOLE_BYTES * 2 - 1, WHOLE_BYTES * 4 - 1])
def test_sample_of_a_large_file_sees_its_beginning_middle_and_end_without_the_time_of_the_inode(
    tmp_path, place
):
    path, size = tmp_path / "large", WHOLE_BYTES * 4
    path.write_bytes(b"a" * size)
    before = content_sample(path, size)
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"b")
    assert content_sample(path, size) != before


def test_sample_of_a_small_file_sees_every_byte(tmp_path):
    path = tmp_path / "small"
    samples = {
        content_sample(path, path.write_bytes(b"a" * n + b"b" + b"a" * (999 - n)))
        for n in range(1000)
    }
    assert len(samples) == 1000


def test_sample_of_a_huge_file_reads_a_bounded_part(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 36)  # 64 GiB, sparse
    before = time.perf_counter()
    content_sample(path, 1 << 36)
    assert time.perf_counter() - before < 1


def test_tokens_of_a_tokenizer_that_cuts_at_the_other_side_are_others(tiny_model, tmp_path):
    from transformers import AutoTokenizer

    table = pa.table(
        {"text": ["good film and more and more words"], "text_pair": pa.nulls(1, pa.string())}
    )

    def tokens(**settings):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model, **settings)
        rows = tokenise(
            table,
            np.arange(1),
            np.zeros(1, int),
            tokenizer,
            max_length=4,
            fingerprint="f",
            cache_dir=tmp_path,
        )
        assert (
            rows[0]["input_ids"]
            == tokenizer(table["text"][0].as_py(), truncation=True, max_length=4)["input_ids"]
        )
        return rows[0]

    assert tokens() != tokens(truncation_side="left")
    assert "token_type_ids" in tokens()
    assert "token_type_ids" not in tokens(model_input_names=["input_ids", "attention_mask"])


@pytest.mark.parametrize(
    "change",
    [
        {"do_lower_case": ...},
        {"truncation_side": "left"},
        {"split_special_tokens": True},
        {"extra_special_tokens": ["<user>"]},
        {"unk_token": "[PAD]"},
    ],
    ids=str,
)
@pytest.mark.parametrize("in_python", [False, True])
def test_digest_sees_every_setting_that_changes_tokens(tiny_model, tmp_path, change, in_python):
    from transformers import BertJapaneseTokenizer, BertTokenizer

    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "Good", "##s"]),
        encoding="utf-8",
    )

    def made(**settings):
        if in_python:
            return BertJapaneseTokenizer(
                str(vocabulary),
                word_tokenizer_type="basic",
                subword_tokenizer_type="wordpiece",
                **settings,
            )
        return BertTokenizer.from_pretrained(tiny_model, **settings)

    if "do_lower_case" in change:
        change = {"do_lower_case": in_python}  # the other way than by default
    assert tokenizer_digest(made()) == tokenizer_digest(made())
    assert tokenizer_digest(made(**change)) != tokenizer_digest(made())


def test_digest_of_a_tokenizer_in_python_is_not_that_of_its_folder(tmp_path):
    from transformers import AutoTokenizer, ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    digests = {
        tokenizer_digest(AutoTokenizer.from_pretrained(tmp_path / name)) for name in ("one", "two")
    }
    assert len(digests) == 1


def writer(folder, seed):
    """Folder of a causal language model with random weights, of the same size for every seed."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=1, n_positions=16)
    ).save_pretrained(folder)
    return folder


def section(model, **values):
    return AugmentSection(generator="local", model=str(model), target_rows=9, **values)


def test_completions_of_a_model_that_was_trained_on_are_not_those_of_the_old_one(tmp_path):
    folder = writer(tmp_path / "model", 0)
    weights = folder / "model.safetensors"
    before, stat = model_identity(section(folder)), weights.stat()
    assert model_identity(section(shutil.copytree(folder, tmp_path / "model copied"))) == before
    writer(folder, 1)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights.stat().st_size == stat.st_size
    after = model_identity(section(folder))
    assert after != before
    (folder / "generation_config.json").write_text('{"repetition_penalty": 1.5}')
    assert model_identity(section(folder)) != after
    after = model_identity(section(folder))
    (folder / "README.md").write_text("words for people")
    assert model_identity(section(folder)) == after


IDENTITY = """
import sys
from trainer.data.augmenting.model_files import model_identity
from trainer.config.sections.augment import AugmentSection
print(model_identity(AugmentSection(generator="local", model="user/model", target_rows=9)))
"""


def test_completions_of_a_hub_model_whose_branch_moved_are_not_those_of_the_old_commit(tmp_path):
    files = {path.name: path.read_bytes() for path in writer(tmp_path / "model", 0).iterdir()}
    with HubServer({}) as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
        }

        def identity(**values):
            done = subprocess.run(
                [sys.executable, "-c", IDENTITY],
                cwd=ROOT,
                env=environment | values,
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout.strip()

        old = hub.add("model", "user/model", files)
        assert identity() == f"user/model {old}"
        new = hub.add("model", "user/model", files | {"model.safetensors": b"other weights"})
        assert identity() == f"user/model {new}"
    assert identity(HF_HUB_OFFLINE="1") == "user/model None"


def empty(path):
    os.truncate(path, 0)


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def spoil(path):
    path.write_bytes(b"\0" * path.stat().st_size)


DAMAGES = [Path.unlink, empty, cut]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".arrow", ".json"])
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.filterwarnings(
    "ignore:.*this entry of the cache is damaged or incomplete. It is written again"
)
def test_rows_of_which_a_file_is_gone_or_damaged_are_read_again(
    tmp_path, ending, damage, streaming
):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(400)))

    def read():
        data = DataSection(source=str(path), streaming=streaming)
        clean, splits = read_splits(
            data, None, BalanceSection(), seed=1, cache_dir=tmp_path / "cache"
        )
        return clean.rows.table.to_pylist(), [ids.tolist() for ids in splits.named.values()]

    first = read()
    (found,) = (tmp_path / "cache").glob(f"*{ending}")
    damage(found)
    assert read() == first
    assert found.stat().st_size > 10


def test_damaged_entry_is_said(tmp_path):
    path, cache = tmp_path / "rows.csv", tmp_path / "cache"
    path.write_text(OLD)
    read_rows(DataSection(source=str(path)), cache)
    next(cache.glob("*.arrow")).unlink()
    with pytest.warns(
        UserWarning,
        match=(
            r"rows-\w+\.json: this entry of the cache is damaged or incomplete. It is written"
            r" again"
        ),
    ):
        read_rows(DataSection(source=str(path)), cache)


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        *(
            (ending, damage)
            for ending in (".npz", ".input_ids.bin", ".token_type_ids.bin")
            for damage in DAMAGES
        ),
        (".npz", spoil),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:.*this entry of the cache is damaged or incomplete. It is written again"
)
def test_tokens_of_which_a_file_is_gone_or_damaged_are_made_again(
    tiny_model, tmp_path, ending, damage
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    table = pa.table({"text": ["good film", "bad"], "text_pair": pa.nulls(2, pa.string())})

    def tokens():
        rows = tokenise(
            table,
            np.arange(2),
            np.array([1, 0]),
            tokenizer,
            max_length=8,
            fingerprint="f",
            cache_dir=tmp_path,
        )
        return [rows[i] for i in range(2)]

    first = tokens()
    (found,) = tmp_path.glob(f"tokens-*{ending}")
    damage(found)
    assert tokens() == first


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["*[!s].npy", "*.keys.npy"])
@pytest.mark.filterwarnings(
    "ignore:.*this entry of the cache is damaged or incomplete, so it is computed again"
)
def test_embeddings_of_which_a_file_is_gone_or_damaged_are_computed_again(
    narrow_model, tmp_path, name, damage
):
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = (
        AutoTokenizer.from_pretrained(narrow_model),
        AutoModel.from_pretrained(narrow_model),
    )
    table = pa.table({"text": ["good film", "bad"], "text_pair": pa.nulls(2, pa.string())})
    rows = tokenise(
        table,
        np.arange(2),
        np.array([1, 0]),
        tokenizer,
        max_length=8,
        fingerprint="f",
        cache_dir=tmp_path,
    )
    first_ND = embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path)
    (folder,) = tmp_path.glob("embeddings-*")
    (found,) = folder.glob(name)
    damage(found)
    assert np.array_equal(embed.embed_means(encoder, rows, tokenizer, cache_dir=tmp_path), first_ND)


def test_embeddings_are_of_the_side_that_is_padded(narrow_model):
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(narrow_model)
    digests = {
        embed._model_digest(
            encoder, Collator(AutoTokenizer.from_pretrained(narrow_model, padding_side=side))
        )
        for side in ("left", "right")
    }
    assert len(digests) == 2


def test_damaged_lines_of_the_completions_are_asked_for_again(tmp_path):
    path = tmp_path / "c.jsonl"
    cache = CompletionCache(path, "model, label 'a'")
    for attempt in range(3):
        cache.add(attempt, f"text {attempt}")
    lines = path.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[0]) == {"made_from": "model, label 'a'"}
    lines[2] = b"\0" * (len(lines[2]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.warns(UserWarning, match=r"c\.jsonl: 1 damaged lines of the cache are ignored"):
        again = CompletionCache(path)
    assert again.completions == {0: "text 0", 2: "text 2"}
