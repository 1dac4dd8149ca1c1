"""The audit: what the rows are like and what to try first, without training."""

import json
from collections.abc import Sequence
from pathlib import Path

from trainer.config.config import Config, check_config, load_config
from trainer.config.sections.balancing import BalanceSection
from trainer.config.yaml_source import YamlSource
from trainer.data.cleaning.clean import clean_rows
from trainer.data.reading.sources import check_source, read_rows
from trainer.errors import ConfigError, DataError
from trainer.files.cache import cache_dir
from trainer.launch import distributed
from trainer.training import memory


def asked(
    config: str | None,
    rows: dict[str, str],
    overrides: Sequence[str],
    *,
    model: str | None,
    output: Path | None,
) -> tuple[Config, Path]:
    """The config that the command's options make, and the folder of the page.

    Args:
        config: YAML file, or None with `source` among `rows`.
        rows: keys of the section data that were given as options.
    Raises:
        ConfigError: options that do not go together, and faults as of `load_config`.
    """
    if (config is None) == ("source" not in rows):
        raise ConfigError("audit needs either --config <YAML file> or --data <file of rows>.")
    if config is None:
        values = {"model": {"name": model or "none"}, "data": rows}  # every config names a model
        return check_config(YamlSource("audit", values), tuple(overrides)), output or Path("audit")
    if rows:
        raise ConfigError(
            f"--{next(iter(rows)).replace('_', '-')} belongs to --data; with --config use --set data.{next(iter(rows))}=..."
        )
    loaded = load_config(
        config, [*overrides, *([f"model.name={json.dumps(model)}"] if model else [])]
    )
    return loaded, output or loaded.run_path.with_name(f"{loaded.run.name}-audit")


def audit(
    config: Config, *, with_encoder: bool, folder: Path, threshold: float, max_rows: int
) -> Path:
    """Path of the page that tells what the rows are like and what to try first; no training. Writes audit.json and audit.html.

    Args:
        with_encoder: the config's model judges labels and counts tokens; else TF-IDF judges them.
        folder: where the page goes; an older audit there is replaced. Never the run folder, which a run must find empty.
        threshold: Jaccard similarity from which texts are near duplicates.
        max_rows: rows compared and judged; of larger data a seeded, stratified sample.
    Raises:
        TrainerError: options out of range, bad data or model, or a folder with files of others.
    """
    if not 0.5 <= threshold <= 1:
        raise ConfigError(f"--threshold is {threshold:g}; needed: 0.5 to 1.")
    if max_rows < 2:
        raise ConfigError(f"--max-rows is {max_rows}; needed: 2 or more.")
    from trainer.audit import audit_findings, audit_page, audit_tables, inspection
    from trainer.audit.label_noise import find_label_noise, term_weights
    from trainer.data.cleaning.near_duplicates import find_near_duplicates
    from trainer.training.arguments import quiet_libraries
    from trainer.training.frozen.embed import open_encoder

    quiet_libraries()
    seed = config.run.seed
    audit_page.check_output(folder)
    if config.data.streaming:
        raise DataError(
            "the audit holds all rows, which data.streaming avoids. Audit one file of them: --set data.streaming=false and data.source."
        )
    time_column = config.split.by_time if config.split else None
    if check_source(config.data, time_column=time_column):
        raise DataError(
            "the audit reads one label a row, but the data are multi-label. Train with --set training.max_steps=1 to see their counts."
        )
    distributed.start_processes(1, config.run.num_threads, use_cpu=config.uses_cpu)
    encoder = open_encoder(config.model) if with_encoder else None
    rows = read_rows(config.data, cache_dir(), time_column=time_column)
    clean = clean_rows(rows, config.data.clean, config.data.drop_labels, config.data.label_map)
    splits, obstacles = inspection.planned_splits(
        clean, config.data, config.split, BalanceSection(), seed=seed
    )
    compared_N = inspection.sample(clean, splits, max_rows, seed=seed)
    texts_N = inspection.full_texts(clean, compared_N)
    near = find_near_duplicates(texts_N, threshold=threshold)
    with memory.naming_lack(config.model.name):
        features_NF, tokens = (
            encoder.embed(clean, compared_N, cache_dir())
            if encoder
            else (term_weights(texts_N), None)
        )
    units_N = inspection.independent_units(near, clean, compared_N, config.data)
    noise = find_label_noise(features_NF, clean.label_ids_N[compared_N], units_N, seed=seed)
    name = config.model.name if with_encoder else None
    reach = audit_findings.Reach(encoder.max_length, encoder.position_limit) if encoder else None
    findings = audit_findings.collect(
        config.data,
        clean,
        splits,
        obstacles,
        compared_N,
        near,
        noise,
        tokens,
        model_name=name,
        seed=seed,
        reach=reach,
    )
    audit_tables.print_findings(findings)
    page = audit_page.write(folder, findings)
    print(f"Audit: {page}  (figures: {folder / 'audit.json'})")
    return page
