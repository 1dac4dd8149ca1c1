"""Commands that pass a model on: export, convert, push."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.options import RevisionOption, SourceArgument, TrustOption, described, flag
from trainer.launch.exits import worded_errors


@worded_errors()
def export_command(
    source: SourceArgument,
    file_format: Annotated[
        str, described("Format of the export: onnx or openvino. Default: onnx.", "--format")
    ] = "onnx",
    int8: Annotated[
        bool,
        flag(
            "Use weights of 8 bits, which are smaller and faster. Labels that change are counted.",
            "--int8",
        ),
    ] = False,
    max_loss: Annotated[
        float | None,
        described(
            "Macro F1 that --int8 may lose. Layers stay in float32 until it loses no more;"
            " otherwise nothing is written. Default: 0.01.",
            "--max-loss",
            metavar="F1",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        described("Output folder. Default: <source>-onnx, <source>-onnx-int8, and so on."),
    ] = None,
    data: Annotated[
        str | None,
        described("Labelled file for the comparison. Default: the validation rows of the run."),
    ] = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Write a model as ONNX or OpenVINO, and compare it with the original.

    Results and speed are compared on the validation rows of the run, or on --data.

    Example: equipoise export runs/tweets --int8
    """
    from trainer.runs.model_export import export

    export(
        source,
        file_format=file_format,
        int8=int8,
        max_loss=max_loss,
        output=output,
        data=data,
        trust_remote_code=trust_remote_code,
    )


@worded_errors()
def convert_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model folder or Hub id with pickled weights (pytorch_model.bin).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None, described("Output folder. Default: <name>-safetensors in the current folder.")
    ] = None,
    revision: RevisionOption = None,
) -> None:
    """Copy a model, with safetensors instead of pickled weights.

    No code of the model is run.

    Example: equipoise convert user/old-model --output models/old-model
    """
    from trainer.training.models.model_weights import convert_model

    folder = convert_model(model, output, revision=revision)
    typer.echo(f"Converted: {folder}. Give this folder as model.name.")


@worded_errors()
def push_command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a finished run, or of one model.", show_default=False
        ),
    ],
    repo_id: Annotated[
        str | None,
        described(
            "Repository user/name. Default: this and all other options come from the config"
            " of the run."
        ),
    ] = None,
    private: Annotated[
        bool | None,
        flag("Visibility of a new repository. Default: private.", "--private/--public"),
    ] = None,
    revision: Annotated[str | None, described("Branch to push to. Default: main.")] = None,
    commit_message: Annotated[str | None, described("Commit message.")] = None,
    timeout_minutes: Annotated[
        float | None,
        described("Maximum minutes for the upload including its retries. Default: 60."),
    ] = None,
) -> None:
    """Upload a finished run to the Hugging Face Hub.

    You can repeat it safely.

    Example: equipoise push runs/tweets --repo-id user/tweets
    """
    from trainer.delivery.hub import client, push

    settings = push.settings(
        run,
        repo_id=repo_id,
        private=private,
        revision=revision,
        commit_message=commit_message,
        timeout_minutes=timeout_minutes,
    )
    minutes = settings.timeout_minutes
    too_long = push.failure(run, settings, f"it took longer than {minutes:g} minutes.")
    with client.at_most(minutes, too_long):
        typer.echo(f"Pushed to {push.push(run, settings)}")
