"""Gradients of every layer beside float64, in this process: ``layers.py PRECISION THREADS,… ENDING…``.

Prints a line of JSON before each layer and number of threads, and one with its errors after it, so that whoever started
the process knows the layer in which it ended.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor, nn

from gaitdiff.diffusion.attention import Attention
from gaitdiff.diffusion.denoiser import Denoiser
from gaitdiff.diffusion.student import Student
from gaitdiff.diffusion.taesd import Taesd
from gaitdiff.models import create_model, list_models, list_presets
from gaitdiff.models.registry import model_config

#: Widths of a user's own narrow models: fewer channels than a register of any CPU holds, and no power of two.
WIDTHS = (3, 4, 8, 12)
#: Frames of short clips, of which those with a convolution over time make one and two at most.
LENGTHS = (1, 2, 6)


def narrow(name: str, width: int) -> dict[str, Any]:
    """Overrides of the walkers preset that make every layer narrow."""
    if name == "gaitpart":
        return {"layers": [f"BC-{width}", "M", f"FC-{2 * width}-2"], "embedding": width}
    return {"channels": [width, width, 2 * width, 2 * width][: 4 if name in ("gaitbase", "deepgaitv2") else 3]}


def models() -> Iterator[tuple[str, Callable[[], nn.Module], tuple[Tensor, ...]]]:
    """Every model in each preset once and narrow, denoisers and autoencoders, each with what it is called with."""
    few, many = torch.rand(2, 3, 64, 44), torch.rand(2, 12, 64, 44)
    for name in list_models():
        distinct = {str(model_config(name, preset, {})): preset for preset in reversed(list_presets(name))}
        for preset in distinct.values():
            clips = many if preset == "walkers" else few
            yield f"{name} {preset}", lambda n=name, p=preset: create_model(n, p, 5), (clips,)
        for width in WIDTHS:
            kept = narrow(name, width)
            yield f"{name} width {width}", lambda n=name, k=kept: create_model(n, "walkers", 5, **k), (many,)
        for length in LENGTHS:
            short = torch.rand(2, length, 64, 44)
            yield f"{name} clip of {length}", lambda n=name: create_model(n, "walkers", 5), (short,)
    for mode in ("2d", "3d"):
        yield f"deepgaitv2 {mode}", lambda m=mode: create_model("deepgaitv2", "walkers", 5, mode=m), (many,)
    t, condition, keep = torch.tensor([3, 700]), torch.rand(2, 24), torch.tensor([False, True])
    for preset in ("walkers", "small", "base", "large"):
        latents = torch.rand(2, 4, 8 if preset == "walkers" else 2, 8, 8)
        yield f"denoiser {preset}", lambda p=preset: Denoiser.preset(p, 24), (latents, t, condition, keep)
    yield "student", lambda: Roundtrip(Student()), (torch.rand(8, 1, 64, 64),)
    yield "taesd", lambda: Roundtrip(Taesd(AutoencoderTiny())), (torch.rand(2, 1, 64, 64),)


class Roundtrip(nn.Module):
    """An autoencoder's two ways, so that every layer of it is called."""

    def __init__(self, codec: nn.Module) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, frames: Tensor) -> Tensor:
        return self.codec.decode_frames(self.codec.encode_frames(frames))  # type: ignore[operator]


def calls(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """What each layer with weights of its own is called with, (name, layer, arguments, keywords)."""
    found: list[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def remember(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            kept = tuple(x.detach().clone() if isinstance(x, Tensor) else x for x in arguments)
            found.append((name, layer, kept, keywords))

        return hook

    handles = [
        layer.register_forward_pre_hook(remember(name), with_kwargs=True)
        for name, layer in model.named_modules()
        if layer is not model
        and (layer._parameters or isinstance(layer, Attention))  # which uses its children's weights
    ]
    with torch.no_grad():
        model.train()(*inputs)
    for handle in handles:
        handle.remove()
    return found


class Called:
    """A layer called with copies of its arguments, and what came out."""

    def __init__(self, layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.layer = layer
        self.inputs = [
            x.requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() and x.dim() > 0 else x
            for x in arguments
        ]
        output = layer(*self.inputs, **keywords)
        self.output: Tensor = output[0] if isinstance(output, tuple) else output

    def gradients(self, gradient: Tensor) -> dict[str, Tensor]:
        """Output, gradients of weights and gradient of the inputs, for a gradient of the output; anew each time."""
        for leaf in (*self.inputs, *self.layer.parameters()):
            if isinstance(leaf, Tensor):
                leaf.grad = None
        self.output.backward(gradient.to(self.output.dtype), retain_graph=True)
        grads = {f"input {i}": x.grad for i, x in enumerate(self.inputs) if isinstance(x, Tensor)}
        grads |= {key: weight.grad for key, weight in self.layer.named_parameters()}
        return {"output": self.output.detach(), **{key: grad for key, grad in grads.items() if grad is not None}}


def doubled(value: Any) -> Any:
    """The same in float64."""
    if is_dataclass(value):
        return type(value)(**{field.name: doubled(getattr(value, field.name)) for field in fields(value)})
    return value.detach().double() if isinstance(value, Tensor) and value.is_floating_point() else value


def errors(
    layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], half: bool, threads: Sequence[int]
) -> Iterator[dict[str, float]]:
    """For each number of threads, distance to float64 of each result, as a share of its length.

    The gradient of the output is random, and the same each time. Where an output is above zero in one precision alone,
    rounding has flipped a ReLU, whose slope is either: the gradient is zero there. The outputs themselves are compared
    everywhere.
    """
    exact = Called(
        copy.deepcopy(layer).double().requires_grad_(),
        tuple(map(doubled, arguments)),
        {key: doubled(value) for key, value in keywords.items()},
    )
    random = torch.randn(exact.output.shape, generator=torch.Generator().manual_seed(1))
    known: tuple[Tensor, dict[str, Tensor]] | None = None  # float64 is slow: nearly always all threads agree
    for number in threads:
        torch.set_num_threads(number)
        own = copy.deepcopy(layer).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = Called(own, tuple(x.clone() if isinstance(x, Tensor) else x for x in arguments), keywords)
        gradient = random * ((found.output > 0) == (exact.output > 0))
        if known is None or not torch.equal(gradient, known[0]):
            known = gradient, exact.gradients(gradient)
        right, got = known[1], found.gradients(gradient)
        assert got.keys() == right.keys()
        yield {
            key: float((got[key].double() - value).norm() / value.norm().clamp(min=1e-30))
            for key, value in right.items()
        }


def main(precision: str, threads: Sequence[int], chosen: list[str]) -> None:
    """Go through the layers of all models, or of those whose titles end so; layers that are alike count once."""
    torch.manual_seed(0)
    seen: set[tuple[str, ...]] = set()
    for title, make, inputs in models():
        if chosen and not title.endswith(tuple(chosen)):
            continue
        torch.manual_seed(0)
        for name, layer, arguments, keywords in calls(make(), inputs):
            shapes = [f"{tuple(x.shape)} {x.stride()}" for x in arguments if isinstance(x, Tensor)]
            alike = (type(layer).__qualname__, layer.extra_repr(), *shapes, str(keywords))
            if alike in seen:
                continue
            seen.add(alike)
            line = {"model": title, "name": name, "layer": f"{alike[0]}({alike[1]})", "input": shapes}
            found = errors(layer, arguments, keywords, precision == "bfloat16", threads)
            for number in threads:
                print(json.dumps({**line, "threads": number}), flush=True)
                print(json.dumps(next(found)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], list(map(int, sys.argv[2].split(","))), sys.argv[3:])
