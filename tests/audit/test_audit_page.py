"""The audit's page: whole in itself, escaped, and saying what audit.json holds."""

import json
from dataclasses import asdict

import pytest
from page_parser import Page

from trainer.audit import page, tables
from trainer.audit.findings import collect
from trainer.audit.inspection import inspect
from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.data.cleaning.clean import clean_rows
from trainer.data.reading.sources import read_rows
from trainer.display.plots import class_counts, class_lengths
from trainer.errors import RunError

EVIL = "<script>alert('x')</script>"


def audited(tmp_path, records, split=None):
    """Findings of rows, as the command collects them, without a model."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    sections = {"model": {"name": "none"}, "data": {"source": str(path)}}
    config = check_config(YamlSource("audit", sections | ({"split": split} if split else {})))
    clean = clean_rows(read_rows(config.data, tmp_path / "cache"), config.data.clean, [])
    return collect(
        inspect(clean, config, threshold=0.8, max_rows=10_000), "equipoise compare rows.yaml"
    )


def evil_rows():
    rows = [
        {"text": f"{EVIL} number {n} of {n * n}", "label": [EVIL, "b & c"][n % 3 == 0]}
        for n in range(60)
    ]
    rows += [
        {"text": "said twice <b>", "label": EVIL},
        {"text": "said twice <b>", "label": "b & c"},
        {"text": "copy", "label": EVIL},
    ]
    return [*rows, {"text": "copy", "label": EVIL}, {"text": "", "label": EVIL}]


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    return audited(tmp_path_factory.mktemp("evil"), evil_rows())


def test_page_needs_nothing_from_outside_and_runs_nothing(findings):
    parsed = Page(page.render(findings))
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert len(parsed.addresses) == 2
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)


def test_labels_and_texts_are_escaped_and_read_as_they_are(findings):
    text = page.render(findings)
    words = "".join(Page(text).words)
    assert EVIL not in text
    assert EVIL in words
    assert "b & c" in words
    assert "said twice <b>" in words


def test_page_says_that_it_quotes_texts_and_cuts_long_ones(tmp_path):
    rows = [{"text": f"{n} " + "word " * 300, "label": "ab"[n % 2]} for n in range(20)]
    words = " ".join("".join(Page(page.render(audited(tmp_path, rows))).words).split())
    assert "This page quotes texts of the data." in words
    assert "word wo…" in words
    assert "word " * 41 not in words


def test_findings_count_what_cleaning_drops_with_examples(findings):
    cleaning = findings.cleaning
    assert cleaning["conflicts"] == [
        {
            "text": "said twice <b>",
            "labels": {EVIL: 1, "b & c": 1},
            "kept_label": None,
            "rows": [60, 61],
        }
    ]
    assert cleaning["duplicates"] == [{"text": "copy", "label": EVIL, "copies": 2}]
    assert cleaning["counts"]["empty text"] == 1
    assert findings.rows == {"read": 65, "kept": 61, "audited": 61, "compared": 61}


def test_advice_ends_with_the_command_that_compares_methods(findings, tmp_path, capsys):
    command = (
        "equipoise compare rows.yaml --set"
        " 'compare.strategies=[none,thresholds,class_weights,oversample"
    )
    assert findings.next_commands[0].startswith(command)
    tables.print_findings(findings)
    assert f"measure which method helps on these rows:\n  {command}" in capsys.readouterr().out
    assert "compare.strategies=[none,thresholds" in page.render(findings)


def test_findings_hold_the_documented_names(findings):
    names = [
        "format",
        "version",
        "source",
        "rows",
        "classes",
        "label_sets",
        "splits",
        "cleaning",
        "odd_characters",
        "near_duplicates",
        "label_noise",
        "lengths",
        "obstacles",
        "notes",
        "advice",
        "next_commands",
    ]
    record = asdict(findings)
    assert list(record) == names
    assert findings.classes["counts"]["all"] == {EVIL: 41, "b & c": 20}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_sixty_classes_fit_page_and_terminal(tmp_path, capsys):
    rows = [
        {"text": f"row {n} of class {c}", "label": f"class {c:02}"}
        for c in range(60)
        for n in range(2 + c)
    ]
    findings = audited(tmp_path, rows)
    assert "class 59" in "".join(Page(page.render(findings)).words)
    tables.print_findings(findings)
    assert (
        "30 of 60 classes, the 15 largest and the 15 rarest. All are in audit.json"
        in capsys.readouterr().out
    )


def test_a_class_too_small_to_split_is_an_obstacle_and_not_the_end(tmp_path):
    rows = [{"text": f"row {n}", "label": "ab"[n % 2]} for n in range(40)] + [
        {"text": "alone", "label": "once"}
    ]
    found = audited(tmp_path, rows, {"rare_classes": "error"})
    (obstacle,) = found.obstacles
    assert obstacle.startswith(
        "label 'once' has 1 row; 2 stratified splits need 2. Merge it by data.label_map"
    )
    assert found.classes["measured_on"] == "all"
    assert found.label_noise["left_out_labels"] == ["once"]
    assert "Labels that were not checked, with too few independent rows: once." in found.notes
    assert "Training would stop" in "".join(Page(page.render(found)).words)


def test_labels_that_cannot_be_checked_are_reported(tmp_path, capsys):
    found = audited(tmp_path, [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}])
    assert found.label_noise is None
    tables.print_findings(found)
    assert "Labels were not checked" in capsys.readouterr().out
    assert "Not checked: fewer than two classes" in "".join(Page(page.render(found)).words)


def test_figures_show_every_class_with_its_rows_and_lengths():
    axis = class_counts({"a": 5, "b": 500}, "train").axes[0]
    assert [int(bar.get_width()) for bar in axis.patches] == [500, 5]
    lengths = {
        "a": {"rows": 2, "p5": 1, "median": 3, "p95": 9, "longest": 12},
        "b": {"rows": 5, "p5": 2, "median": 4, "p95": 6, "longest": 6},
    }
    axis = class_lengths(lengths, "tokens").axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[4, 0], [3, 1]]


def test_files_of_others_are_not_overwritten(tmp_path, findings):
    for name, content in (
        ("audit.html", "<p>mine</p>"),
        ("audit.json", "{}"),
        ("audit.json", "no json"),
        ("audit.json", '"equipoise audit 1"'),
    ):
        folder = tmp_path / f"{name}{len(content)}"
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(
            RunError,
            match=(
                r"contains an audit.json or audit.html that is not from this command. Give "
                r"another --output"
            ),
        ):
            page.check_output(folder)
    written = page.write(tmp_path / "ours", findings)
    page.check_output(tmp_path / "ours")  # an older audit may be replaced
    assert written.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        RunError,
        match=(
            r"cannot be written \(Not a directory at .*\). Set --output to a folder you may "
            r"write"
        ),
    ):
        page.check_output(tmp_path / "file")


def test_page_and_terminal_tell_of_odd_characters_and_what_to_do(tmp_path, capsys):
    rows = [{"text": f"row {n}" + " &amp; \x00" * (n < 5), "label": "ab"[n % 2]} for n in range(40)]
    found = audited(tmp_path, rows)
    words = " ".join("".join(Page(page.render(found)).words).split())
    assert "row 0 &amp; \\x00" in words
    assert found.odd_characters["HTML entity"]["by_label"] == {"a": 3, "b": 2}
    assert "None found" not in words
    tables.print_findings(found)
    out = capsys.readouterr().out
    assert (
        "Odd characters: HTML entity in 5 rows (12.5%); control character in 5 rows (12.5%)." in out
    )
    assert (
        "12.5% of the rows contain traces of a broken conversion (HTML entity). In "
        "short, convert the texts with html.unescape."
    ) in out
    other = tmp_path / "other"
    other.mkdir()
    clean = audited(other, [{"text": f"row {n}", "label": "ab"[n % 2]} for n in range(40)])
    assert "None found: no mojibake" in "".join(Page(page.render(clean)).words)
