"""Several runs side by side: the best run, doubts about it, and differences of the configs.

The runs are invented files, so that the results are known.
"""

import json
import re

import numpy as np
import pytest
from page_parser import Page

from trainer.delivery.report import page_intervals, report_page, side_by_side
from trainer.errors import RunError
from trainer.evaluation.figure_intervals import LEAST_ROWS
from trainer.evaluation.outcome import outcome_of
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.writer import RunFolder

pytestmark = pytest.mark.slow

LABELS = ["<b>rare</b>", "common"]
TRUE = np.array([0] * 30 + [1] * 70)


def write_run(
    path,
    num_wrong,
    *,
    labels=LABELS,
    true=TRUE,
    digest="same",
    split="test",
    config=None,
    epochs=True,
    facts=True,
    first_row=0,
):
    """A run folder whose model takes the first `num_wrong` rows for the other class."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    predicted = np.where(np.arange(len(true)) < num_wrong, 1 - true, true)
    p_NC = np.where(np.eye(len(labels))[predicted] == 1, 0.8, 0.2 / (len(labels) - 1))
    outcome = outcome_of(np.log(p_NC), true, labels, None, None)
    folder.write_text(
        "config.yaml",
        json.dumps({"run": {"name": path.name}, "model": {"name": "m"}, **(config or {})}),
    )
    folder.write_predictions({split: (first_row + np.arange(len(true)), outcome)}, labels)
    folder.write_json(
        "environment.json", {"data": {"fingerprint": digest, "rows": {"kept": 200}}, "versions": {}}
    )
    if facts:
        folder.write_json("report.json", {"row_digests": {split: digest}})
    if epochs:
        folder.write_epochs(
            [
                {
                    "epoch": e,
                    "step": e,
                    "training_loss": 1 / e,
                    "validation_loss": 1 / e,
                    "accuracy": 0.5,
                    "macro_f1": 0.5,
                    "minority_recall": 0.5,
                }
                for e in (1, 2)
            ]
        )
    folder.write_json("metrics.json", {split: outcome.alone.to_dict(), "minority_label": labels[0]})
    return FinishedRun.read(path)


def words_of(text):
    return " ".join(" ".join(Page(text).words).split())


def test_best_figures_are_marked_and_differences_are_paired(tmp_path, capsys):
    runs = [
        write_run(tmp_path / name, wrong)
        for name, wrong in (("poor", 20), ("good", 5), ("near", 6))
    ]
    compared = side_by_side.compare(runs)
    assert compared.best["macro_f1"] == compared.best["accuracy"] == {1}
    assert compared.best["loss"] == {1}  # of losses the least
    assert compared.differences[1] is None
    value, (low, high) = compared.differences[0]
    assert value == pytest.approx(runs[0].final["macro_f1"] - runs[1].final["macro_f1"])
    assert low < value < high < 0
    assert compared.differences[2][1][1] == 0  # one row apart: in some resamples it is not drawn
    side_by_side.print_comparison(compared)
    printed = capsys.readouterr().out
    assert f"{runs[1].final['macro_f1']:.4f}*" in printed
    assert f"{runs[0].final['macro_f1']:.4f} " in printed
    words = words_of(side_by_side.render(compared))
    assert f"{runs[1].final['macro_f1']:.3f} ★" in words
    assert f"{value:+.3f}" in words


def test_means_over_classes_have_no_interval_where_one_class_is_too_small(tmp_path, capsys):
    true = np.array([0] * (LEAST_ROWS - 1) + [1] * 70)
    compared = side_by_side.compare(
        [
            write_run(tmp_path / name, wrong, true=true)
            for name, wrong in (("poor", 15), ("good", 5))
        ]
    )
    assert compared.intervals[1]["accuracy"] is not None
    assert [
        compared.intervals[1][name] for name in ("macro_f1", "balanced_accuracy", "minority_recall")
    ] == [None] * 3
    assert compared.differences[0][1] is None
    reason = (
        f"have no intervals where a class has fewer than {LEAST_ROWS} rows ({LABELS[0]}): a small"
        " difference may be chance."
    )
    assert reason in words_of(side_by_side.render(compared))
    (tmp_path / "poor/report.json").unlink()
    assert f"neither have means over classes that include such a class ({LABELS[0]})" in words_of(
        report_page.render(FinishedRun.read(tmp_path / "poor"))
    )
    side_by_side.print_comparison(compared)
    assert reason in " ".join(capsys.readouterr().out.split())


def test_intervals_hold_the_figures_they_are_of(tmp_path):
    run = write_run(tmp_path / "run", 5)
    intervals = page_intervals.headline_intervals(run, page_intervals.resampled_figures([run]), 0)
    for name in ("macro_f1", "accuracy", "balanced_accuracy"):
        assert intervals[name][0] <= run.final[name] <= intervals[name][1]


def test_a_class_without_rows_takes_no_interval_away(tmp_path):
    run = write_run(tmp_path / "run", 5, labels=[*LABELS, "absent"])
    assert (
        page_intervals.headline_intervals(run, page_intervals.resampled_figures([run]), 0)[
            "macro_f1"
        ]
        is not None
    )


def test_long_labels_are_cut_and_whole_where_the_pointer_rests(tmp_path):
    long = "<b>" + "very long " * 40
    runs = [
        write_run(tmp_path / name, 5, labels=[long, "common"], facts=False) for name in ("a", "b")
    ]
    for text in (side_by_side.render(side_by_side.compare(runs)), report_page.render(runs[0])):
        assert f'<span title="&lt;b&gt;{long[3:]}">&lt;b&gt;{long[3:59]}…</span>' in text
        cells = re.findall(r'(?s)<td class="k">(.*?)</td>|class="key">(.*?)</span> ', text)
        assert not any(long[3:] in re.sub('title="[^"]*"', "", "".join(cell)) for cell in cells)


def test_page_is_escaped_and_needs_nothing_from_outside(tmp_path):
    text = side_by_side.render(
        side_by_side.compare([write_run(tmp_path / name, 5) for name in ("a", "b")])
    )
    page = Page(text)
    assert LABELS[0] not in text
    assert LABELS[0] in "".join(page.words)
    assert "script" not in page.tags
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)


@pytest.mark.parametrize(("options", "reason"), [
    ({"digest": "other"}, "their test rows differ"),
    ({"facts": False, "digest": "other"}, "the data fingerprints differ"),
    ({"true": TRUE[:90]}, "100 and 90 test rows"),
    ({"labels": ["<b>rare</b>", "usual"]}, "their classes differ (common, usual)"),
    ({"true": 1 - TRUE}, "the labels of their test rows differ"),
])  # fmt: skip
def test_other_test_rows_are_told_and_then_no_best_is_marked(tmp_path, options, reason):
    compared = side_by_side.compare(
        [write_run(tmp_path / "first", 5), write_run(tmp_path / "other", 5, **options)]
    )
    assert compared.doubts == [f"first and other cannot be compared: {reason}. No best is marked."]
    assert not compared.best
    words = words_of(side_by_side.render(compared))
    assert "These figures cannot be compared" in words
    assert "★" not in words


def test_rows_of_older_runs_are_told_apart_by_their_numbers(tmp_path):
    runs = [write_run(tmp_path / name, 5, facts=False) for name in ("first", "other")]
    assert side_by_side.compare(runs).doubts == []
    moved = write_run(tmp_path / "moved", 5, facts=False, first_row=1)
    assert "their test rows differ" in side_by_side.compare([runs[0], moved]).doubts[0]


def test_runs_whose_digests_are_missing_are_told_apart_by_their_fingerprint(tmp_path):
    runs = [write_run(tmp_path / name, 5, digest=name) for name in ("first", "other")]
    (tmp_path / "other/report.json").write_text("{}")
    assert (
        "the data fingerprints differ"
        in side_by_side.compare([runs[0], FinishedRun.read(tmp_path / "other")]).doubts[0]
    )


def test_a_file_of_another_shape_is_told_in_words(tmp_path):
    runs = [write_run(tmp_path / name, 5, facts=False) for name in ("first", "other")]
    (tmp_path / "other/environment.json").write_text('{"versions": {}}')
    with pytest.raises(
        RunError,
        match=r"first, .*other: a file there is damaged, or was written by another version"
        r" \(KeyError: 'data'\)",
    ):
        side_by_side.write([runs[0], FinishedRun.read(tmp_path / "other")], tmp_path / "page.html")


def test_config_differences_alone_are_shown(tmp_path):
    configs = [
        {"balance": {"method": method, "target_ratio": None}, "hub": {"push": push}}
        for method, push in (("none", True), ("floor", False))
    ]
    runs = [write_run(tmp_path / str(n), 5, config=config) for n, config in enumerate(configs)]
    assert side_by_side.differing_keys(runs) == [("balance.method", ["none", "floor"])]
    more = write_run(tmp_path / "more", 5, config={**configs[0], "loss": {"gamma": None}})
    assert side_by_side.differing_keys([runs[0], more]) == [("loss.gamma", ["not set", "null"])]


def test_runs_without_a_split_in_common_are_refused(tmp_path):
    runs = [write_run(tmp_path / "a", 5), write_run(tmp_path / "b", 5, split="validation")]
    with pytest.raises(
        RunError, match=r"share no evaluated split. Compare runs that have test rows"
    ):
        side_by_side.compare(runs)


def test_runs_of_one_name_are_told_apart_by_their_folder(tmp_path):
    runs = [write_run(tmp_path / place / "run", 5) for place in ("here", "there")]
    assert side_by_side.compare(runs).names == ["here/run", "there/run"]
    deeper = [write_run(tmp_path / place / "x/run", 5) for place in ("one", "two")]
    assert side_by_side.compare(deeper).names == [
        str(tmp_path / place / "x/run") for place in ("one", "two")
    ]


def test_command_puts_runs_side_by_side(tmp_path, run_cli):
    for name, wrong in (("poor", 20), ("good", 5)):
        write_run(tmp_path / name, wrong, epochs=name == "good")
    page = tmp_path / "pages/side.html"
    done = run_cli("report", tmp_path / "poor", tmp_path / "good", "--output", page)
    assert done.returncode == 0, done.stderr
    assert "2 runs on test, the best marked *" in done.stdout
    assert done.stdout.endswith(f"Report: {page}\n")
    assert "2 runs side by side" in words_of(page.read_text(encoding="utf-8"))
    twice = run_cli("report", tmp_path / "poor", tmp_path / "poor/../poor", "--output", page)
    assert (twice.returncode, twice.stderr) == (
        2,
        f"{tmp_path / 'poor'}: is given twice. Give every run once.\n",
    )
