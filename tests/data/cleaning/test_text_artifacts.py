"""Artifacts of a wrong conversion are counted by class and shown; ordinary texts have none."""

import html
import re

import pytest

from trainer.config.sections.data import DataSection
from trainer.data.cleaning.clean import clean_rows
from trainer.data.cleaning.text_artifacts import PATTERNS, REMEDIES, find_text_artifacts, visible
from trainer.data.reading.sources import read_rows


@pytest.fixture
def found(tmp_path):
    """Function (texts, pairs) -> findings over all rows, labels a and b in turn."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def find(texts, pairs=None):
        labels = ["ab"[n % 2] for n in range(len(texts))]
        pq.write_table(
            pa.table({"text": texts, "pair": pairs or [None] * len(texts), "label": labels}),
            tmp_path / "rows.parquet",
        )
        data = DataSection(
            source=str(tmp_path / "rows.parquet"), text_column=["text", "pair"] if pairs else "text"
        )
        clean = clean_rows(read_rows(data, tmp_path / "cache"), data.clean, [])
        return find_text_artifacts(clean, clean.kept("source"))

    return find


ORIGINALS = [
    "café",
    "it\u2019s",
    "Österreich",
    "straße",
    "\u201cquoted\u201d",
    "naïve",
    "20 \u20ac",
    "a \U0001f600",
    "Привет",
    "El Niño",
    "SÃO é ÃÂ"[:3] + "é",
]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "mac_roman"])
@pytest.mark.parametrize("text", ORIGINALS[:6])
def test_text_in_utf_8_that_was_read_in_another_encoding_is_mojibake(text, encoding):
    garbled = text.encode().decode(encoding, "replace")
    assert re.search(PATTERNS["mojibake"], garbled), garbled


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize(
    "text",
    [
        *ORIGINALS,
        "PORTUGUÊS: AMANHÃ, SÃO PAULO, AÇÃO",
        "Fish & chips; AT&T, R&D; a &b; &unknown;",
        "»gro\u00df\u00ab \u00ab fran\u00e7ais \u00bb \u2014 1\u00a0000 \u00b0C",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
        "two\nlines\r\nand\ttabs",
        "Vi\u1ec7t Nam \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940",
        "5 \u00d7 3 = 15, \u221a2 \u2248 1.41",
    ],
)
def test_ordinary_text_of_any_language_has_nothing_odd(text, kind):
    assert not re.search(PATTERNS[kind], text)


@pytest.mark.parametrize(
    "text", ["&amp;", "&#39;", "&#x27;", "&quot;", "&nbsp;", "&eacute;", "&apos;", "&lt;b&gt;"]
)
def test_entities_are_what_python_unescapes(text):
    assert re.search(PATTERNS["HTML entity"], text)
    assert html.unescape(text) != text


def test_counts_shares_and_labels_are_right(found):
    texts = [f"plain text {n}" for n in range(14)] + [
        "lost \ufffd",
        "caf\u00c3\u00a9 &amp; more",
        "a\x00b",
        "c\x1bd &#39;",
        "e\u200bf",
        "\u202etxt.exe",
    ]
    odd = found(texts)
    assert {kind: values["rows"] for kind, values in odd.items()} == {
        "replacement character": 1,
        "mojibake": 1,
        "HTML entity": 2,
        "control character": 2,
        "invisible character": 2,
    }
    assert odd["HTML entity"]["share"] == 0.1
    assert odd["HTML entity"]["by_label"] == {"b": 2}
    assert odd["control character"]["by_label"] == {"a": 1, "b": 1}
    assert odd["control character"]["examples"] == [
        {"row": 16, "label": "a", "text": "a\\x00b"},
        {"row": 17, "label": "b", "text": "c\\x1bd &#39;"},
    ]
    assert odd["invisible character"]["examples"][1]["text"] == "\\u202etxt.exe"


def test_second_text_of_a_pair_counts_too_and_long_texts_are_cut_around_the_place(found):
    odd = found(["one", "two", "x" * 500 + "&amp;" + "y" * 500], ["&lt;", "plain", "z"])
    assert odd["HTML entity"]["rows"] == 2
    assert [example["text"] for example in odd["HTML entity"]["examples"]] == [
        "&lt;",
        "…" + "x" * 60 + "&amp;" + "y" * 60 + "…",
    ]


def test_every_kind_has_a_remedy():
    assert list(REMEDIES) == list(PATTERNS)


def test_what_cannot_be_seen_is_shown_as_an_escape():
    assert visible("a\tb\nc\x00\u200b\ufeffd") == "a b c\\x00\\u200b\\ufeffd"
