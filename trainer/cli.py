"""The commands."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.config.config import Config, check_config, json_schema, load_config
from trainer.config.yaml_source import YamlSource
from trainer.delivery.serving.limits import Limits
from trainer.errors import ConfigError, Stopped
from trainer.launch.distributed import is_main
from trainer.launch.exits import end, worded_errors

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Balanced, honestly evaluated text classifiers from one YAML file.",
)

ConfigOption = Annotated[
    str, typer.Option("--config", help="YAML file of the run.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; repeatable."),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="data.KEY=VALUE",
        help="How rows are read: a key of the section data; repeatable.",
    ),
]
ModelsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="Run folder, model folder or Hub id; several vote.",
        show_default=False,
    ),
]
TextOption = Annotated[
    str | None,
    typer.Option(help="Column of the text; else the run's, or 'text'.", show_default=False),
]
PairOption = Annotated[
    str | None, typer.Option(help="Column of the second text of a pair.", show_default=False)
]
VoteOption = Annotated[
    Literal["majority", "mean"] | None,
    typer.Option(help="How several decide; else as the run, or majority.", show_default=False),
]
EncodingOption = Annotated[
    str | None, typer.Option(help="Text encoding of the file; else utf-8.", show_default=False)
]
RevisionOption = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a Hub model.", show_default=False)
]
ResumeOption = Annotated[
    Literal["auto", "never"],
    typer.Option(
        help="auto: go on with what was broken off, of the same config and data; never: discard it."
    ),
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Check config, data columns and model, then stop.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace an output that is there.")
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that comes with the model; only for sources you trust.",
    ),
]


@app.callback()
def _commands() -> None:
    """Balanced, honestly evaluated text classifiers from one YAML file."""


@app.command("train")
def train_command(
    config: ConfigOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Train, evaluate and write the run folder."""
    with worded_errors():
        loaded = load_config(config, set_ or ())
        from trainer.runs import ensemble, training_run

        if check:
            _check(config, loaded, training_run.check)
            return
        train = (
            training_run.train
            if loaded.ensemble.size == 1 or loaded.ensemble.member
            else ensemble.train_ensemble
        )
        with _marking_stops(loaded.run_path):
            train(loaded, resume=resume)


@app.command("compare")
def compare_command(
    config: ConfigOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    check: CheckOption = False,
) -> None:
    """Train ways of balancing under the same conditions; tell which helps, and how sure that is."""
    with worded_errors():
        loaded = load_config(config, set_ or ())
        from trainer.comparison import compare

        if check:
            _check(config, loaded, compare.check)
            return
        options = [part for text in set_ or () for part in ("--set", text)]
        with _marking_stops(compare.folder_of(loaded)):
            compare.compare(
                loaded,
                resume=resume,
                command=shlex.join(["equipoise", "compare", "--config", config, *options]),
            )


@app.command("split")
def split_command(
    config: ConfigOption,
    output: Annotated[
        Path, typer.Option(help="Folder for the files; must not hold them yet.", show_default=False)
    ],
    set_: SetOption = None,
    file_format: Annotated[str, typer.Option("--format", help="jsonl, parquet or csv.")] = "jsonl",
) -> None:
    """Write the splits, and the balanced training rows, as files for other tools."""
    with worded_errors():
        loaded = load_config(config, set_ or ())
        from trainer.data.split_files import check_output, export_splits
        from trainer.display.tables import print_audit
        from trainer.runs import training_run

        check_output(output, file_format)
        data = training_run.prepare(loaded)
        print_audit(data, {}, 0)
        for path, count in export_splits(data, loaded.data, output, file_format):
            typer.echo(f"{path}: {count:,} rows")


