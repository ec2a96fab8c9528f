"""What the benchmarks of whole training steps share: our side of a step, its parts, operations, memory and waiting."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import alternate, summary
from gaitdiff.config.schema import MachineConfig
from gaitdiff.data.batches import Prefetcher
from gaitdiff.training.device import keep_freed_memory, make_accelerator
from gaitdiff.training.graph import inputs_ahead
from gaitdiff.training.step import Step

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Side(Protocol):
    """One who takes steps."""

    def step(self) -> None:
        """Take one."""


class Ours:
    """A stage, stepped as our training loop steps it.

    Args:
        watched: modules whose forward pass is a part of its own, by its name.
    """

    def __init__(self, stage: Any, accelerator: Accelerator, watched: Mapping[str, nn.Module]) -> None:
        self.stage, self.accelerator, self._watched = stage, accelerator, watched
        self.half = accelerator.mixed_precision == "bf16"
        self.take = Step(stage, accelerator)
        self.done = 0

    def step(self) -> None:
        """Take one."""
        batch = self.stage.make_batch(self.done, 0)
        self.take(self.stage.inputs(batch, self.done, 0))
        self.take.look()
        self.done += 1

    def parts(self, turns: int = 2) -> dict[str, float]:
        """Seconds of the parts of a step, the median of some."""
        clock = Clock(self.accelerator.device)
        for name, module in self._watched.items():
            clock.watch(module, name)
        told: dict[str, list[float]] = {}
        with self.ungraphed(clock):
            for _ in range(turns):
                clock.seconds.clear()
                with clock("data"):
                    batch = self.stage.make_batch(self.done, 0)
                with clock("inputs"):
                    inputs = self.stage.inputs(batch, self.done, 0)
                with clock("step"):
                    self.take(inputs)
                    self.take.look()
                rest = clock.seconds.pop("step") - sum(clock.seconds[key] for key in (*self._watched, "backward"))
                for name, value in {**clock.seconds, "losses, clipping and optimiser": rest}.items():
                    told.setdefault(name, []).append(value)
        clock.forget()
        return {name: round(statistics.median(values), 4) for name, values in told.items()}

    @contextmanager
    def ungraphed(self, clock: Clock | None = None) -> Iterator[None]:
        """Steps that replay no CUDA graph: hooks and counters are no part of one."""
        clock = clock or Clock(self.accelerator.device)

        def backward(inputs: Any) -> Tensor:
            with self.accelerator.autocast():
                loss: Tensor = self.stage.module(*inputs)
            with clock("backward"):
                self.accelerator.backward(loss)
            return loss.detach()

        graphed, self.take._backward = self.take._backward, backward
        try:
            yield
        finally:
            self.take._backward = graphed

    def in_loop(self, steps: int) -> dict[str, float]:
        """Some steps as a run takes them, with a loader ahead of them and looked at together on a GPU.

        Seconds a step, and the share of that in which the loop waits for the loader; without the first and last steps.
        """
        make = inputs_ahead(
            lambda step: self.stage.make_batch(step, 0),
            lambda batch, step: self.stage.inputs(batch, step, 0),
            self.accelerator.device,
        )
        waited, started, before = 0.0, time.perf_counter(), time.perf_counter()
        clock = Clock(self.accelerator.device)
        first, last = 3, steps - 3
        for i, (_, (_, inputs)) in enumerate(Prefetcher(make, self.done, self.done + steps)):
            now = time.perf_counter()
            if i == first:  # the ones before have nobody ahead of them
                waited, started = 0.0, clock.now()
            elif i > first:
                waited += now - before
            self.take(inputs())
            if self.take.eager or i == last:
                self.take.look()
            before = time.perf_counter()
            if i == last:  # nothing is loaded beside the ones after
                break
        taken = clock.now() - started
        return {"seconds_in_loop": round(taken / (last - first + 1), 5), "waiting_for_data": round(waited / taken, 4)}


def measure_sides(
    sides: Mapping[str, Side],
    reference: str,
    repeats: int,
    ceilings: Mapping[str, int],
    memory: Callable[[str], int],
    steps: int = 1,
) -> dict[str, dict[str, Any]]:
    """What is told of each side: seconds, how many times the reference takes them, operations, kernels, memory, parts.

    Args:
        reference: the name of the side that others are compared with.
        ceilings: GFLOP/s of a matrix product, by precision.
        memory: gives a side's peak memory, MB, by its name.
        steps: how many a side takes in a turn.
    """

    def turn(side: Side) -> None:
        for _ in range(steps):
            side.step()

    turns = alternate({name: partial(turn, side) for name, side in sides.items()}, repeats)
    told = summary({name: [seconds / steps for seconds in times] for name, times in turns.items()}, reference)
    for name, side in sides.items():
        flops, operators = count_operations(side, steps)
        kind = "bfloat16" if isinstance(side, Ours) and side.half else "float32"
        rate = flops / told[name]["median_s"] / 1e9
        told[name] |= {"gflop": round(flops / 1e9, 1), "of_matrix_product": round(rate / ceilings[kind], 3)}
        told[name] |= {"operators": operators, "peak_memory_mb": memory(name)}
        if isinstance(side, Ours):
            told[name] |= {"seconds_of_parts": side.parts(), **side.in_loop(9 if side.take.eager else 40)}
        print(f"  {name}: {told[name]}", flush=True)
    return told


class Operators(TorchDispatchMode):
    """Counts the operators that a device is told to run; views, which take no kernel, are left out."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one, and run it."""
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def count_operations(side: Side, steps: int = 1) -> tuple[int, int]:
    """Of a step, the mean of some: floating-point operations of convolutions and matrix products; and operators."""
    if isinstance(side, Ours):
        with side.ungraphed():
            return _counted(side, steps)
    return _counted(side, steps)


