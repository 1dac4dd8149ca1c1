"""Where trackers write, and what transformers' callbacks do not log: the config and the pictures.

Trackers that are not listed in DESTINATIONS are left to their callback alone.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from trainer.training.trackers.tracked_run import TrackedRun


class Destination:
    """A tracker that only the callback of transformers serves.

    Attributes:
        unsuited: pattern of characters that the names of classes may not have.
        callback: the callback, once the tracker has started.
    """

    unsuited = r"[^\w.-]"

    def __init__(self, name: str, run: TrackedRun) -> None:
        self.name, self.run = name, run
        self.callback: Any = None

    def start(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the run of the tracker, let the callback begin, and log the config."""
        self.callback = INTEGRATION_TO_CALLBACK[self.name]()
        self.open(args, state.global_step)
        self.callback.on_train_begin(args, state, control, **kwargs)
        if not state.global_step:
            self.log_config()

    def open(self, args: Any, step: int) -> None:
        """Start a run of the tracker, or continue its run if training resumes after a step."""

    def log_config(self) -> None:
        """Log the config of the run as parameters."""

    def log_pictures(self, paths: list[Path], state: Any) -> None:
        """Log pictures of the run folder."""

    def end(self, *, is_failed: bool) -> None:
        """End what `open` started."""

    def name_after(self, step: int) -> str:
        """Return the name of a new run, which says if it continues an earlier one."""
        return f"{self.run.name} resumed at step {step}" if step else self.run.name


class TensorBoard(Destination):
    """Event files in `logs/tensorboard`, or in a folder of `TENSORBOARD_LOGGING_DIR`."""

    def open(self, args: Any, step: int) -> None:
        """Open the event files; events after the step of a resumed training are purged."""
        from torch.utils.tensorboard import SummaryWriter

        given, run = os.environ.get("TENSORBOARD_LOGGING_DIR"), self.run
        own = run.logs / "tensorboard" / run.key
        folder = Path(given).expanduser() / run.name if given else own
        if not step and not given:
            shutil.rmtree(folder, ignore_errors=True)
        self.callback.tb_writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def log_config(self) -> None:
        """Log the config for the tabs TEXT and HPARAMS."""
        writer, parameters = self.callback.tb_writer, self.run.parameters
        lines = [f"    {key}: {value}" for key, value in parameters.items()]
        writer.add_text("config", "\n".join(lines))
        writer.add_hparams(parameters, {}, run_name=".")

    def log_pictures(self, paths: list[Path], state: Any) -> None:
        """Log pictures for the tab IMAGES."""
        import numpy as np
        from PIL import Image

        for path in paths:
            with Image.open(path) as image:
                pixels_HWC = np.asarray(image.convert("RGB"))
            self.callback.tb_writer.add_image(
                f"pictures/{path.stem}", pixels_HWC, state.global_step, dataformats="HWC"
            )

    def end(self, *, is_failed: bool) -> None:
        """Close the event files."""
        if writer := getattr(self.callback, "tb_writer", None):
            writer.close()


class MLflow(Destination):
    """The server of `MLFLOW_TRACKING_URI`, or files in `logs/mlflow`.

    A run that the caller has started is used and not ended.
    """

    unsuited = r"[^A-Za-z0-9_.-]"
    is_own = is_own_place = False

    def open(self, args: Any, step: int) -> None:
        """Start or continue a run."""
        import mlflow

        if mlflow.active_run() is not None:
            return
        self.is_own, self.is_own_place = True, not mlflow.is_tracking_uri_set()
        if self.is_own_place:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((self.run.logs / "mlflow").resolve().as_uri())
        if known := self.run.saved_id(self.name) if step else None:
            mlflow.start_run(run_id=known)
            return
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or args.project)
        tags = {"group": self.run.group} if self.run.group else {}
        started = mlflow.start_run(run_name=self.name_after(step), tags=tags)
        self.run.save_id(self.name, started.info.run_id)

    def log_config(self) -> None:
        """Log the config as parameters, in the portions that mlflow accepts."""
        import mlflow
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

        items = [
            (key, str(value)[:MAX_PARAM_VAL_LENGTH]) for key, value in self.run.parameters.items()
        ]
        for start in range(0, len(items), MAX_PARAMS_TAGS_PER_BATCH):
            mlflow.log_params(dict(items[start : start + MAX_PARAMS_TAGS_PER_BATCH]))

    def log_pictures(self, paths: list[Path], state: Any) -> None:
        """Log pictures as artifacts."""
        import mlflow

        for path in paths:
            mlflow.log_artifact(str(path), "pictures")

    def end(self, *, is_failed: bool) -> None:
        """End the run, and forget the place, so that a later run can have another one."""
        if not self.is_own:
            return
        import mlflow

        mlflow.flush_async_logging()
        mlflow.end_run("FAILED" if is_failed else "FINISHED")
        if self.is_own_place:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


class Wandb(Destination):
    """The server of Weights & Biases; without a login, files in `logs/wandb` for `wandb sync`.

    What the process prints and the differences of its git repository are not sent, since both may
    hold texts. A run that the caller has started is used and not ended.
    """

    is_own = False

    def open(self, args: Any, step: int) -> None:
        """Start or continue a run."""
        import wandb

        if wandb.run is not None:
            return
        self.is_own, run = True, self.run
        run.logs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_CONSOLE", "off")
        os.environ.setdefault("WANDB_DISABLE_GIT", "true")
        is_offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
        known = run.saved_id(self.name) if step else None
        started = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or args.project,
            name=run.name if known else self.name_after(step),
            group=run.group,
            dir=os.environ.get("WANDB_DIR") or str(run.logs),
            id=known,
            resume="allow",
            mode="offline" if is_offline else None,
        )
        run.save_id(self.name, started.id)

    def log_config(self) -> None:
        """Log the config beside that of transformers."""
        import wandb

        wandb.config.update(self.run.parameters, allow_val_change=True)

    def log_pictures(self, paths: list[Path], state: Any) -> None:
        """Log pictures."""
        import wandb

        wandb.log({f"pictures/{path.stem}": wandb.Image(str(path)) for path in paths})

    def end(self, *, is_failed: bool) -> None:
        """End the run."""
        if self.is_own:
            import wandb

            wandb.finish(exit_code=int(is_failed))


class Trackio(Destination):
    """A database in `logs/trackio`, or what `TRACKIO_DIR` and `training.trackio_space_id` say."""

    def open(self, args: Any, step: int) -> None:
        """Set the folder; transformers' callback continues the run of this name, if there is one.

        trackio reads TRACKIO_DIR only when it is imported.
        """
        import trackio  # noqa: F401

        if os.environ.get("TRACKIO_DIR"):
            return
        folder = (self.run.logs / "trackio").resolve()
        places = {
            "TRACKIO_DIR": folder,
            "MEDIA_DIR": folder / "media",
            "ARTIFACTS_DIR": folder / "artifacts",
        }
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "trackio":
                for constant in places.keys() & vars(module).keys():
                    setattr(module, constant, places[constant])

    def log_config(self) -> None:
        """Log the config beside that of transformers."""
        import trackio

        trackio.config.update(self.run.parameters)

    def log_pictures(self, paths: list[Path], state: Any) -> None:
        """Log pictures."""
        import trackio

        trackio.log({f"pictures/{path.stem}": trackio.Image(str(path)) for path in paths})

    def end(self, *, is_failed: bool) -> None:
        """End the run, if transformers' callback has not."""
        import trackio

        if trackio.context_vars.current_run.get() is not None:
            trackio.finish()


DESTINATIONS: dict[str, type[Destination]] = {
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
"""The trackers that are served in full."""
