"""Every private name of a library that the package overrides, calls, reads or sets, and why.

tests/test_private_names.py checks that the installed libraries have them, with these parameters,
and that the package uses no other. The public names of transformers would do for none of these.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateName:
    """One private name of a library.

    Args:
        owner: where it lives: "module:Class" or "module"; an instance attribute has its class.
        name: without the owner.
        why: what the package needs it for.
        parameters: of a function, so that an override or a call still fits.
    """

    owner: str
    name: str
    why: str
    parameters: tuple[str, ...] | None = None


TRAINER = "transformers:Trainer"
TOKENIZER = "transformers:PreTrainedTokenizerFast"
TO_FOLDER = ("self", "output_dir")

OVERRIDDEN = (
    PrivateName(
        TRAINER,
        "_get_train_sampler",
        "sampler='class_balanced': there is no argument for a sampler",
        ("self", "train_dataset"),
    ),
    PrivateName(
        TRAINER,
        "_prepare_input",
        "copies a batch to the device without letting the CPU wait",
        ("self", "data"),
    ),
    PrivateName(
        TRAINER,
        "_get_num_items_in_batch",
        "counts the rows of a step on the CPU, where no copy has to be waited for",
        ("self", "batch_samples", "device"),
    ),
    PrivateName(
        TRAINER,
        "_clip_grad_norm",
        "on a CPU, the fused optimizer clips in its own pass over memory",
        ("self", "model"),
    ),
    PrivateName(
        TRAINER, "_save_rng_state", "adds the random state of an Apple GPU and the like", TO_FOLDER
    ),
    PrivateName(
        TRAINER,
        "_load_rng_state",
        "reads that state; also restores it before an evaluation that was due",
        ("self", "checkpoint"),
    ),
    PrivateName(
        TRAINER,
        "_init_training_state",
        "the best checkpoint may lie in another folder than when it was saved",
        (
            "self",
            "max_steps",
            "num_update_steps_per_epoch",
            "num_train_epochs",
            "resume_from_checkpoint",
            "trial",
        ),
    ),
    PrivateName(
        TRAINER,
        "_run_epoch",
        "a resumed run that was over trains no further epoch",
        (
            "self",
            "model",
            "epoch",
            "train_dataloader",
            "steps_in_epoch",
            "num_update_steps_per_epoch",
            "trial",
            "ignore_keys_for_eval",
            "start_time",
            "resume_from_checkpoint",
            "epochs_trained",
            "steps_trained_in_current_epoch",
        ),
    ),
    PrivateName(
        TRAINER,
        "_maybe_log_save_evaluate",
        "evaluates before it saves at an epoch's end, stops on a signal, refuses a NaN loss",
        (
            "self",
            "tr_loss",
            "grad_norm",
            "model",
            "trial",
            "epoch",
            "ignore_keys_for_eval",
            "start_time",
            "learning_rate",
        ),
    ),
    PrivateName(
        TRAINER,
        "_determine_best_metric",
        "saves a better step at once, whatever the save interval",
        ("self", "metrics", "trial"),
    ),
    PrivateName(
        TRAINER,
        "_save_checkpoint",
        "writes a checkpoint under another name first, so that none is ever incomplete",
        ("self", "model", "trial"),
    ),
)
"""Methods of transformers.Trainer that a subclass replaces."""

USED = (
    PrivateName(
        "tqdm:tqdm",
        "_instances",
        "finds the open bars, which a message must clear and an interruption close",
    ),
    PrivateName(TRAINER, "_save_optimizer_and_scheduler", "part of a checkpoint", TO_FOLDER),
    PrivateName(TRAINER, "_save_scaler", "part of a checkpoint", TO_FOLDER),
    PrivateName(TRAINER, "_prepare_inputs", "evaluates in passes of tokens", ("self", "inputs")),
    PrivateName(TRAINER, "_tr_loss", "running loss, which a checkpoint of transformers lacks"),
    PrivateName(TRAINER, "_total_loss_scalar", "sum of the logged losses, likewise"),
    PrivateName(TRAINER, "_globalstep_last_logged", "step of the last log, likewise"),
    PrivateName(
        "transformers:TrainingArguments",
        "_n_gpu",
        "without DataParallel, which would scale the loss by the GPUs; n_gpu cannot be set",
    ),
    PrivateName(
        "transformers:PreTrainedModel",
        "_can_set_attn_implementation",
        "whether attention can be replaced, asked before it is tried",
        (),
    ),
    PrivateName(
        "transformers:PreTrainedConfig",
        "_attn_implementation",
        "which attention a model has: to put it back, for digests, and eager attention for ONNX",
    ),
    PrivateName(
        "transformers:PreTrainedModel",
        "_no_split_modules",
        "accelerate shards the input embedding itself and fails if its holder is listed",
    ),
    PrivateName(
        "transformers:PreTrainedModel",
        "_init_weights",
        "gives the top layers new weights as the model does (model.reinitialise_layers)",
        ("self", "module"),
    ),
    PrivateName(
        "transformers:PreTrainedModel",
        "_is_hf_initialized",
        "a flag of loaded weights, which _init_weights would leave as they are",
    ),
    PrivateName(TOKENIZER, "_tokenizer", "a backend without tokens that the model does not have"),
    PrivateName(TOKENIZER, "_extra_special_tokens", "likewise; the public list forgets the flags"),
    PrivateName(
        "torch.utils._python_dispatch",
        "_python_dispatch",
        "TorchDispatchMode, which torch documents here: finds the longest position of a model",
    ),
    PrivateName(
        "torch:ops.aten",
        "_flash_attention_forward",
        "flash attention within packed rows with dropout, which torch.nn.attention.varlen lacks",
    ),
    PrivateName(
        "torch.distributed.distributed_c10d",
        "_set_pg_timeout",
        "replaces torch's own time limit, which names no process",
        ("timeout", "group"),
    ),
    PrivateName(
        "datasets:Dataset", "_fingerprint", "tells two states of a data set of the Hub apart"
    ),
    PrivateName("numpy:memmap", "_mmap", "gives memory pages of a large array back"),
)
"""Names that the package calls, reads or sets on objects of other libraries."""

PRIVATE_NAMES = OVERRIDDEN + USED
