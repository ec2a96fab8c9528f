"""Gradients of every layer on every kind of CPU: oneDNN takes other ways for other instruction sets and threads.

Each trial is a process of its own, so that a crash or a hang is a failed test which names the layer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gaitdiff.models.layers.convolution import ClipConv3d, FirstConv2d, PointwiseConv2d, by_windows, halve_by_maxima
from layers import LENGTHS, WIDTHS

#: What ``ONEDNN_MAX_CPU_ISA`` is set to; "" leaves this machine's own, which for float32 is AVX512_CORE or the next.
INSTRUCTION_SETS = ("", "AVX2", "SSE41")
#: Largest distance to float64, see ``layers.errors``; rounding alone is a fifth of it or less.
LIMITS = {"float32": 2e-3, "bfloat16": 5e-2}
NARROW = ("walkers", *(f"width {width}" for width in WIDTHS), *(f"clip of {length}" for length in LENGTHS))


def wrong_layers(precision: str, threads: str, instructions: str, only: tuple[str, ...] = ()) -> list[str]:
    """Layers whose results are wrong, or in which the process ended."""
    # Threads that wait without spinning: beside other processes, spinning ones take minutes for seconds of work.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    for name in ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS"):
        environment.pop(name, None)
    if instructions:
        environment["ONEDNN_MAX_CPU_ISA"] = instructions
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "layers.py"), precision, threads, *only]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)
        output, ending = done.stdout, f"ended with {done.returncode}: {done.stderr[-500:]}" if done.returncode else ""
    except subprocess.TimeoutExpired as hung:
        output, ending = (hung.stdout or b"").decode(), "did not end"
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines, ending
    titles, errors = lines[::2], lines[1::2]
    found = [
        f"{title} {error}" for title, error in zip(titles, errors, strict=False) if not within(error, LIMITS[precision])
    ]
    return [*found, f"{titles[-1]} {ending}"] if ending else found


def within(error: dict[str, float], limit: float) -> bool:
    """Whether every result is as close as it should be; NaN is not."""
    return all(value <= limit for value in error.values())


@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_gradients_are_those_of_float64(instructions: str) -> None:
    assert wrong_layers("float32", "1,2", instructions) == []


@pytest.mark.parametrize("instructions", ["", "AVX2"])
def test_gradients_in_bfloat16(instructions: str) -> None:
    assert wrong_layers("bfloat16", "2", instructions, NARROW) == []


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pointwise_convolution_is_that_of_torch(stride: int) -> None:
    """In float64 torch does not use oneDNN and takes the stride itself."""
    torch.manual_seed(0)
    ours = PointwiseConv2d(5, 7, stride).double()
    theirs = nn.Conv2d(5, 7, 1, stride, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, 11, 8, dtype=torch.double)
    results = []
    for conv in (ours, theirs):
        frames = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        conv(frames).square().sum().backward()
        results.append((conv(frames), frames.grad, conv.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
def test_first_convolution_by_windows_is_that_of_torch(size: int) -> None:
    """The way a GPU takes in half precision, in float64."""
    torch.manual_seed(0)
    conv = FirstConv2d(6, size).double()
    x = torch.randn(3, 1, 13, 10, dtype=torch.double)
    results = []
    for way in (conv, lambda frames: by_windows(frames, conv.weight)):
        frames = x.clone().requires_grad_()
        conv.zero_grad()
        way(frames).square().sum().backward()
        results.append((way(frames), frames.grad, conv.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(3, 16, 8, 6), (2, 5, 7, 11), (1, 1, 2, 2), (0, 4, 6, 6)])
def test_halving_is_max_pooling(kind: torch.dtype, layout: torch.memory_format, size: tuple[int, ...]) -> None:
    """Without gradients by another way, with them by torch's own."""
    torch.manual_seed(0)
    x = torch.randn(size).to(kind).contiguous(memory_format=layout)
    x.flatten()[::5] = float("nan")
    expected = F.max_pool2d(x, 2)
    torch.testing.assert_close(halve_by_maxima(x), expected, rtol=0, atol=0, equal_nan=True)
    learned, known = x.clone().requires_grad_(), x.clone().requires_grad_()
    halve_by_maxima(learned).sum().backward()
    F.max_pool2d(known, 2).sum().backward()
    assert torch.equal(learned.grad, known.grad)


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_convolution_of_a_clip_is_that_of_torch(
    size: int, stride: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the way that bfloat16 takes, in float64, in which torch does not use oneDNN."""
    monkeypatch.setattr("gaitdiff.models.layers.convolution._in_half", lambda values: True)
    torch.manual_seed(0)
    ours = ClipConv3d(5, 7, size, stride).double()
    edge = size // 2
    theirs = nn.Conv3d(5, 7, (3, size, size), (1, stride, stride), (1, edge, edge), bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, frames, 11, 8, dtype=torch.double)
    results = []
    for conv in (ours, theirs):
        clips = x.clone().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        conv(clips).square().sum().backward()
        results.append((conv(clips), clips.grad, conv.weight.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
