import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.prepare import read_splits
from trainer.data.split_rows import Fold
from trainer.errors import DataError

THREE = SplitSection(train=0.7, validation=0.15, test=0.15)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


def rows_of(**counts):
    return [
        {"text": f"{label} number {i}", "label": label}
        for label, count in counts.items()
        for i in range(count)
    ]


def texts(clean, ids):
    return set(clean.rows.table["text"].take(ids).to_pylist())


@pytest.fixture
def splits_of(tmp_path):
    """Function (rows, split, ...) -> {split: list of (text, label)}, with the warnings under
    'warnings' and dropped rows under 'counts'."""

    def read(rows, split=THREE, *, balance=None, fold=None, seed=0, **data):
        data = {"source": write(tmp_path / "rows.jsonl", rows)} | data
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clean, splits = read_splits(
                DataSection(**data),
                split,
                balance or BalanceSection(),
                seed=seed,
                cache_dir=tmp_path / "cache",
                fold=fold,
            )
        table = clean.rows.table
        found = {
            name: list(
                zip(*(table[c].take(ids).to_pylist() for c in ("text", "label")), strict=True)
            )
            for name, ids in splits.named.items()
        }
        said = [
            str(w.message)
            for w in caught
            if not str(w.message).startswith("every row has the label")
        ]
        return found | {"warnings": said, "counts": clean.counts, "labels": clean.labels.names}

    return read


def count(found, split, label):
    return sum(of == label for _, of in found.get(split, []))


# test first


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_test_rows_are_the_same_for_plain_runs_folds_and_a_balanced_pool(splits_of, seed):
    rows = rows_of(a=300, b=100, c=50)
    plain = set(splits_of(rows, seed=seed)["test"])
    assert len(plain) in (67, 68)
    for number in range(5):
        member = splits_of(rows, seed=seed, fold=Fold(number, 5))
        assert set(member["test"]) == plain
        assert not plain & set(member["train"] + member["validation"])
    pool = splits_of(rows, seed=seed, balance=BalanceSection(method="undersample", scope="all"))
    assert set(pool["test"]) == plain
    assert not plain & set(pool["train"] + pool["validation"])
    assert (
        set(splits_of(rows, SplitSection(train=0.45, validation=0.4, test=0.15), seed=seed)["test"])
        == plain
    )


def test_test_rows_are_the_same_with_groups_and_several_labels(splits_of):
    generator = np.random.default_rng(0)
    several = [
        {
            "text": f"t{i}",
            "label": [n for n in "abc" if generator.random() < 0.4],
            "author": f"g{i % 60}",
        }
        for i in range(300)
    ]
    for rows, columns in ((several, {}), (several, {"group_column": "author"})):
        plain = splits_of(rows, **columns)["test"]
        assert [splits_of(rows, fold=Fold(n, 3), **columns)["test"] == plain for n in range(3)] == [
            True
        ] * 3


@pytest.mark.parametrize("policy", ["keep", "drop", "error"])
@pytest.mark.parametrize("split", [THREE, SplitSection()])
def test_no_fold_or_pool_changes_the_test_rows_or_the_classes_whatever_the_policy(
    splits_of, policy, split
):
    split = split.model_copy(update={"rare_classes": policy})
    rows = rows_of(a=300, b=200, four=4, **({} if policy == "error" else {"single": 1}))
    plain = splits_of(rows, split)
    others = [splits_of(rows, split, balance=BalanceSection(method="undersample", scope="all"))]
    if policy != "error":  # four rows cannot be in five folds
        folds = [splits_of(rows, split, fold=Fold(number, 5)) for number in range(5)]
        assert [count(found, "train", "four") for found in folds] == [
            4 - count(plain, "test", "four")
        ] * 5
        assert all("'four'" in found["warnings"][0] for found in folds)
        others += folds
    for found in others:
        assert (set(found.get("test", [])), found["labels"]) == (
            set(plain.get("test", [])),
            plain["labels"],
        )
    assert ("single" in plain["labels"], "four" in plain["labels"]) == (policy == "keep", True)


def test_error_still_stops_folds_that_a_class_cannot_be_in(splits_of):
    with pytest.raises(DataError, match=r"^label 'four' has 3 rows; 5 stratified splits need 5."):
        splits_of(
            rows_of(a=100, four=4),
            THREE.model_copy(update={"rare_classes": "error"}),
            fold=Fold(0, 5),
        )


def test_each_class_has_its_share_of_test_within_one_row_and_of_validation_within_two(splits_of):
    counts = {"a": 333, "b": 101, "c": 47, "d": 9}
    for seed in range(5):
        found = splits_of(rows_of(**counts), seed=seed)
        for label, total in counts.items():
            assert abs(count(found, "test", label) - 0.15 * total) <= 1
            assert (
                abs(count(found, "validation", label) - 0.15 * total) <= 2
            )  # a row of what test left, and a row of test
        assert abs(len(found["validation"]) - 0.15 * sum(counts.values())) <= 2


