"""Many runs as one: each is done once, whoever of several processes does it, and a stopped grid goes on.

A grid is a folder: ``runs/`` with a run folder each, ``results/`` with a JSON file of each that is finished, which is
what says so, and ``failed/`` with what went wrong with others.
"""

from __future__ import annotations

import json
import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gaitdiff.config.recipe import STAGES, parse_config
from gaitdiff.config.schema import FinetuneConfig, PretrainConfig
from gaitdiff.config.values import settings_of
from gaitdiff.data.store import SequenceStore
from gaitdiff.errors import UserError
from gaitdiff.evaluation.held_out import to_score
from gaitdiff.evaluation.outcomes import Outcome, outcome_of
from gaitdiff.models import create_model
from gaitdiff.paper.cells import Run
from gaitdiff.training.checkpoint import load_checkpoint
from gaitdiff.training.device import make_accelerator, seeded
from gaitdiff.training.finetune import finetune
from gaitdiff.training.pretrain import pretrain
from gaitdiff.training.run_folder import read_metrics, versions
from gaitdiff.utils.files import parse_json, require_regular, write_whole
from gaitdiff.utils.locks import try_lock
from gaitdiff.utils.progress import say

_PAUSE = 1.0  # seconds between looks at what other processes do
#: Settings that each run of a grid has its own of.
_OWN = ("recipe", "out", "data.store", "seed", "machine.device", "mode", "init", "model.name", "model.preset")


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


@dataclass(frozen=True)
class Result:
    """What is kept of a finished run.

    Attributes:
        name: of the job.
        flags: recipe and settings; a result of other ones is of another grid.
        manifest_sha256: of the data.
        iterations: of the run.
        seconds: what they took, by the pace at the end.
        evaluations: ``step`` and scores, in their order.
        pairs: ``step``, ``ap`` and ``an``, of pretraining.
        outcome: person by person, of pretraining that of raw features by cosine; None where nobody can be scored.
        before: the same of pretraining's fresh network.
        versions: what it was made with.
    """

    name: str
    flags: list[str]
    manifest_sha256: str
    iterations: int
    seconds: float
    evaluations: list[dict[str, float]]
    pairs: list[dict[str, float]]
    outcome: Outcome | None
    before: Outcome | None
    versions: dict[str, str]


