"""Training batches as a pure function of seed and step: exact resume, and nothing to send between processes.

Each process of a run draws what the whole batch draws, and reads its share of the sequences.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from gaitdiff.config.schema import AugmentConfig
from gaitdiff.data.augment import AugmentPlan, draw_plan
from gaitdiff.data.clips import pad_sides, sample_clip
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.utils.frames import HEIGHTS, cut_width
from gaitdiff.utils.progress import say
from gaitdiff.utils.shares import share

T = TypeVar("T")

# Streams of random numbers that one step of a run draws from, each on its own.
_CLIPS, _AUGMENT, _PEOPLE, _ORDER, _SECOND = range(5)


@dataclass
class PretrainBatch:
    """Clips of stage 1: two or three of every sequence, drawn and augmented separately.

    Attributes:
        latent: (B, T, 64, 64) uint8, consecutive frames, for the autoencoder; none, (B, 0, 64, 64), where no objective
            wants them.
        gait: (B, T', 64, 64) uint8, drawn as the backbone wants them.
        second: the same, for contrastive learning; none, (B, 0, 64, 64), without it.
        latent_plan, gait_plan, second_plan: their augmentations.
        sequence: (B,) int64, row numbers in the store.
    """

    latent: np.ndarray
    gait: np.ndarray
    second: np.ndarray
    latent_plan: AugmentPlan
    gait_plan: AugmentPlan
    second_plan: AugmentPlan
    sequence: np.ndarray


@dataclass
class LabelledBatch:
    """Clips of stage 2: ``clips`` (B, T, 64, W) uint8 with W 64 or, cut already, 44; ``labels`` (B,) int64."""

    clips: np.ndarray
    plan: AugmentPlan
    labels: np.ndarray


class PretrainBatches:
    """Unlabelled batches: every sequence once an epoch, in an order shuffled by the epoch.

    Frames that were cut before get empty columns at their sides, for the autoencoder; the backbone does not see them.

    Calling it with a step and a rank gives that process's share of the step's batch, whatever was asked before; without
    a rank, all of it. Sequences and gait clips are the same for every objective; second clips come from random numbers
    of their own.

    Args:
        batch: sequences of a whole batch, a multiple of ``world_size``.
        objective: "diffusion" wants latent clips, "contrastive" second ones, "both" both.
    """

    def __init__(
        self,
        store: SequenceStore,
        rows: np.ndarray,
        *,
        batch: int,
        latent_frames: int,
        gait_frames: int,
        sampling: str,
        augment: AugmentConfig,
        same_clip: bool = False,
        seed: int = 0,
        world_size: int = 1,
        objective: str = "diffusion",
    ) -> None:
        check_frames(store)
        if same_clip and objective != "diffusion":
            raise UserError(
                f"data.same_clip is true, but the objective is {objective}, which compares two clips of each sequence: "
                "leave it out"
            )
        if batch < 2:
            raise UserError(f"optim.batch is {batch}, but pretraining compares at least 2 sequences in a step")
        if len(rows) < 2:
            raise UserError(
                f"{store.path} has {len(rows)} training sequence(s), but pretraining compares at least 2: add sequences"
            )
        self.store, self.rows, self.batch, self.world_size, self.seed = store, rows, batch, world_size, seed
        self.latent_frames, self.gait_frames, self.sampling = latent_frames, gait_frames, sampling
        self.augment, self.same_clip, self.objective = augment, same_clip, objective

    def __call__(self, step: int, rank: int | None = None) -> PretrainBatch:
        """The batch of ``step`` (from 0), or the share of process ``rank``."""
        rng, other = (np.random.default_rng([self.seed, step, 0, stream]) for stream in (_CLIPS, _SECOND))
        mine = share(self.batch, rank, self.world_size)
        chosen, none = self._sequences(step), np.zeros(0, np.int64)
        drawn: list[tuple[int, list[np.ndarray]]] = []
        for row in chosen:
            available = self.store.rows[row].frames
            latent = sample_clip("consecutive", available, self.latent_frames, rng)
            gait = latent if self.same_clip else sample_clip(self.sampling, available, self.gait_frames, rng)
            second = sample_clip(self.sampling, available, self.gait_frames, other)
            latent = none if self.objective == "contrastive" else latent
            drawn.append((int(row), [latent, gait, none if self.objective == "diffusion" else second]))
        read = [[self._clip(row, index) for index in indices] for row, indices in drawn[mine]]
        draw = np.random.default_rng([self.seed, step, 0, _AUGMENT])
        latent_plan = self._plan(draw)
        gait_plan = latent_plan if self.same_clip else self._plan(draw)
        second_plan = self._plan(other).of(mine)
        latent_plan, gait_plan = latent_plan.of(mine), gait_plan.of(mine)
        latents, gaits, seconds = (np.stack(clips) for clips in zip(*read, strict=True))
        return PretrainBatch(latents, gaits, seconds, latent_plan, gait_plan, second_plan, chosen[mine])

    def _clip(self, row: int, index: np.ndarray) -> np.ndarray:
        """Whole frames; where there are none, no sequence is decoded."""
        size = self.store.height
        return pad_sides(self.store.clip(row, index)) if len(index) else np.empty((0, size, size), np.uint8)

    def _plan(self, rng: np.random.Generator) -> AugmentPlan:
        size = self.store.height
        return draw_plan(self.augment, self.batch, size, size, rng)

    def _sequences(self, step: int) -> np.ndarray:
        """Row numbers of a whole batch: the positions step·B.. of the endless list of shuffled epochs."""
        positions = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, within = np.divmod(positions, len(self.rows))
        chosen = np.empty(self.batch, np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([self.seed, int(epoch), _ORDER]).permutation(len(self.rows))
            here = epochs == epoch
            chosen[here] = self.rows[order[within[here]]]
        return chosen


class IdentityBatches:
    """Labelled batches of ``people`` identities times ``sequences`` sequences each (the field's P x K).

    Calling it is as for ``PretrainBatches``; a whole batch has a multiple of ``world_size`` clips.
    """

    def __init__(
        self,
        store: SequenceStore,
        rows: np.ndarray,
        *,
        people: int,
        sequences: int,
        frames: int,
        sampling: str,
        augment: AugmentConfig,
        frames_max: int = 0,
        seed: int = 0,
        world_size: int = 1,
    ) -> None:
        check_frames(store)
        if frames_max and frames_max < frames:
            raise UserError(
                f"data.frames_max is {frames_max}, less than data.frames, {frames}: set it higher, or to 0 for a fixed "
                "number of frames"
            )
        if sequences < 2:
            raise UserError(
                f"batch.sequences is {sequences}, but the triplet loss compares at least 2 sequences of each person: "
                "set --batch.sequences 2 or more"
            )
        if people < 2:
            raise UserError(f"batch.people is {people}, but telling walkers apart takes at least 2 in a batch")
        self.store, self.people, self.sequences, self.seed = store, people, sequences, seed
        self.frames, self.frames_max, self.sampling, self.augment = frames, frames_max, sampling, augment
        self.world_size = world_size
        self.subjects = sorted({store.rows[row].subject for row in rows})
        number = {subject: i for i, subject in enumerate(self.subjects)}
        self.by_label: list[list[int]] = [[] for _ in self.subjects]
        for row in rows:
            self.by_label[number[store.rows[row].subject]].append(int(row))
        if len(self.subjects) < 2:
            raise UserError(
                f"{store.path} has {len(self.subjects)} person(s) to train on, "
                "but telling walkers apart needs at least 2"
            )
        most = max(len(of_one) for of_one in self.by_label)
        if most < 2:
            raise UserError(
                f"every training person of {store.path} has one sequence, but telling walkers apart is learned from "
                "several of each: add sequences, or use gaitdiff pretrain, which needs no labels"
            )
        if most < sequences:
            raise UserError(
                f"no training person of {store.path} has {sequences} sequences (the most is {most}): "
                f"give --batch.sequences {most}{' or less' if most > 2 else ''}"
            )
        if len(self.subjects) < people:
            raise UserError(
                f"{store.path} has {len(self.subjects)} training people, but a batch takes {people}: "
                f"give --batch.people {len(self.subjects)}{' or less' if len(self.subjects) > 2 else ''}"
            )

    def __call__(self, step: int, rank: int | None = None) -> LabelledBatch:
        """The batch of ``step``, or the share of process ``rank``; who has fewer than K sequences gives some twice."""
        rng = np.random.default_rng([self.seed, step, 0, _PEOPLE])
        labels = np.repeat(rng.choice(len(self.subjects), self.people, replace=False), self.sequences)
        mine = share(len(labels), rank, self.world_size)
        frames = int(rng.integers(self.frames, self.frames_max + 1)) if self.frames_max else self.frames
        drawn: list[tuple[int, np.ndarray]] = []
        for label in labels[:: self.sequences]:
            owned = self.by_label[label]
            rows = rng.choice(owned, self.sequences, replace=len(owned) < self.sequences)
            drawn += [(int(r), sample_clip(self.sampling, self.store.rows[r].frames, frames, rng)) for r in rows]
        draw = np.random.default_rng([self.seed, step, 0, _AUGMENT])
        plan = draw_plan(self.augment, len(labels), self.store.height, self.store.width, draw)
        clips = [self.store.clip(row, index) for row, index in drawn[mine]]
        return LabelledBatch(np.stack(clips), plan.of(mine), labels[mine])


def check_frames(store: SequenceStore, height: int | None = None) -> None:
    """Raise a UserError unless a store's frames are 64 or 128 px high and of one of two widths, as gait models take.

    Args:
        height: that they are given first; None: they stay as they are.
    """
    if (height or store.height) not in HEIGHTS or store.width not in (store.height, cut_width(store.height)):
        raise UserError(
            f"{store.path} holds frames {store.height} px high and {store.width} wide, but gait models take 64 or 128 "
            "by as many or 44 or 88: import them again with --size 64"
        )


def training_rows(store: SequenceStore, min_frames: int) -> np.ndarray:
    """Row numbers of the training split; sequences of fewer than ``min_frames`` frames are left out, and counted.

    Raises:
        UserError: there are none, or none that is long enough.
    """
    rows = store.select(split="train")
    if len(rows) == 0:
        raise UserError(f"{store.path} has no training sequences: import the data with a split that has some")
    lengths = np.array([store.rows[row].frames for row in rows])
    long = rows[lengths >= min_frames]
    if len(long) == 0:
        raise UserError(
            f"no training sequence of {store.path} has data.min_frames = {min_frames} frames, the longest has "
            f"{lengths.max()}: --data.min_frames {lengths.max()} has them repeated where more are needed"
        )
    if short := len(rows) - len(long):
        first = store.rows[rows[lengths < min_frames][0]].name
        say(
            f"{short} of {len(rows)} training sequences of {store.path} have fewer than data.min_frames = {min_frames} "
            f"frames and are left out, such as {first}"
        )
    return long


class Prefetcher(Generic[T]):
    """Makes the batches of steps ``first``..``last - 1`` in a thread, a few ahead of who iterates over it."""

    def __init__(self, make: Callable[[int], T], first: int, last: int, ahead: int = 2) -> None:
        self._make, self._steps = make, range(first, last)
        self._queue: queue.Queue[T | BaseException] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        for step in self._steps:
            try:
                item: T | BaseException = self._make(step)
            except BaseException as error:  # handed to the consumer, which raises it
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(item, BaseException):
                return

    def __iter__(self) -> Iterator[tuple[int, T]]:
        self._thread.start()
        try:
            for step in self._steps:
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                yield step, item
        finally:
            self._stop.set()
            self._thread.join()