def _counted(side: Side, steps: int) -> tuple[int, int]:
    flops = count_flops(side.step, steps)
    with Operators() as operators:
        for _ in range(steps):
            side.step()
    return round(flops), round(operators.count / steps)


def count_flops(call: Callable[[], object], times: int = 1) -> float:
    """Floating-point operations of convolutions and matrix products in a call, the mean of some."""
    with FlopCounterMode(display=False) as flops:
        for _ in range(times):
            call()
    return float(flops.get_total_flops()) / times


def in_half(device: str) -> bool:
    """Whether ``machine.precision auto`` is bfloat16 on a device."""
    return make_accelerator(MachineConfig(device=device)).mixed_precision == "bf16"


def ceilings_of(device: str) -> dict[str, int]:
    """GFLOP/s of a matrix product in each precision that a device trains in."""
    return {kind: round(ceiling(kind, device)) for kind in (KINDS if in_half(device) else ["float32"])}


def ceiling(kind: str, device: str, size: int = 2048) -> float:
    """GFLOP/s of the best of some square matrix products."""
    a = torch.randn(size, size, device=device, dtype=KINDS[kind])
    seconds = alternate({"product": lambda: a @ a}, 25)["product"]
    return 2 * size**3 / min(seconds) / 1e9


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where it computes, and what a process is told that is there for one side's memory alone."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)


def prepare(args: argparse.Namespace) -> None:
    """Set this process up as our commands do, from which both sides gain."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()


def memory_elsewhere(module: str, words: list[str]) -> int:
    """Peak memory, MB, that a side tells in a process of its own."""
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def tell_memory(side: Side, device: str) -> None:
    """Print the peak memory of some steps, MB: the process's own on a CPU (Linux), or the GPU's."""
    for _ in range(3):
        side.step()
    if device != "cpu":
        print(torch.cuda.max_memory_allocated() >> 20)
        return
    print(own_peak())


def own_peak() -> int:
    """Peak memory of this process, MB (Linux); getrusage would tell the peak of who started it, where that is more."""
    status = Path("/proc/self/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) >> 10


class Clock:
    """Seconds of named parts, waiting for the device at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self._hooks: list[Any] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a block as a part."""
        started = self.now()
        yield
        self._add(name, started)

    def _add(self, name: str, started: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self.now() - started

    def now(self) -> float:
        """Seconds, once the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, module: nn.Module, name: str) -> None:
        """Time a module's forward passes as a part."""
        began: list[float] = []

        def before(*_: object) -> None:
            began.append(self.now())

        def after(*_: object) -> None:
            self._add(name, began.pop())

        self._hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def forget(self) -> None:
        """Watch nothing any more."""
        for hook in self._hooks:
            hook.remove()
