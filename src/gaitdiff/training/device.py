"""The machine a run computes on: threads, device, precision, memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin

from gaitdiff.config.schema import MachineConfig
from gaitdiff.config.shared import Precision
from gaitdiff.errors import UserError
from gaitdiff.utils.devices import require_device
from gaitdiff.utils.parallel import LAUNCHED, launched_processes
from gaitdiff.utils.precision import has_fast_bfloat16
from gaitdiff.utils.shares import MEETING, be_patient, is_joined

#: Where launchers say which of the processes this one is.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
#: Where they say how many there are on this machine.
_LOCAL_SIZES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")

#: Marks accelerate's state as made by a run of ours.
_OURS = "made_by_gaitdiff"

# Of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def prepare_process(machine: MachineConfig) -> None:
    """Set this process up for a verb of the command line: threads, and the memory allocator.

    Nothing else changes the process: whoever calls ``pretrain`` or ``evaluate`` as a function keeps its own settings.

    Raises:
        UserError: more threads than make sense here, where each step would take many times as long.
    """
    most = max(16, 4 * (os.cpu_count() or 1))
    if machine.threads > most:
        raise UserError(f"machine.threads is {machine.threads}, but this machine takes at most {most}: lower it")
    if machine.threads > 0:
        torch.set_num_threads(machine.threads)
    keep_freed_memory()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw weights from torch's own generator as from this seed, and leave it as it was."""
    before = torch.random.get_rng_state()
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


def device_for(name: str) -> torch.device:
    """Where a command computes whose device is called so: "auto", "cpu", "cuda" or "mps".

    Raises:
        UserError: see ``make_accelerator``.
    """
    return make_accelerator(MachineConfig(device=name)).device


def make_accelerator(machine: MachineConfig) -> Accelerator:
    """Choose device and precision, and join the other processes of the run.

    A caller's own accelerator keeps its device and precision, but accumulates no gradients from now on: accelerate has
    one setting of that for all; and the processes of a caller's own group wait for hours for each other.

    Raises:
        UserError: a device or precision that this machine lacks, or processes that do not find each other.
    """
    device, world_size = machine.device, launched_processes()
    _require(device, machine.precision)
    _check_launch(device, world_size)
    if is_joined() and (group := dist.get_world_size()) != world_size:
        raise UserError(
            f"this process belongs to a group of {group} already, but a run here has {world_size}: start one run in a "
            "process of its own"
        )
    if machine.compile and world_size > 1:  # one that cannot compile would leave the others waiting
        raise UserError("machine.compile is for one process: leave it out, or start the run without torchrun")
    kind = _kind_of_device(world_size) if device == "auto" else device
    on_cpu = device == "cpu" or (world_size > 1 and kind == "cpu")
    half = machine.precision == "bfloat16" or (machine.precision == "auto" and has_fast_bfloat16(kind))
    state = AcceleratorState._shared_state  # accelerate gives each run the precision and device of a process's first
    if state.get(_OURS):  # but what a caller has set up with accelerate for themselves stays
        AcceleratorState._reset_state(reset_partial_state=world_size == 1)
    ours, threads = not state, torch.get_num_threads()
    try:
        if world_size > 1 and os.environ.get("RANK") and not is_joined():
            _meet("gloo" if on_cpu else "nccl", _in_words(kind, half))
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision="bf16" if half else "no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=MEETING)],
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # whatever the environment says
        )
    except (ValueError, RuntimeError) as error:
        if launched := [variable for variable in (*LAUNCHED, *_RANKS, "LOCAL_RANK") if os.environ.get(variable)]:
            raise UserError(
                f"the run that {', '.join(launched)} in the environment speak of cannot be joined "
                f"({str(error).splitlines()[0]}): start it with torchrun, or unset them"
            ) from error
        raise UserError(
            f"machine.device {device} and machine.precision {machine.precision} are not available here ({error})"
        ) from error
    if ours:
        state[_OURS] = True
    if machine.threads > 0:
        torch.set_num_threads(threads)  # accelerate may have shared the processor's cores among the processes
    if device not in ("auto", accelerator.device.type):
        raise UserError(f"machine.device is {device!r}, but this process computes on {accelerator.device.type} already")
    if accelerator.num_processes != world_size:
        raise UserError(
            f"the launcher started {world_size} processes, but this one belongs to a group of "
            f"{accelerator.num_processes}: start one run in a process of its own"
        )
    if world_size > 1:
        be_patient()
    return accelerator


