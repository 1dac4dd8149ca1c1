"""One training run: `train` calls the stages in their order, from the config to the run folder.

`startup.py` starts the processes, `preparation.py` prepares rows and token ids, `trainers.py`
builds the trainer, `results.py` evaluates the trained model and writes the results.
Most other folders take sections or plain values, not a whole `Config`.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.augmenting.generators import check_generator
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.sources import check_source
from trainer.delivery.hub import client, uploads
from trainer.errors import Stopped, brief
from trainer.files.cache import cache_dir
from trainer.launch import distributed, stopping, watch
from trainer.progress import stage
from trainer.run_folder import finished_comparison, writer
from trainer.run_folder.config_differences import flat
from trainer.runs.existing_run import already_finished
from trainer.runs.preparation import PreparedRun, prepare, prepare_run
from trainer.runs.startup import loading_libraries, require_packages, start
from trainer.training import memory

if TYPE_CHECKING:
    from trainer.training.trackers.tracked_run import TrackedRun

Upload = Callable[[Path, int], None]
"""Takes a checkpoint's folder and step, and uploads its model."""


def check(config: Config) -> None:
    """Check the config, the first rows of the data and the model; write nothing, load no torch.

    The `training` section is checked as for a CPU. What this hardware does not support (bf16,
    tf32) is an error when training starts.

    Raises:
        TrainerError: anything that is wrong.
    """
    require_packages(config)
    writer.check_writable(config.run_path)
    finished_comparison.read_if_set(config.report.comparison)
    by_time = config.split.by_time if config.split else None
    config.check_problem_type(multi_label=check_source(config.data, config.balance.by, by_time))
    client.check_login(config.hub)

    from trainer.training.arguments import build_arguments
    from trainer.training.models.model import load_pretrained_config, load_tokenizer
    from trainer.training.models.model_weights import check_weights

    load_tokenizer(config.model, load_pretrained_config(config.model))
    check_weights(config.model)
    check_generator(config.augment)
    build_arguments(
        config.training_values | {"use_cpu": True},
        checkpoints=config.run_path / "checkpoints",
        seed=config.run.seed,
    )


def train(config: Config, *, resume: str = "auto") -> Path:
    """Train, evaluate and write the run folder; every process of a launch calls this function.

    Args:
        resume: "auto" resumes an interrupted run if config and data are unchanged; "never"
            discards it.
    Returns:
        The run folder.
    Raises:
        TrainerError: wrong config, data, model or folder; a loss that is not finite; another
            process that died or hangs.
    """
    with (
        uploads.uploading(config.hub, config.run_path) as upload,
        watch.naming_lost_processes(),
        memory.naming_lack(config.model.name),
        ExitStack() as run_lock,
    ):
        return _train(config, resume, run_lock, upload)


def _train(config: Config, resume: str, run_lock: ExitStack, upload: Upload | None) -> Path:
    early = _rows_before_torch(config)
    with stage() as done, loading_libraries():
        config = start(config)

        from trainer.display import tables
        from trainer.runs import results, run_decision, trainers  # noqa: F401  # loads torch
        from trainer.training.arguments import build_arguments, quiet_libraries

        done("Loaded torch and transformers")
    quiet_libraries()
    folder = writer.RunFolder(config.run_path)
    arguments = build_arguments(
        config.training_values, checkpoints=folder.checkpoints, seed=config.member_seed
    )
    data = early or prepare(config)
    run_decision.decision_plan(config, data)  # raises ConfigError for unknown labels
    run = prepare_run(config, folder, arguments, data)
    distributed.from_main(lambda: run_lock.enter_context(writer.only_run(folder.path)))
    if already_finished(config, data, resume):
        return folder.path
    checkpoint = _checkpoint_to_resume(run, resume)
    if distributed.is_main():
        tables.print_audit(data, run.lengths, run.max_length)
    # A stop signal stops training and evaluation; after this block it is ignored.
    with stopping.at_agreed_steps():
        trainer, clock = run_trainer(
            build=partial(_build_trainer, run, upload),
            folder=folder,
            checkpoint=checkpoint,
            begin=partial(_open_folder, run, checkpoint),
        )
        run = _after_training(run, trainer)
        results.conclude(run, trainer, clock)
        distributed.wait_for_everyone()
    return folder.path


def _rows_before_torch(config: Config) -> PreparedData | None:
    """Prepare the rows before torch is loaded, which takes seconds, so that their faults show.

    Returns:
        None if this needs several processes, or a language model that writes rows.
    """
    if distributed.world_size() > 1 or config.augment.generator != "none":
        return None
    require_packages(config)
    writer.check_writable(config.run_path)
    return prepare(config)


