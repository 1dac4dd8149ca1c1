"""Measure memory and time of the results of a run with many classes.

usage: python scripts/bench/many_classes.py [--classes 5000] [--rows 100000]
           [--several | --decision] [--no-pictures] [--no-page] [--folder DIR]

The results are metrics, predictions.parquet, metrics.json, pictures and the page. The logits are
made up, so no model is trained. The script prints one line a stage: seconds, and the peak of
resident memory above what the process held before (Linux). Set PYTHONPATH to an older checkout to
measure that one. Results: scripts/bench/README.md.
"""

import argparse
import gc
import os
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from trainer.delivery.predicting.evaluate_file import logarithms
from trainer.delivery.report import mistakes, report_page
from trainer.display import plots, tables
from trainer.evaluation.decisions import calibration, decision, thresholds
from trainer.evaluation.multi_label import evaluate
from trainer.evaluation.outcome import outcome_of
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.writer import RunFolder

try:
    from trainer.evaluation.blocks import release, room
except ImportError:  # an older version holds everything in memory

    def room(shape, dtype, folder):
        """Zeros in memory."""
        return np.zeros(shape, dtype)

    def release(scores):
        """Nothing to give back."""


def memory_of(name):
    """A line of /proc/self/status in MB."""
    return (
        int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])
        / 1000
    )


@contextmanager
def measured(stage, base):
    """Print seconds and added memory of a stage."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.perf_counter()
    yield
    print(
        f"{stage:<28}{time.perf_counter() - begin:8.1f} s {memory_of('VmHWM') - base:8.0f} MB "
        "at most",
        flush=True,
    )


def made_up(num_rows, num_classes, folder):
    """Return logits and label ids; the true class often has a high logit, and classes are
    imbalanced."""
    rng = np.random.default_rng(0)
    true_N = np.minimum((num_classes * rng.random(num_rows) ** 2).astype(np.int64), num_classes - 1)
    logits_NC = room((num_rows, num_classes), np.float32, folder)
    for start in range(0, num_rows, 1000):
        rows = slice(start, min(start + 1000, num_rows))
        block = rng.standard_normal((rows.stop - start, num_classes), np.float32)
        block[np.arange(len(block)), true_N[rows]] += 3.5
        logits_NC[rows] = block
        release(logits_NC)
    return logits_NC, true_N


def several(true_N, num_classes, folder):
    """Each row's label and the next one, as a matrix."""
    true_NC = room((len(true_N), num_classes), np.bool_, folder)
    for start in range(0, len(true_N), 1000):
        rows = np.arange(start, min(start + 1000, len(true_N)))
        for more in (0, 1):
            true_NC[rows, (true_N[rows] + more) % num_classes] = True
        release(true_NC)
    return true_NC


def fitted(logits_NC, true_N, folder, base):
    """Time the stages of a decision: six fits of at most ten rounds each."""
    from trainer.display.reliability_plot import calibration as reliability
    from trainer.evaluation.blocks import ByColumn, Taken

    weights_N, counts_C = np.ones(len(true_N)), np.bincount(true_N, minlength=logits_NC.shape[1])
    log_q_C = np.full(len(counts_C), -np.log(len(counts_C)))
    labels = [f"class {c:05}" for c in range(len(counts_C))]
    log_target_C = calibration.target_log_prior("natural", np.maximum(counts_C, 1), labels)
    plan = decision.DecisionPlan(
        labels, log_q_C, log_target_C, temperature=True, minority=int(counts_C.argmin())
    )
    with measured("temperature, prior: one fit", base):
        found = decision.fit_decision(logits_NC, true_N, plan, weights_N=weights_N)
    fitted_C = counts_C >= decision.LEAST_ROWS
    with measured("logits by column", base):
        by_column_NC = ByColumn(logits_NC, np.flatnonzero(fitted_C).tolist(), folder)
    most, thresholds.MOST_ROUNDS = thresholds.MOST_ROUNDS, 1
    with measured("thresholds: one round", base):
        rows = np.arange(len(true_N))
        found = decision.fit_decision(
            Taken(by_column_NC, rows),
            true_N,
            replace(plan, temperature=False, thresholds="f1"),
            weights_N=weights_N,
            fitted_C=fitted_C,
        )
    thresholds.MOST_ROUNDS = most
    print(
        f"thresholds of {fitted_C.sum():,} classes, those with {decision.LEAST_ROWS} rows or more"
    )
    with measured("labels by the decision", base):
        decided = found.apply(logits_NC)
    with measured("figures of both", base):
        outcome = outcome_of(logits_NC, true_N, labels, decided, None)
    with measured("calibration", base):
        reliability(outcome)
    return outcome


def main():
    """Measure one size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--several", "--multi-label", action="store_true", help="two labels a row")
    parser.add_argument(
        "--decision", action="store_true", help="fit a decision first (one label a row)"
    )
    parser.add_argument("--no-pictures", action="store_true")
    parser.add_argument("--no-page", action="store_true")
    parser.add_argument(
        "--folder",
        help="where the run folder is made for a while; left out: where temporary files lie",
    )
    asked = parser.parse_args()
    if asked.several and asked.decision:
        parser.error("--decision is for one label a row")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        run = RunFolder(Path(folder))
        logits_NC, targets = made_up(asked.rows, asked.classes, run.path)
        labels = [f"class {c:05}" for c in range(asked.classes)]
        if asked.several:
            logits_NC -= 2  # few labels are given
            release(logits_NC)
            targets = several(targets, asked.classes, run.path)
        base = memory_of("VmRSS")
        print(
            f"{asked.classes:,} classes x {asked.rows:,} rows; {base:.0f} MB resident before, "
            f"{os.cpu_count()} CPUs"
        )
        if asked.decision:
            outcome = fitted(logits_NC, targets, run.path, base)
        else:
            with measured("figures", base):
                outcome = outcome_of(logits_NC, targets, labels, None, None)
        with measured("predictions.parquet", base):
            run.write_predictions({"test": (np.arange(asked.rows), outcome)}, labels)
        with measured("metrics.json", base):
            run.write_json(
                "metrics.json", {"test": outcome.final.to_dict(), "minority_label": labels[-1]}
            )
        with measured("mistakes.jsonl", base):
            run.write_lines(
                "mistakes.jsonl",
                mistakes.mistakes_to_quote(
                    np.arange(asked.rows), outcome, labels, lambda ids_N: ["a text"] * len(ids_N)
                ),
            )
        with measured("terminal tables", base):
            tables.print_results({"test": outcome}, run.path, "model")
        if not asked.no_pictures:
            with measured("picture", base):
                run.write_figure(*plots.results(outcome.final, "test"))
        run.write_text("config.yaml", "model: {name: x}\ndata: {source: y}\n")
        if not asked.no_page:
            with measured("report.html", base):
                page = report_page.render(FinishedRun.read(run.path))
            print(f"report.html: {len(page) / 1e6:.1f} MB")
        if not asked.decision:
            with measured("figures of a file", base):
                evaluate(
                    logarithms(logits_NC, run.path, multi_label=asked.several),
                    targets,
                    labels,
                    outcome.predicted_N,
                )
        size = sum(path.stat().st_size for path in run.path.iterdir())
        print(f"run folder: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
