"""The page of the server in a real browser, and the card as HTML, which runs no script."""

import csv
import json
import re
import shutil
import threading
import time

import pytest
from conftest import ROOT
from saved_models import make_model
from serving import served

from trainer import Classifier
from trainer.delivery.serving.app import content_security_policy
from trainer.delivery.serving.card_html import card_html, find_card
from trainer.delivery.serving.limits import Limits

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = """---
license: mit
---
# A card <script>window.pwned = 1</script>

<img src=x onerror="window.pwned = 2"> [click](javascript:window.pwned=3)
[more](https://example.org)
![plot](plot.png) ![far](http://example.org/x.png)

| label | F1 |
| --- | ---: |
| a | 0.5 |
"""
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c63f8cfc0f01f00050001ff89993d1d0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    folder = make_model(
        tiny_model,
        tmp_path_factory.mktemp("tweets"),
        decision={"thresholds": {"negative": 0.9, "neutral": 0.05, "positive": 0.05}},
    )
    (folder / "README.md").write_text(HOSTILE, encoding="utf-8")
    (folder / "plot.png").write_bytes(PIXEL)
    return folder


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier.load(model)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def open_page(browser):
    """Function (address, **context) -> page; console output, errors and other hosts fail."""
    faults, contexts = [], []

    def open_(url, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text)
                if message.type == "error" and not re.search("401|503", message.text)
                else None
            ),
        )
        page.on(
            "request",
            lambda request: (
                faults.append(request.url)
                if not request.url.startswith((url, "data:", "blob:"))
                else None
            ),
        )
        page.goto(url)
        return page

    open_.faults = faults
    yield open_
    for context in contexts:
        context.close()
    assert not faults


def test_typed_texts_get_the_decided_label_and_bars_of_all_probabilities(
    open_page, classifier, model
):
    texts = ["What a lovely day!", "<b>I hate this</b> & that"]
    with served(lambda: classifier) as client:
        page = open_page(client.url, viewport={"width": 390, "height": 800})
        page.get_by_label("One text per line").fill("\n" + texts[0] + "\n\n" + texts[1])
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#results li >> nth=1")
        for n, prediction in enumerate(classifier.predict(texts)):
            result = page.locator("#results > li").nth(n)
            assert result.locator(".text").inner_text() == texts[n]
            assert result.locator("tr.given th").all_inner_texts() == [prediction.label]
            found = dict(
                zip(
                    result.locator("tr th").all_inner_texts(),
                    result.locator("tr td:last-child").all_inner_texts(),
                    strict=True,
                )
            )
            assert found == {
                label: f"{100 * p:.1f} %" for label, p in prediction.probabilities.items()
            }
            widths = [bar.bounding_box()["width"] for bar in result.locator(".bar").all()]
            assert widths[1] > widths[2]  # behind the decided label, by probability
        assert page.title() == model.name
        assert (
            page.evaluate("document.documentElement.scrollWidth") <= 390
        )  # nothing sticks out on a phone
        page.get_by_label("One text per line").fill("  ")
        page.get_by_role("button", name="Classify").click()
        assert page.get_by_text("Type a text first.").is_visible()