def computes(accelerator: Accelerator) -> str:
    """On what kind of device and in what precision, such as "cuda in bfloat16"."""
    return _in_words(accelerator.device.type, accelerator.mixed_precision == "bf16")


def _in_words(kind: str, half: bool) -> str:
    return f"{kind} in {'bfloat16' if half else 'float32'}"


def _require(device: str, precision: str) -> None:
    """Refuse a device that there is not, or not here, and a precision that there is not."""
    if precision not in get_args(Precision):
        raise UserError(f"machine.precision is {precision!r}, but can be auto, float32 or bfloat16")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"there is no device {device!r}: choose auto, cpu, cuda or mps")
    if device != "auto":
        require_device(device)


def _meet(backend: str, computes: str) -> None:
    """Join the other processes of this run, of which one may have died before it came.

    Args:
        computes: see ``computes``; it has to be the same in all of them.
    """
    store, rank, size = next(iter(dist.rendezvous("env://", timeout=MEETING)))
    if rank == 0:
        store.set("computes", computes)
    elif (first := store.get("computes").decode()) != computes:
        raise UserError(
            f"process {rank} would compute on {computes}, process 0 on {first}: give both --machine.device and "
            "--machine.precision"
        )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=MEETING)


def _check_launch(device: str, world_size: int) -> None:
    """Refuse a launch in which each process would believe to be alone, or wait for others for ever."""
    variable = next((variable for variable in _RANKS if os.environ.get(variable)), None)
    size = next((size for size in LAUNCHED if os.environ.get(size)), None)
    if variable is None and world_size > 1:
        raise UserError(
            f"this run has {world_size} processes by its environment ({size}), which does not say which one this is "
            f"(RANK): start it with torchrun, or unset {size}"
        )
    if variable is not None and _number(variable) >= world_size:
        how_many = f"{size} is {world_size}" if size is not None else "no variable tells of more than one process"
        raise UserError(
            f"the environment variable {variable} is {os.environ[variable]}, but {how_many}: start the run with "
            f"torchrun, or unset {variable}"
        )
    if port := os.environ.get("MASTER_PORT"):
        _number("MASTER_PORT")
        if not 0 < int(port) < 1 << 16:
            raise UserError(f"the environment variable MASTER_PORT is {port}, which no port is: start it with torchrun")
    if world_size == 1:
        return
    here = next((_number(size) for size in _LOCAL_SIZES if os.environ.get(size)), None)
    if os.environ.get("LOCAL_RANK"):
        here = max(here or 1, _number("LOCAL_RANK") + 1)
    if variable == "RANK" and not (os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT")):
        raise UserError(
            "MASTER_ADDR and MASTER_PORT, at which the processes of a run meet, are not set: start it with torchrun"
        )
    if device == "mps":
        raise UserError(
            f"machine.device is mps, which trains in one process, not {world_size}: start it without torchrun"
        )
    on_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_cuda and (here or world_size) > torch.cuda.device_count():
        raise UserError(
            f"there are {here or world_size} processes on this machine, but {torch.cuda.device_count()} CUDA "
            "device(s): start one process a device, or use --machine.device cpu"
        )


def _number(variable: str) -> int:
    """A whole number in the environment; a UserError that names the variable where it holds none."""
    value = os.environ[variable]
    if not (value.isascii() and value.isdigit()):
        raise UserError(f"the environment variable {variable} is {value!r}, not a number: start the run with torchrun")
    return int(value)


def _kind_of_device(world_size: int) -> str:
    """What kind of device "auto" is: an accelerator, where there is one on which so many processes form a group."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if found is None or (world_size > 1 and found.type == "mps") else found.type


def require_memory(pixels: int, size: str) -> None:
    """Refuse a batch that no step could hold, before it is made.

    Args:
        pixels: of all its frames, each of a byte at least.
        size: settings that memory goes by.

    Raises:
        UserError: it takes more than the machine's memory.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # an operating system that does not tell
        return
    if pixels > there:
        told = f"{pixels / 2**30:.0f} GiB, and the machine has {there / 2**30:.0f}"
        raise UserError(f"a batch with {size} takes more memory than there is (at least {told}): lower them")


def keep_freed_memory() -> None:
    """Let the process keep the memory of freed tensors for the next ones (glibc only; elsewhere nothing happens).

    By default the C library gives every large block back to the system, and the system clears each new one page by
    page: of a training step on a CPU that takes up to two fifths, and of reading a batch as much. The price is that the
    process does not shrink again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20)):
        mallopt(option, value)
