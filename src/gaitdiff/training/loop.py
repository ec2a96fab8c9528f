"""One plain training loop for both stages, around Hugging Face accelerate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from gaitdiff.config.schema import RunConfig
from gaitdiff.data.batches import Prefetcher
from gaitdiff.errors import NotFiniteError, UserError
from gaitdiff.evaluation.about import Origin
from gaitdiff.training.best import Best
from gaitdiff.training.checkpoint import load_optimizer, optimizer_tensors
from gaitdiff.training.checkpoint_files import (
    CheckpointContents,
    latest_checkpoint,
    list_checkpoints,
    mark_saved,
    read_state,
    read_tensors,
    refuse_lost,
    save_checkpoint,
)
from gaitdiff.training.environment import Start
from gaitdiff.training.failure import FAILED, failure_folder, keep_failure
from gaitdiff.training.graph import Inputs, inputs_ahead
from gaitdiff.training.run_folder import DATA, RunFolder, read_config, read_metrics
from gaitdiff.training.step import Step, Trained
from gaitdiff.training.together import CONTINUES, agreed_on, stops_together
from gaitdiff.training.told import in_words, tell_scores
from gaitdiff.utils.devices import memory_told
from gaitdiff.utils.progress import ProgressHandle, progress_bar, say
from gaitdiff.utils.shares import alone
from gaitdiff.utils.signals import follow

Batch = TypeVar("Batch")

_MORE = "a larger --optim.iterations makes it longer"


class Stage(Trained, Protocol, Generic[Batch]):
    """What the loop trains: stage 1 and stage 2 each are one of these.

    Attributes:
        iterations: see the optimiser's configuration.
        device: where it computes.
        rows: numbers of the sequences that it learns from.
        validates: whether scores are of people to choose a checkpoint by.
        unscored: why there are no scores, or "".
        measures: whether ``measure`` has something to tell.
        caution: a sentence on what its settings come to, or "".
        start: what the run's weights are from, None where it begins with fresh ones or goes on.
        ema: the average's decay, 0 where there is none.
        size: settings that its memory goes by, as a command line has them.
    """

    iterations: int
    rows: np.ndarray
    validates: bool
    unscored: str
    measures: bool
    caution: str
    start: Start | None
    size: str
    ema: float
    device: torch.device

    def make_batch(self, step: int, rank: int) -> Batch:
        """The batch of a step, in host memory; called from another thread."""

    def inputs(self, batch: Batch, step: int, rank: int) -> Inputs:
        """What the module's forward takes of a batch, on the device; may be called from another thread."""

    def lr_factors(self, step: int) -> Sequence[float]:
        """What the base learning rates are multiplied with at ``step``, one of each group."""

    def diagnostics(self, batch: Batch, inputs: Inputs) -> dict[str, float]:
        """What is worth watching of a batch and its inputs, at the steps that are logged."""

    def pictures(self, batch: Batch) -> dict[str, np.ndarray]:
        """What a batch looks like, pictures (H, W), uint8, by name; it must not change what is trained."""

    def measure(self) -> dict[str, Any]:
        """What is measured as often as scores are, without test people; asked of the first process alone."""

    def evaluate(self) -> dict[str, float]:
        """Scores on the test split; all processes call it and share the work, the first gets the scores."""

    def about(self, origin: Origin) -> dict[str, Any]:
        """What the scores are scores of; asked only where there are some."""

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Weights for a checkpoint, by file."""

    def load(self, checkpoint: Path) -> None:
        """Inverse of ``tensors``."""

    def model_document(self) -> Mapping[str, Any]:
        """What ``load_checkpoint`` needs to build the model again."""


def train(stage: Stage[Batch], folder: RunFolder, run: RunConfig, accelerator: Accelerator) -> None:
    """Train to the end, from the newest checkpoint if there is one.

    Batches, noise and augmentations are functions of (seed, step), so a run that was killed and started again
    goes through the same numbers as one that was not, and so does one of another number of processes.

    Raises:
        UserError: loss or gradient is not finite (the batch is kept), or a file cannot be read or written.
    """
    rank, main = accelerator.process_index, accelerator.is_main_process
    first, pending = _resume(stage, folder, main)
    _, due, _ = _due(run, first, first == stage.iterations)
    scored = not due or (main and _is_scored(folder.path, first))
    scored = agreed_on(folder.path, first, scored, accelerator.num_processes)
    if _is_complete(stage, folder, first, scored):
        _tell_complete(folder, first, run.track, main)
        return
    base = [group["lr"] for group in stage.optimizer.param_groups]
    if main:
        _begin(stage, folder, run, base, first)
    take_step = Step(stage, accelerator)
    best = Best(folder.path, run, stage.validates, main)
    if not scored:  # it was stopped before
        _score(stage, folder, first, pending, best, main)
    accelerator.wait_for_everyone()  # which has time, unlike a new group of processes; the first may have measured
    make = inputs_ahead(
        lambda step: stage.make_batch(step, rank), lambda batch, step: stage.inputs(batch, step, rank), stage.device
    )
    batches: Prefetcher[tuple[Batch, Callable[[], Inputs]]] = Prefetcher(make, first, stage.iterations)
    started, begun, saved, looked = time.perf_counter(), first, first, first
    with (
        progress_bar(folder.path.name, stage.iterations, first) as bar,
        stops_together(accelerator.num_processes) as stop,
        memory_told(f"a step with {stage.size}", "lower them"),
    ):
        over = stop.told(best.over)
        for step, (batch, take) in batches if not over else ():
            done, last = step + 1, step + 1 == stage.iterations
            stop.at(step, saved)
            _set_rates(stage.optimizer, base, stage.lr_factors(step))
            inputs = take()
            take_step(inputs)
            stopping = stop.agreed()
            logs, scores, saves = _due(run, done, last, bool(stopping))
            if take_step.eager or logs or scores or saves:
                pending += _look(take_step, stage, folder, looked, pending, accelerator)
                looked = done
            if logs:
                record: dict[str, Any] = {
                    "step": done,
                    "loss": math.fsum(pending) / len(pending),
                    **stage.diagnostics(batch, inputs),
                    "lr": [group["lr"] for group in stage.optimizer.param_groups],
                    "seconds_per_step": round((time.perf_counter() - started) / (done - begun), 5),
                }
                pending = []
                _log(folder, record, bar, main)
            del inputs
            if saves:  # before it is scored, which may take longer than a launcher waits for one that it stops
                folder.picture(done, partial(stage.pictures, batch))
                _save(stage, folder, done, pending, run.keep, main)
                saved = done
                accelerator.wait_for_everyone()
                stop.at(done, saved)
            if stopping and not last:
                follow(stopping, f"after step {done} of {stage.iterations}, which is saved; {CONTINUES}")
            if scores:
                _score(stage, folder, done, pending, best, main)
                over = stop.told(best.over)
            bar.advance()
            if over:
                _save(stage, folder, done, pending, run.keep, main and not saves)
                accelerator.wait_for_everyone()
                break
    best.tell(stage.iterations)
    tell_scores(folder.path, wanted=main)
    stop.end()


def _is_scored(run: Path, step: int) -> bool:
    """Whether an evaluation after this step is among the metrics."""
    return any(record["step"] == step and not {"loss", "changed"} & record.keys() for record in read_metrics(run))


def _due(run: RunConfig, done: int, last: bool, stopping: bool = False) -> tuple[bool, bool, bool]:
    """Whether a line of metrics, scores and a checkpoint are due after a step."""
    every = (run.log_every, run.evaluate_every, run.save_every)
    logs, scores, saves = (bool(often) and (done % often == 0 or last) for often in every)
    return logs, scores, saves or stopping


def _look(
    take_step: Step, stage: Stage[Batch], folder: RunFolder, step: int, pending: list[float], accelerator: Accelerator
) -> list[float]:
    """Losses of the steps since the last look, which was after ``step``.

    Raises:
        UserError: one of them is not finite, or its gradient; its batch is kept, and the run as it stood before.
    """
    losses, failed = take_step.look()
    if failed is None:
        return losses
    well, rank = step + len(losses), accelerator.process_index
    before = partial(_contents, stage, folder, well, [*pending, *losses])
    keep_failure(folder.path, stage.make_batch(well, rank), before, well, rank, accelerator.is_main_process)
    raise UserError(_not_finite(folder, well + 1, *failed, accelerator.mixed_precision))


def _log(folder: RunFolder, record: dict[str, Any], bar: ProgressHandle, main: bool) -> None:
    if main:
        folder.append(record)
        bar.tell(f"loss {record['loss']:.4f}", record["step"])


def _begin(stage: Stage[Batch], folder: RunFolder, run: RunConfig, base: Sequence[float], step: int) -> None:
    """Keep the settings with which a run goes on after a step, and say what becomes of it."""
    folder.go_on(step, stage.start)
    folder.track(run.track, step)
    _tell_rates(folder, base, stage.lr_factors(step), step)
    if run.evaluate_every and stage.unscored:
        say(f"this run is not scored: {stage.unscored}")
    if stage.caution:
        say(stage.caution)


def _is_complete(stage: Stage[Batch], folder: RunFolder, step: int, scored: bool) -> bool:
    """Whether nothing is left to do: all steps are taken, and measured.

    Raises:
        UserError: all steps are taken, and settings were to change, which a run does only as it goes on.
    """
    if step < stage.iterations:
        return False
    if folder.changes:
        names = ", ".join("other data" if name == DATA else name for name, _, _ in folder.changes)
        raise UserError(f"{folder.path} has taken {step} steps already, so that {names} changes nothing: {_MORE}")
    return scored or (bool(stage.unscored) and not stage.measures)


def _tell_complete(folder: RunFolder, step: int, track: str, main: bool) -> None:
    """Say that nothing is left to do; a tracker that is new to the run gets what was measured."""
    if main:
        folder.track(track, step)
        say(f"{folder.path} is complete after {step} iterations: {_MORE}")


def _set_rates(optimizer: torch.optim.Optimizer, base: Sequence[float], factors: Sequence[float]) -> None:
    for group, lr, factor in zip(optimizer.param_groups, base, factors, strict=True):
        group["lr"] = lr * factor


def _tell_rates(folder: RunFolder, base: Sequence[float], factors: Sequence[float], step: int) -> None:
    """Say what a change of settings makes of the learning rate, which may rise again."""
    if folder.changes and step:
        before = [record["lr"][0] for record in read_metrics(folder.path) if "lr" in record][-1:]
        was = f", {before[0]:.3g} before" if before else ""
        say(f"{folder.path.name}: from step {step + 1} on the learning rate is {base[0] * factors[0]:.3g}{was}")


def _resume(stage: Stage[Batch], folder: RunFolder, main: bool) -> tuple[int, list[float]]:
    """Load the newest checkpoint; the step to go on from and the losses not logged yet."""
    if not list_checkpoints(folder.path):
        if main:
            refuse_lost(folder.path)
            folder.rewind(-1)
        return 0, []
    checkpoint = latest_checkpoint(folder.path)
    state = read_state(checkpoint)
    stage.load(checkpoint)
    load_optimizer(stage.optimizer, read_tensors(checkpoint, "optimizer"))
    if main:
        mark_saved(folder.path)
        if state.step < stage.iterations:
            say(f"{folder.path.name} goes on after step {state.step}")
        kept = folder.rewind(state.step)
        if kept < state.lines:
            say(f"{folder.metrics_file} lacks {state.lines - kept} of the {state.lines} lines up to step {state.step}")
    return state.step, list(state.pending)


def _contents(
    stage: Stage[Batch], folder: RunFolder, step: int, pending: list[float], lines: int = 0
) -> CheckpointContents:
    """What a checkpoint after a step holds.

    Args:
        pending: losses of steps that no line of metrics tells of yet.
        lines: how many lines of metrics there are.
    """
    tensors = {**stage.tensors(), "optimizer": optimizer_tensors(stage.optimizer)}
    state = {"run": folder.identity, "step": step, "iterations": stage.iterations, "pending": pending, "lines": lines}
    return tensors, {"state": state, "model": stage.model_document()}


def _save(stage: Stage[Batch], folder: RunFolder, step: int, pending: list[float], keep: int, wanted: bool) -> None:
    if not wanted:
        return
    with memory_told("saving a checkpoint", "end other programs"):
        tensors, documents = _contents(stage, folder, step, pending, folder.settle())
        save_checkpoint(folder.path, step, tensors, documents, keep)


def _score(stage: Stage[Batch], folder: RunFolder, step: int, pending: list[float], best: Best, main: bool) -> None:
    """Evaluate, and keep the checkpoint where it is the best so far."""
    record = _evaluate(stage, folder, step, main)
    if step == 0:
        best.check(record)
    else:
        best.look(record, partial(_contents, stage, folder, step, pending))


def _evaluate(stage: Stage[Batch], folder: RunFolder, step: int, main: bool) -> dict[str, Any]:
    """Score and measure; what a line of metrics then tells."""
    try:
        with memory_told("scoring", "leave it out (--run.evaluate_every 0), and evaluate elsewhere"):
            scores = stage.evaluate()
    except UserError as error:
        remedy = "; lower the learning rate, in a new --out" if step and isinstance(error, NotFiniteError) else ""
        raise UserError(f"the evaluation after step {step} of {folder.path}: {error}{remedy}") from error
    record: dict[str, Any] = {"step": step}
    if main and scores:
        whose = ", validation people" if stage.validates else ""
        say(f"{folder.path.name}: step {step}{whose}: {in_words(scores)}")
        origin = Origin(str(folder.path), step, stage.iterations, stage.ema)
        record |= {"evaluation": scores, "about": stage.about(origin)}
    if main:
        with alone(), memory_told("measuring", "leave it out (--run.evaluate_every 0)"):
            record |= stage.measure()
    if len(record) > 1:
        folder.append(record)
    return record


def _not_finite(folder: RunFolder, step: int, loss: float, norm: float, precision: str) -> str:
    what = f"the loss of step {step} is {loss} and its gradient's norm {norm}, no weight was changed by it"
    if folder.path.name.startswith(FAILED):  # this is the step repeated
        return f"{what}, as before"
    kept, verb = failure_folder(folder.path, step - 1), read_config(folder.path)["stage"]
    again = f"`gaitdiff {verb} --recipe {kept / 'config.yaml'} --out {kept}` repeats the step"
    other = " or use --machine.precision float32" if precision != "no" else ""
    return f"{what}: batch and state are kept in {kept}, {again}; lower the learning rate{other}, in a new --out"
