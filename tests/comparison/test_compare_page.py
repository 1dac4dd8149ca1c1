"""What is made of comparison.json: a page whole in itself and escaped, a table in the terminal, a
section of the card.
"""

import json
import re
import shutil
from itertools import combinations

import pytest
from comparisons import GAINS, UNSURE, comparison, quick, tuned
from huggingface_hub import ModelCard
from page_parser import Page

from trainer import load_config
from trainer.comparison.page import compare_page, compare_plots
from trainer.config.sections.balancing import BalanceSection, DecisionSection, LossSection
from trainer.config.sections.compare import PRESETS
from trainer.delivery.card.card_comparison import comparison_section
from trainer.display import figure_words
from trainer.errors import RunError
from trainer.run_folder.finished_comparison import PAGE_NAME, read_comparison, read_if_set
from trainer.runs import training_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<img src=http://evil.example/x onerror=alert(1)>"
MANY = {
    "none": 0.0,
    "class_weights_and_thresholds": 0.12,
    "class_balanced_batches_with_power_sampling": -0.04,
}
MANY |= {f"strategy_{n}": n / 100 for n in range(9)}
CLASSES = {
    f"class number {n}, with a name as long as people write them in surveys": 600 // (n + 1) + 1
    for n in range(30)
}


def words_of(result):
    return " ".join(" ".join(Page(compare_page.render(result)).words).split())


def section(result, name):
    """The page's section of this id, as text."""
    found = re.search(
        rf'<section id="{name}">.*?</section>', compare_page.render(result), re.DOTALL
    )
    return found.group(0) if found else ""


def section_words(result, name):
    """The words of the page's section of this id."""
    return " ".join("".join(Page(section(result, name)).words).split())


def without_intervals(found):
    """The same values with every interval unknown."""
    if isinstance(found, dict):
        return {
            key: None if key in ("low", "high") else without_intervals(value)
            for key, value in found.items()
        }
    return [without_intervals(value) for value in found] if isinstance(found, list) else found


def test_page_is_written_whole_under_the_given_name(tmp_path):
    result = comparison()
    path = compare_page.write(result, tmp_path / "topics-compare" / PAGE_NAME)
    assert path == tmp_path / "topics-compare/comparison.html"
    assert path.read_text(encoding="utf-8") == compare_page.render(result)


def test_page_shows_the_macro_f1_of_frequent_and_rare_classes():
    result = comparison()
    strategies = result["validation"]["strategies"]
    words = section_words(result, "groups")
    assert result["validation"]["groups"]["tail"] == ["interest", "ship", "grain"]
    assert "tail: 3 classes 20 " in words
    tail = [values["per_group"]["tail"] for values in strategies.values()]
    for shown in (
        f"{tail[0]['macro_f1']:.2f}",
        *(f"{t['difference']['difference']:+.2f}" for t in tail[1:]),
    ):
        assert shown in words
    assert "macro F1, tail (3 classes)" in section_words(result, "test")
    del result["validation"]["groups"], result["test"]["groups"]  # fewer than six classes
    assert section(result, "groups") == ""


def test_page_needs_nothing_from_outside_and_runs_nothing():
    text = compare_page.render(comparison(failed={"smote": "too few rows"}, quick=quick()))
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "form", "img"} & set(page.tags)
    assert all(re.search(f'<section id="{address[1:]}">', text) for address in page.addresses)
    assert "url(" not in text


def test_names_reasons_and_overrides_are_escaped_and_read_as_they_are():
    result = comparison(
        {"none": 0.0, EVIL: 0.1},
        {EVIL: 50, "a|b & c": 5},
        failed={f"{EVIL}2": EVIL},
        command=EVIL,
        model=EVIL,
        name=EVIL,
        recommendation=EVIL,
    )
    result["overrides"][EVIL] = {"loss": {"class_weights": {EVIL: 2}}}
    result["quick"] = quick({"none": 0.0, EVIL: 0.1}) | {"failed": {EVIL: EVIL}}
    result["environment"] = {EVIL: EVIL}
    text = compare_page.render(result)
    assert "<img" not in text
    assert words_of(result).count(EVIL) > 15
    assert "a|b & c" in words_of(result)


