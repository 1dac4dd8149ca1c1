"""One training run: `train` calls the stages in their order, from the config to the run folder.

`trainers.py` builds the trainer, `results.py` evaluates the trained model and writes what it did,
`ensemble.py` trains several runs that vote. Only `runs/`, `comparison/` and `audit/` hold a `Config`.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.augmenting.augment import write_rows
from trainer.data.augmenting.generators import check_generator
from trainer.data.cleaning.clean import CleanRows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import hub_commits
from trainer.data.reading.sources import check_source
from trainer.data.split_rows import Fold
from trainer.data.splitting.split import Splits
from trainer.data.tokens.tokenise import TokenisedRows, tokenise
from trainer.delivery.hub import hub, uploads
from trainer.errors import RunError, Stopped, listing
from trainer.files.cache import cache_dir
from trainer.launch import distributed, stopping, watch
from trainer.launch.launch_settings import follow_config
from trainer.run_folder import config_differences, finished_comparison, writer
from trainer.run_folder.environment import Commits
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.missing_files import is_whole, lacking, refuse_lost_model
from trainer.training import memory
from trainer.training.frozen.synthesis import refuse_few_rows


def check(config: Config) -> None:
    """Config, first rows of the data, and the model's availability; writes nothing and needs no torch.

    The `training` section is checked as for a CPU: what this hardware lacks (bf16, tf32) is refused when training starts.

    Raises:
        TrainerError: whatever is wrong.
    """
    writer.check_writable(config.run_path)
    finished_comparison.read_if_set(config.report.comparison)
    config.check_problem_type(
        multi_label=check_source(
            config.data, config.balance.by, config.split.by_time if config.split else None
        )
    )
    hub.check_login(config.hub)
    from trainer.training.models.model import load_pretrained_config, load_tokenizer
    from trainer.training.models.model_weights import check_weights

    load_tokenizer(config.model, load_pretrained_config(config.model))
    check_weights(config.model)
    check_generator(config.augment)
    from trainer.training.arguments import build_arguments

    build_arguments(
        config.training_values | {"use_cpu": True},
        checkpoints=config.run_path / "checkpoints",
        seed=config.run.seed,
    )


def train(config: Config, *, resume: str = "auto") -> Path:
    """Train, evaluate and write the run folder; every process of a launch calls it.

    Args:
        resume: 'auto' continues an unfinished run of the same config and data, 'never' discards it.
    Returns:
        The run folder.
    Raises:
        TrainerError: bad config, data, model or folder; a loss that is not a number; another process that died or hangs.
    """
    lack = memory.naming_lack(config.model.name)
    with (
        uploads.uploading(config.hub, config.run_path) as push_save,
        watch.naming_lost_processes(),
        lack,
        ExitStack() as held,
    ):
        return _train(config, resume, held, push_save)


def _train(
    config: Config, resume: str, held: ExitStack, push_save: Callable[[Path, int], None] | None
) -> Path:
    with loading_libraries():
        config = start(config)

        from transformers import set_seed

        from trainer.data.summary import summarise_lengths
        from trainer.display import tables
        from trainer.runs import results
        from trainer.runs.trainers import build_head_trainer, build_trainer
        from trainer.training.arguments import build_arguments, quiet_libraries
        from trainer.training.batches.batching import refuse_small_steps
        from trainer.training.models.model import (
            load_model,
            load_pretrained_config,
            load_tokenizer,
            pinned,
        )
        from trainer.training.models.model_weights import check_weights
        from trainer.training.resuming.resumable_trainer import AfterSave, keep_rows_per_step

    quiet_libraries()
    folder = writer.RunFolder(config.run_path)
    arguments = build_arguments(
        config.training_values, checkpoints=folder.checkpoints, seed=config.member_seed
    )
    data = prepare(config)
    if data.plan.balanced_batches:
        refuse_small_steps(
            len(data.labels),
            arguments.per_device_train_batch_size,
            arguments.gradient_accumulation_steps,
            distributed.world_size(),
        )
    results.decision_plan(config, data)  # refused here, if at all
    pretrained = load_pretrained_config(config.model)
    model_section = pinned(config.model)
    of_model = {} if model_section is config.model else {config.model.name: model_section.revision}
    commits = {"model": of_model, "data": hub_commits(config.data)}
    tokenizer, max_length = load_tokenizer(model_section, pretrained)
    distributed.from_main(lambda: check_weights(model_section))
    tokens = tokenise_splits(data, tokenizer, max_length)
    distributed.from_main(lambda: held.enter_context(writer.only_run(folder.path)))
    if already_finished(config, data, resume):
        return folder.path
    checkpoint = distributed.from_main(
        lambda: writer.plan_run(
            folder.path,
            config.to_dict(),
            data.clean.fingerprint,
            overwrite=config.run.overwrite,
            resume=resume,
        )
    )
    lengths = {name: summarise_lengths(rows) for name, rows in tokens.items()}
    if distributed.is_main():
        tables.print_audit(data, lengths, max_length)
    note = keep_rows_per_step(arguments, checkpoint) if checkpoint else None

    def build() -> Any:
        set_seed(config.member_seed)
        model = load_model(
            model_section,
            pretrained,
            data.labels,
            tokenizer,
            max_length,
            multi_label=data.is_multi_label,
        )
        if config.model.mode == "head":
            return build_head_trainer(
                config, arguments, data, model, tokenizer, tokens, folder, cache_dir()
            )
        made = build_trainer(config, arguments, data, model, tokenizer, tokens, folder)
        if push_save:
            made.add_callback(AfterSave(push_save))
        return made

    def begin(trainer: Any) -> None:
        if distributed.is_main():
            _open_run(folder, config, data, trainer, checkpoint, commits)
            print(note or "", end="\n" if note else "")
        distributed.wait_for_everyone()

    with stopping.at_agreed_steps():  # of training and evaluation; later a signal comes too late, so no finished run looks stopped
        trainer, clock = run_trainer(build, folder, checkpoint, begin)
        data = _settle(folder, config, data, trainer, commits)
        results.conclude(folder, config, data, tokens, trainer, clock, lengths, max_length, commits)
        distributed.wait_for_everyone()
    return folder.path


def already_finished(config: Config, data: PreparedData, resume: str) -> bool:
    """Whether the run that is asked for lies there finished, which is said: batch systems start a job again that they stopped at its very end.

    What such a run lacks, since it was stopped or failed after its model was saved, is made. With `run.overwrite` a run is finished
    only where its page was missing: the process that trained it died before it wrote the page, and is started again.

    Raises:
        RunError: its model is gone, or a file of it is damaged; not with `run.overwrite`, which trains such a run anew.
    """
    path = config.run_path
    has_page = distributed.from_main((path / writer.PAGE_NAME).is_file)
    if resume == "never" or (config.run.overwrite and has_page):
        return False
    is_finished = distributed.from_main(
        lambda: writer.is_finished(path, config.to_dict(), data.clean.fingerprint)
    )
    if config.run.overwrite:
        return is_finished and distributed.from_main(lambda: _is_completed(path))
    if is_finished:
        distributed.from_main(lambda: _complete_and_tell(path))
    return is_finished


def _is_completed(path: Path) -> bool:
    """Whether a finished run lacked something and now has it; one that is damaged is not completed, which is said."""
    try:
        return bool(complete(path))
    except RunError as error:
        print(f"{error} It is trained anew, since run.overwrite is true.", flush=True)
        return False


def _complete_and_tell(path: Path) -> None:
    """Make what a finished run lacks, and say what it lacks still, or that there is nothing to do."""
    written = complete(path)
    left = lacking(FinishedRun.read(path))
    remedy = "Set run.overwrite: true to train anew, or another run.name."
    if left:
        print(
            f"{path}: holds the finished run of this config and data, but lacks {listing(left)}. {remedy}"
        )
    elif not written:
        print(f"{path}: holds the finished run of this config and data: nothing to do. {remedy}")


def complete(path: Path) -> list[str]:
    """Make what a finished run lacks of pictures, card and page, and say what it was; nothing is trained.

    A file that cannot be written is a warning.

    Raises:
        RunError: its model is gone, or a file of it is damaged.
    """
    from trainer.delivery import completion
    from trainer.delivery.report import report_page

    refuse_lost_model(FinishedRun.read(path))
    written: list[str] = []
    with completion.warning_of(f"{path}, pictures and card", completion.command_of(path)):
        written = completion.complete(path)
    if not is_whole(path / report_page.PAGE_NAME) and report_page.write_or_warn(path):
        written.append(report_page.PAGE_NAME)
    if written:
        print(
            f"{path}: holds the finished run of this config and data. Nothing is trained; it lacked, and now has: {listing(written)}.",
            flush=True,
        )
    return written


def start(config: Config) -> Config:
    """Join the processes, refuse what cannot be written, launched or pushed; the config with what the hardware decides, the same on all."""
    writer.check_writable(config.run_path)
    finished_comparison.read_if_set(config.report.comparison)
    if config.model.mode == "head":
        distributed.refuse_several_processes("model.mode head")
    distributed.start_processes(
        config.run.num_processes,
        config.run.num_threads,
        timeout_minutes=config.run.timeout_minutes,
        use_cpu=config.uses_cpu,
    )
    given = config.training_values
    config = with_hardware_defaults(config)
    told = follow_config(config.training_values) + apple_limits(given, use_cpu=config.uses_cpu)
    if distributed.is_main():
        print("".join(f"{sentence}\n" for sentence in told), end="")
    distributed.refuse_differences(
        lambda: distributed.code_version() | config_differences.flat(config.to_dict())
    )
    distributed.from_main(lambda: hub.check_login(config.hub))
    return config


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Loads libraries faster, once in a process: the 800,000 objects that they make stay, so the garbage collector never looks through them.

    Otherwise it does so again and again while they load, and now and then in training: 1 s of the 6 s before a first step.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def member_of(config: Config, number: int) -> Config:
    """The config of one member of an ensemble, counted from 1."""
    values = config.to_dict()
    return Config.model_validate(values | {"ensemble": values["ensemble"] | {"member": number}})


def with_hardware_defaults(config: Config) -> Config:
    """The config with `training.bf16` set where it was left out, so that config.yaml trains again to the same numbers.

    On an Apple GPU half precision is switched off, see `apple_limits`.
    """
    training, device = config.training_values, distributed.device_type(use_cpu=config.uses_cpu)
    if device == "mps":
        return config.with_training(
            **{name: False for name in ("bf16", "fp16") if name == "bf16" or training.get(name)}
        )
    if "bf16" in training or training.get("fp16"):
        return config
    return config.with_training(bf16=distributed.gains_from_bf16(device))


def apple_limits(training: dict[str, Any], *, use_cpu: bool) -> list[str]:
    """Return what an Apple GPU cannot do of what was asked for, a sentence each.

    Args:
        training: values of the section, as given.
    """
    import torch

    if not torch.backends.mps.is_available():
        return []
    device = distributed.device_type(use_cpu=use_cpu)
    asked = [name for name in ("bf16", "fp16") if training.get(name)]
    told = (
        [f"Apple GPUs train in float32 here: training.{asked[0]} is ignored."]
        if device == "mps" and asked
        else []
    )
    if device == "cpu" and not use_cpu and distributed.world_size() > 1:
        told.append("Several processes cannot share an Apple GPU: they train on the CPU.")
    return told


def read_and_split(config: Config) -> tuple[CleanRows, Splits]:
    """The first stages alone: rows read, cleaned and split, as every run of this config finds them."""
    ensemble = config.ensemble
    fold = (
        Fold(ensemble.member - 1, ensemble.size)
        if ensemble.kind == "folds" and ensemble.member
        else None
    )
    return read_splits(
        config.data,
        config.split,
        config.balance,
        seed=config.run.seed,
        cache_dir=cache_dir(),
        fold=fold,
    )


def prepare(config: Config) -> PreparedData:
    """The data wing: rows read, cleaned, split, augmented, balanced, weighed; once per machine, then from its cache.

    Synthetic rows are written by the main process and sent to all, since machines that each asked a model would get different rows.
    """
    seed = config.run.seed
    clean, splits = distributed.main_first(lambda: read_and_split(config))
    config.check_problem_type(multi_label=clean.label_matrix_NC is not None)
    synthetic = None
    if config.augment.generator != "none":
        synthetic = distributed.from_main(
            lambda: write_rows(clean, splits, config.augment, seed=seed, cache_dir=cache_dir())
        )
    data = balance_splits(
        clean, splits, config.balance, config.loss, seed=config.member_seed, synthetic=synthetic
    )
    if config.balance.method in SYNTHESIS_METHODS:
        refuse_few_rows(
            config.balance.method, data.plan.counts_C, data.labels, config.balance.neighbours
        )
    distributed.refuse_differences(lambda: data.fingerprints)
    return data


def tokenise_splits(
    data: PreparedData, tokenizer: Any, max_length: int
) -> dict[str, TokenisedRows]:
    """Token ids of each split; of train only the rows that will be seen."""
    rows = data.splits.named | {"train": data.splits.train[data.plan.seen]}
    return distributed.main_first(
        lambda: {
            name: tokenise(
                data.clean.rows.table,
                ids,
                data.clean.targets[ids],
                tokenizer,
                max_length=max_length,
                fingerprint=data.clean.text_fingerprint,
                cache_dir=cache_dir(),
                release=data.clean.rows.release,
            )
            for name, ids in rows.items()
        }
    )


def run_trainer(
    build: Callable[[], Any],
    folder: writer.RunFolder,
    checkpoint: str | None,
    begin: Callable[[Any], None] | None = None,
) -> tuple[Any, dict[str, float]]:
    """Build a trainer and train; return the trainer that finished, and what its training took.

    When a device runs out of memory, the trainer is dropped, a new one is built, and training resumes from the last checkpoint.
    No caller may hold a trainer meanwhile: two models would need memory at once.

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