# rare classes


def test_rows_of_a_class_too_rare_to_split_train_and_a_warning_names_it(splits_of):
    found = splits_of(rows_of(a=100, b=50, pair=2, single=1))
    assert [count(found, name, "pair") for name in ("train", "validation", "test")] == [2, 0, 0]
    assert [count(found, name, "single") for name in ("train", "validation", "test")] == [1, 0, 0]
    (warning,) = found["warnings"]
    words = (
        "split: no row of 'pair' (2 rows in all), 'single' (1 row in all) in validation and "
        "test: such a class is trained, but not measured there."
    )
    assert (
        warning
        == f"{words} Add rows, merge labels with data.label_map, or list them in data.drop_labels."
    )
    assert sum(len(found[name]) for name in ("train", "validation", "test")) == 153


def test_a_class_with_as_many_rows_as_splits_is_in_each(splits_of):
    found = splits_of(rows_of(a=100, b=50, three=3))
    assert [count(found, name, "three") for name in ("train", "validation", "test")] == [1, 1, 1]
    assert found["warnings"] == []


def test_a_class_with_fewer_rows_than_folds_trains_in_every_fold(splits_of):
    for number in range(5):
        found = splits_of(rows_of(a=100, b=50, four=4), SplitSection(), fold=Fold(number, 5))
        assert (count(found, "train", "four"), count(found, "validation", "four")) == (4, 0)
        assert "no row of 'four' (4 rows in all) in validation" in found["warnings"][0]


def test_a_class_that_is_in_one_group_trains_with_all_of_its_group(splits_of):
    rows = [row | {"author": f"author {i % 20}"} for i, row in enumerate(rows_of(a=100, b=60))]
    rows += [{"text": f"rare {i}", "label": "rare", "author": "author 3"} for i in range(6)]
    found = splits_of(rows, group_column="author")
    assert [count(found, name, "rare") for name in ("train", "validation", "test")] == [6, 0, 0]
    assert {text for text, _ in found["train"]} >= {
        row["text"] for row in rows if row["author"] == "author 3"
    }


def test_a_label_of_several_that_is_too_rare_trains_with_all_labels_of_its_rows(splits_of):
    rows = [{"text": f"t{i}", "label": ["a", "b"][: 1 + i % 2]} for i in range(100)] + [
        {"text": "only", "label": ["a", "rare"]}
    ]
    found = splits_of(rows)
    assert "only" in {text for text, _ in found["train"]}
    assert "no row of 'rare' (1 row in all) in validation and test" in found["warnings"][0]


def test_error_stops_as_before(splits_of):
    split = THREE.model_copy(update={"rare_classes": "error"})
    with pytest.raises(DataError, match=r"^label 'pair' has 2 rows; 3 stratified splits need 3."):
        splits_of(rows_of(a=100, b=50, pair=2), split)
    rows = [row | {"author": row["text"]} for row in rows_of(a=50, b=50)] + [
        {"text": f"rare {i}", "label": "rare", "author": "x"} for i in range(6)
    ]
    with pytest.raises(
        DataError, match=r"^the groups of rare are too few or too large to be in each of 3 splits."
    ):
        splits_of(rows, split, group_column="author")


def test_drop_leaves_the_rows_out_and_counts_them(splits_of):
    split = THREE.model_copy(update={"rare_classes": "drop"})
    found = splits_of(rows_of(a=100, pair=2, b=50, single=1), split)
    assert (
        found["labels"],
        found["counts"]["class too rare to split"],
        found["counts"]["kept"],
    ) == (["a", "b"], 3, 150)
    assert sum(len(found[name]) for name in ("train", "validation", "test")) == 150
    assert [words.partition(",")[0] for words in found["warnings"]] == [
        "split.rare_classes: drop leaves out 'pair' (2 rows)"
    ]
    several = [{"text": f"t{i}", "label": ["a", "b"][: 1 + i % 2]} for i in range(100)] + [
        {"text": "only", "label": ["a", "rare"]}
    ]
    found = splits_of(several, split)
    assert (found["labels"], found["counts"]["class too rare to split"]) == (["a", "b"], 1)


def test_a_pool_is_balanced_without_the_classes_that_only_train(splits_of):
    found = splits_of(
        rows_of(a=100, b=40, single=1), balance=BalanceSection(method="undersample", scope="all")
    )
    assert [count(found, name, "single") for name in ("train", "validation", "test")] == [1, 0, 0]
    assert (
        count(found, "train", "a") + count(found, "validation", "a") == 34
    )  # b's rows that test left


