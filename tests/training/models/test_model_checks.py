"""What a model is asked before it is trained or served, on tiny models of real architectures."""

import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_bad_input import fails  # noqa: F401
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainer.delivery.predicting.saved_model import SavedModel
from trainer.errors import ModelError
from trainer.training.arguments import build_arguments
from trainer.training.batches.batching import Collator, pass_starts, token_batches
from trainer.training.batches.widths import fit_collator, refuse_unreadable_length
from trainer.training.device_trainer import fit_to_model
from trainer.training.models.cpu_layers import FastDropout, RowGradientEmbedding, speed_up
from trainer.training.models.positions import position_limit
from trainer.training.models.probe import probe_batch

sys.path.insert(0, str(ROOT / "scripts"))

from architectures import MAX_LENGTH, OFFSET_TYPES, tiny_config, tiny_tokenizer


def build(model_type, **settings):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(
        tiny_config(model_type, **settings)
    ).eval()


@pytest.fixture
def folder(tmp_path):
    """Function that saves a tiny model of an architecture and its tokenizer."""

    def save(model_type, **settings):
        build(model_type, **settings).save_pretrained(tmp_path / "model")
        tiny_tokenizer(model_type).save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return save


@pytest.mark.parametrize(
    "model_type",
    [*OFFSET_TYPES, "bert", "bart", "gpt2", "mra", "nystromformer", "opt", "roformer", "yoso"],
)
def test_position_limit_is_the_longest_text_that_a_model_reads(model_type):
    model = build(model_type)
    limit = position_limit(model.config)
    assert limit == MAX_LENGTH
    model(**probe_batch(model.config, [limit]))
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        model(**probe_batch(model.config, [limit + 1]))


@pytest.mark.parametrize("end", [[2, 3], 2, 10**6])
def test_probe_holds_no_padding_and_ends_with_the_end_token_if_there_is_one(end):
    config = tiny_config("llama", eos_token_id=end, pad_token_id=9)
    batch = probe_batch(config, [5, 3])
    rows = [row[mask.bool()].tolist() for row, mask in zip(*batch.values(), strict=True)]
    assert [len(row) for row in rows] == [5, 3]
    assert not any(9 in row for row in rows)
    assert [row[-1] == 2 for row in rows] == [end == 2] * 2


@pytest.mark.parametrize("model_type", ["bloom", "funnel", "mt5", "xlnet"])
def test_models_without_positions_have_no_limit(model_type):
    assert position_limit(tiny_config(model_type)) is None


@pytest.mark.parametrize(
    ("max_length", "told"),
    [(MAX_LENGTH, ""), (MAX_LENGTH + 1, f"reads at most {MAX_LENGTH} tokens")],
)
def test_check_refuses_a_text_that_ends_behind_the_last_position(
    folder, config_file, run_cli, max_length, told
):
    path = config_file(model={"name": str(folder("roberta")), "max_length": max_length})
    done = run_cli("train", "--config", path, "--check")
    assert (done.returncode, told in done.stderr) == (2 if told else 0, True), done.stderr


def test_tokenizer_with_more_ids_than_embeddings_is_refused_everywhere(folder, fails):  # noqa: F811
    path = folder("bert", vocab_size=150)
    told = fails(check=True, model={"name": str(path), "max_length": 16})
    assert "gives ids up to 189 ('w150' is 150), but the model has embeddings for 150" in told
    with pytest.raises(ModelError, match="has embeddings for 150 tokens"):
        SavedModel(str(path))


def test_special_token_without_embedding_is_read_as_characters_if_only_a_text_could_hold_it(folder):
    path = folder("bert", vocab_size=190)
    tokenizer = tiny_tokenizer("bert")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(path)
    assert tokenizer("<image>")["input_ids"][1] == 190
    saved = SavedModel(str(path))
    assert saved.tokens(["w5 <image> w6"]).columns["input_ids"].max() < 190
    saved.classify(["w5 <image> w6"])
    assert saved.tokens(["w5 <mask> w6"]).columns["input_ids"].tolist() == [1, 5, 4, 6, 2]
    saved.tokenizer.save_pretrained(path)
    again = AutoTokenizer.from_pretrained(path)
    assert max(again("w5 <image> w6")["input_ids"]) < 190, "and in the saved tokenizer"


