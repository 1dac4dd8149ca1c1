import csv
import json
import warnings

import numpy as np
import pytest
from chat_server import chat_server

from trainer.config.sections.augment import AugmentSection
from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.augmenting.augment import add_rows, records, write_rows
from trainer.data.augmenting.completion_cache import CompletionCache
from trainer.data.augmenting.prompts import build_prompt
from trainer.data.prepare import balance_splits, read_splits
from trainer.errors import AugmentError, ConfigError

SPLIT = SplitSection(train=0.7, validation=0.15, test=0.15)


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


@pytest.fixture
def split_tweets(tweets, tmp_path):
    """Function (file) -> (clean, splits) of the 240 tweets.

    The training split has 84 negative, 56 neutral and 28 positive ones.
    """

    def read(path=tweets):
        data = DataSection(source=str(path), label_column="sentiment")
        return read_splits(data, SPLIT, BalanceSection(), seed=7, cache_dir=tmp_path / "rows")

    return read


@pytest.fixture
def write(server, tmp_path):
    """Function ((clean, splits), **augment) -> SyntheticRows written by the server."""

    def run(rows, seed=7, **values):
        defaults = {"target_rows": 40, "labels": ["positive"], "batch_size": 4, "retries": 1}
        section = AugmentSection(
            generator="endpoint", model="m", base_url=server.base_url, **{**defaults, **values}
        )
        return write_rows(*rows, section, seed=seed, cache_dir=tmp_path / "completions")

    return run


def texts_of(clean, ids):
    return [clean.rows.table["text"][int(row)].as_py() for row in ids]


def test_every_short_class_is_filled_to_the_target_and_no_other(split_tweets, write):
    clean, splits = split_tweets()
    written = write((clean, splits), labels=None, target_rows=58)
    assert {label: outcome["wanted"] for label, outcome in written.outcomes.items()} == {
        "neutral": 2,
        "positive": 30,
    }
    grown, more = add_rows(clean, splits, written)
    assert grown.labels.counts(grown.label_ids_N[more.train]).tolist() == [84, 58, 58]
    assert (
        sum(written.outcomes["positive"]["rejected"].values())
        == written.outcomes["positive"]["prompts"] - 30
    )


def test_synthetic_rows_stand_behind_the_real_ones_and_in_train_alone(split_tweets, write):
    clean, splits = split_tweets()
    written = write((clean, splits))
    grown, more = add_rows(clean, splits, written)
    assert more.synthetic.tolist() == list(range(240, 252))
    assert more.real_train.tolist() == splits.train.tolist()
    assert more.train.tolist() == [*splits.train.tolist(), *range(240, 252)]
    assert (more.validation.tolist(), more.test.tolist()) == (
        splits.validation.tolist(),
        splits.test.tolist(),
    )
    assert texts_of(grown, more.synthetic) == [row.text for row in written.rows]
    assert grown.rows.table["label"].to_pylist()[240:] == ["positive"] * 12
    assert grown.rows.table.slice(0, 240).equals(clean.rows.table)
    assert grown.counts == clean.counts  # real rows alone
    assert grown.fingerprint != clean.fingerprint
    assert grown.text_fingerprint != clean.text_fingerprint


def test_plan_weights_and_audit_take_synthetic_rows_as_rows_but_natural_counts_as_real(
    split_tweets, write
):
    clean, splits = split_tweets()
    written = write((clean, splits))
    data = balance_splits(
        clean,
        splits,
        BalanceSection(method="undersample"),
        LossSection(class_weights="balanced"),
        seed=7,
        synthetic=written,
    )
    assert data.plan.counts_C.tolist() == [40, 40, 40]
    assert data.summary.natural_C.tolist() == [84, 56, 28]
    assert data.summary.imbalance_ratio == 3
    assert {name: counts.tolist() for name, counts in data.summary.columns.items()} == {
        "train": [84, 56, 28],
        "synthetic": [0, 0, 12],
        "seen per epoch": [40, 40, 40],
        "validation": [18, 12, 6],
        "test": [18, 12, 6],
    }
    assert data.unused_rows == 0