def test_a_pool_balanced_for_folds_is_not_cut_to_a_class_too_rare_for_them(splits_of):
    balance = BalanceSection(method="undersample", scope="all")
    found = splits_of(rows_of(a=100, b=40, two=2), SplitSection(), balance=balance, fold=Fold(1, 4))
    assert [
        count(found, "train", label) + count(found, "validation", label)
        for label in ("a", "b", "two")
    ] == [40, 40, 2]
    assert count(found, "validation", "b") == 10


def test_only_rare_classes_leave_nothing_to_validate(splits_of):
    with pytest.raises(DataError) as raised:
        splits_of(rows_of(a=1, b=2, c=1))
    words = (
        "split: no row is left for validation and test, since every class has fewer rows than "
        "there are splits; the largest class has 2 rows"
    )
    assert (
        str(raised.value)
        == f"{words}. Add rows, merge labels with data.label_map, or ask for fewer splits."
    )


@pytest.mark.parametrize(
    ("author", "words"),
    [
        (
            lambda row, i: "x",
            "all 90 rows are one group by data.group_column: author, and stay together. Name "
            "a column of more groups",
        ),
        (
            lambda row, i: row["label"],
            "all rows of each class are one group by data.group_column: author, and stay "
            "together. Name a column",
        ),
        (
            lambda row, i: i % 2,
            "the 2 groups are too few or too large to be in every split; 'a' has the most, 2 "
            "groups. Add rows of other groups",
        ),
    ],
)
def test_groups_that_hold_everything_are_named_as_the_cause(splits_of, author, words):
    rows = [row | {"author": author(row, i)} for i, row in enumerate(rows_of(a=60, b=30))]
    with pytest.raises(
        DataError, match=r"^split: no row is left for validation and test: "
    ) as raised:
        splits_of(rows, group_column="author")
    assert words in str(raised.value)


def test_one_text_that_holds_everything_is_named_as_the_cause(splits_of):
    rows = [{"text": "same", "label": ["a", "b"]}] * 40
    with pytest.raises(
        DataError,
        match=(
            r"^split: no row is left for validation: all 40 rows have one text, and stay "
            r"together. Set data.clean.duplicates"
        ),
    ):
        splits_of(rows, SplitSection(), clean={"duplicates": False})


def test_shares_that_come_out_otherwise_are_told(splits_of):
    pairs = rows_of(**{f"c{i}": 2 for i in range(100)})
    (warning,) = [
        words
        for words in splits_of(pairs, SplitSection())["warnings"]
        if words.startswith("split:")
    ]
    words = (
        "split: validation has 100 of 200 rows (50.0%, asked for: 20%): a class has a row in "
        "every split where it can, and only trains where it cannot"
    )
    assert (
        warning
        == f"{words}. Add rows, merge labels with data.label_map, or list them in data.drop_labels."
    )
    rows = [
        row | {"author": "big" if i < 150 else f"g{i}"}
        for i, row in enumerate({"text": f"t{i}", "label": "ab"[i % 2]} for i in range(200))
    ]
    (warning,) = splits_of(rows, SplitSection(train=0.5, validation=0.5), group_column="author")[
        "warnings"
    ]
    assert "split: validation has 50 of 200 rows (25.0%, asked for: 50%)" in warning
    assert "; rows of one group or text stay together." in warning
    nine = splits_of(rows_of(a=3, b=3, c=3))["warnings"]
    assert not any(words.startswith("split:") for words in nine)  # a row of nine is a large share


def test_given_validation_rows_that_lack_a_class_are_warned_of(splits_of, tmp_path):
    validation = write(tmp_path / "validation.jsonl", [{"text": "x", "label": "a"}])
    found = splits_of(
        [],
        None,
        source=None,
        train=write(tmp_path / "train.jsonl", rows_of(a=5, b=5)),
        validation=validation,
    )
    assert "no row of 'b' (5 rows in all) in validation" in found["warnings"][0]


def test_every_message_about_many_rare_classes_stays_short(splits_of):
    rows = rows_of(
        a=50, b=50, **{f"{i} is a class with a long name {'x' * 300}": 1 for i in range(200)}
    )
    for split in (THREE, SplitSection()):
        warnings = splits_of(rows, split)["warnings"]
        assert all(len(warning) <= 600 for warning in warnings)
        assert sum("and 195 more" in warning for warning in warnings) == 1


# limit


def test_a_limit_keeps_as_many_rows_of_a_rare_class_as_there_are_splits(splits_of):
    found = splits_of(rows_of(common=9950, rare=50), limit=200)
    assert [count(found, name, "rare") for name in ("train", "validation", "test")] == [1, 1, 1]
    assert sum(len(found[name]) for name in ("train", "validation", "test")) == 200
    assert found["warnings"] == []