def test_a_dropped_file_is_labelled_in_chunks_and_downloaded_with_its_columns(
    open_page, classifier, tmp_path
):
    missing = [
        "",
        " None ",
        "nan",
        "\x85",
        "\x1c",
    ]  # white space as Python sees it, not as JavaScript does
    texts = [
        'He said "no"; twice',
        "Zwei\nZeilen",
        *missing,
        "ü, comma",
        "x" * 5000,
        "none",
        "é " * 4000,
        "\ufeff",
    ] + [f"text {n}" for n in range(143)]
    rows = [[str(n), text, "x"] for n, text in enumerate(texts)]
    source = tmp_path / "my.rows.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["id", "body", "label"], *rows])
    with served(
        lambda: classifier, limits=Limits(max_texts=50, max_body_bytes=8000, drain_seconds=0)
    ) as client:
        page = open_page(client.url)
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(source)
        page.wait_for_selector("text=my.rows.csv: 155 rows, 3 columns.")
        assert (
            page.get_by_label("Column with the text").locator("option:checked").inner_text()
            == "body"
        )
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector("#download:visible")
        assert (
            page.locator("#file-status").inner_text()
            == "150 rows labelled, 5 without a text left empty."
        )
        with page.expect_download() as download:
            page.get_by_text("Download the labelled CSV").click()
        assert download.value.suggested_filename == "my.rows-labelled.csv"
        download.value.save_as(tmp_path / "labelled.csv")
        posts = client.metric('equipoise_requests_total{route="/predict",status="200"}')
    with (tmp_path / "labelled.csv").open(encoding="utf-8", newline="") as file:
        head, *found = csv.reader(file, delimiter=";")
    assert head == [
        "id",
        "body",
        "label",
        "predicted_label",
        "predicted_score",
        *(f"predicted_probability_{label}" for label in classifier.labels),
    ]
    assert [row[:3] for row in found] == rows
    assert [row[1] for row in found if row[3:] == [""] * 5] == missing
    expected = classifier.predict([row[1] for row in rows])
    for row, prediction in zip(found, expected, strict=True):
        if row[1] not in missing:
            assert row[3] == prediction.label
            assert [float(value) for value in row[4:]] == pytest.approx(
                [prediction.score, *prediction.probabilities.values()], abs=1e-5
            )
    assert posts >= 4  # at most 50 texts, and 8,000 bytes, a request


def test_no_cell_of_the_download_is_a_formula_and_numbers_stay_numbers(
    open_page, tiny_model, tmp_path
):
    labels = ["=cmd|' /C calc'!A0", "+sum(A1)", "-2+3"]
    classifier = Classifier.load(make_model(tiny_model, tmp_path / "hostile", labels))
    unsafe = [
        "=1+2",
        "+a",
        "-a",
        "@SUM(A1)",
        "\ta",
        "\ra",
        "\na",
        "\uff1dA1",
        '=HYPERLINK("http://a.example","b")',
        "-",
    ]
    safe = ["-1.5", "+3", "-2e-05", "-.5", "a=b", "'=1", "1-2", "", " =1", "5 - 3"]
    rows = [[f"text {n}", cell] for n, cell in enumerate(unsafe + safe)]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "=note"], *rows])
    with served(lambda: classifier) as client:
        page = open_page(client.url)
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / "rows.csv")
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector("#download:visible")
        assert page.get_by_text(
            "get an apostrophe (') in front, so that no spreadsheet runs them"
        ).is_visible()
        with page.expect_download() as download:
            page.get_by_text("Download the labelled CSV").click()
        download.value.save_as(tmp_path / "labelled.csv")
    with (tmp_path / "labelled.csv").open(encoding="utf-8", newline="") as file:
        head, *found = csv.reader(file)
    assert head[:4] == ["text", "'=note", "predicted_label", "predicted_score"]
    assert [row[1] for row in found] == ["'" + cell for cell in unsafe] + safe
    expected = classifier.predict([text for text, _ in rows])
    assert [row[2] for row in found] == ["'" + prediction.label for prediction in expected]
    assert [float(row[3]) for row in found] == pytest.approx(
        [prediction.score for prediction in expected], abs=1e-5
    )


class Slow(Classifier):
    """A real classifier that takes 0.2 seconds a batch."""

    def classify(self, texts):
        time.sleep(0.2)
        return super().classify(texts)


def test_a_file_dropped_by_the_mouse_can_be_cancelled_and_started_again(open_page, classifier):
    slow = Slow(classifier.members)
    with served(lambda: slow, limits=Limits(max_texts=10, drain_seconds=0)) as client:
        page = open_page(client.url)
        content = "title\ttext\n" + "".join(f"{n}\tthis is text {n}\n" for n in range(60))
        dropped = page.evaluate_handle(
            "content => { const data = new DataTransfer(); data.items.add(new File([content],"
            " 'rows.tsv')); return data; }",
            content,
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
        page.wait_for_selector("text=rows.tsv: 60 rows, 2 columns.")
        page.get_by_role("button", name="Label the file").click()
        page.get_by_role("button", name="Cancel").click()
        page.wait_for_selector("text=Cancelled.")
        assert not page.locator("#download").is_visible()
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector("#download:visible")
        assert page.locator("#file-status").inner_text() == "60 rows labelled."


def test_of_many_labels_the_page_shows_twenty_and_folds_the_others_away(
    open_page, tiny_model, tmp_path
):
    classifier = Classifier.load(
        make_model(tiny_model, tmp_path / "many", [f"label {n}" for n in range(150)])
    )
    (tmp_path / "rows.csv").write_text("text\na\nb\n")
    with served(lambda: classifier) as client:
        page = open_page(client.url)
        page.wait_for_selector("text=label 18, label 19 and 130 more")
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / "rows.csv")
        page.get_by_role("button", name="Label the file").click()
        page.get_by_text("The other 130 of 150 labels").click()
        assert page.locator("#summary .bars").first.locator("tr").count() == 20
        assert page.locator("#summary details tr").count() == 130