def test_headline_is_the_recommendation():
    result = comparison()
    assert (
        re.search(r"<h1[^>]*>(.*?)</h1>", compare_page.render(result)).group(1)
        == result["recommendation"]
    )


def test_table_tells_mean_deviation_difference_interval_and_adjusted_p_of_each_strategy():
    result = comparison()
    table = section_words(result, "table")
    for values in result["validation"]["strategies"].values():
        score, against = values["figures"]["macro_f1"], values["against_baseline"]
        star = (
            " ★"
            if score["mean"]
            == max(
                other["figures"]["macro_f1"]["mean"]
                for other in result["validation"]["strategies"].values()
            )
            else ""
        )
        assert f"{score['mean']:.3f}{star}± {score['seed_deviation']:.3f}" in table
        if against:
            ends = f"{against['low']:+.3f} to {against['high']:+.3f}"
            words = f"{against['difference']:+.3f}{ends} {against['p_holm']:.3f}"
            assert words + "reliable" * against["is_reliable"] in table
    assert "class_weights recommended highest macro F1" in table
    assert "oversample not distinguishable from class_weights" in table
    assert (
        "Worse than class_weights, by simultaneous intervals of all pairs: undersample, focal, "
        "none. Not distinguishable from it: oversample." in table
    )


@pytest.mark.parametrize(
    ("metric", "beside"),
    [("macro_f1", "accuracy"), ("accuracy", "balanced accuracy"), ("minority_recall", "accuracy")],
)
def test_the_metric_is_set_against_an_accuracy_that_is_not_itself(metric, beside):
    costs = section(comparison(metric=metric), "costs")
    assert f"Effect on {beside}<" in costs
    assert len(re.findall('<circle class="ring', costs)) == 2 * len(GAINS)


def test_ece_is_best_where_it_is_least():
    strategies = comparison()["validation"]["strategies"]
    best = compare_page.best_of(comparison()["validation"])
    assert best["ece"] == {
        min(strategies, key=lambda name: strategies[name]["figures"]["ece"]["mean"])
    }
    assert best["accuracy"] == {
        max(strategies, key=lambda name: strategies[name]["figures"]["accuracy"]["mean"])
    }


def test_axis_holds_all_values_and_zero_with_round_ticks():
    axis = compare_plots.Scale(-1.0, 3.0, [-1.0, 0.0, 1000.0])
    assert (axis.at(-1), axis.at(0), axis.at(3)) == (0, 25, 100)
    assert [words for _, words in axis.words] == ["\N{MINUS SIGN}1", "0", "+1,000"]
    drawn = compare_plots.scale([0.02, 0.1], 5)
    assert drawn.low < 0 < 0.1 < drawn.high
    assert drawn.ticks == [0, 0.02, 0.04, 0.06, 0.08, 0.1]
    assert compare_plots.scale([0.0], 5).at(0) == 50


def test_forest_has_filled_points_where_reliable_and_single_seeds_behind():
    compared = comparison()["validation"]
    order = ["class_weights", "focal"]
    sure, _ = compare_plots.forest(compared, order)["rows"]
    assert compare_plots.sure(compared) == {"undersample", "oversample", "class_weights"}
    assert sure["ends"][0] < sure["point"] < sure["ends"][1]
    assert sum(sure["seeds"]) / 5 == pytest.approx(sure["point"], abs=0.01)
    differences = section(comparison(), "differences")
    assert differences.count('class="dot sure"') == 3
    assert differences.count('class="dot"') == 1
    assert differences.count('class="seed"') == 4 * 5
    assert differences.count('class="span"') == 4
    costs = section(comparison(), "costs")
    assert costs.count('class="ring sure"') == 2 * 3
    assert costs.count('class="ring"') == 2 * 2


def test_circles_are_moved_off_one_another_and_stay_in_the_picture():
    crowd = [complex(50, 50)] * 12 + [complex(100, 0), complex(99, 1), complex(10, 90)]
    spots = [complex(at.real * 2.30, at.imag * 2.08) for at in compare_plots.apart(crowd)]
    assert min(abs(a - b) for a, b in combinations(spots, 2)) > 20
    assert all(10 <= spot.real <= 220 and 10 <= spot.imag <= 198 for spot in spots)
    assert spots[-1] == pytest.approx(complex(23, 187.2))


