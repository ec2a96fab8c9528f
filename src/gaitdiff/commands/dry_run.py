"""``--dry-run`` of pretrain and finetune: what a run would be and cost, without one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gaitdiff.config.command_line import command
from gaitdiff.config.flat import plain
from gaitdiff.config.schema import PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.training.checkpoint_files import latest_checkpoint, list_checkpoints, read_state
from gaitdiff.training.cost import checkpoint_bytes, kept_checkpoints, make_stage, measure_step
from gaitdiff.training.finetune import GROWING
from gaitdiff.training.run_folder import RunFolder
from gaitdiff.utils.text import counted, lasting


def describe(config: Any) -> str:
    """What a run of a configuration would do, line by line; a few steps are taken, nothing is written.

    Raises:
        UserError: the run could not be begun.
    """
    stage = "pretrain" if isinstance(config, PretrainConfig) else "finetune"
    machine = make_stage(config)
    store = machine.store
    growing = () if stage == "pretrain" else GROWING
    RunFolder.open(stage, machine.config, machine.provenance, write=False, growing=growing)  # refuses what it would
    done, seconds, size = _done(Path(config.out)), measure_step(machine, config), checkpoint_bytes(machine.module)
    parameters = sum(one.numel() for one in machine.module.parameters())
    left = max(config.optim.iterations - done, 0)
    return "\n".join(
        [
            " ".join(command({"stage": stage, **plain(asdict(config))})),
            f"learns from {_whom(store, machine.rows)}",
            _scored(machine),
            *([machine.caution] if machine.caution else []),
            f"{parameters:,} parameters, {left:,} iterations" + (f" after {done:,} that are done" if done else ""),
            f"about {seconds:.3g} s each, {lasting(seconds * left)} in all, evaluations not counted",
            f"{counted(kept_checkpoints(config), 'checkpoint')} of at most {size / 1e6:,.0f} MB",
        ]
    )


def _done(out: Path) -> int:
    return int(read_state(latest_checkpoint(out)).step) if list_checkpoints(out) else 0


def _whom(store: SequenceStore, rows: np.ndarray) -> str:
    people = len({store.rows[int(row)].subject for row in rows})
    return f"{counted(len(rows), 'sequence')} of {counted(people, 'person', 'people')} in {store.path}"


def _scored(stage: Any) -> str:
    if stage.unscored:
        return f"is not scored: {stage.unscored}"
    whose = "validation" if stage.validates else "test"
    return f"is scored on {counted(len(stage.held_out), whose + ' sequence')}"
