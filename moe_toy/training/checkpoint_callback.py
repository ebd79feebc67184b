"""When a run is saved, and that it stops only once it is."""

import logging
import signal
from difflib import get_close_matches
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import Strategy
from pydantic import PositiveInt, validate_call

from moe_toy.runs.metrics_file import MetricsFile
from moe_toy.runs.run_directory import BEST, LAST, RunDirectory, add_alias
from moe_toy.runs.sharded_checkpoint import seal
from moe_toy.training.background_writer import BackgroundWriter
from moe_toy.training.checkpoint_io import AtomicCheckpointIO
from moe_toy.training.stop_signals import StopSignals

log = logging.getLogger(__name__)


class CheckpointCallback(Checkpoint):
    """Saves into `checkpoints/` of the run directory after each validation, at the end and, if given, every
    `every_n_steps`; keeps the `keep_last` newest files and `best.ckpt`, that of the lowest `monitor`. `last.ckpt`
    names the newest.

    Always between two optimiser steps, with everything of the step logged, so that continuing changes nothing: the
    trainer validates, and ends for want of time, only there. A signal to stop is obeyed there too, and during a
    validation, which is then repeated as a whole: the process ends with exit code 128 + signal.

    Where `in_background`, a step is held up only while its state is copied to memory of the host, and the file is
    written during the next steps; no name is given, and no file removed, before that is done. `auto` is on CUDA where
    the copy fits. Folders of shards are always written at once, and so is what no step follows.
    """

    @validate_call(config={"strict": True})
    def __init__(
        self,
        *,
        monitor: str,
        keep_last: PositiveInt,
        every_n_steps: PositiveInt | None,
        in_background: Literal["auto"] | bool,
    ) -> None:
        self.run = RunDirectory(Path())  # not yet known
        self.monitor, self.keep_last, self.every_n_steps = monitor, keep_last, every_n_steps
        self.in_background, self.writer = in_background, BackgroundWriter()
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.taken_step = self.saved_step = 0  # the untrained model is not worth a file
        self.validation_is_due = False
        self.continues_own = self.has_said_why_no_best = False
        self.loggers: dict[str, Any] = {}  # what it takes to go on with curves, also those that have no logger now
        self.signals = StopSignals()

    @property
    def last_path(self) -> Path | None:
        """The newest file that this run wrote to its end or started from."""
        self.writer.join()
        return self.run.step(self.saved_step) if self.saved_step else None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.run = RunDirectory(Path(trainer.default_root_dir).absolute())
        if self.in_background is True and not writes_whole_files(trainer) and trainer.is_global_zero:
            log.warning("callbacks.checkpoint.in_background: shards are written by another library, at once")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.signals.listen()
        path = self.run.step(self.saved_step)
        if trainer.is_global_zero and path.exists():  # it may have been stopped before it gave these names
            add_alias(path, LAST)
            if self.best_step == self.saved_step:
                add_alias(path, BEST)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx % trainer.accumulate_grad_batches or trainer.global_step == 0:
            return
        self.writer.check()
        # What loggers count by; resumed at the start of an epoch, Lightning would be one ahead.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        every = self.every_n_steps
        stop = self._must_stop(trainer)
        if stop or (every and trainer.global_step % every == 0):
            self._save(trainer, at_once=stop)
        if stop:
            self._stop(trainer)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            trainer.should_stop = False  # Lightning's timer asks again after the next batch

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.signals.listen()

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if self._must_stop(trainer):
            if trainer.state.fn == "fit":
                self.validation_is_due = True
                self._save(trainer, at_once=True)
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.global_step:
            return
        self.validation_is_due = False
        score = trainer.callback_metrics.get(self.monitor)
        if score is None and not self.has_said_why_no_best and trainer.is_global_zero:
            self.has_said_why_no_best = True
            nearest = get_close_matches(self.monitor, trainer.callback_metrics, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            log.warning("callbacks.checkpoint.monitor=%s is not logged, so there is no best.ckpt%s", self.monitor, hint)
        is_best = score is not None and isfinite(score) and (self.best_score is None or score < self.best_score)
        if is_best:
            self.best_score, self.best_step = float(score), trainer.global_step
        self._save(trainer, again=True, is_best=bool(is_best), at_once=trainer.global_step == trainer.max_steps)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        # Within a validation off the beat of an epoch that ends, Lightning does not know yet that it is over.
        ends_epoch = trainer.is_last_batch and trainer.global_step != trainer.max_steps
        self._save(trainer, again=ends_epoch, is_best=self.best_step == trainer.global_step, at_once=True)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self.writer.wait()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):  # the second Ctrl-C
            self.writer.cancel()
        try:
            self.writer.wait()
        except Exception as error:
            log.warning("the checkpoint of step %d could not be written: %s", self.taken_step, error)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        set_between_steps(checkpoint["loops"]["fit_loop"], validation_is_due=self.validation_is_due)
        checkpoint["loggers"] = self.loggers | logger_state(trainer) if trainer.is_global_zero else {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": (self.best_score, self.best_step), "due": self.validation_is_due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.validation_is_due = state["due"]
        if self.continues_own:
            self.best_score, self.best_step = state["best"]

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.taken_step = self.saved_step = checkpoint["global_step"]
        self.continues_own = self.run.owns(Path(trainer.ckpt_path))
        if self.continues_own:
            self.loggers = checkpoint.get("loggers", {})

    def exit_on_pending_signal(self, trainer: Trainer) -> None:
        """What came when no step was left to stop after still ends the process, which may have other runs to come."""
        if self.signals.received is not None:
            raise SystemExit(128 + self.signals.received if trainer.is_global_zero else 0)

    def _save(self, trainer: Trainer, *, again: bool = False, is_best: bool = False, at_once: bool = False) -> None:
        if trainer.fast_dev_run or (self.taken_step == trainer.global_step and not again):
            return
        self.writer.wait()
        previous, step = self.taken_step, trainer.global_step
        finish = partial(self._finish, trainer.is_global_zero, step, is_best)
        wanted = trainer.strategy.root_device.type == "cuda" if self.in_background == "auto" else self.in_background
        is_background = wanted and not at_once and writes_whole_files(trainer)
        write = partial(self.writer.write, then=finish, only_if_it_fits=self.in_background == "auto")
        trainer.save_checkpoint(
            self.run.step(step),
            weights_only=False,  # that is, all of it
            storage_options=write if is_background else None,
        )
        self.taken_step = step
        if not is_background:
            finish()
        elif not trainer.is_global_zero:
            self.saved_step = previous  # rank 0, which alone writes, had waited for it

    def _finish(self, is_global_zero: bool, step: int, is_best: bool) -> None:
        """What follows once the file is whole."""
        path = self.run.step(step)
        self.saved_step = step
        if not is_global_zero:
            return
        if path.is_dir():
            seal(path)
        add_alias(path, LAST)
        if is_best:
            add_alias(path, BEST)
        self.run.keep_newest(self.keep_last, up_to=step)

    def _must_stop(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self.signals.received is not None, all=False)

    def _stop(self, trainer: Trainer) -> None:
        self.writer.wait()
        log.warning("stopped at step %d; ckpt_path=auto continues in this run directory", trainer.global_step)
        signal_number = self.signals.received or signal.SIGTERM  # which another rank received
        # Lightning kills rank 0 when a rank that it started ends with an error.
        raise SystemExit(128 + signal_number if trainer.is_global_zero else 0)


def writes_whole_files(trainer: Trainer) -> bool:
    """Whether checkpoints are files that we write, and no folders of shards."""
    is_ours = isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    return is_ours and type(trainer.strategy).save_checkpoint is Strategy.save_checkpoint


def logger_state(trainer: Trainer) -> dict[str, Any]:
    """What it takes to go on with the same curves."""
    state: dict[str, Any] = {}
    for logger in trainer.loggers:
        if isinstance(logger, MetricsFile):
            state["csv_rows"] = logger.num_rows
        elif isinstance(logger, WandbLogger):
            state["wandb_id"] = logger.version
    return state


NO_BATCH = {"ready": 0, "completed": 0, "started": 0, "processed": 0}
ONE_BEGUN = {"ready": 1, "completed": 0, "started": 1, "processed": 0}


def set_between_steps(fit_loop: dict[str, Any], *, validation_is_due: bool) -> None:
    """Make the state of the loops, in place, that of a run at rest after a whole number of optimiser steps.

    Lightning continues from how far it was within the hook that saved: before a batch that had been fetched it would
    count a logged step twice; within a validation it would go on with the rest of it. At rest it goes on with the
    next batch, unless `validation_is_due`: then with the validation, from its first batch on.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for span in ("total", "current"):
        batches[span] = dict.fromkeys(batches[span], batches[span]["completed"])
    if validation_is_due:
        # A validation that has begun is what Lightning repeats; zero of its batches count.
        validation = fit_loop["epoch_loop.val_loop.batch_progress"]
        validation |= {"total": dict(ONE_BEGUN), "current": dict(NO_BATCH)}