def test_a_moved_circle_is_led_to_where_it_stands():
    points = compare_plots.scatter(
        {"none": 0.0, "focal": 0.001, "far": 1.0}, {"none": 0.0, "focal": 0.001, "far": 1.0}
    )["points"]
    near, beside, far = points
    assert far["at"] == far["drawn"]
    assert near["at"] == pytest.approx(beside["at"], abs=0.2)
    assert abs(complex(*near["drawn"]) - complex(*beside["drawn"])) > 8
    costs = section(comparison({"none": 0.0, "focal": 0.001, "far": 1.0}), "costs")
    assert costs.count('class="lead"') == costs.count('class="spot"') >= 2


def test_scatters_tell_their_points_to_those_who_do_not_see_them():
    result = comparison()
    against = result["validation"]["strategies"]["oversample"]
    points = 100 * against["differences"]["accuracy"]["difference"]
    said = (
        f"oversample {compare_plots.signed(against['against_baseline']['difference'])} for "
        f"{compare_plots.signed(points)}; "
    )
    assert re.search(
        '<svg role="img" aria-label="macro F1 against points of accuracy, minus none: .*'
        + re.escape(said),
        section(result, "costs"),
    )


def test_every_heading_has_words_and_a_scope():
    text = compare_page.render(comparison(quick=quick(), failed={"smote": "too few rows"}))
    assert not re.search(r"<th\b(?! scope=.col.)|<th[^>]*></th>", text)


def test_heat_map_has_large_classes_first_and_white_at_no_difference():
    result = comparison()
    effects = result["validation"]["strategies"]["focal"]["per_class"]
    effects["earn"]["f1_difference"] = {"difference": 0.0, "low": -0.1, "high": 0.1}
    effects["acq"]["f1_difference"] = {"difference": -0.004, "low": None, "high": None}
    effects["ship"]["f1_difference"] = None
    result["validation"]["support"]["ship"] = 0
    heat = section(result, "classes")
    assert re.findall(r'<td class="k">(\S+)', heat) == [
        "earn",
        "acq",
        "crude",
        "trade",
        "money-fx",
        "interest",
        "grain",
        "ship",
    ]
    cells = [re.findall(r'<td class="n.*?</td>', row)[-1] for row in heat.split("<tr>")[2:]]
    assert 'rgba(214,104,24,0.00)" title="+0.000 [-0.100, +0.100]">+0.00<' in cells[0]
    assert '">-0.00<' not in heat
    assert "title" not in cells[1]
    assert cells[-1] == '<td class="n soft">\N{EN DASH}</td>'
    strongest = max(
        d["f1_difference"]["difference"]
        for d in result["validation"]["strategies"]["class_weights"]["per_class"].values()
    )
    assert f'rgba(31,111,178,0.60)" title="{strongest:+.3f}' in heat


def test_test_rows_are_said_to_be_used_once_by_the_winner_and_the_baseline():
    assert (
        "Then class_weights and none were evaluated once on the 307 test rows. No other strategy "
        "was." in words_of(comparison())
    )
    none_wins = comparison({"none": 0.0, "focal": 0.001})
    assert none_wins["winner"] == "none"
    assert "Then none was evaluated once on the 307 test rows. No other strategy was." in words_of(
        none_wins
    )
    assert "difference" not in section(none_wins, "test")
    assert "There are no results on test rows." in words_of(comparison(test=None))


def test_winner_is_none_where_the_highest_is_not_reliable():
    result = comparison(UNSURE)
    assert (result["winner"], result["validation"]["best"], list(result["test"]["strategies"])) == (
        "none",
        "class_weights",
        ["none"],
    )
    rows = dict(
        re.findall(
            r'<tr( class="best")?>\s*<td class="k"><span.*?</span><span>(.*?)</span>',
            section(result, "table").replace("<wbr>", ""),
        )[::-1]
    )
    assert rows[' class="best"'] == "none"
    table = section_words(result, "table")
    assert "none recommended not distinguishable from class_weights" in table
    assert "class_weights highest macro F1" in table
    assert (
        "Worse than class_weights, by simultaneous intervals of all pairs: undersample. Not "
        "distinguishable from it: oversample, none." in table
    )
    assert re.findall(r"<details open><summary>(\w+)", compare_page.render(result)) == ["none"]
    assert "there is no gain to check here" in section_words(result, "test")
    assert "optimistic" not in section(result, "test")
    assert "difference" not in section(result, "test").split("<thead>")[1]
    assert "the highest of them is optimistic" in section_words(
        comparison(UNSURE, test=None), "test"
    )