@app.command("audit")
def audit_command(
    config: Annotated[
        str | None,
        typer.Option("--config", help="YAML file of a run; or give --data.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="One file of rows, without a YAML file.", show_default=False),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="With --data: column of the text; else 'text'.", show_default=False),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="With --data: column of the label; else 'label'.", show_default=False),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(help="With --data: rows of one group belong together.", show_default=False),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="With --data: text encoding of the file; else utf-8.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Encoder that judges labels; else the config's, or term weights.",
            show_default=False,
        ),
    ] = None,
    set_: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the page; else <run folder>-audit, or audit with --data.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Jaccard similarity from which texts are near duplicates.")
    ] = 0.8,
    max_rows: Annotated[
        int, typer.Option(help="Rows compared and judged; of larger data a seeded sample.")
    ] = 100_000,
) -> None:
    """Look at the data without training: audit.json, and audit.html to read."""
    with worded_errors():
        from trainer.audit import audit

        rows = {
            "source": data,
            "text_column": text_column,
            "label_column": label_column,
            "group_column": group_column,
            "encoding": encoding,
        }
        loaded, folder = audit.asked(
            config,
            {key: value for key, value in rows.items() if value is not None},
            set_ or (),
            model=model,
            output=output,
        )
        audit.audit(
            loaded,
            with_encoder=config is not None or model is not None,
            folder=folder,
            threshold=threshold,
            max_rows=max_rows,
        )


@app.command("folder")
def folder_command(config: ConfigOption, set_: SetOption = None) -> None:
    """Print the run folder, for scripts that look what is in it."""
    with worded_errors():
        loaded = load_config(config, set_ or ())

        typer.echo(loaded.run_path)


