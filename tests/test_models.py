"""Models against the reference's golden numbers, and the registry's sentences."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from gaitdiff.errors import UserError
from gaitdiff.losses import cross_entropy, triplet_loss
from gaitdiff.models import GaitModel, create_model, list_models, list_presets
from reference import filled, golden_arrays, golden_document, standard

# The order in which our names stand against the reference's.
_REFERENCE_ORDER = [
    *(f"Backbone.forward_block.feature.{i}.conv.weight" for i in (0, 2, 5, 7, 10, 12)),
    "FCs.fc_bin",
    *(f"BNNecks.bn1d.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    "BNNecks.fc_bin",
]


def reference_model() -> tuple[GaitModel, dict[str, str]]:
    """SMPLGait w/o 3D with the golden weights, and our names of the reference's."""
    golden = golden_document("smplgait")
    state = {key: filled(key, shape, golden["salt"]) for key, shape, _ in golden["state_dict"]}
    for key, crc in golden["crc32"].items():
        assert zlib.crc32(state[key].numpy().tobytes()) == crc
    model = create_model("smplgait", preset="gait3d", num_classes=10)
    names = dict(zip(model.state_dict(), _REFERENCE_ORDER, strict=True))
    model.load_state_dict({ours: state[theirs] for ours, theirs in names.items()})
    return model, names


def inputs(case: str) -> torch.Tensor:
    return torch.from_numpy((golden_arrays("silhouettes")[case] / 255.0).astype(np.float32))


@pytest.mark.parametrize(("case", "lengths"), [("fixed", None), ("packed", [7, 12, 30]), ("big", None)])
def test_outputs_equal_the_reference(case: str, lengths: list[int] | None) -> None:
    model, _ = reference_model()
    model.eval()
    with torch.no_grad():
        output = model(inputs(case), lengths)
    golden = golden_arrays("smplgait")
    for name in ("feature", "embedding", "logits"):
        want = golden[f"{case}/{name}"]
        rms = np.sqrt((want**2).mean())
        assert np.abs(getattr(output, name)[..., ::4].numpy() - want).max() < 1e-4 * rms


def test_training_step_equals_the_reference() -> None:
    model, names = reference_model()
    golden = golden_document("smplgait")
    labels = torch.tensor(golden["train"]["labels"])
    model.train()
    output = model(inputs("train"))
    total = triplet_loss(output.embedding, labels) + 0.1 * cross_entropy(output.logits, labels)
    assert total.item() == pytest.approx(golden["train"]["losses"]["total_loss"], rel=1e-4)
    total.backward()
    for ours, parameter in model.named_parameters():
        key = names[ours]
        norm, projection = golden["train"]["grad"][key]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=2e-2)
        z = torch.from_numpy(standard("grad/" + key, list(parameter.shape), golden["salt"]))
        assert (parameter.grad.double() * z).sum().item() == pytest.approx(projection, abs=2e-2 * norm * 5)


def test_packed_equals_one_by_one() -> None:
    torch.manual_seed(0)
    model = create_model("smplgait", preset="walkers", num_classes=3).eval()
    clip, lengths = torch.rand(1, 20, 64, 44), [3, 12, 5]
    with torch.no_grad():
        packed = model(clip, lengths).embedding
        alone = torch.cat([model(part).embedding for part in clip.split(lengths, dim=1)])
    assert torch.allclose(packed, alone, atol=1e-5)


def test_parameter_count() -> None:
    model = create_model("smplgait", preset="gait3d")
    assert sum(p.numel() for p in model.parameters()) == 3_191_872


def test_order_of_frames_does_not_matter() -> None:
    torch.manual_seed(0)
    model = create_model("smplgait", preset="walkers").eval()
    clip = torch.rand(2, 7, 64, 44)
    with torch.no_grad():
        assert torch.allclose(model(clip).feature, model(clip[:, torch.randperm(7)]).feature, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: create_model("smplgate"), "did you mean 'smplgait'"),
        (lambda: create_model("smplgait", preset="gait3"), "did you mean 'gait3d'"),
        (lambda: create_model("smplgait", chanels=(1, 2, 3)), "did you mean 'channels'"),
        (lambda: create_model("smplgait")(torch.zeros(1, 2, 64, 64)), "cut 10 columns"),
        (lambda: create_model("smplgait")(torch.zeros(1, 2, 64, 50)), "64x44"),
        (lambda: create_model("smplgait")(torch.zeros(2, 64, 44)), r"\(B, T, 64, 44\)"),
        (lambda: create_model("smplgait")(torch.zeros(1, 5, 64, 44), [2, 2]), "sum of lengths"),
    ],
)
def test_mistakes_are_named(call, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=sentence):
        call()


def test_registry_lists_what_it_builds() -> None:
    for name in list_models():
        for preset in list_presets(name):
            assert isinstance(create_model(name, preset, num_classes=2), GaitModel)