def test_a_baseline_that_is_reliably_worse_is_not_called_indistinguishable():
    equal = comparison({"none": 0.0, "oversample": 0.1, "class_weights": 0.11}, apart=0.3)
    assert equal["winner"] == "class_weights"
    table = section_words(equal, "table")
    assert table.count("not distinguishable from class_weights") == 1
    assert "of all pairs: oversample. Which of these is best may be chance." in table
    assert "No strategy is distinguishable" not in table
    alone = section(comparison({"none": 0.0, "class_weights": 0.11}, apart=0.3), "table")
    assert "istinguishable" not in alone
    partly = comparison(
        {"none": 0.0, "oversample": 0.1, "class_weights": 0.11, "undersample": -0.3}, apart=0.3
    )
    assert "of all pairs: undersample. Not distinguishable from it: oversample." in section_words(
        partly, "table"
    )


def test_a_strategy_reliably_worse_than_the_best_baseline_is_not_called_indistinguishable():
    table = section_words(
        comparison({"none": 0.0, "undersample": -0.1, "focal": -0.01}, apart=0.3), "table"
    )
    assert "of all pairs: focal. Which of these" in table


def test_gain_on_validation_is_called_optimistic_and_folds_count_as_seeds():
    words = words_of(comparison(folds=3))
    assert (
        "class_weights was chosen for its gain on validation, so that gain is optimistic; the "
        "difference on test rows is the fairer one." in words
    )
    assert (
        "Each of the 5 seeds trained 3 models, one a fold. Every model was evaluated on all test "
        "rows and counts as a seed, 5 in all." in words
    )
    assert "a fold" not in words_of(comparison())
    assert (
        "There are no results on test rows. The metrics above decided the choice, so the gain of "
        "class_weights is optimistic." in words_of(comparison(test=None))
    )


def test_an_interval_is_said_to_count_one_comparison_and_p_all():
    note = (
        "An interval covers one comparison; p is adjusted for all 4 comparisons, so the two may "
        "disagree."
    )
    assert note in section_words(comparison(), "table")
    assert note in section_words(comparison(), "differences")
    assert "An interval covers one" not in words_of(comparison({"none": 0.0, "focal": 0.1}))


FIT = {
    "kind": "fit",
    "amount": 0,
    "evaluations": None,
    "words": "every head is fitted until it converges, on embeddings of the frozen encoder",
}


def with_equal_seeds(result, *names):
    for name in names:
        figure = result["validation"]["strategies"][name]["figures"]["macro_f1"]
        figure |= {"of_seeds": [figure["mean"]] * 5, "seed_deviation": 1e-16}
    return result


def test_heads_tell_seconds_of_fitting_and_which_no_seed_changes(capsys):
    result = with_equal_seeds(comparison(mode="head", budget=FIT), "none", "class_weights")
    words = words_of(result)
    assert (
        "mean time to fit one head, without the time to embed the rows, which happens once" in words
    )
    assert (
        "The same with every seed: none, class_weights. A head is fitted until it converges, so "
        "seeds matter only if rows are sampled." in words
    )
    assert "seconds of training" not in words
    assert "seconds of fitting, minus none" in words
    assert "The same with every seed" not in words_of(comparison())
    compare_page.print_comparison(result)
    out = capsys.readouterr().out
    assert "the same with every seed: none, class_weights\n" in out
    assert "without the time to embed the rows, which happens once\n" in out


def test_no_strategy_is_praised_for_its_seconds():
    table = section(comparison(), "table")
    assert not re.search(r'class="n best">(?!<b title="best">)', table)
    assert re.findall(r'<td class="n">(\S+)</td></tr>', table) == ["82", "75", "68", "89", "61"]


def test_what_cannot_be_told_is_left_out():
    result = without_intervals(comparison())
    assert 'class="span"' not in section(result, "differences")
    assert "95 % interval, which is unknown here" in section_words(result, "differences")
    table = "".join(Page(section(result, "table")).words)
    assert "None" not in table
    assert " to " not in table.split("Means")[0]