def test_a_file_that_is_no_csv_is_refused_in_words(open_page, classifier, tmp_path):
    with served(lambda: classifier) as client:
        page = open_page(client.url)
        for name, content, words in (
            ("a.csv", b'a,b\n1,"open', "ends within a quoted field"),
            ("b.csv", b"text\n", "has no rows below its line of column names"),
            (
                "c.csv",
                b"id,text,by\n0,a,me\n1,I love it, really,bob\n",
                "Row 2 below the column names has 4 fields; needed: 3.",
            ),
            (
                "d.csv",
                b"id,text,by\n0,a\n",
                "Row 1 below the column names has 2 fields; needed: 3.",
            ),
        ):
            (tmp_path / name).write_bytes(content)
            page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / name)
            page.wait_for_selector(f"#file-error:has-text('{words}')")
            assert not page.locator("#file-form").is_visible()
        (tmp_path / "old.csv").write_bytes("text,id\nCafé au lait,1\n".encode("windows-1252"))
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / "old.csv")
        page.wait_for_selector("text=read as Windows-1252")
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector("td:has-text('Café au lait')")


def test_several_labels_of_a_row_are_a_json_list_as_in_the_files_of_predict(
    open_page, tiny_model, tmp_path
):
    classifier = Classifier.load(
        make_model(tiny_model, tmp_path / "many", problem_type="multi_label_classification")
    )
    texts = [f"text {n}" for n in range(20)]
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(texts))
    with served(lambda: classifier) as client:
        page = open_page(client.url)
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / "rows.csv")
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector("#download:visible")
        with page.expect_download() as download:
            page.get_by_text("Download the labelled CSV").click()
    found = list(csv.DictReader(download.value.path().read_text(encoding="utf-8").splitlines()))
    assert [json.loads(row["predicted_label"]) for row in found] == [
        list(prediction.labels) for prediction in classifier.predict(texts)
    ]


def test_page_says_that_the_model_is_loading_and_then_names_its_labels(open_page, classifier):
    may_load = threading.Event()

    def load():
        assert may_load.wait(60)
        return classifier

    with served(load, wait=False) as client:
        page = open_page(client.url)
        page.wait_for_selector("text=The model is still loading.")
        may_load.set()
        page.wait_for_selector("text=Gives a text one of 3 labels")


def test_the_card_is_read_and_nothing_in_it_runs(open_page, classifier, model):
    with served(lambda: classifier, card=model / "README.md") as client:
        page = open_page(client.url)
        page.get_by_text("How it was trained, and how well it does").click()
        page.wait_for_selector("#card h1")
        assert page.locator("#card h1").inner_text() == "A card <script>window.pwned = 1</script>"
        assert page.locator("#card").get_by_role("link").all_inner_texts() == ["more"]
        assert page.locator("#card img[alt=plot]").evaluate("picture => picture.naturalWidth") == 1
        assert page.locator("#card td.n").inner_text() == "0.5"
        assert page.evaluate("window.pwned") is None
        # and were a script to slip in, the page's policy would not run it
        with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
            page.evaluate(
                "document.body.append(Object.assign(document.createElement('script'), {text:"
                " 'window.pwned = 4'}))"
            )
        assert page.evaluate("window.pwned") is None
        open_page.faults.clear()


def test_with_a_token_the_page_asks_for_it_until_it_is_right(open_page, classifier, model):
    with served(lambda: classifier, token="right") as client:
        page = open_page(client.url)
        page.get_by_label("Bearer token").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_selector("text=That token is not accepted.")
        page.get_by_label("Bearer token").fill("right")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Gives a text one of 3 labels")
        page.get_by_label("One text per line").fill("a")
        page.get_by_role("button", name="Classify").click()
        page.wait_for_selector("#results li")


