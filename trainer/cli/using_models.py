"""Commands that use a trained model: predict, evaluate, serve."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trainer.cli.options import (
    DataOption,
    EncodingOption,
    ModelsArgument,
    OverwriteOption,
    PairOption,
    RevisionOption,
    SourceArgument,
    TextOption,
    TrustOption,
    VoteOption,
    described,
    flag,
)
from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.delivery.serving.limits import Limits
from trainer.extras import require
from trainer.launch.exits import worded_errors


@worded_errors()
def predict_command(
    models: ModelsArgument,
    input_: Annotated[
        str,
        described("CSV, TSV, JSON, Parquet, Arrow or Excel file; - is standard input.", "--input"),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            help="Output file, whose ending gives the format; - is the standard output."
            " Default: <input>.predicted.<ending>."
        ),
    ] = None,
    text_column: TextOption = None,
    pair_column: PairOption = None,
    vote: VoteOption = None,
    probabilities: Annotated[
        bool,
        flag("Add a column predicted_probability_<label> for each label.", "--probabilities"),
    ] = False,
    prefix: Annotated[
        str,
        typer.Option(help="Prefix of the new columns. With '', they are called label and score."),
    ] = "predicted_",
    spreadsheet_safe: Annotated[
        bool,
        flag(
            "In CSV and TSV, put ' before cells that a spreadsheet would run as formulas.",
            "--spreadsheet-safe",
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    encoding: EncodingOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    set_: DataOption = None,
) -> None:
    """Label the rows of a file or of standard input.

    If it is interrupted, run the same command again to resume.

    Example: equipoise predict runs/tweets --input new.csv --output labelled.csv
    """
    from trainer.delivery.predicting import label_file
    from trainer.delivery.predicting.labeller import Labeller

    path = label_file.input_path(input_)
    folder = Path() if input_.startswith("package:") else None
    target = label_file.output_path(output, path, overwrite=overwrite, folder=folder)
    values = label_file.reading(
        models[0], input_, text_column=text_column, pair_column=pair_column, encoding=encoding
    )
    config = check_config(YamlSource("predict", values), set_ or ())
    records = label_file.open_records(path, config.data)
    if spreadsheet_safe:
        label_file.refuse_spreadsheet_safe(target, records)
    from trainer.delivery.predicting.predict import Classifier

    classifier = Classifier.load_several(
        models, vote=vote, revision=revision, trust_remote_code=trust_remote_code
    )
    labeller = Labeller(classifier, records.wanted, probabilities, prefix)
    label_file.label_file(labeller, records, target, spreadsheet_safe=spreadsheet_safe)


@worded_errors()
def evaluate_command(
    models: ModelsArgument,
    data: Annotated[
        str, described("Labelled rows: file, glob, saved data set, Hub id or package:...", "--data")
    ],
    output: Annotated[Path, typer.Option(help="File of the metrics, or its folder.")] = Path(
        "evaluation/metrics.json"
    ),
    text_column: TextOption = None,
    pair_column: PairOption = None,
    label_column: Annotated[
        str | None,
        described("Column of the label. Default: that of the training data, or 'label'."),
    ] = None,
    vote: VoteOption = None,
    overwrite: OverwriteOption = False,
    encoding: EncodingOption = None,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    set_: DataOption = None,
) -> None:
    """Evaluate a model on labelled rows.

    It prints a table, and writes a metrics.json as in run folders.

    Example: equipoise evaluate runs/tweets --data labelled.csv
    """
    from trainer.delivery.predicting import label_file

    values = label_file.reading(
        models[0],
        data,
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        encoding=encoding,
    )
    section = check_config(YamlSource("evaluate", values), set_ or ()).data
    from trainer.delivery.predicting import evaluate_file
    from trainer.delivery.predicting.predict import Classifier
    from trainer.files.cache import cache_dir
    from trainer.files.locks import only_writer

    path = evaluate_file.metrics_path(output, section, overwrite=overwrite)
    evaluate_file.check_data(section)
    with only_writer(path):
        label_file.refuse_existing(path, overwrite=overwrite)  # another process may have written it
        classifier = Classifier.load_several(
            models, vote=vote, revision=revision, trust_remote_code=trust_remote_code
        )
        evaluate_file.evaluate_file(classifier, section, path, cache_dir=cache_dir())


MaxBatchTokens = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Approximate number of tokens computed at a time.",
    ),
]
MaxWait = Annotated[
    float,
    typer.Option(
        min=0,
        max=1000,
        metavar="MS",
        help="Milliseconds to wait for further requests when there are several clients.",
    ),
]
QueueSize = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Maximum number of waiting texts (HTTP 429).",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=3600,
        metavar="SECONDS",
        help="Maximum seconds per request, including queueing (HTTP 504).",
    ),
]
MaxBodyBytes = Annotated[
    int,
    typer.Option(
        min=1024,
        metavar="BYTES",
        help="Maximum size of a request in bytes (HTTP 413).",
    ),
]
MaxTexts = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Maximum number of texts per request (HTTP 413).",
    ),
]
Drain = Annotated[
    float,
    typer.Option(
        min=0,
        max=600,
        metavar="SECONDS",
        help="Seconds to answer new requests after a signal to stop.",
    ),
]


@worded_errors()
def serve_command(
    source: SourceArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            metavar="N",
            help="Port; 0 for a free one.",
        ),
    ] = 8000,
    token_env: Annotated[
        str | None, described("Environment variable with the token of clients.", metavar="NAME")
    ] = None,
    max_batch_tokens: MaxBatchTokens = Limits.max_batch_tokens,
    max_wait_ms: MaxWait = Limits.max_wait_ms,
    queue_size: QueueSize = Limits.queue_size,
    timeout_seconds: Timeout = Limits.timeout_seconds,
    max_body_bytes: MaxBodyBytes = Limits.max_body_bytes,
    max_texts: MaxTexts = Limits.max_texts,
    drain_seconds: Drain = Limits.drain_seconds,
    bf16: Annotated[
        bool,
        flag(
            "Compute in bfloat16, which is faster on hardware that supports it."
            " Labels with nearly equal scores may change.",
            "--bf16",
        ),
    ] = False,
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1 ... Default: the accelerator, if there is one."),
    ] = None,
    log_level: Annotated[
        Literal["info", "warning"],
        typer.Option(help="info: log each request without its texts. warning: log only faults."),
    ] = "info",
) -> None:
    """Serve a model over HTTP.

    The server has an inference API, a web page, health checks and metrics.

    Example: equipoise serve runs/tweets --port 8000
    """
    require("serve", "equipoise serve")
    from trainer.delivery.serving.serve import read_token, serve

    serve(
        source,
        host,
        port,
        token=None if token_env is None else read_token(token_env),
        limits=Limits(
            max_batch_tokens,
            max_wait_ms,
            queue_size,
            timeout_seconds,
            max_body_bytes,
            max_texts,
            drain_seconds,
        ),
        bf16=bf16,
        revision=revision,
        trust_remote_code=trust_remote_code,
        device=device,
        log_level=log_level,
    )
