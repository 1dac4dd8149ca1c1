"""Measure seconds and memory of the stages around training with thousands of labels a row may have.

    python scripts/bench/many_labels.py --labels 5000 --rows 50000

Made-up rows with a long tail of labels are read, cleaned, split and balanced as a run does, and the
test rows get made-up scores, so no model is trained. The script prints one line a stage: seconds,
and the peak of resident memory of the whole process (Linux). `--audit` adds the audit.
"""

import argparse
import gc
import json
import os
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.data.balancing.balance import METHODS
from trainer.data.prepare import balance_splits, read_splits
from trainer.evaluation.frequency_groups import frequency_groups
from trainer.evaluation.intervals import interval, resample
from trainer.evaluation.outcome import outcome_of
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.writer import RunFolder

PEAKS = {}


@contextmanager
def measured(stage):
    """Print seconds and peak memory of a stage."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    begin = time.perf_counter()
    yield
    status = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    PEAKS[stage] = time.perf_counter() - begin, peak
    print(f"{stage:<36}{PEAKS[stage][0]:8.1f} s {peak:8.0f} MiB", flush=True)


def write_rows(path, num_rows, num_labels):
    """Write rows with one to five labels; the share of a label falls with its rank."""
    rng = np.random.default_rng(0)
    shares_C = 1 / (np.arange(num_labels) + 20.0)
    cumulative_C = np.cumsum(shares_C / shares_C.sum())
    sizes_N = rng.integers(1, 6, num_rows)
    drawn = np.searchsorted(cumulative_C, rng.random(int(sizes_N.sum())))
    owned = np.split(np.minimum(drawn, num_labels - 1), np.cumsum(sizes_N)[:-1])
    with path.open("w", encoding="utf-8") as file:
        for row, own in enumerate(owned):
            labels = [f"label {c:05}" for c in sorted({*own.tolist()})]
            words = " ".join(f"w{word}" for word in rng.integers(0, 20_000, 12))
            file.write(json.dumps({"text": f"{words} {row}", "label": labels}) + "\n")


def made_up(targets_NC):
    """Return logits (N, C) in which most true labels are high."""
    rng = np.random.default_rng(1)
    logits_NC = rng.standard_normal(targets_NC.shape, np.float32) - 4
    logits_NC[targets_NC] += 5
    return logits_NC


def results(run, clean, splits, data):
    """Measure the figures, intervals, files and page of the test rows."""
    from trainer.delivery.report import report_page

    labels, targets_NC = clean.labels.names, clean.label_matrix_NC[splits.test]
    logits_NC = made_up(targets_NC)
    groups = frequency_groups(data.summary.natural_C, None)
    with measured("metrics of test"):
        outcome = outcome_of(logits_NC, targets_NC, labels, None, None, groups)
    with measured("intervals of test"):
        found = resample(targets_NC, [outcome.predicted_N], len(labels))
        print(f"macro F1 {outcome.final.macro_f1:.3f}, {interval(found.macro_f1_BR[:, 0])}")
    with measured("predictions.parquet, metrics.json"):
        run.write_predictions({"test": (splits.test, outcome)}, labels)
        run.write_json(
            "metrics.json",
            {"test": outcome.final.to_dict(), "minority_label": data.summary.minority_label},
        )
    run.write_text("config.yaml", "model: {name: x}\ndata: {source: y}\n")
    with measured("report.html"):
        page = report_page.render(FinishedRun.read(run.path))
    print(f"report.html: {len(page) / 1e6:.1f} MB")


def audited(config, clean, folder):
    """Measure the audit by term weights."""
    from trainer.audit import page
    from trainer.audit.findings import collect
    from trainer.audit.inspection import inspect

    with measured("audit"):
        inspection = inspect(clean, config, threshold=0.8, max_rows=100_000)
        path = page.write(folder / "audit", collect(inspection))
    print(f"audit.html: {path.stat().st_size / 1e6:.1f} MB")


def main():
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--audit", action="store_true", help="measure the audit too")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", asked.rows, asked.labels)
        values = {"model": {"name": "none"}, "data": {"source": str(folder / "rows.jsonl")}}
        values["split"] = {"train": 0.6, "validation": 0.2, "test": 0.2}
        config = check_config(YamlSource("bench", values))
        print(f"{asked.labels:,} labels x {asked.rows:,} rows; {os.cpu_count()} CPU cores")
        with measured("read, clean, split"):
            clean, splits = read_splits(
                config.data, config.split, config.balance, seed=42, cache_dir=folder
            )
        for method in METHODS:
            balance = config.balance.model_copy(update={"method": method})
            if method == "floor":
                balance = balance.model_copy(update={"min_share": 0.5 / asked.labels})
            with measured(f"balance: {method}"):
                data = balance_splits(clean, splits, balance, config.loss, seed=42)
            drawn_C = data.summary.counts["drawn"]
            print(f"  {len(data.plan.positions()):,} rows, {drawn_C.min():,} to {drawn_C.max():,}")
        (folder / "run").mkdir()
        results(RunFolder(folder / "run"), clean, splits, data)
        if asked.audit:
            audited(config, clean, folder)
    seconds, peak = (column for column in zip(*PEAKS.values(), strict=True))
    print(f"all stages: {sum(seconds):.0f} s, at most {max(peak):.0f} MiB")


if __name__ == "__main__":
    main()
