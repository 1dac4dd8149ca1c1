"""The gradient of an optimizer step depends only on its rows, not on how they are cut."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification

from trainer.training import pass_trainer

sys.path.insert(0, str(Path(__file__).parent))
import two_process_gradient as worker

WEIGHTS = {"unweighted": [1.0, 1.0, 1.0], "weighted": [0.3, 1.2, 1.5]}


def relative(a, b):
    return float((a - b).norm() / b.norm())


def launch(
    tiny_model,
    tmp_path,
    rows_per_batch,
    accumulation,
    weights,
    num_rows,
    smoothing=0.0,
    loss="cross_entropy",
    multi_label=False,
):
    out = tmp_path / "two.pt"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "0",
        "--rdzv_backend",
        "c10d",
    ]
    command += [
        "--rdzv_endpoint",
        "127.0.0.1:0",
        worker.__file__,
        str(tiny_model),
        str(out),
        str(rows_per_batch),
        str(accumulation),
    ]
    kind = "multi_label" if multi_label else "one_label"
    command += [",".join(map(str, weights)), str(num_rows), str(smoothing), loss, kind]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_same_sixteen_rows_give_the_same_gradient_and_loss_however_cut(
    tiny_model, tmp_path, kind, smoothing
):
    whole, quarters, ones = (
        worker.step(
            str(tiny_model), str(tmp_path / "x"), batch, accumulation, WEIGHTS[kind], 16, smoothing
        )
        for batch, accumulation in ((16, 1), (4, 4), (1, 16))
    )
    for cut in (quarters, ones):
        assert relative(cut["gradient"], whole["gradient"]) < 1e-6
        assert cut["losses"] == pytest.approx(whole["losses"], rel=1e-6)


@pytest.mark.parametrize("name", ["focal", "logit_adjusted"])
def test_every_loss_gives_the_same_gradient_however_a_step_is_cut(tiny_model, tmp_path, name):
    whole, quarters = (
        worker.step(
            str(tiny_model),
            str(tmp_path / "x"),
            batch,
            accumulation,
            WEIGHTS["weighted"],
            16,
            0.0,
            loss=name,
            class_counts=(9, 3, 4),
        )
        for batch, accumulation in ((16, 1), (4, 4))
    )
    assert relative(quarters["gradient"], whole["gradient"]) < 1e-6
    assert quarters["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    plain = worker.step(str(tiny_model), str(tmp_path / "x"), 16, 1, WEIGHTS["weighted"], 16, 0.0)
    assert relative(whole["gradient"], plain["gradient"]) > 0.05


def test_gradient_and_loss_equal_torch_over_the_whole_step_at_once(tiny_model, tmp_path):
    found = worker.step(str(tiny_model), str(tmp_path / "x"), 4, 4, WEIGHTS["weighted"], 16, 0.1)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        str(tiny_model),
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype=torch.float32,
    )
    rows = worker.rows(16)
    logits = torch.cat(
        [model(input_ids=torch.tensor([rows[i]["input_ids"]])).logits for i in range(16)]
    )
    labels, weights = torch.tensor(rows.label_ids_N), torch.tensor(WEIGHTS["weighted"])
    log_p = F.log_softmax(logits, dim=1)
    by_hand = -(
        0.9 * weights[labels] * log_p[range(16), labels] + 0.1 / 3 * (weights * log_p).sum(dim=1)
    ).mean()
    by_hand.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert found["losses"][0] == pytest.approx(by_hand.item(), rel=1e-6)
    assert relative(found["gradient"], gradient) < 1e-6


def test_two_processes_give_the_same_run_as_one_with_an_uneven_last_step(tiny_model, tmp_path):
    two = launch(tiny_model, tmp_path, 4, 2, WEIGHTS["weighted"], 37)
    one = worker.step(
        str(tiny_model), str(tmp_path / "x"), 16, 1, WEIGHTS["weighted"], 37, 0.0, epochs=2
    )
    assert two["processes"] == 2
    assert one["processes"] == 1
    assert two["steps"] == one["steps"] == 6
    assert relative(two["gradient"], one["gradient"]) < 1e-6
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert relative(two["parameters"], one["parameters"]) < 1e-6


@pytest.mark.parametrize(
    "options",
    [{"tokens_per_pass": 40}, {"tokens_per_pass": 1}, {"packing": False, "fast_layers": False}],
    ids=["passes", "rows", "padded"],
)
def test_passes_packing_and_fast_layers_leave_the_gradient_and_the_weights_as_they_are(
    tiny_model, tmp_path, options
):
    plain = worker.step(
        str(tiny_model), str(tmp_path / "x"), 16, 1, WEIGHTS["weighted"], 40, 0.0, epochs=2
    )
    other = worker.step(
        str(tiny_model),
        str(tmp_path / "x"),
        16,
        1,
        WEIGHTS["weighted"],
        40,
        0.0,
        epochs=2,
        **options,
    )
    assert relative(other["gradient"], plain["gradient"]) < 1e-5
    assert other["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert relative(other["parameters"], plain["parameters"]) < 1e-6


class ConvertedWeights(TorchDispatchMode):
    """Counts how often a large matrix in float32, thus a weight, is converted to bfloat16."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += args[0].ndim == 2 and len(args[0]) > 16
        return func(*args, **(kwargs or {}))


def test_weights_are_converted_once_a_step_and_not_once_a_pass(tiny_model, tmp_path, monkeypatch):
    def step_of(tokens_per_pass):
        options = {"bf16": True, "tokens_per_pass": tokens_per_pass, "packing": False}
        given = (str(tiny_model), str(tmp_path / "x"), 16, 1, WEIGHTS["unweighted"], 16, 0.0)
        with ConvertedWeights() as converted:
            found = worker.step(*given, **options)
        return found, converted.count

    (whole, of_one_pass), (cut, of_passes) = step_of(1_000), step_of(1)
    monkeypatch.setattr(pass_trainer, "converted_once", nullcontext)
    again, without = step_of(1)
    assert (of_passes, without) == (of_one_pass, 16 * of_one_pass)
    assert torch.equal(cut["gradient"], again["gradient"])
    assert relative(cut["gradient"], whole["gradient"]) < 0.02


def test_number_of_workers_changes_nothing(tiny_model, tmp_path):
    alone, helped = (
        worker.step(
            str(tiny_model),
            str(tmp_path / "x"),
            8,
            2,
            WEIGHTS["weighted"],
            40,
            0.0,
            epochs=2,
            workers=n,
        )
        for n in (0, 2)
    )
    assert torch.equal(alone["parameters"], helped["parameters"])
    assert alone["losses"] == helped["losses"]
