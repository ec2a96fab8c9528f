"""Many runs as one: each is done once, whoever of several processes does it, and a stopped grid goes on.

A grid is a folder: ``runs/`` with a run folder each, ``results/`` with a JSON file of each that is finished, which is
what says so, and ``failed/`` with what went wrong with others.
"""

from __future__ import annotations

import gc
import shlex
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaitdiff.config.recipe import STAGES, parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import BusyError, UserError
from gaitdiff.paper.cells import Run
from gaitdiff.paper.results import Result, read_result, result_of, write_result
from gaitdiff.paper.settings import Settings, counting
from gaitdiff.training.checkpoint_files import backbone_sha256, latest_checkpoint, list_checkpoints
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from gaitdiff.utils.files import write_whole
from gaitdiff.utils.locks import try_lock
from gaitdiff.utils.progress import say

_PAUSE = 1.0  # seconds between looks at what other processes do


@dataclass(frozen=True)
class Job:
    """A run with a seed."""

    run: Run
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its result."""
        return f"{self.run.name}-{self.seed}"

    @property
    def start(self) -> Job | None:
        """The pretraining of the same seed that it starts from."""
        return None if self.run.start is None else Job(self.run.start, self.seed)


class Grid:
    """Runs of an experiment in one folder.

    Args:
        out: the folder.
        stores: folder of the sequence store of each data set.
        settings: on top of all runs.
        device: "auto", "cpu", "cuda" or "mps".
    """

    def __init__(
        self, out: Path, stores: Mapping[str, Path], settings: Settings | None = None, device: str = "auto"
    ) -> None:
        self.out, self.device = out.absolute(), device
        self.stores = {name: path.absolute() for name, path in stores.items()}
        self._settings = settings or Settings(())
        self._digests: dict[str, str] = {}
        self._configs: dict[str, PretrainConfig | FinetuneConfig] = {}
        self._manifests: dict[str, str] = {}
        self._results: dict[str, Result] = {}  # a run that is finished stays so

    def words(self, job: Job) -> list[str]:
        """The command line of a run, after the verb."""
        store = self.stores.get(job.run.data, Path(f"STORE-OF-{job.run.data.upper()}"))
        words = [*job.run.flags(), "--seed", str(job.seed), *self._settings.flags(job.run.stage)]
        if job.start is not None:
            words += ["--init", str(self.folder(job.start))]
        return [*words, "--data.store", str(store), "--out", str(self.folder(job)), "--machine.device", self.device]

    def command(self, job: Job) -> str:
        """The command that does one run by itself."""
        return shlex.join(["gaitdiff", job.run.stage, *self.words(job)])

    def config(self, job: Job) -> PretrainConfig | FinetuneConfig:
        """The resolved settings of a run.

        Raises:
            UserError: they cannot be.
        """
        if job.name not in self._configs:
            kind: Any = STAGES[job.run.stage]
            self._configs[job.name] = parse_config(kind, "gaitdiff reproduce", self.words(job))
        return self._configs[job.name]

    def settings(self, job: Job) -> dict[str, Any]:
        """All settings that a run's numbers come from, by dotted name; ``start`` is the run that it starts from."""
        kept, init = counting(self.config(job)), ""
        if job.start is None:
            init = getattr(self.config(job), "init", "")
            kept |= self._digest(init)
        return {**kept, "init": init, "start": "" if job.start is None else job.start.name}

    def _digest(self, init: str) -> dict[str, str]:
        """That of what runs start from, read once; nothing where they do not, or it is gone."""
        if init and init not in self._digests:
            with suppress(UserError):
                self._digests[init] = backbone_sha256(latest_checkpoint(Path(init)))
        return {"init_sha256": self._digests[init]} if init in self._digests else {}

    def folder(self, job: Job) -> Path:
        """Of its run."""
        return self.out / "runs" / job.name

    def result(self, job: Job) -> Result | None:
        """What is kept of a run, None while it is not finished.

        Raises:
            UserError: it is damaged, or of a run with other settings or data.
        """
        if job.name not in self._results:
            result = self._checked(job)
            if result is None:
                return None
            self._results[job.name] = result
        return self._results[job.name]

    def finished(self, run: Run, seeds: Iterable[int]) -> dict[int, Result]:
        """What is kept of a run, by those of the seeds that are finished."""
        return {seed: result for seed in seeds if (result := self.result(Job(run, seed))) is not None}

    def left(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are not finished; of data that are not there yet all are."""
        there = {name for name, path in self.stores.items() if path.exists()}
        return [job for job in jobs if job.run.data not in there or self.result(job) is None]

    def _checked(self, job: Job) -> Result | None:
        file = self._file(job)
        result = read_result(file)
        if result is None:
            return None
        now = self.settings(job)
        before = {**now, **result.settings}  # what came later is at its default
        unlike = ", ".join(f"{key} = {before[key]}, not {now[key]}" for key in now if before[key] != now[key])
        if unlike:
            raise UserError(f"{file} is of a run with other settings ({unlike}): choose another --out")
        if job.run.data in self.stores and self.manifest(job.run.data) != result.manifest_sha256:
            raise UserError(f"{file} is of a run on other data: choose another --out")
        return result

    def manifest(self, data: str) -> str:
        """The digest of a data set's store."""
        if data not in self._manifests:
            self._manifests[data] = SequenceStore(self.stores[data]).header.manifest_sha256
        return self._manifests[data]

    def work(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Do all that is not done yet; what fails is passed over, with what starts from it.

        Several processes may do the same: a run that another is at is waited for.

        Args:
            jobs: a start before what starts from it.

        Returns:
            What went wrong, by the job's name.
        """
        failed: dict[str, str] = {}
        todo, waiting = list(jobs), False
        while todo:
            left = [job for job in todo if not self._settled(job, failed)]
            if len(left) < len(todo):
                waiting = False
            elif left:
                if not waiting:
                    say(f"{left[0].name} is at another process: waiting for it")
                waiting = True
                time.sleep(_PAUSE)
            todo = left
        return failed

    def _settled(self, job: Job, failed: dict[str, str]) -> bool:
        """Do a job, unless it is done or another process is at it; whether nothing of it is left to do."""
        start = job.start
        if start is not None and start.name in failed:
            failed[job.name] = f"{start.name}, which it starts from, failed"
            return True
        if self.result(job) is not None:
            return True
        if start is not None and self.result(start) is None:
            return False
        if start is not None and not list_checkpoints(self.folder(start)):
            failed[job.name] = f"{self.folder(start)} is gone, which it starts from: remove {self._file(start)} too"
            return True
        with try_lock(self.out / ".locks" / job.name) as mine:
            if not mine:
                return False
            return self.result(job) is not None or self._do(job, failed)  # another process may have ended it just now

    def _do(self, job: Job, failed: dict[str, str]) -> bool:
        """Train and score; False where somebody else is at the run."""
        say(f"{job.name}: {job.run.stage}")
        failure = self.out / "failed" / f"{job.name}.txt"
        try:
            config = self.config(job)
            run = pretrain(config) if isinstance(config, PretrainConfig) else finetune(config)
            result = result_of(run, config, job.name, self.settings(job), self.manifest(job.run.data))
            write_result(self._file(job), result)
            failure.unlink(missing_ok=True)
        except BusyError as error:
            say(str(error))
            return False
        except Exception as error:  # whatever it is, the other runs go on
            failed[job.name] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            say(f"{job.name} failed: {failed[job.name]}")
            with suppress(OSError, UserError):
                failure.parent.mkdir(parents=True, exist_ok=True)
                write_whole(failure, "".join(traceback.format_exception(error)).encode())
        finally:
            gc.collect()  # what a run holds goes in circles, which are only looked for as objects grow many
        return True

    def _file(self, job: Job) -> Path:
        return self.out / "results" / f"{job.name}.json"


def failures(failed: Mapping[str, str], jobs: Sequence[Job]) -> str:
    """A sentence on what went wrong, with the first reasons."""
    told = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    return f"{len(failed)} of {len(jobs)} runs failed, the same command tries them again: {told}{more}"