@app.command("cache")
def cache_command(
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help="List every entry with its size, its age and what it was made from."
        ),
    ] = False,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear", help="Delete the entries, except those that running processes use."
        ),
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Only entries unused for so long: 12h, 30d or 2w.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show or clear the cache of rows, tokens, embeddings and completions."""
    with worded_errors():
        from trainer.display import cache_tables
        from trainer.files import cache

        folder, seconds = (
            cache.cache_dir(),
            cache.seconds_of(older_than) if older_than is not None else 0.0,
        )
        if list_ and clear:
            raise ConfigError(
                "--list and --clear are both given. Give --list to see what --clear would delete, then --clear."
            )
        if not folder.is_dir():
            typer.echo(f"{folder}: does not exist; nothing is cached.")
        elif clear:
            cache_tables.print_cleared(folder, *cache.clear(folder, older_than=seconds))
        else:
            show = cache_tables.print_entries if list_ else cache_tables.print_kinds
            show(folder, cache.entries(folder, older_than=seconds), older_than)


@app.command("serve")
def serve_command(
    source: Annotated[
        str, typer.Argument(help="Run folder, model folder or Hub id.", show_default=False)
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Environment variable with a bearer token to ask for."),
    ] = None,
    max_batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens computed at once, about.")
    ] = Limits.max_batch_tokens,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, max=1000, help="Pause for further requests, where several clients are at work."
        ),
    ] = Limits.max_wait_ms,
    queue_size: Annotated[
        int, typer.Option(min=1, help="Texts that may wait; more are refused (429).")
    ] = Limits.queue_size,
    timeout_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="For an answer, waiting included (504).")
    ] = Limits.timeout_seconds,
    max_body_bytes: Annotated[
        int, typer.Option(min=1024, help="Of a request (413).")
    ] = Limits.max_body_bytes,
    max_texts: Annotated[int, typer.Option(min=1, help="Of a request (413).")] = Limits.max_texts,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0, max=600, help="After a stop signal, new requests are answered for so long."
        ),
    ] = Limits.drain_seconds,
    bf16: Annotated[
        bool,
        typer.Option(
            "--bf16",
            help="Compute in bfloat16: faster where the processor has it; nearly equal labels may swap.",
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1 ...; left out: the accelerator where there is one."),
    ] = None,
    log_level: Annotated[
        Literal["info", "warning"],
        typer.Option(help="info: a line per request, without its texts; warning: faults alone."),
    ] = "info",
) -> None:
    """Serve a model: Inference API, web page, health and metrics."""
    with worded_errors():
        from trainer.delivery.serving.serve import read_token, serve

        token = None if token_env is None else read_token(token_env)
        limits = Limits(
            max_batch_tokens,
            max_wait_ms,
            queue_size,
            timeout_seconds,
            max_body_bytes,
            max_texts,
            drain_seconds,
        )
        serve(
            source,
            host,
            port,
            token=token,
            limits=limits,
            bf16=bf16,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            log_level=log_level,
        )


@app.command("push")
def push_command(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or of one model.", show_default=False)
    ],
    repo_id: Annotated[
        str | None,
        typer.Option(
            help="user/name on the Hub; else this and the rest are those of the run's config.",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Of a new repository; else private.", show_default=False
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to; else main.", show_default=False)
    ] = None,
    commit_message: Annotated[
        str | None, typer.Option(help="Message of the commit.", show_default=False)
    ] = None,
    timeout_minutes: Annotated[
        float | None,
        typer.Option(
            help="Longest time of the upload with its retries; else 60.", show_default=False
        ),
    ] = None,
) -> None:
    """Upload a finished run to the Hugging Face Hub; can be repeated without harm."""
    with worded_errors():
        from trainer.delivery.hub import hub

        given = {
            "repo_id": repo_id,
            "private": private,
            "revision": revision,
            "commit_message": commit_message,
            "timeout_minutes": timeout_minutes,
        }
        settings = hub.settings(run, **given)
        with hub.at_most(
            settings.timeout_minutes,
            hub.failure(
                run, settings, f"it took longer than {settings.timeout_minutes:g} minutes."
            ),
        ):
            typer.echo(f"Pushed to {hub.push(run, settings)}")


@app.command("export")
def export_command(
    source: Annotated[
        str, typer.Argument(help="Run folder, model folder or Hub id.", show_default=False)
    ],
    file_format: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Weights of 8 bits: smaller and faster; labels may differ, and are counted.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder; else <source>-onnx, or <source>-onnx-int8.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labelled file to compare on; else the run's validation rows.", show_default=False
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with the model.")
    ] = False,
) -> None:
    """Write a model as ONNX, compared with the original and timed against it."""
    with worded_errors():
        from trainer.runs.onnx_export import export

        export(
            source,
            file_format=file_format,
            int8=int8,
            output=output,
            data=data,
            trust_remote_code=trust_remote_code,
        )


@app.command("convert")
def convert_command(
    model: Annotated[
        str,
        typer.Argument(
            help="Model folder or Hub id whose weights are pickled (pytorch_model.bin).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder; else <name>-safetensors here.", show_default=False)
    ] = None,
    revision: RevisionOption = None,
) -> None:
    """Write a copy of a model with safetensors in place of pickled weights, which are loaded as tensors alone."""
    with worded_errors():
        from trainer.training.models.model_weights import convert_model

        typer.echo(
            f"Converted: {convert_model(model, output, revision=revision)}. Give this folder as model.name."
        )


@app.command("report")
def report_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The page; else report.html in the run folder, of several runs comparison.html here."
        ),
    ] = None,
    no_texts: Annotated[
        bool,
        typer.Option(
            "--no-texts", help="Quote no text of the data, so that the page can be shared."
        ),
    ] = False,
) -> None:
    """Write the page of a finished run anew, with pictures and card where they are missing; or one page of several runs side by side."""
    with worded_errors():
        from trainer.run_folder.finished_run import read_runs

        read = read_runs(runs)
        from trainer.delivery import completion
        from trainer.delivery.report import report_page, side_by_side

        if len(read) == 1 and output is None:
            completion.complete_and_tell(read[0].path)
        page = (
            report_page.rebuild(read[0], output, show_texts=not no_texts)
            if len(read) == 1
            else side_by_side.write(read, output)
        )
        typer.echo(f"Report: {page}")


@app.command("predict")
def predict_command(
    models: ModelsArgument,
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            help="CSV, TSV, JSONL, JSON, Parquet, Arrow or Excel file, also packed; - for standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            help="File, its ending says how; else <input>.predicted.<ending>; - for standard output."
        ),
    ] = None,
    text_column: TextOption = None,
    pair_column: PairOption = None,
    vote: VoteOption = None,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Add a column predicted_probability_<label> for each label."
        ),
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="Start of the names of the added columns; '' gives label and score.")
    ] = "predicted_",
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe",
            help="In CSV and TSV, put ' before cells that a spreadsheet would run as formulas.",
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    encoding: EncodingOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    set_: DataOption = None,
) -> None:
    """Label the rows of a file or of standard input; the same command goes on with what was broken off."""
    with worded_errors():
        from trainer.delivery.predicting import label_file

        path = label_file.input_path(input_)
        target = label_file.output_path(
            output,
            path,
            overwrite=overwrite,
            folder=Path() if input_.startswith("package:") else None,
        )
        values = label_file.reading(
            models[0], input_, text_column=text_column, pair_column=pair_column, encoding=encoding
        )
        records = label_file.open_records(
            path, check_config(YamlSource("predict", values), set_ or ()).data
        )
        if spreadsheet_safe:
            label_file.refuse_where_no_spreadsheet_reads(target, records)
        from trainer.delivery.predicting.predict import Classifier

        classifier = Classifier.load_several(
            models, vote=vote, revision=revision, trust_remote_code=trust_remote_code
        )
        labeller = label_file.Labeller(classifier, records.wanted, probabilities, prefix)
        label_file.label_file(labeller, records, target, spreadsheet_safe=spreadsheet_safe)


@app.command("evaluate")
def evaluate_command(
    models: ModelsArgument,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="Labelled rows: file, glob, saved data set, Hub id, package:...",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="File of the figures, or its folder.")] = Path(
        "evaluation/metrics.json"
    ),
    text_column: TextOption = None,
    pair_column: PairOption = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the label; else the run's, or 'label'.", show_default=False),
    ] = None,
    vote: VoteOption = None,
    overwrite: OverwriteOption = False,
    encoding: EncodingOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    set_: DataOption = None,
) -> None:
    """Judge a model by labelled rows: a table, and metrics.json as in run folders."""
    with worded_errors():
        from trainer.delivery.predicting import label_file

        options = {
            "text_column": text_column,
            "pair_column": pair_column,
            "label_column": label_column,
            "encoding": encoding,
        }
        loaded = check_config(
            YamlSource("evaluate", label_file.reading(models[0], data, **options)), set_ or ()
        )
        from trainer.delivery.predicting.evaluate_file import (
            check_data,
            evaluate_file,
            metrics_path,
        )
        from trainer.delivery.predicting.label_file import refuse_existing
        from trainer.delivery.predicting.predict import Classifier
        from trainer.files.cache import cache_dir
        from trainer.files.locks import only_writer

        path = metrics_path(output, loaded.data, overwrite=overwrite)
        check_data(loaded.data)
        with only_writer(path):
            refuse_existing(path, overwrite=overwrite)  # by another process, meanwhile
            classifier = Classifier.load_several(
                models, vote=vote, revision=revision, trust_remote_code=trust_remote_code
            )
            evaluate_file(classifier, loaded.data, path, cache_dir=cache_dir())


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the YAML, for editors."""
    typer.echo(json.dumps(json_schema(), indent=1))