def _open_run(
    folder: writer.RunFolder,
    config: Config,
    data: PreparedData,
    trainer: Any,
    checkpoint: str | None,
    commits: Commits,
) -> None:
    """The run folder as training finds it: of the run that is resumed, or new; and what will be trained, in words."""
    from trainer.runs.results import write_audit

    print(
        f"model.mode {config.model.mode}: {trainer.num_trained:,} of {trainer.num_parameters:,} parameters are trained."
    )
    if getattr(trainer, "equal_lengths", False):
        print("Batches hold rows of equal length, since padding changes the answers of this model.")
    elif getattr(trainer, "padded_because", None):
        print(f"Batches are padded, since {trainer.padded_because}.")
    if getattr(trainer, "plain_because", None):
        print(f"The faster layers for CPUs are not used: {trainer.plain_because}.")
    if checkpoint:
        print(f"Resuming from {checkpoint}")
    else:
        writer.start_run(folder.path, config.to_dict())
    write_audit(folder, data, commits)


def _settle(
    folder: writer.RunFolder, config: Config, data: PreparedData, trainer: Any, commits: Commits
) -> PreparedData:
    """What a mode leaves behind: shards and adapters become an ordinary model; synthetic embeddings counted, in the run folder too."""
    if config.model.mode != "head":
        trainer.gather_shards()
    if config.model.mode == "lora":
        trainer.merge_adapter(folder.path / "adapter.partial")
    if config.balance.method in SYNTHESIS_METHODS:
        from trainer.runs.results import write_audit

        data = data.with_synthetic(trainer.counts_C, trainer.class_weights_C)
        write_audit(folder, data, commits)
    return data