@pytest.mark.parametrize("model_type", ["t5", "mt5", "bart", "canine", "ibert", "bert"])
def test_faster_layers_leave_logits_and_gradients_as_they_are(model_type):
    model, plain = build(model_type), build(model_type)
    assert speed_up(model, own_gradients=True) is None
    batch = probe_batch(model.config, [9, 4, 2 if model_type != "canine" else 4])
    for each in (model, plain):
        each(**batch, labels=torch.tensor([0, 1, 1])).loss.backward()
    expected = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if expected[name].grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)
    swapped = {type(module) for module in model.modules()}
    assert FastDropout in swapped
    assert (RowGradientEmbedding in swapped) == (model_type in ("bert", "canine"))


def test_layers_stay_where_the_model_reads_its_embeddings_in_another_way():
    model = build("bert")
    embedding, forward = model.bert.embeddings.word_embeddings, model.forward

    def reads_weight(**inputs):
        output = forward(**inputs)
        output.logits = output.logits + embedding.weight[:50].sum()
        return output

    model.forward = reads_weight
    assert speed_up(model, own_gradients=True) is not None
    kinds = {type(module) for module in model.modules()}
    assert not kinds & {FastDropout, RowGradientEmbedding}


def test_row_of_full_length_is_tried(folder):
    model = build("bert")
    model.bert.embeddings.position_embeddings = torch.nn.Embedding(20, 32)
    tokenizer = tiny_tokenizer("bert")
    with pytest.raises(
        ModelError, match=r"'own' cannot read a text of 21 tokens: .*Set model.max_length to less"
    ):
        refuse_unreadable_length(model, tokenizer, 21, "own")
    refuse_unreadable_length(model, tokenizer, 20, "own")


@pytest.mark.parametrize(
    ("model_type", "changes", "least"),
    [("bert", False, 1), ("fnet", True, 1), ("convbert", True, 1), ("canine", True, 4)],
)
def test_model_tells_whether_padding_changes_it_and_how_wide_a_batch_must_be(
    model_type, changes, least
):
    model, collate = build(model_type), Collator(tiny_tokenizer(model_type))
    found = fit_collator(lambda batch: model(**batch).logits, model.config, model.device, collate)
    assert (found, collate.least) == (changes, least)


@pytest.mark.parametrize("model_type", ["ibert", "reformer", "bert"])
def test_questions_leave_a_model_as_it_was(model_type, tmp_path):
    model, tokenizer = build(model_type), tiny_tokenizer(model_type)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    arguments = build_arguments({"use_cpu": True}, checkpoints=tmp_path, seed=0)
    assert fit_to_model(model, Collator(tokenizer), arguments) is (model_type == "reformer")
    refuse_unreadable_length(model, tokenizer, 30, "own")
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_fault_of_a_models_own_code_is_told_to_all_processes(tmp_path):
    model = build("bert")
    model.forward = lambda **inputs: 1 / 0
    arguments = build_arguments({"use_cpu": True}, checkpoints=tmp_path, seed=0)
    with pytest.raises(
        ModelError, match="fails on a few tokens: ZeroDivisionError: division by zero"
    ):
        fit_to_model(model, Collator(tiny_tokenizer("bert")), arguments)


def test_short_text_is_read_by_a_model_that_pools_its_characters(folder):
    answers = SavedModel(str(folder("canine"))).classify(["a", "", "a longer text"])
    assert answers.probabilities_NC.shape == (3, 2)


def test_batches_of_equal_lengths_hold_every_row_once():
    lengths_N = torch.tensor([5, 3, 5, 2, 3, 5]).numpy()
    batches = token_batches(lengths_N, 10, equal_lengths=True)
    assert [batch.tolist() for batch in batches] == [[0, 2], [5], [1, 4], [3]]
    assert pass_starts([5, 5, 5, 3, 3, 2], 10, equal_lengths=True) == [0, 2, 3, 5]
    assert pass_starts([5, 5, 5, 3, 3, 2], 10) == [0, 2, 4]


def test_run_says_in_its_card_that_padding_changes_the_answers(folder, config_file, run_cli):
    path = config_file(
        model={"name": str(folder("fnet")), "max_length": 32}, training={"max_steps": 2}
    )
    done = run_cli("train", "--config", path)
    assert done.returncode == 0, done.stderr
    assert "Batches hold rows of equal length" in done.stdout
    output_dir = Path(json.loads(Path(path).read_text(encoding="utf-8"))["run"]["output_dir"])
    card = (output_dir / "run/README.md").read_text(encoding="utf-8")
    assert "padding changes this model's answers" in card
