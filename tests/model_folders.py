"""Folders of small models as authors publish them, with random weights and real SentencePiece."""

import csv
import io
import shutil


def sentencepiece_model(tweets, path, **options):
    """Train a real SentencePiece model on the tweets; options as its trainer names them."""
    import sentencepiece

    with tweets.open(encoding="utf-8", newline="") as rows:
        texts = [row["text"] for row in csv.DictReader(rows)]
    written = io.BytesIO()
    given = {
        "vocab_size": 300,
        "model_type": "unigram",
        "minloglevel": 2,
        "num_threads": 1,
        **options,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=written, **given
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(written.getvalue())
    return path


def random_model(config, folder, seed=0):
    """Write a model without a head, with random weights."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def pickled(model, folder):
    """A copy of a model folder whose weights are pickled, as old ones are."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder
