"""Models: shapes, lengths, the order of frames, and the registry's sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from gaitdiff.errors import UserError
from gaitdiff.models import GaitModel, create_model, list_models, list_presets
from gaitdiff.models.layers.parts import temporal_max

#: Models that take frames one by one, in any order.
FRAMEWISE = [name for name in list_models() if create_model(name, "tiny").backbone.sampling == "unordered"]


def narrow(name: str, **overrides: object) -> GaitModel:
    torch.manual_seed(0)
    return create_model(name, preset="walkers", num_classes=3, **overrides).eval()


@pytest.mark.parametrize("name", list_models())
def test_packed_equals_one_by_one(name: str) -> None:
    model = narrow(name, **({"mode": "2d"} if name == "deepgaitv2" else {}))
    clip, lengths = torch.rand(1, 21, 64, 44), [3, 12, 1, 5]
    with torch.no_grad():
        packed = model(clip, torch.tensor(lengths)).embedding
        alone = torch.cat([model(part).embedding for part in clip.split(lengths, dim=1)])
    assert torch.allclose(packed, alone, atol=1e-5)


@pytest.mark.parametrize("name", list_models())
def test_a_sequence_is_the_same_in_any_batch(name: str) -> None:
    model, clips = narrow(name), torch.rand(3, 7, 64, 44)
    with torch.no_grad():
        together = model(clips)
        alone = [model(clip[None]) for clip in clips]
    assert together.feature.shape == (3, model.backbone.channels, model.backbone.parts)
    assert torch.allclose(together.embedding, torch.cat([one.embedding for one in alone]), atol=1e-5)


@pytest.mark.parametrize("name", list_models())
def test_one_training_step_moves_every_weight(name: str) -> None:
    model = narrow(name).train()
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    output = model(torch.rand(4, 6, 64, 44))
    (output.embedding.square().sum() + (0 if output.logits is None else output.logits.logsumexp(1).sum())).backward()
    optimizer.step()
    assert [key for key, value in model.named_parameters() if torch.equal(value, before[key])] == []


@pytest.mark.parametrize("name", list_models())
def test_gradients_lie_as_their_weights(name: str) -> None:
    """Otherwise each step of several processes copies them, and torch warns."""
    model = narrow(name).train()
    output = model(torch.rand(2, 4, 64, 44))
    (output.embedding.sum() + (0 if output.logits is None else output.logits.sum())).backward()
    strides = {key: (weight.grad.stride(), weight.stride()) for key, weight in model.named_parameters()}
    assert all(one == other for one, other in strides.values()), strides


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("preset", ["gait3d", "walkers"])
def test_training_off_the_cpu_has_gradients(name: str, preset: str) -> None:
    with torch.device("meta"):  # takes the ways of an accelerator, without numbers
        model = create_model(name, preset, num_classes=3)
        output = model(torch.rand(4, 7, 64, 44))
    output.embedding.square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())


@pytest.mark.parametrize("lengths", [[3, 4], torch.tensor([[3, 4]]), np.array([[3, 4]]), [[3, 4]]])
def test_lengths_in_any_form(lengths: object) -> None:
    with torch.no_grad():
        assert len(narrow("gaitset")(torch.rand(1, 7, 64, 44), lengths).feature) == 2


@pytest.mark.parametrize("name", FRAMEWISE)
def test_order_of_frames_does_not_matter(name: str) -> None:
    model, clip = narrow(name), torch.rand(2, 7, 64, 44)
    with torch.no_grad():
        assert torch.allclose(model(clip).feature, model(clip[:, torch.randperm(7)]).feature, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(list_models()) - set(FRAMEWISE)))
def test_order_of_frames_matters_to_models_of_time(name: str) -> None:
    model, clip = narrow(name), torch.rand(2, 9, 64, 44)
    with torch.no_grad():
        assert not torch.allclose(model(clip).feature, model(clip.flip(1).roll(4, 1)).feature, atol=1e-4)


def test_temporal_max_and_its_gradient() -> None:
    frames = torch.randn(2, 5, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.equal(temporal_max(frames), frames.amax(1))
    assert torch.equal(temporal_max(frames[:1], [2, 3])[1], frames[0, 2:].amax(0))
    assert torch.autograd.gradcheck(temporal_max, frames)
    same = torch.ones(1, 4, 2, requires_grad=True)
    temporal_max(same).sum().backward()
    assert same.grad.sum(1).eq(1).all()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: create_model("smplgate"), "did you mean 'smplgait'"),
        (lambda: create_model("smplgait", preset="gait3"), "did you mean 'gait3d'"),
        (lambda: create_model("smplgait", chanels=(1, 2, 3)), "did you mean 'channels'"),
        (lambda: create_model("gaitset", channels=(1, 2)), "three positive numbers"),
        (lambda: create_model("gaitset", bins=(5,)), "16 rows"),
        (lambda: create_model("gaitpart", layers=("M",)), "start with a convolution"),
        (lambda: create_model("gaitpart", layers=("BC-8", "FC-8")), "not 'FC-8'"),
        (
            lambda: create_model("gaitpart", layers=("BC-8", "FC-8-7")),
            "'FC-8-7' where 64 of the frame's 64 rows are left",
        ),
        (lambda: create_model("gaitpart", layers=("BC-8", "M", "FC-8-6")), "'FC-8-6' where 32 of the frame's 64 rows"),
        (lambda: create_model("gaitpart", layers=("BC-8", "M", "M", "M")), "parts must divide the 8 rows"),
        (lambda: create_model("gaitpart", layers=("BC-8", *["M"] * 7)), "'M' where 1 of the frame's 64 rows"),
        (lambda: create_model("gaitgl", channels=(8, 8)), "three or four"),
        (lambda: create_model("gaitbase", layers=(1, 1)), "one positive number a stage"),
        (lambda: create_model("gaitbase", parts=7), "16 rows"),
        (lambda: create_model("gaitbase", strides=(3, 1, 1, 1), parts=21), "22 rows"),
        (lambda: create_model("deepgaitv2", mode="p3-d"), "did you mean 'p3d'"),
        (lambda: create_model("deepgaitv2", layers=(1, 1, 1)), "four positive numbers"),
        (lambda: create_model("gaitgl", bn_neck="False"), "bn_neck must be true or false"),
        (lambda: create_model("gaitpart", embedding=-5), "embedding must be positive"),
        (lambda: create_model("gaitpart", embedding="x"), "embedding must be a whole number"),
        (lambda: create_model("gaitset", channels=7), "channels must be a list"),
        (lambda: create_model("gaitset", channels=(4, 4.5, 8)), "channels must be a whole number"),
        (lambda: create_model("deepgaitv2", mode=2), "mode must be text"),
        (lambda: create_model("gaitset", num_classes=-1), "cannot be less than 0"),
        (lambda: create_model("gaitset", num_classes="4"), "whole number"),
        (lambda: create_model("gaitset")(torch.zeros(1, 2, 64, 44, dtype=torch.uint8)), "divide by 255"),
        (
            lambda: create_model("gaitset")(torch.zeros(1, 2, 64, 44, dtype=torch.bool)),
            "not bool: take .float\\(\\) of",
        ),
        (lambda: create_model("gaitset")(np.zeros((1, 2, 64, 44))), "must be a tensor"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44), [3.5, 3.5]), "whole numbers"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44), "7"), "whole numbers, one a sequence, not '7'"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44), [[1], [2, 4]]), "whole numbers, one a sequence"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44), [None, 7]), "whole numbers, one a sequence"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44), []), "lengths are empty"),
        (lambda: create_model("smplgait")(torch.zeros(1, 7, 64, 44).to_sparse()), "dense tensor"),
        (lambda: create_model("smplgait")(torch.zeros(1, 2, 64, 64)), "cut 10 columns"),
        (lambda: create_model("smplgait")(torch.zeros(1, 2, 64, 50)), "64x44"),
        (lambda: create_model("smplgait")(torch.zeros(2, 64, 44)), r"\(B, T, 64, 44\)"),
        (lambda: create_model("smplgait")(torch.zeros(1, 5, 64, 44), [2, 2]), "sum of lengths"),
        (lambda: narrow("smplgait")(torch.full((1, 2, 64, 44), 255.0)), "from 255 to 255, .* divide by 255"),
        (lambda: narrow("gaitbase").train()(255 * torch.rand(2, 2, 64, 44)), "divide by 255"),
        (lambda: narrow("smplgait")(torch.rand(1, 2, 64, 44) - 0.5), "scale them"),
        (lambda: narrow("smplgait")(torch.rand(1, 2, 64, 44).half()), "float16, but the model's weights float32"),
        (lambda: narrow("smplgait")(torch.rand(1, 2, 64, 44).double()), "float64, but the model's weights float32"),
        (lambda: narrow("smplgait")(torch.full((1, 2, 64, 44), float("nan"))), r"from nan to nan, .* in \[0, 1\]"),
        (lambda: narrow("smplgait")(torch.full((1, 2, 64, 44), float("inf"))), "scale them"),
    ],
)
def test_mistakes_are_named(call, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=sentence):
        call()


def test_numpy_numbers_are_numbers() -> None:
    model = create_model("gaitset", channels=np.array([4, 4, 8]), num_classes=np.int64(3))
    assert model.backbone.channels == 8


def test_registry_lists_what_it_builds() -> None:
    for name in list_models():
        for preset in list_presets(name):
            assert isinstance(create_model(name, preset, num_classes=2), GaitModel)


def test_a_model_that_knows_its_frames_refuses_others() -> None:
    model = narrow("smplgait")
    model.height = 64
    with pytest.raises(UserError, match="64 px high, not 128"):
        model(torch.rand(1, 2, 128, 88))
    model.height = None
    assert model(torch.rand(1, 2, 128, 88)).feature.shape == (1, 64, 16)


def test_torch_sees_what_a_model_gives(tmp_path: Path) -> None:
    """Its wrappers look for tensors in outputs: DistributedDataParallel for what got no gradient, torch.export."""
    model, clip = narrow("smplgait"), torch.rand(2, 3, 64, 44)
    exported = torch.export.export(model.eval(), (clip,)).module()(clip)
    torch.testing.assert_close(exported.embedding, model(clip).embedding)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model.train(), find_unused_parameters=True)
        for _ in range(2):
            wrapped(clip).embedding.square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert all(weight.grad is not None for weight in model.backbone.parameters())