def test_one_strategy_left_has_nothing_to_be_compared_with():
    result = comparison(
        {"none": 0.0},
        test=None,
        failed={"smote": "configs/topics.yaml: label 'grain' has 2 rows; 6 are needed."},
    )
    words = words_of(result)
    assert "No other strategy finished its training" in words
    assert "smote configs/topics.yaml: label 'grain' has 2 rows; 6 are needed." in words
    assert not any(
        section(result, name) for name in ("differences", "classes", "costs", "intervals")
    )


def test_one_seed_is_said_to_tell_nothing_of_other_seeds():
    words = words_of(comparison(num_seeds=1))
    assert "One seed: intervals and p values cover other rows, but not other seeds." in words
    assert "1 seed each" in words
    assert "±" not in words
    assert "One seed" not in words_of(comparison())
    text = compare_page.render(comparison(num_seeds=1))
    assert not re.search('class="[a-z]+ sure"|reliable</b>|filled', text, re.IGNORECASE)
    assert "for these<br>trainings alone" in text
    assert "For these trainings alone: p below 0.05, adjusted for 4 comparisons with none." in words
    assert (
        "adjusted for the number of strategies (Holm), for these trainings alone."
        in comparison_section(comparison(num_seeds=1), config_like("none"))
    )


def test_equal_strategies_are_said_to_be_indistinguishable():
    result = comparison({"none": 0.0, "focal": 0.001, "oversample": 0.002})
    assert "No strategy is distinguishable from" in words_of(result)


def test_no_strategy_is_marked_as_the_best_where_all_are_equal():
    result = comparison(dict.fromkeys(GAINS, 0.0))
    strategies = result["validation"]["strategies"]
    for name in strategies:
        strategies[name]["figures"] = strategies["none"]["figures"]
    words = section_words(result, "table")
    assert "★" not in words.replace("★ marks", "")
    assert "highest macro F1" not in words
    assert "All strategies have the same mean macro F1, so none is marked as the best." in words


def test_page_and_terminal_show_the_tuned_settings_beside_those_of_the_config(capsys):
    result = comparison(tune=tuned())
    words = section_words(result, "tuned")
    assert "tried the same 6 settings with every seed, 150 trainings in all" in words
    assert "learning_rate 0.0001 is the largest value tried" in words
    assert "learning_rate 5e-05, num_train_epochs 2 (config)" in words
    assert "Failed: undersample@learning_rate=0.0001" in words
    table = re.findall(r"<tr.*?</tr>", section(result, "tuned"), re.DOTALL)
    assert sum("<b>0." in row for row in table) == len(GAINS)  # one chosen trial each
    assert section(comparison(), "tuned") == ""
    compare_page.print_comparison(result)
    said = capsys.readouterr().out
    assert "right: all as configured (learning_rate 5e-05, num_train_epochs 2)" in said
    assert "failed: undersample@learning_rate=0.0001,num_train_epochs=4: the training loss" in said
    card = comparison_section(result, config_like("class_weights"))
    assert "Every strategy tried 6 settings" in card
    for told in (words_of(result), " ".join(said.split()), card.replace("\\", "")):
        assert "none would be recommended." in told


def test_shortlist_is_told_with_its_table():
    words = words_of(
        comparison(
            {"none": 0.0, "oversample": 0.08, "class_weights": 0.11},
            quick=quick() | {"failed": {"smote": "too few rows"}},
        )
    )
    assert "shortlisted by heads on the frozen encoder" in words
    assert "Only class_weights, oversample and none were then trained as configured." in words
    assert "undersample" in words
    assert "Failed: smote: too few rows" in words


def test_budget_seeds_folds_overrides_and_command_are_told():
    words = words_of(comparison(folds=5))
    assert "189 optimizer steps of 32 rows for every strategy" in words
    assert "42, 43, 44, 45, 46" in words
    assert "each evaluated in the one of 5 folds that did not train on it" in words
    assert "class_weights loss: class_weights: balanced" in words
    assert "none Nothing: the defaults of both." in words
    assert "equipoise compare --config configs/topics.yaml" in words
    assert "30 min 34 s" in words
    assert "2 h 0 min" in words_of(comparison(total_seconds=7201.0))
    assert "total time 9 s" in words_of(comparison(total_seconds=9.2))