def _checkpoint_to_resume(run: PreparedRun, resume: str) -> str | None:
    """Return the checkpoint to resume from; None to start at the beginning.

    Raises:
        RunError: the folder holds another run, or files that are no run; or the checkpoint's rows
            a step cannot be divided among the processes.
    """
    from trainer.training.resuming.resumable_trainer import keep_rows_per_step

    checkpoint = distributed.from_main(
        lambda: writer.plan_run(
            run.folder.path,
            run.config.to_dict(),
            run.data.clean.fingerprint,
            overwrite=run.config.run.overwrite,
            resume=resume,
        )
    )
    note = keep_rows_per_step(run.arguments, checkpoint) if checkpoint else None
    if note and distributed.is_main():
        print(note)
    return checkpoint


def _build_trainer(run: PreparedRun, upload: Upload | None) -> Any:
    """Return a new trainer with a newly loaded model."""
    from transformers import set_seed

    from trainer.runs.trainers import build_head_trainer, build_trainer
    from trainer.training.models.model import load_model
    from trainer.training.resuming.resumable_trainer import AfterSave
    from trainer.training.trackers.trackers import Trackers

    config, data = run.config, run.data
    set_seed(config.member_seed)
    with stage() as done:
        model = load_model(
            run.model,
            run.pretrained,
            data.labels,
            run.tokenizer,
            run.max_length,
            multi_label=data.is_multi_label,
        )
        done(f"Loaded the model {brief(config.model.name, 48)}")
    trackers = Trackers(config.training_values.get("report_to"), tracked_run(config))
    parts = (config, run.arguments, data, model, run.tokenizer, run.tokens, run.folder, trackers)
    if config.model.mode == "head":
        return build_head_trainer(*parts, cache_dir())
    trainer = build_trainer(*parts)
    if upload:
        trainer.add_callback(AfterSave(upload))
    return trainer


def tracked_run(config: Config) -> "TrackedRun":
    """Return a run as trackers show it. Members of an ensemble share its logs."""
    from trainer.training.trackers.tracked_run import TrackedRun

    member, name, values = config.ensemble.member, config.run.name, flat(config.to_dict())
    if member is None:
        return TrackedRun(name, config.run_path / writer.LOGS, values)
    logs = config.run_path.parent / writer.LOGS
    return TrackedRun.of_group(name, f"member-{member}", logs, values)


def run_trainer(
    build: Callable[[], Any],
    folder: writer.RunFolder,
    checkpoint: str | None,
    begin: Callable[[Any], None] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Build a trainer and train; return the trainer and the entries of metrics.json on training.

    When a device runs out of memory, drop the trainer, build a new one and resume from the last
    checkpoint. The caller keeps no trainer that failed: two models would need memory at once.

    Args:
        begin: called with the first trainer before it trains.
    """
    from trainer.training.resuming.checkpoints import newest_whole

    while True:
        trainer = build()
        if begin:
            begin(trainer)
        begin = None
        try:
            return trainer, trainer.run(checkpoint)
        except Stopped as stop:
            if not stop.is_alone or distributed.world_size() > 1:
                raise
            print(f"{stop.reason}.", flush=True)
        trainer = None
        memory.release()
        newest = newest_whole(folder.checkpoints)
        checkpoint = str(newest) if newest else None


def _open_folder(run: PreparedRun, checkpoint: str | None, trainer: Any) -> None:
    """Start the run folder, or keep that of a resumed run; print what will be trained."""
    from trainer.runs.results import write_audit

    if distributed.is_main():
        print(
            f"model.mode {run.config.model.mode}: {trainer.num_trained:,} of"
            f" {trainer.num_parameters:,} parameters are trained."
        )
        if getattr(trainer, "equal_lengths", False):
            print("Batches hold rows of equal length: padding changes the answers of this model.")
        elif getattr(trainer, "padded_because", None):
            print(f"Batches are padded, since {trainer.padded_because}.")
        elif reason := getattr(trainer, "attention_padded_because", None):
            print(f"Attention pads rows, without flash kernels: {reason}.")
        if getattr(trainer, "plain_because", None):
            print(f"The faster layers for CPUs are not used: {trainer.plain_because}.")
        if checkpoint:
            print(f"Resuming from {checkpoint}")
        else:
            writer.start_run(run.folder.path, run.config.to_dict())
        write_audit(run)
    distributed.wait_for_everyone()


def _after_training(run: PreparedRun, trainer: Any) -> PreparedRun:
    """Merge shards and adapters into an ordinary model; return the run with its final rows.

    The rows change only if the trainer added synthetic embeddings.
    """
    from trainer.runs.results import write_audit

    mode = run.config.model.mode
    if mode != "head":
        trainer.gather_shards()
    if mode == "lora":
        trainer.merge_adapter(run.folder.path / "adapter.partial")
    if run.config.balance.method in SYNTHESIS_METHODS:
        data = run.data.with_synthetic(trainer.counts_C, trainer.class_weights_C)
        run = replace(run, data=data)
        write_audit(run)
    return run