def test_a_limit_below_the_classes_times_the_splits_names_the_least_that_works(splits_of):
    rows = rows_of(**{f"c{i}": 20 for i in range(6)}, single=1)
    with pytest.raises(
        DataError,
        match=(
            r"^data.limit is 18; .*are 19 rows. Set data.limit: 19 or more, or list labels "
            r"in data.drop_labels.$"
        ),
    ):
        splits_of(rows, limit=18)
    found = splits_of(rows, limit=19)
    assert sum(len(found[name]) for name in ("train", "validation", "test")) == 19


def test_a_limit_takes_rows_of_different_groups_and_of_every_label(splits_of):
    rows = [{"text": f"common {i}", "label": "common", "author": f"c{i}"} for i in range(2000)]
    rows += [
        {"text": f"rare {i}", "label": "rare", "author": f"r{0 if i < 47 else i}"}
        for i in range(50)
    ]  # four authors
    for seed in range(5):
        found = splits_of(rows, limit=100, group_column="author", seed=seed)
        assert all(count(found, name, "rare") >= 1 for name in ("train", "validation", "test"))
    several = [
        {"text": f"t{i}", "label": ["a"] + ["b"] * (i < 300) + ["c"] * (i < 40)}
        for i in range(3000)
    ]
    found = splits_of(several, limit=60)
    for name in ("train", "validation", "test"):
        assert {label for _, labels in found[name] for label in json.loads(labels)} == {
            "a",
            "b",
            "c",
        }
    assert found["warnings"] == []


# order


@settings(
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_no_order_of_the_rows_changes_a_split(splits_of, data):
    """With groups, texts that are in two groups, several labels, and duplicates kept or not."""
    several, grouped = data.draw(st.booleans()), data.draw(st.booleans())
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels = (
        [[n for n in "abc" if generator.random() < 0.5] for _ in range(40)]
        if several
        else generator.choice(list("abc"), 40).tolist()
    )
    picks = generator.integers(0, 40, 90)
    rows = [
        {"text": f"t{i}", "label": labels[i], "author": f"g{generator.integers(0, 60)}"}
        for i in picks
    ]
    options = {"clean": {"duplicates": data.draw(st.booleans())}} | (
        {"group_column": "author"} if grouped else {}
    )
    split = data.draw(st.sampled_from([THREE, SplitSection()]))
    fold = data.draw(st.sampled_from([None, Fold(1, 3)]))
    limit = {"limit": 60} if data.draw(st.booleans()) else {}

    def outcome(rows):
        try:
            found = splits_of(rows, split, fold=fold, **options, **limit)
        except DataError as error:  # where all rows are linked
            return str(error)
        return {
            name: sorted(map(str, found.get(name, []))) for name in ("train", "validation", "test")
        }

    assert outcome(rows) == outcome([rows[i] for i in generator.permutation(len(rows))])


def test_of_a_text_in_two_groups_the_group_that_is_kept_does_not_depend_on_the_order(tmp_path):
    rows = [
        {"text": "shared", "label": "a", "author": author} for author in ("zoe", "amy", None, "bob")
    ]
    rows += [
        {"text": f"{label}{i}", "label": label, "author": f"{label}{i}"}
        for label in "ab"
        for i in range(9)
    ]
    kept = set()
    for turn in range(4):
        path = write(tmp_path / f"{turn}.jsonl", rows[turn:4] + rows[:turn] + rows[4:])
        data = DataSection(source=path, group_column="author")
        clean, _ = read_splits(data, None, BalanceSection(), seed=0, cache_dir=tmp_path / "cache")
        table = clean.rows.table.filter(clean.reasons_N == 0)
        kept.add(
            dict(zip(table["text"].to_pylist(), table["group"].to_pylist(), strict=True))["shared"]
        )
    assert kept == {"amy"}


def test_of_a_text_in_two_domains_the_domain_that_is_kept_does_not_depend_on_the_order(tmp_path):
    rows = [{"text": "shared", "label": "a", "site": site} for site in ("web", None, "app")] + [
        row | {"site": "web"} for row in rows_of(a=9, b=9)
    ]
    kept = set()
    for turn in range(3):
        path = write(tmp_path / f"{turn}.jsonl", rows[turn:3] + rows[:turn] + rows[3:])
        balance = BalanceSection(by="site", method="oversample")
        clean, _ = read_splits(
            DataSection(source=path), None, balance, seed=0, cache_dir=tmp_path / "cache"
        )
        table = clean.rows.table.filter(clean.reasons_N == 0)
        kept.add(
            dict(zip(table["text"].to_pylist(), table["domain"].to_pylist(), strict=True))["shared"]
        )
    assert kept == {"app"}
