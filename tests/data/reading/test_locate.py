"""Addresses given as data or model are told what to give instead."""

import pytest

from trainer.data.reading.formats.readers import ENDINGS
from trainer.data.reading.locate import locate
from trainer.delivery.predicting.model_source import find_models
from trainer.errors import DataError, ModelError
from trainer.training.models.model_folder import resolve_name

FILE = (
    "needed: a file here, or the id of a data set on the Hub. Download it first, and give its path."
)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (
            "https://example.org/rows.csv?token=secret",
            f"'https://example.org/rows.csv' is an address with https://; {FILE}",
        ),
        (
            "http://example.org/rows*.csv",
            f"'http://example.org/rows*.csv' is an address with http://; {FILE}",
        ),
        (
            "s3://bucket/rows.parquet",
            f"'s3://bucket/rows.parquet' is an address with s3://; {FILE}",
        ),
        ("gs://bucket/rows", f"'gs://bucket/rows' is an address with gs://; {FILE}"),
        (
            "https://huggingface.co/datasets/fancyzhx/ag_news",
            (
                "'https://huggingface.co/datasets/fancyzhx/ag_news' is an address with "
                "https://. For a data set on the Hub give the bare id: fancyzhx/ag_news"
            ),
        ),
        (
            "huggingface.co/datasets/imdb/tree/main",
            (
                "'huggingface.co/datasets/imdb/tree/main' is a web address. For a data set "
                "on the Hub give the bare id: imdb"
            ),
        ),
        (
            "hf://datasets/a/b/rows.csv",
            (
                "'hf://datasets/a/b/rows.csv' is an address with hf://. For a data set on "
                "the Hub give the bare id: a/b"
            ),
        ),
        (
            "https://huggingface.co/google/bert",
            (
                "'https://huggingface.co/google/bert' is an address with https:// of a "
                "model; needed: a data set."
            ),
        ),
    ],
)
def test_address_as_data_is_told_its_scheme_and_what_to_give(location, words):
    with pytest.raises(DataError) as raised:
        locate(location, "data.source", ENDINGS)
    assert str(raised.value) == f"data.source: {words}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "https://huggingface.co/google/bert/tree/main",
            "is an address with https://. For a model on the Hub give the bare id: google/bert",
        ),
        (
            "https://hf.co/gpt2",
            "is an address with https://. For a model on the Hub give the bare id: gpt2",
        ),
        (
            "s3://bucket/model",
            (
                "is an address with s3://; needed: a folder here, or the id of a model on "
                "the Hub. Download it first, and give its path."
            ),
        ),
        (
            "https://huggingface.co/datasets/a/b",
            "is an address with https:// of a data set; needed: a model.",
        ),
    ],
)
@pytest.mark.parametrize(
    ("resolve", "where"), [(resolve_name, "model.name"), (find_models, "model")]
)
def test_address_as_model_is_told_its_scheme_and_what_to_give(resolve, where, name, words):
    with pytest.raises(ModelError) as raised:
        resolve(name)
    assert str(raised.value) == f"{where}: '{name}' {words}"


def test_input_of_predict_is_a_file_whatever_the_address():
    with pytest.raises(
        DataError, match=r"needed: a file here. Download it first, and give its path."
    ):
        locate("https://huggingface.co/datasets/a/b", "--input", ENDINGS)