THRESHOLDS = {"none": 0.0, "none + thresholds": 0.03, "focal": 0.02, "focal + thresholds": 0.09}
SHORT = {"gain": 0.01, "is_enough": False, "words": "none gained +1.0 points: raise it."}


def test_page_and_terminal_tell_the_selection_thresholds_and_a_baseline_trained_too_short(capsys):
    words = "nested: each training chooses on 200 selection rows; 307 other rows are compared"
    selection = {"used": "nested", "num_selection": 200, "num_compared": 307, "words": words}
    result = comparison(THRESHOLDS, selection=selection, baseline_training=SHORT)
    page = words_of(result)
    assert f"selection {words}" in page
    assert "307 validation rows, on which no training chose anything" in page
    assert "+ thresholds : the same trainings, with thresholds fitted afterwards" in page
    assert "<b>none gained +1.0 points: raise it.</b>" in compare_page.render(result)
    compare_page.print_comparison(result)
    said = capsys.readouterr().out
    assert f"Selection: {words}." in said.replace("\n", " ")
    assert "none gained +1.0 points: raise it." in said
    assert "fitted afterwards" not in words_of(comparison())


def test_p_is_said_to_count_strategies_that_the_shortlist_left_out():
    result = comparison(quick=quick())
    result["validation"]["num_tests"] = 9
    words = section_words(result, "table")
    assert "adjusted for 9 comparisons with none (with those that the shortlist left out)" in words