@contextmanager
def _marking_stops(run: Path) -> Iterator[None]:
    """A stop signal ends the run where it can go on; the marker in its folder and exit code 75 tell batch scripts so."""
    from trainer.launch import stopping
    from trainer.run_folder import writer

    if is_main():
        writer.clear_stopped(run)
    with (
        stopping.listening()
    ):  # to the end, since signals come in pairs: from the batch system and from the launcher
        try:
            yield
        except Stopped as stop:
            if is_main() or stop.is_alone:
                writer.mark_stopped(run, stop.reason, stop.step)
            end(str(stop), stopping.EXIT_CODE, everywhere=stop.is_alone)


def _check(path: str, config: Config, check: Callable[[Config], None]) -> None:
    """Run a check, without torch where it can do without, and say that all is well."""
    needs_torch = (
        config.model.trust_remote_code or {"fsdp", "deepspeed"} & config.training_values.keys()
    )
    if not needs_torch and "torch" not in sys.modules:
        _leave_out_torch()
    check(config)
    typer.echo(f"{path}: config, the first rows of the data and model are in order.")


def _leave_out_torch() -> None:
    """Make transformers load as where torch and peft are not installed, which takes most of the time off a process that only checks.

    For good: the process ends with the check. Configs, tokenizers and arguments work without them
    (https://huggingface.co/docs/transformers/installation); a model's own code and sharded training do not.
    """
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # that torch was not found
    sys.modules["torch"] = sys.modules["peft"] = None  # type: ignore[assignment]  # from here on they cannot be imported


def main() -> None:
    """The `equipoise` command."""
    app(prog_name="equipoise")


def run_single(command: Callable[..., None]) -> None:
    """One command as a script of its own, for `scripts/`."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    script.command()(command)
    script()
