"""The command `audit`: what the rows are like and what to try first, without training."""

from pathlib import Path

from trainer.config.config import Config
from trainer.data.cleaning.clean import CleanRows, clean_rows
from trainer.data.reading.sources import read_rows
from trainer.errors import ConfigError, DataError
from trainer.extras import require
from trainer.files.cache import cache_dir
from trainer.launch import distributed


def audit(
    config: Config,
    *,
    with_encoder: bool,
    folder: Path,
    threshold: float,
    max_rows: int,
    compare: str = "equipoise compare <config>",
) -> Path:
    """Audit the data, write audit.json and audit.html, and return the path of the page.

    Args:
        with_encoder: the config's model counts tokens and gives the features by which labels are
            checked; else they are TF-IDF weights.
        folder: folder of the page, in which an older audit is replaced. It is never the run
            folder, which must be empty when a run starts.
        threshold: Jaccard similarity from which texts are near duplicates.
        max_rows: rows to compare and check; of larger data a seeded, stratified sample.
        compare: the command `compare` for these rows, with which the advice ends.

    Raises:
        MissingPackageError: packages of the extra `audit` are not installed.
        TrainerError: options are out of range, data or model are bad, or the folder has files
            that no audit wrote.
    """
    require("audit", "equipoise audit")
    if not 0.5 <= threshold <= 1:
        raise ConfigError(f"--threshold is {threshold:g}; needed: 0.5 to 1.")
    if max_rows < 2:
        raise ConfigError(f"--max-rows is {max_rows}; needed: 2 or more.")
    from trainer.audit import page, tables
    from trainer.audit.findings import collect
    from trainer.audit.inspection import inspect
    from trainer.training.arguments import quiet_libraries
    from trainer.training.frozen.embed import open_encoder

    quiet_libraries()
    page.check_output(folder)
    _refuse_streaming(config)
    distributed.start_processes(1, config.run.num_threads, use_cpu=config.uses_cpu)
    inspection = inspect(
        _read(config),
        config,
        threshold=threshold,
        max_rows=max_rows,
        encoder=open_encoder(config.model) if with_encoder else None,
    )
    findings = collect(inspection, compare)
    tables.print_findings(findings)
    path = page.write(folder, findings)
    print(f"Audit: {path}  (figures: {folder / page.JSON_NAME})")
    return path


def _refuse_streaming(config: Config) -> None:
    """Raise DataError if the data are streamed."""
    if config.data.streaming:
        raise DataError(
            "the audit keeps all rows in memory, which data.streaming avoids. Audit one of the"
            " files: --set data.streaming=false and data.source."
        )


def _read(config: Config) -> CleanRows:
    data, time_column = config.data, config.split.by_time if config.split else None
    rows = read_rows(data, cache_dir(), time_column=time_column)
    return clean_rows(rows, data.clean, data.drop_labels, data.label_map, data.labels_per_row)