def test_twelve_strategies_and_thirty_classes_stay_usable():
    result = comparison(MANY, CLASSES)
    text = compare_page.render(result)
    assert len(text) < 200_000
    assert all(name in words_of(result).replace("_ ", "_") for name in MANY)
    assert all(f'title="{label}"' in text for label in CLASSES)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_browser_shows_pages_without_a_complaint_at_any_width(tmp_path):
    from playwright.sync_api import sync_playwright

    said, asked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url.split(":")[0]))
        for number, result in enumerate(
            (
                comparison(MANY, CLASSES, quick=quick(MANY)),
                comparison({"none": 0.0}),
                comparison(failed={"x" * 200: "y" * 200}),
                comparison(MANY, tune=tuned(MANY)),
            )
        ):
            path = compare_page.write(result, tmp_path / f"{number}.html")
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width
                marks = (
                    "[...document.querySelectorAll('.strip circle, .plot circle')].map(mark => "
                    "mark.getBoundingClientRect())"
                )
                assert page.evaluate(f"{marks}.every(box => box.left > 0 && box.right < {width})")
        browser.close()
    assert said == []
    assert set(asked) == {"file"}


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_table_fits_and_ends_with_the_recommendation(monkeypatch, capsys, width):
    monkeypatch.setattr(compare_page.console, "_width", width)
    result = comparison(MANY, failed={"smote": "label [grain] has 2 rows"}, quick=quick(MANY))
    compare_page.print_comparison(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == result["recommendation"]
    assert "failed: smote: label [grain] has 2 rows" in lines
    assert (
        "Shortlisted by heads on the frozen encoder: class_weights_and_thresholds, strategy_8."
        in lines
    )
    end = next(number for number, line in enumerate(lines) if line.startswith("* reliable"))
    assert max(len(line.rstrip()) for line in lines[:end]) <= width
    assert not [line for line in lines if "…" in line]
    row = next(line for line in lines if "strategy_8" in line)
    assert re.search(r"0\.\d{3} ± 0\.\d{3} +\+0\.\d{3}\* +\[\+0\.\d{3}", row)


def test_recommendation_is_wrapped_at_words_in_a_terminal_and_one_line_elsewhere(
    monkeypatch, capsys
):
    monkeypatch.setattr(compare_page.console, "_width", 60)
    result = comparison(UNSURE)
    compare_page.print_comparison(result)
    assert capsys.readouterr().out.endswith(f"\n{result['recommendation']}\n")
    monkeypatch.setattr(compare_page.console, "_force_terminal", True)
    compare_page.print_comparison(result)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert f"{first.rstrip()} {second}" == result["recommendation"]
    assert len(first) <= 60


def test_terminal_says_that_one_seed_tells_of_its_trainings_alone(capsys):
    compare_page.print_comparison(comparison(num_seeds=1))
    out = capsys.readouterr().out
    assert "* for these trainings alone (one seed): differs from none with p below 0.05" in out
    assert "reliable:" not in out


def test_terminal_table_of_one_strategy_and_of_another_metric(capsys):
    compare_page.print_comparison(comparison({"none": 0.0}, num_seeds=1))
    assert "reliable:" not in capsys.readouterr().out
    compare_page.print_comparison(without_intervals(comparison(metric="accuracy")))
    out = capsys.readouterr().out
    assert re.search("strategy +accuracy +none", out)
    assert "None" not in out


def test_small_p_values_are_not_rounded_to_nothing():
    assert figure_words.p_words({"p_holm": 0.0004}) == "<0.001"
    assert figure_words.p_words({"p_holm": 0.0012}) == "0.001"
    assert figure_words.p_words(None) == ""


def test_card_tells_the_choice_and_escapes_every_name():
    result = comparison(
        {"none": 0.0, "a|b *c* `d`": 0.1},
        failed={"<b>": "machine/path"},
        quick=quick(),
        recommendation="a|b *c* `d`: +0.10",
    )
    text = comparison_section(
        result,
        {
            "model": {"name": result["model"], "mode": "full"},
            "loss": {"name": "focal", "gamma": 2.0},
            "decision": {},
        },
    )
    name = r"a\|b \*c\* \`d\`"
    assert text.startswith(f"{name}: +0.10\n\n")
    assert f"\n| {name} | 0." in text
    assert r"Failed: \<b\>." in text
    assert "machine/path" not in text
    assert (
        "seeds 42, 43, 44, 45, 46 and the same budget (189 optimizer steps of 32 rows for every "
        "strategy)" in text
    )
    assert (
        f"The choice used validation rows only; the test rows were then used once, by "
        f"{name} and none."
    ) in text
    assert "Heads on the frozen encoder decided" in text
    assert text.endswith(f"This model follows the strategy {name}.")
    against = result["validation"]["strategies"]["a|b *c* `d`"]["against_baseline"]
    assert (
        f"{against['difference']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}] | yes |"
        in text
    )


def test_card_says_where_a_model_does_not_follow_the_comparison():
    text = comparison_section(
        comparison(test=None),
        config_like("oversample") | {"model": {"name": "other", "mode": "full"}},
    )
    assert text.endswith(
        r"This model does not follow the strategy class\_weights: balance.method, "
        r"loss.class\_weights, model.name differ."
    )
    assert "no test rows were used" in text


@pytest.mark.parametrize(("gains", "ours", "unlike"), [
    (GAINS, "class_weights", ""),
    (UNSURE, "none", ""),
    (UNSURE, "class_weights", r"loss.class\_weights"),
    (UNSURE, "focal", "loss.name"),
    (UNSURE, "undersample", "balance.method"),
    (UNSURE, "thresholds", ""),
])  # fmt: skip
def test_keys_that_a_strategy_leaves_out_are_defaults_that_a_model_must_have_to_follow_it(
    gains, ours, unlike
):
    result = comparison(gains)
    winner = result["winner"].replace("_", r"\_")
    end = (
        f"does not follow the strategy {winner}: {unlike} differ."
        if unlike
        else f"follows the strategy {winner}."
    )
    assert comparison_section(result, config_like(ours)).endswith(f"This model {end}")


def test_a_decision_counts_where_the_strategy_sets_one():
    result = comparison({"none": 0.0, "thresholds": 0.1})
    assert comparison_section(result, config_like("thresholds")).endswith(
        "follows the strategy thresholds."
    )
    assert comparison_section(result, config_like("none")).endswith(
        "does not follow the strategy thresholds: decision.thresholds differ."
    )


def test_card_names_strategies_that_judged_test_rows_earlier():
    text = comparison_section(
        comparison(UNSURE, tested=["none", "class_weights"]), config_like("none")
    )
    assert r"used once, by none. An earlier conclusion also used them, by class\_weights." in text


def config_like(strategy):
    """A resolved config of the comparison's model with the sections that a strategy makes."""
    made = {"balance": {}, "loss": {}, "decision": {}} | PRESETS[strategy]
    sections = {"balance": BalanceSection, "loss": LossSection, "decision": DecisionSection}
    return {name: sections[name](**values).model_dump() for name, values in made.items()} | {
        "model": {"name": comparison()["model"], "mode": "full"}
    }


@pytest.fixture
def folder(tmp_path):
    """Folder of a finished comparison."""
    (tmp_path / "run-compare").mkdir()
    (tmp_path / "run-compare/comparison.json").write_text(
        json.dumps(comparison()), encoding="utf-8"
    )
    return tmp_path / "run-compare"


def test_finished_comparison_is_read_as_it_was_written(folder):
    assert read_comparison(folder) == comparison()
    assert read_if_set(None) is None


def edit(change):
    """Damage: the values of comparison.json, changed."""

    def damage(folder):
        values = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        change(values)
        (folder / "comparison.json").write_text(json.dumps(values), encoding="utf-8")

    return damage


def write_bytes(content):
    """Damage: other content of comparison.json."""
    return lambda folder: (folder / "comparison.json").write_bytes(content)


def drop_metric(values):
    values["validation"]["strategies"]["focal"]["figures"].pop("macro_f1")


OTHER = "comparison.json: is damaged, or of another version:"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            shutil.rmtree,
            "run-compare: no such folder; report.comparison needs the folder of a finished "
            "comparison, .*-compare. Run ",
        ),
        (
            lambda folder: (shutil.rmtree(folder), folder.write_text("")),
            "run-compare: is a file; report.comparison needs the folder",
        ),
        (
            lambda folder: (folder / "comparison.json").unlink(),
            "run-compare: holds no comparison.json; report.comparison needs",
        ),
        (
            write_bytes(b"{"),
            "comparison.json: is damaged: .* Run equipoise compare again, or remove rep",
        ),
        (write_bytes(b"\xff"), "comparison.json: is damaged: .*utf-8"),
        (write_bytes(b"[]"), f"{OTHER} lacks it all"),
        (
            edit(lambda values: values.pop("winner")),
            f"{OTHER} lacks winner, or holds something else there. Run equi",
        ),
        (
            edit(lambda values: values["validation"].update(strategies=3)),
            "lacks validation.strategies, or holds something else there",
        ),
        (
            edit(lambda values: values.update(winner="x")),
            r"validation.strategies lacks x\. Run equipoise",
        ),
        (edit(drop_metric), r"validation.strategies lacks macro_f1 of focal\."),
    ],
)
def test_comparisons_that_cannot_be_read_are_told_in_words(folder, damage, words):
    damage(folder)
    with pytest.raises(RunError, match=words):
        read_comparison(folder)