def test_the_documentation_needs_nothing_from_elsewhere(open_page, classifier):
    with served(lambda: classifier, token="t") as client:
        page = open_page(client.url + "/docs")
        assert page.get_by_role(
            "heading", name="POST /predict Decided label and all probabilities"
        ).is_visible()
        assert (
            'curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json"'
            """ -d '{"inputs": "What a lovely day!"}'""" in page.content().replace("&#34;", '"')
        )


def test_only_the_script_and_style_of_the_page_itself_may_run():
    page = (ROOT / "trainer/delivery/serving/page.html").read_text(encoding="utf-8")
    policy = content_security_policy(page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy != content_security_policy(
        page.replace('"use strict";', '"use strict"; steal();')
    )
    assert "unsafe" not in policy
    assert "http" not in page.replace("http-equiv", "")


def test_the_card_of_a_run_stands_above_its_model(tmp_path, model):
    assert find_card(model) == model / "README.md"
    assert find_card("user/name") is None
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    (run / "model/README.md").unlink()
    (run / "README.md").write_text("# run")
    assert find_card(run / "model") is None  # that folder may be anything
    (run / "metrics.json").write_text("{}")
    assert find_card(run) == find_card(run / "model") == run / "README.md"


def test_links_out_of_the_folder_of_a_card_are_not_followed_and_logged(tmp_path, caplog):
    (tmp_path / "secret.png").write_bytes(PIXEL)
    (tmp_path / "secret.md").write_text("secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "plots").mkdir()
    (folder / "plots/inside.png").write_bytes(PIXEL)
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "in.png").symlink_to("plots/inside.png")
    (folder / "round.png").symlink_to("round.png")
    (folder / "card.md").write_text("![a](out.png) ![b](in.png) ![c](round.png)")
    (folder / "README.md").symlink_to("card.md")
    shown = card_html(find_card(folder))
    assert re.findall(r'src="(.{0,14})[^"]*" alt="(.)"', shown) == [
        ("", "a"),
        ("data:image/png", "b"),
        ("", "c"),
    ]
    assert caplog.messages == [
        f"{folder}/out.png is a link to {tmp_path}/secret.png, outside its folder, and is not"
        " shown."
    ]
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "secret.md")
    assert find_card(folder) is None
    assert caplog.messages[1] == (
        f"{folder}/README.md is a link to {tmp_path}/secret.md, outside its folder, and is not"
        " shown."
    )


def test_the_card_and_pictures_of_a_snapshot_in_the_cache_of_the_hub_are_shown(tmp_path):
    repository = tmp_path / "models--user--name"
    snapshot = repository / "snapshots/0123"
    for folder in (repository / "blobs", snapshot):
        folder.mkdir(parents=True)
    (repository / "blobs/aa").write_text("![a](plot.png)")
    (repository / "blobs/bb").write_bytes(PIXEL)
    (snapshot / "README.md").symlink_to("../../blobs/aa")
    (snapshot / "plot.png").symlink_to("../../blobs/bb")
    assert 'src="data:image/png;base64,' in card_html(find_card(snapshot))


def test_pictures_from_outside_the_folder_are_left_out(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "card").mkdir()
    for name in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "http://example.org/a.png",
        "notes.txt",
        "missing.png",
    ):
        (tmp_path / "card/notes.txt").write_text("secret")
        (tmp_path / "card/README.md").write_text(f"![shown]({name})")
        assert card_html(tmp_path / "card/README.md") == '<p><img src="" alt="shown" /></p>\n'


def test_a_file_that_has_an_added_column_already_is_refused_as_predict_does(
    open_page, classifier, tmp_path
):
    (tmp_path / "rows.csv").write_text("text,predicted_label\nsome words,mine\n", encoding="utf-8")
    words = (
        "The file already has a column 'predicted_label', which is for the prediction. Rename it."
    )
    with served(lambda: classifier) as client:
        page = open_page(client.url)
        page.get_by_label("Drop a CSV or TSV file here").set_input_files(tmp_path / "rows.csv")
        page.get_by_role("button", name="Label the file").click()
        page.wait_for_selector(f'#file-error:has-text("{words}")')
        assert not page.locator("#download").is_visible()
