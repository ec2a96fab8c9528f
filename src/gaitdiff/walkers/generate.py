"""Data sets of walkers: people times sequences, rendered in parallel, written as a sequence store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gaitdiff.data.align import align_sequence
from gaitdiff.data.store import StoreWriter
from gaitdiff.errors import UserError
from gaitdiff.utils.parallel import check_workers, in_order, processors
from gaitdiff.utils.progress import progress_bar
from gaitdiff.walkers.body import Body, load_body_model
from gaitdiff.walkers.camera import assign_camera, place_cameras
from gaitdiff.walkers.degrade import degrade
from gaitdiff.walkers.draws import Stream, stream
from gaitdiff.walkers.person import Person, draw_person
from gaitdiff.walkers.presets import Preset, get_preset
from gaitdiff.walkers.render import render_masks
from gaitdiff.walkers.walk import Flaws, Walk, draw_walk

Frames = NDArray[np.uint8]

#: Share of the people who are held out for testing by default.
_TEST_SHARE = 0.3

#: Frames of a sequence, each of which takes up to a megabyte while it is drawn; and of one person, which wait together.
_MOST_FRAMES, _MOST_OF_ONE = 1000, 100_000


@dataclass(frozen=True)
class _Filmed:
    """One rendered sequence and what the manifest says of it."""

    frames: Frames  # uint8 (T, 64, 64)
    condition: str  # "nm", "bag", "coat" or "bag+coat"
    view: str  # the camera's name


def generate(
    out: str | Path,
    *,
    people: int,
    sequences: int,
    preset: str | Preset = "lite",
    seed: int = 0,
    frames: int = 40,
    test_people: int | None = None,
    workers: int | None = None,
) -> Path:
    """Make a data set of walking people and write it as a sequence store.

    The last ``test_people`` people are the test split; the first sequence of each of them is the probe, the others are
    gallery, seen by other cameras. Not so in the preset "market": the same few cameras see a person again and again,
    lengths vary, and people with one sequence each are added to the gallery. The bytes do not depend on ``workers``.
    With more than one worker a script must protect its entry point by ``if __name__ == "__main__":``, as processes are
    spawned.

    Args:
        out: folder to create.
        people: number of identities, at least 2.
        sequences: walks of each of them, at least 2; with ``frames`` frames each no more than 100,000 frames.
        preset: "lite", "wild" or "market", see :func:`~gaitdiff.walkers.presets.list_presets`, or one of your own.
        seed: of everything random, not negative.
        frames: length of every sequence, at most 1000, at 25 frames a second; the median where lengths vary.
        test_people: how many people are held out, 0 or at least 2; by default three in ten, none of fewer than four.
        workers: number of processes; by default one for each core.

    Returns:
        The path of the store.

    Raises:
        UserError: an argument is out of its range, the preset is unknown, or ``out`` exists or cannot be written.
    """
    chosen = preset if isinstance(preset, Preset) else get_preset(preset)
    for what, value, least in (
        ("people", people, 2),
        ("sequences", sequences, 2),
        ("frames", frames, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"{what} is {value}, but walkers need at least {least}")
    if frames > _MOST_FRAMES:
        raise UserError(f"frames is {frames}, but walkers walk for at most {_MOST_FRAMES}: make more sequences instead")
    if sequences * frames > _MOST_OF_ONE:
        raise UserError(
            f"sequences is {sequences}, but at most {_MOST_OF_ONE // frames} of {frames} frames are made of a person: "
            "make more people instead"
        )
    check_workers(workers)
    held_out = _test_people(people, test_people)
    passers_by = round(chosen.distractors * held_out)
    with (
        StoreWriter(out, source=store_source(chosen.name, seed, people), dataset="walkers") as store,
        progress_bar("walking people", people * sequences + passers_by) as bar,
    ):
        render = partial(_render_person, sequences=sequences, people=people, preset=chosen, seed=seed, frames=frames)
        everybody = range(people + passers_by)
        for person, walks in enumerate(in_order(render, everybody, min(workers or processors(), people))):
            test = person >= people - held_out
            for number, walk in enumerate(walks):
                store.add(
                    walk.frames,
                    subject=f"p{person:04d}",
                    condition=walk.condition,
                    view=walk.view,
                    sequence=f"s{number:02d}",
                    split="test" if test else "train",
                    role="" if not test else "probe" if number == 0 and person < people else "gallery",
                )
                bar.advance()
    return Path(out)


def store_source(preset: str, seed: int, people: int) -> str:
    """What the header of a store says of the walkers it was made with."""
    return f"walkers, preset {preset}, seed {seed}, {people} people"


def render_sequence(seed: int, person: int, sequence: int, preset: str | Preset = "lite", frames: int = 40) -> Frames:
    """Render one sequence as :func:`generate` does.

    Args:
        seed: of the data set.
        person: number of the identity, from 0.
        sequence: number of the walk of this person, from 0.
        preset: name of a preset, or one of your own.
        frames: number of frames; the median where the preset's lengths vary.

    Returns:
        The silhouettes, uint8 (T, 64, 64).

    Raises:
        UserError: there is no such preset.
    """
    chosen = preset if isinstance(preset, Preset) else get_preset(preset)
    return _Stage(seed, person, chosen).render(sequence, frames).frames


class _Stage:
    """A person with a body, before the cameras of a data set."""

    def __init__(self, seed: int, number: int, preset: Preset) -> None:
        self.model = load_body_model()
        self.seed, self.number, self.preset = seed, number, preset
        self.person: Person = draw_person(seed, number, self.model.components)
        self.body: Body = self.model.body(self.person.shape)
        self.cameras = place_cameras(seed, preset)

    def render(self, sequence: int, frames: int) -> _Filmed:
        camera = assign_camera(self.cameras, self.seed, self.number, sequence, self.preset.passed)
        if self.preset.length_spread:
            times = stream(Stream.LENGTH, self.seed, self.number, sequence).normal(0.0, self.preset.length_spread)
            frames = max(round(frames * float(np.exp(np.clip(times, -1.0, 1.0)))), 1)
        walk = draw_walk(self.seed, self.number, sequence, camera, self.preset)
        seen = self._film(walk, sequence, frames + max(4, frames // 8))
        if len(seen) < frames:  # too much was hidden: the same walk, segmented without a flaw
            seen = self._film(replace(walk, flaws=Flaws()), sequence, frames)
        return _Filmed(seen[:frames], walk.load.condition, camera.name)

    def _film(self, walk: Walk, sequence: int, frames: int) -> Frames:
        jitter, noise = (stream(kind, self.seed, self.number, sequence) for kind in (Stream.JITTER, Stream.NOISE))
        masks = render_masks(self.model, self.body, self.person, walk, frames, jitter)
        return align_sequence(degrade(masks, walk.flaws, noise))


def _test_people(people: int, test_people: int | None) -> int:
    if test_people is None:
        return max(2, round(_TEST_SHARE * people)) if people >= 4 else 0
    if test_people == 1 or not 0 <= test_people <= people:
        raise UserError(f"test_people is {test_people}, but must be 0 or from 2 to the number of people ({people})")
    return test_people


def _render_person(
    person: int, *, sequences: int, people: int, preset: Preset, seed: int, frames: int
) -> list[_Filmed]:
    """All sequences of a person; one alone of those beyond the ``people``."""
    stage = _Stage(seed, person, preset)
    return [stage.render(sequence, frames) for sequence in range(sequences if person < people else 1)]
