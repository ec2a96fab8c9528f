"""What several processes of a run do together: stop after the same step, end when one of them or torchrun dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from gaitdiff.errors import UserError
from gaitdiff.utils.shares import MEETING, be_patient
from gaitdiff.utils.signals import StopRequest, deferred_stops, follow

#: Seconds within which torchrun passes a signal on that came to all of its terminal's processes.
_ECHO = 5.0
#: Seconds until a file that the first process has written is seen by all, at most: network file systems remember what
#: was not there.
_SEEN = 60.0
#: What gloo, NCCL and the first process's store say where another process is gone, and where anything else is wrong
#: between processes; they raise no kind of error of their own for it.
_GONE = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "closed by remote peer",
    "remote process exited",
    "failed to recv",
)
_BETWEEN = ("gloo", "NCCL")

#: How a sentence ends on a run that was stopped.
CONTINUES = "the same command continues it"


class SharedStop:
    """A signal that came to one of several processes, and of which all hear after the same step."""

    def __init__(self, request: StopRequest, processes: int) -> None:
        self._request, self._heard = request, torch.zeros(1, dtype=torch.int64)
        self._group = dist.new_group(backend="gloo", timeout=MEETING) if processes > 1 else None
        if self._group is not None:
            be_patient(self._group)
        self._asked: dist.Work | None = None

    def at(self, step: int, saved: int) -> None:
        """Note where the run stands, for one who cannot wait for the end of a step."""
        kept = f"the newest checkpoint is of step {saved}; {CONTINUES}"
        before = "before the first checkpoint; the same command begins anew"
        self._request.note = f"after step {step}, {kept if saved else before}"

    def told(self, yes: bool) -> bool:
        """What the first process says, in all of them, which ask together."""
        if self._group is None:
            return yes
        said = torch.tensor([int(yes)])
        dist.broadcast(said, 0, self._group)
        return bool(said)

    def agreed(self) -> int:
        """The signal after which to stop here, or 0; asked after each step, the same in all processes.

        With several, what is heard is what they knew a step ago, so that none waits for the others.
        """
        if self._group is None:
            return self._request.signal
        heard = 0
        if self._asked is not None:
            self._asked.wait()
            heard = int(self._heard)
        self._heard = torch.tensor([self._request.signal])
        self._asked = dist.all_reduce(self._heard, dist.ReduceOp.MAX, self._group, async_op=True)
        return heard

    def end(self) -> None:
        """Follow a signal that came too late to stop the run, so that nothing else begins after it.

        Several processes begin nothing else.
        """
        if self._request and self._group is None:
            follow(self._request.signal, "after the last step; the run is finished")


def agreed_on(run: Path, first: int, scored: bool, processes: int) -> bool:
    """Whether what a run goes on from is scored, as the first process knows it.

    Args:
        first: the step after which this process would go on.

    Raises:
        UserError: the processes do not go on from the same place, since they do not see the same folder.
    """
    if processes == 1:
        return scored
    latest = time.monotonic() + _SEEN
    while not (there := (run / "config.yaml").is_file()) and time.monotonic() < latest:
        time.sleep(0.5)
    stands = f"goes on after step {first}" if first else "begins" if there else "sees no run"
    told: list[tuple[str, bool]] = [("", False)] * processes
    dist.all_gather_object(told, (stands, scored))
    other = next((number for number, (one, _) in enumerate(told) if one != told[0][0]), None)
    if other is not None:
        raise UserError(
            f"process {other} {told[other][0]} at {run}, where process 0 {told[0][0]}: --out must be one folder that "
            "all of them see"
        )
    return told[0][1]


@contextmanager
def stops_together(processes: int) -> Iterator[SharedStop]:
    """Within the block, a signal is noted for the end of a step; a process of several also ends with its launcher.

    An error does not make it forgotten, or a grid of runs would go on with the next. Where one of several processes
    fails, the error tells more.
    """
    with deferred_stops(_ECHO if processes > 1 else 0.0) as request, _with_launcher(processes > 1):
        try:
            yield SharedStop(request, processes)
        except Exception as error:
            if request and processes == 1:
                follow(request.signal, f"at an error: {error if isinstance(error, UserError) else repr(error)}")
            raise


@contextmanager
def _with_launcher(wanted: bool) -> Iterator[None]:
    """Within the block, the end of the torchrun that started this process is a signal to stop."""
    done, parent = threading.Event(), os.getppid()

    def watch() -> None:
        while not done.wait(1.0):
            if os.getppid() != parent:
                return os.kill(os.getpid(), signal.SIGTERM)

    if wanted and "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def peers_told(processes: int) -> Iterator[None]:
    """Make one sentence of another process's end.

    Raises:
        UserError: the block waited for a process that is gone.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error)
        if processes == 1 or not (
            isinstance(error, dist.DistError) or any(word in said for word in (*_GONE, *_BETWEEN))
        ):
            raise
        if any(word in said for word in _GONE):
            what = "another process of this run has ended, which its own lines or the system's log tell of"
        else:
            lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
            what = (
                f"the processes of this run cannot work together ({' … '.join(dict.fromkeys((lines[0], lines[-1])))})"
            )
        raise UserError(f"{what}; the same command continues from the newest checkpoint") from error
