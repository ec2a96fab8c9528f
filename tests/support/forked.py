"""Commands in forked processes: each as short as the work it does, its memory and time bounded and measured."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_MODULES = (
    *("gaitdiff.cli", "gaitdiff.commands.report", "gaitdiff.commands.quickstart", "gaitdiff.data.importers"),
    *("gaitdiff.training.pretrain", "gaitdiff.training.finetune", "gaitdiff.exchange.opengait_checkpoint"),
    *("torch._dynamo", "torch.onnx"),  # what optimisers and exports import
)
#: Bytes of address space that a command may take beyond its modules', so that none takes the machine.
_ROOM = 6 << 30


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; less than 0 for a signal.
        said: its standard error.
        printed: its standard output.
        memory: bytes that it took at most beyond its modules'.
    """

    code: int
    said: str
    printed: str
    memory: int


class Forks:
    """A process that has imported the package, and forks to run one command after another."""

    def __init__(self, folder: Path, room: int | None = _ROOM) -> None:
        self._room = room  # bytes; None for all there are, as CUDA needs
        self._said, self._printed, self._running = folder / "said.txt", folder / "printed.txt", False
        self._process = self._serving()

    def _serving(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def start(
        self,
        *words: str | Path,
        environment: Mapping[str, str] | None = None,
        seconds: float = 300,
        constants: Mapping[str, float] | None = None,
    ) -> int:
        """Start ``gaitdiff words``, which is killed after some seconds; return its process.

        Args:
            constants: values of the package's, by their dotted names, such as of how long is waited.
        """
        if self._running:  # a test that failed has not waited for its command
            self.__exit__(None, None, None)
            self._process = self._serving()
        self._running = True
        assert self._process.stdin is not None
        order = {
            "words": [str(word) for word in words],
            "where": os.getcwd(),
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **(environment or {})},
            "files": [str(self._printed), str(self._said)],
            "seconds": seconds,
            "room": self._room,
            "constants": dict(constants or {}),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def end(self) -> Ended:
        """Wait for the command that was started."""
        code, memory = self._answer()
        self._running = False
        said, printed = (file.read_text(errors="replace") for file in (self._said, self._printed))
        return Ended(code, said, printed, memory)

    def run(
        self,
        *words: str | Path,
        killed: Callable[[], bool] | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = 300,
        constants: Mapping[str, float] | None = None,
    ) -> Ended:
        """Run ``gaitdiff words``, and kill it as soon as ``killed`` says so, or after some seconds."""
        process = self.start(*words, environment=environment, seconds=seconds, constants=constants)
        if killed is not None:
            kill_when(killed, process)
        return self.end()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def start_in_two(forks: tuple[Forks, Forks], *words: str | Path) -> list[int]:
    """Start ``gaitdiff words`` as two processes that share the work, as a launcher does; return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        fork.start(*words, environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, fork in enumerate(forks)
    ]


def kill_when(killed: Callable[[], bool], process: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Ask some thousand times a second whether to end a process by a signal, until it has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:  # it has ended already
        return
    try:
        while not select.select([handle], [], [], 0.0003)[0]:
            if killed():
                with suppress(ProcessLookupError):  # it ended just now
                    signal.pidfd_send_signal(handle, by)
                return
    finally:
        os.close(handle)


def _serve() -> None:
    import importlib

    import torch

    for name in _MODULES:
        importlib.import_module(name)
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        begun = _size(1)
        child = os.fork()
        if child == 0:
            _child(order)
        print(child, flush=True)
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], order["seconds"])[0]:
            os.kill(child, signal.SIGKILL)  # not waited for yet, so it is there
        os.close(handle)
        _, status, usage = os.wait4(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024 - begun]), flush=True)


def _size(which: int) -> int:
    """Bytes of this process: of its address space (0), or of what is in memory (1)."""
    return int(Path("/proc/self/statm").read_text().split()[which]) * resource.getpagesize()


def _child(order: Mapping[str, Any]) -> None:
    from gaitdiff.cli import main

    os.setsid()
    os.chdir(order["where"])
    os.environ.clear()
    os.environ.update(order["environment"])
    printed, said = (os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for file in order["files"])
    for source, target in ((os.open(os.devnull, os.O_RDWR), 0), (printed, 1), (said, 2)):
        os.dup2(source, target)
    if order["room"] is not None:
        most = _size(0) + order["room"]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for place, value in order["constants"].items():
        module, _, name = place.rpartition(".")
        setattr(sys.modules[module], name, value)
    code = 1
    try:
        code = main(order["words"])
    except SystemExit as end:  # as of --help
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