def test_prompts_hold_training_rows_of_the_class_and_nothing_of_validation_or_test(
    split_tweets, write, server
):
    clean, splits = split_tweets()
    written = write((clean, splits), example_characters=10_000)
    train = set(texts_of(clean, splits.train[clean.label_ids_N[splits.train] == 2]))
    held_out = texts_of(clean, [*splits.validation, *splits.test])
    shown = [
        message["content"]
        for body in server.bodies
        for message in body["messages"]
        if message["role"] == "assistant"
    ]
    assert len(shown) == 4 * len(server.bodies)
    assert set(shown) <= train
    everything = json.dumps(server.bodies, ensure_ascii=False)
    assert not [
        text for text in held_out if json.dumps(text, ensure_ascii=False)[1:-1] in everything
    ]
    for row in written.rows:
        assert [m["content"] for m in row.prompt if m["role"] == "assistant"] == texts_of(
            clean, row.source_rows
        )
        assert set(row.source_rows) <= set(splits.train.tolist())


def test_examples_are_cut_and_listed_where_the_template_asks_for_it(split_tweets, write, server):
    with pytest.warns(
        UserWarning, match="got 0 of the 12 rows"
    ):  # the server shuffles the examples of turns alone
        write(
            split_tweets(),
            prompt="{label}:\n{examples}\nOne more {{please}}.",
            examples=2,
            example_characters=9,
            max_attempts=1,
        )
    messages = server.bodies[0]["messages"]
    assert [message["role"] for message in messages] == ["user"]
    first, one, two, last = messages[0]["content"].split("\n")
    assert (first, last) == ("positive:", "One more {please}.")
    assert one.startswith("- ")
    assert two.startswith("- ")
    assert len(one) <= 11


def test_prompt_is_turns_of_a_conversation_without_the_placeholder():
    question = {"role": "user", "content": "Write grain."}
    assert build_prompt("Write {label}.", "grain", ["a", "b"]) == [
        question,
        {"role": "assistant", "content": "a"},
        question,
        {"role": "assistant", "content": "b"},
        question,
    ]
    assert build_prompt("Write {label}.", "grain", []) == [question]


def test_rerun_asks_nothing_and_gives_the_same_rows(split_tweets, write, server):
    first = write(split_tweets())
    asked = len(server.bodies)
    assert write(split_tweets()) == first
    assert write(
        split_tweets(), similarity=0.8, max_characters=150, batch_size=3
    ).rows  # what only judges completions asks for none again
    assert len(server.bodies) - asked <= 4
    asked = len(server.bodies)
    write(split_tweets(), temperature=0.9)
    assert len(server.bodies) >= asked + 12