class Grid:
    """Runs of an experiment in one folder.

    Args:
        out: the folder.
        stores: folder of the sequence store of each data set.
        settings: on top of all runs, as "optim.batch=32", where a stage has them.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        UserError: a setting that no stage has, or that each run has its own of.
    """

    def __init__(self, out: Path, stores: Mapping[str, Path], settings: Sequence[str] = (), device: str = "auto"):
        self.out, self.stores, self.device = out, dict(stores), device
        self._manifests: dict[str, str] = {}
        self._settings = {stage: _flags_of(stage, settings) for stage in STAGES}
        for setting in settings:
            check_setting(setting)

    def flags(self, job: Job) -> list[str]:
        """All that a run's numbers come from, as its command has it, but for the data."""
        start = job.start
        init = [] if start is None else ["--init", f"runs/{start.name}"]
        return [*job.run.flags(), "--seed", str(job.seed), *init, *self._settings[job.run.stage]]

    def words(self, job: Job) -> list[str]:
        """The command line of a run, after the verb."""
        words = self.flags(job)
        if job.start is not None:
            words[words.index("--init") + 1] = str(self.folder(job.start))
        store = self.stores.get(job.run.data, Path(f"STORE-OF-{job.run.data.upper()}"))
        return [*words, "--data.store", str(store), "--out", str(self.folder(job)), "--machine.device", self.device]

    def command(self, job: Job) -> str:
        """The command that does one run by itself."""
        return shlex.join(["gaitdiff", job.run.stage, *self.words(job)])

    def config(self, job: Job) -> PretrainConfig | FinetuneConfig:
        """The resolved settings of a run."""
        kind: Any = STAGES[job.run.stage]
        config: PretrainConfig | FinetuneConfig = parse_config(kind, "gaitdiff reproduce", self.words(job))
        return config

    def folder(self, job: Job) -> Path:
        """Of its run."""
        return self.out / "runs" / job.name

    def result(self, job: Job) -> Result | None:
        """What is kept of a run, None while it is not finished.

        Raises:
            UserError: it is damaged, or of a run with other settings or data.
        """
        file = self.out / "results" / f"{job.name}.json"
        if not file.exists():
            return None
        try:
            found = parse_json(require_regular(file).read_text(encoding="utf-8"))
            for key in ("outcome", "before"):
                found[key] = None if found[key] is None else Outcome(**found[key])
            result = Result(**found)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{file} is damaged: remove it, and the run is scored again") from error
        if result.flags != self.flags(job):
            unlike = " ".join(sorted(set(result.flags) ^ set(self.flags(job))))
            raise UserError(f"{file} is of a run with other settings ({unlike}): choose another --out")
        if job.run.data in self.stores and self._manifest(job) != result.manifest_sha256:
            raise UserError(f"{file} is of a run on other data: choose another --out")
        return result

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
        with self._claimed(job) as mine:
            if not mine:
                return False
            if self.result(job) is None:  # another process may have ended it just now
                self._do(job, failed)
        return True

    @contextmanager
    def _claimed(self, job: Job) -> Iterator[bool]:
        with try_lock(self.out / ".locks" / job.name) as mine:
            yield mine

    def _do(self, job: Job, failed: dict[str, str]) -> None:
        say(f"{job.name}: {job.run.stage}")
        failure = self.out / "failed" / f"{job.name}.txt"
        try:
            config = self.config(job)
            run = pretrain(config) if isinstance(config, PretrainConfig) else finetune(config)
            self._keep(job, config, run)
            failure.unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the other runs go on
            failed[job.name] = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            failure.parent.mkdir(parents=True, exist_ok=True)
            write_whole(failure, "".join(traceback.format_exception(error)).encode())
            say(f"{job.name} failed: {failed[job.name]}")

    def _keep(self, job: Job, config: PretrainConfig | FinetuneConfig, run: Path) -> None:
        metrics = read_metrics(run)
        logged = [record for record in metrics if "loss" in record]
        place, store = make_accelerator(config.machine).device, SequenceStore(config.data.store)
        model, protocol = load_checkpoint(run, place), config.run.protocol
        outcome = before = None
        if to_score(store, protocol).unscored:
            pass
        elif isinstance(config, FinetuneConfig):
            outcome = outcome_of(model, store, protocol, config.loss.distance, place)
        else:
            outcome = outcome_of(model.backbone, store, protocol, "cosine", place)
            with seeded(config.seed):
                fresh = create_model(config.model.name, config.model.preset, **config.model.overrides)
            before = outcome_of(fresh.eval().to(place).backbone, store, protocol, "cosine", place)
        result = Result(
            job.name,
            self.flags(job),
            self._manifest(job),
            config.optim.iterations,
            round(logged[-1]["seconds_per_step"] * config.optim.iterations, 1),
            [{"step": record["step"], **record["evaluation"]} for record in metrics if "evaluation" in record],
            [{key: record[key] for key in ("step", "ap", "an")} for record in logged if job.run.stage == "pretrain"],
            outcome,
            before,
            versions(),
        )
        folder = self.out / "results"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{job.name}.json", json.dumps(asdict(result), indent=1).encode())

    def _manifest(self, job: Job) -> str:
        data = job.run.data
        if data not in self._manifests:
            self._manifests[data] = SequenceStore(self.stores[data]).header.manifest_sha256
        return self._manifests[data]


def _flags_of(stage: str, settings: Sequence[str]) -> list[str]:
    """Flags of those settings that a stage has."""
    known = settings_of(STAGES[stage])
    pairs = [setting.partition("=") for setting in settings]
    return [word for key, _, value in pairs if key in known for word in (f"--{key}", value)]


def check_setting(setting: str, own: Sequence[str] = _OWN) -> None:
    """Refuse a --set that is no KEY=VALUE, that no stage has, or that runs of a grid have their own of."""
    key, equals, _ = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set takes KEY=VALUE, such as optim.batch=32, not {setting!r}")
    if key in own:
        raise UserError(f"--set {key} is not free: each run of the grid has its own")
    if not any(key in settings_of(kind) for kind in STAGES.values()):
        raise UserError(f"--set {key}: no stage has such a setting (gaitdiff pretrain --help lists them)")