def config_of(tmp_path, tiny_model, tweets, folder):
    values = {
        "run": {"name": "run", "output_dir": str(tmp_path)},
        "model": {"name": str(tiny_model), "max_length": 32, "mode": "head"},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "loss": {"class_weights": "balanced"},
        "report": {"comparison": str(folder)},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    return load_config(str(tmp_path / "config.yaml"))


def test_missing_comparison_is_refused_before_anything_is_loaded(tmp_path, tiny_model, tweets):
    config = config_of(tmp_path, tiny_model, tweets, tmp_path / "none-compare")
    for start in (training_run.check, training_run.train):
        with pytest.raises(RunError, match="none-compare: no such folder"):
            start(config)
    assert not (tmp_path / "run").exists()


def test_card_of_a_run_tells_how_its_balancing_was_chosen(tmp_path, tiny_model, tweets, folder):
    result = comparison(model=str(tiny_model), mode="head")
    (folder / "comparison.json").write_text(json.dumps(result), encoding="utf-8")
    run = training_run.train(config_of(tmp_path, tiny_model, tweets, folder))
    card = ModelCard.load(run / "README.md")
    assert re.findall("^## .*", card.text, re.MULTILINE)[2:5] == [
        "## Balancing",
        "## How the balancing was chosen",
        "## Training",
    ]
    chosen = card.text.split("## How the balancing was chosen\n\n")[1].split("\n\n## Training")[0]
    assert chosen == comparison_section(
        result, config_of(tmp_path, tiny_model, tweets, folder).to_dict()
    )
    assert chosen.endswith(r"This model follows the strategy class\_weights.")
    assert "compare" not in json.dumps(card.data.to_dict())