def test_rerun_needs_no_server_and_no_key(split_tweets, write, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    first = write(split_tweets(), api_key_env="MY_KEY")
    monkeypatch.delenv("MY_KEY")
    server.always = "500"
    assert write(split_tweets(), api_key_env="MY_KEY") == first


def test_seed_decides_the_prompts(split_tweets, write):
    assert [row.source_rows for row in write(split_tweets()).rows] != [
        row.source_rows for row in write(split_tweets(), seed=8).rows
    ]


def test_order_of_rows_in_the_file_has_no_say(split_tweets, write, server, tweets, tmp_path):
    first = write(split_tweets())
    asked = len(server.bodies)
    turned = tmp_path / "turned.csv"
    with (
        tweets.open(encoding="utf-8", newline="") as source,
        turned.open("w", encoding="utf-8", newline="") as target,
    ):
        head, *lines = csv.reader(source)
        csv.writer(target).writerows([head, *lines[::-1]])
    again = write(split_tweets(turned))
    assert [(row.text, row.prompt) for row in again.rows] == [
        (row.text, row.prompt) for row in first.rows
    ]
    assert len(server.bodies) == asked


def test_broken_off_writing_goes_on_where_it_stopped(split_tweets, write, server, tmp_path):
    server.modes = ["normal"] * 6 + ["500"] * 2 + ["normal"] * 3
    with pytest.raises(AugmentError, match=r"gave no usable answer \(augment.retries: 1\)"):
        write(split_tweets(), batch_size=1)
    assert len(server.bodies) == 8
    server.modes = []
    resumed = write(split_tweets(), batch_size=1)
    asked = len(server.bodies) - 8
    for path in (tmp_path / "completions").iterdir():
        path.unlink()
    assert write(split_tweets(), batch_size=1) == resumed
    assert len(server.bodies) - 8 - asked == asked + 6


def test_prompts_that_a_content_filter_refuses_are_rejected_and_counted_also_from_the_cache(
    split_tweets, write, server
):
    rows = split_tweets()
    server.modes = ["normal", "filtered", "normal", "filtered"]
    written = write(rows)
    assert written.outcomes["positive"]["rejected"]["refused by the server"] == 2
    assert len(written.rows) == 12
    asked = len(server.bodies)
    assert write(rows) == written
    assert len(server.bodies) == asked


def test_server_that_refuses_most_prompts_stops_the_augmentation_and_is_asked_again_later(
    split_tweets, write, server
):
    rows = split_tweets()
    server.always = "filtered"
    with pytest.raises(
        AugmentError,
        match=(
            r"refused 10 of 10 prompts. The last answer: Error code: 400.* content "
            r"management policy.* Check augment\.prompt"
        ),
    ):
        write(rows)
    server.always = "normal"
    assert len(write(rows).rows) == 12


def test_few_prompts_that_are_all_refused_stop_it_too(split_tweets, write, server):
    server.always = "filtered"
    with pytest.raises(AugmentError, match="refused 2 of 2 prompts"):
        write(split_tweets(), target_rows=29, max_attempts=2)


def test_half_a_last_line_of_the_cache_is_dropped(tmp_path):
    path = tmp_path / "folder/c.jsonl"
    cache = CompletionCache(path)
    cache.add(0, "zero\nlines \u8eca")
    cache.add(1, "one")
    with path.open("ab") as file:
        file.write(b'{"attempt": 2, "comple')
    again = CompletionCache(path)
    assert again.completions == {0: "zero\nlines \u8eca", 1: "one"}
    again.add(2, "two")
    assert CompletionCache(path).completions == {0: "zero\nlines \u8eca", 1: "one", 2: "two"}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_copies_and_near_copies_of_any_split_are_rejected(split_tweets, write, server, split):
    clean, splits = split_tweets()
    ids = splits.named[split]
    text = next(t for t in texts_of(clean, ids[clean.label_ids_N[ids] == 2]) if 60 < len(t) < 120)
    server.modes = [
        f"say {text}",
        f"say {text.upper()} !!",
        "say As an AI language model, I cannot.",
    ]
    outcome = write((clean, splits), target_rows=29, batch_size=1, min_agreement=0.0).outcomes[
        "positive"
    ]
    assert outcome["rejected"] == {"exact duplicate": 1, "near duplicate": 1, "refusal": 1}
    assert (outcome["prompts"], outcome["accepted"]) == (4, 1)


def test_class_that_stays_short_is_warned_about_with_the_reasons(split_tweets, write, server):
    server.always = "say ok"
    with pytest.warns(
        UserWarning,
        match=(
            r"label 'positive' got 0 of the 2 rows that it lacks, from 6 prompts\. Rejected: "
            r"6 too short\. Raise augment\.max_attempts"
        ),
    ):
        written = write(split_tweets(), target_rows=30, max_attempts=3)
    assert written.rows == []
    assert written.outcomes["positive"] == {
        "wanted": 2,
        "prompts": 6,
        "accepted": 0,
        "rejected": {"too short": 6},
    }


def test_nothing_is_asked_where_no_class_is_short(split_tweets, write, server):
    clean, splits = split_tweets()
    written = write((clean, splits), target_rows=28)
    assert (written.rows, written.outcomes, server.bodies) == ([], {}, [])
    grown, more = add_rows(clean, splits, written)
    assert grown.fingerprint == clean.fingerprint
    assert more.train.tolist() == splits.train.tolist()


def test_unknown_label_is_named_with_the_known_ones(split_tweets, write):
    with pytest.raises(
        ConfigError,
        match=r"augment\.labels names happy; labels in the data: negative, neutral, positive\.",
    ):
        write(split_tweets(), labels=["happy", "positive"])


def test_records_tell_where_each_row_comes_from(split_tweets, write):
    clean, splits = split_tweets()
    written = write((clean, splits), target_rows=29)
    _, more = add_rows(clean, splits, written)
    (record,) = records(written, more, clean.labels.names)
    assert list(record) == ["row", "label", "text", "agreement", "source_rows", "prompt"]
    assert (record["row"], record["label"], record["text"]) == (
        240,
        "positive",
        written.rows[0].text,
    )
    assert 1 / 3 < record["agreement"] <= 1
    assert np.isin(record["source_rows"], splits.train).all()


def test_class_of_a_single_row_is_filled_too(write, tmp_path):
    lines = "".join(
        (
            f"text {n} about the {'red' if n % 2 else 'blue'} thing number "
            f"{n},{'red' if n % 2 else 'blue'}\n"
        )
        for n in range(40)
    )
    path = tmp_path / "rows.csv"
    path.write_text(
        "text,sentiment\n"
        + lines
        + (
            "a green hill far away from here in the north,green\nthe greenest grass of all "
            "grows there,green\n"
        ),
        encoding="utf-8",
    )
    data = DataSection(source=str(path), label_column="sentiment")
    rows = read_splits(data, None, BalanceSection(), seed=7, cache_dir=tmp_path / "rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = write(
            rows, labels=["green"], target_rows=3, min_characters=5, similarity=1.0
        ).outcomes["green"]
    assert outcome["accepted"] == 2


def test_new_rows_with_several_labels_have_those_of_their_examples(tweets, write, tmp_path, server):
    path = tmp_path / "several.jsonl"
    with tweets.open(encoding="utf-8", newline="") as file, path.open("w") as out:
        for number, row in enumerate(csv.DictReader(file)):
            labels = [row["sentiment"], *(["short"] if len(row["text"]) < 80 else [])]
            labels += ["rare"] if number % 30 == 0 else []
            out.write(json.dumps({"text": row["text"], "labels": labels}) + "\n")
    data = DataSection(source=str(path), label_column="labels")
    clean, splits = read_splits(
        data, SPLIT, BalanceSection(), seed=7, cache_dir=tmp_path / "several"
    )
    names = clean.labels.names
    before_C = clean.label_matrix_NC[splits.train].sum(axis=0)
    written = write((clean, splits), labels=["rare"], target_rows=12, min_agreement=0)
    grown, more = add_rows(clean, splits, written)
    after_C = grown.label_matrix_NC[more.train].sum(axis=0)
    assert after_C[names.index("rare")] == 12
    assert written.outcomes["rare"]["wanted"] == 12 - before_C[names.index("rare")]
    assert after_C.sum() > before_C.sum() + written.outcomes["rare"]["accepted"]
    train = set(splits.train.tolist())
    lines = list(records(written, more, names, is_multi_label=True))
    for row, line in zip(written.rows, lines, strict=True):
        assert set(row.source_rows) <= train
        shared = np.unique(clean.label_matrix_NC[row.source_rows], axis=0)
        assert np.flatnonzero(shared[0]).tolist() == list(row.label_ids)
        assert len(shared) == 1  # all examples have the same labels
        assert line["label"] == [names[label_id] for label_id in row.label_ids]
        assert ", ".join(line["label"]) in row.prompt[-1]["content"]
    assert (grown.label_matrix_NC[more.validation] == clean.label_matrix_NC[more.validation]).all()
    labels = grown.rows.table["label"].to_pylist()[-len(lines) :]
    assert [json.loads(label) for label in labels] == [line["label"] for line in lines]
    prepared = balance_splits(
        clean, splits, BalanceSection(), LossSection(), seed=7, synthetic=written
    )
    assert prepared.summary.columns["synthetic"].sum() == sum(
        len(row.label_ids) for row in written.rows
    )
