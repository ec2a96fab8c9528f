"""Models against the golden numbers of the field's reference: outputs, and one training step with its gradients."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gaitdiff
from gaitdiff.models import GaitModel, GaitOutput
from gaitdiff.recognition.losses import cross_entropy, triplet_terms
from reference import filled, golden_arrays, golden_document, standard

GOLDEN = golden_document("models")
MODELS = sorted(GOLDEN["models"])
TRAINED = [(name, case) for name in MODELS for case in GOLDEN["models"][name]["train"]]


def reference_model(name: str) -> GaitModel:
    """The model with the golden weights, loaded under the reference's keys."""
    golden = GOLDEN["models"][name]
    state = {key: filled(key, shape, GOLDEN["salt"]) for key, shape in golden["state_dict"]}
    for key, crc in golden["crc32"].items():
        assert zlib.crc32(state[key].numpy().tobytes()) == crc
    model = gaitdiff.create_model(**golden["call"], num_classes=GOLDEN["classes"])
    assert gaitdiff.opengait.load_state_dict(model, state) == []
    assert sum(value.numel() for value in model.parameters()) == golden["parameters"]
    return model


def clip_of(case: dict[str, Any]) -> Tensor:
    return torch.from_numpy((golden_arrays("silhouettes")[case["array"]] / 255.0).astype(np.float32))


def run(model: GaitModel, name: str) -> GaitOutput:
    """One case: equal lengths, packed, or the packed sequences one by one."""
    case = GOLDEN["cases"][name]
    if name != "separate":
        clip = clip_of(case).to(next(model.parameters()).dtype)
        return model(clip, case.get("lengths"))
    outputs = [model(part) for part in clip_of(case).split(case["lengths"], dim=1)]
    logits = None if outputs[0].logits is None else torch.cat([output.logits for output in outputs])
    return GaitOutput(*(torch.cat([getattr(o, key) for o in outputs]) for key in ("feature", "embedding")), logits)


def differs(ours: Tensor, golden: np.ndarray) -> float:
    """Largest difference as a share of the golden numbers' RMS."""
    return float(np.abs(ours.detach().numpy() - golden).max() / np.sqrt((golden**2).mean()))


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_the_reference(name: str) -> None:
    model, arrays = reference_model(name).eval(), golden_arrays(f"model_{name}")
    cases = {key.split("/")[0] for key in arrays} & GOLDEN["cases"].keys() - {"train", "train_packed"}
    assert {"fixed", "big"} <= cases
    with torch.no_grad():
        outputs = {case: run(model, case) for case in cases}
    for case, output in outputs.items():
        assert differs(output.feature[:, ::9], arrays[f"{case}/feature"]) < 3e-5
        assert differs(output.embedding[:, ::9], arrays[f"{case}/embedding"]) < 3e-5
        if output.logits is None:
            assert f"{case}/logits" not in arrays
        else:
            assert differs(output.logits, arrays[f"{case}/logits"]) < 3e-5


def total_loss(name: str, output: GaitOutput, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses that the reference trains this model with, and the triplet's terms per part."""
    total = torch.zeros(())
    terms: dict[str, Tensor] = {}
    for loss in GOLDEN["models"][name]["losses"]:
        if loss["type"] == "TripletLoss":
            found = triplet_terms(output.embedding, labels, loss["margin"], "euclidean")
            terms = {
                "loss": found.loss,
                "hard_loss": found.hardest,
                "loss_num": found.violated,
                "mean_dist": found.mean_distance,
            }
            total = total + loss["loss_term_weight"] * found.loss.mean()
        else:
            smoothing = 0.1 if loss.get("label_smooth", True) else 0.0
            assert output.logits is not None
            total = total + loss["loss_term_weight"] * cross_entropy(output.logits, labels, loss["scale"], smoothing)
    return total, terms


#: Double precision does not depend on the CPU: the narrowest and shallowest model of each kind does.
EXACT = [name for name in MODELS if "c256" not in name and "l1441" not in name]
#: Two frames so nearly alike that rounding says which of them the maximum is of: the gradient goes to the other.
NEAR_TIES = {("gaitset_c256", "train_packed"): 10}
STEPS = [(name, case, "float32") for name, case in TRAINED]
STEPS += [(name, "train", "float64") for name in EXACT]


@pytest.mark.parametrize(("name", "case", "precision"), STEPS)
def test_training_step_equals_the_reference(name: str, case: str, precision: str) -> None:
    """As it is trained, and in double precision, where no near tie of two frames can flip: there it is exact."""
    exact = precision == "float64"
    model, arrays = reference_model(name).train().to(getattr(torch, precision)), golden_arrays(f"model_{name}")
    golden = GOLDEN["models"][name]["train"][case]
    output = run(model, case)
    total, terms = total_loss(name, output, torch.tensor(GOLDEN["cases"][case]["labels"]))
    total.backward()
    assert total.item() == pytest.approx(golden["losses"]["total_loss"], rel=2e-4)  # the reference's own is 1.1e-4 off
    assert differs(output.embedding[:, ::9], arrays[f"{case}/embedding"]) < 1e-4
    # A neck's BatchNorm over four rows amplifies rounding: the reference's own logits are 1.6e-4 off float64's.
    assert output.logits is None or differs(output.logits, arrays[f"{case}/logits"]) < 1e-3
    for key, value in terms.items():
        noise = 1e-2 if key == "mean_dist" else 1e-3  # the reference's distances of rows to themselves are not 0
        assert differs(value, arrays[f"{case}/triplet/{key}"]) < noise
    check_gradients(model, golden, 5e-5 if exact else None, 2 if exact else NEAR_TIES.get((name, case), 5))
    check_statistics(model, golden["buffers"], 5e-6 if exact else 1e-4)


def check_gradients(model: GaitModel, golden: dict[str, Any], sharpness: float | None, reach: float) -> None:
    """Norm and projection of every gradient, in float32 (no sharpness given) as sharply as it gives them."""
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(gradients[key])
    names = gaitdiff.opengait.state_dict(model)
    assert golden["grad"].keys() <= names.keys()
    for key, (norm, projection) in golden["grad_float64"].items():
        grad = names[key].double()
        sharp = sharpness or max(3 * golden["sharp"][key], 2e-3)
        limit = reach * sharp * norm
        z = torch.from_numpy(standard("grad/" + key, list(grad.shape), GOLDEN["salt"]))
        assert grad.norm().item() == pytest.approx(norm, rel=sharp), key
        assert (grad * z).sum().item() == pytest.approx(projection, abs=limit), key


def check_statistics(model: GaitModel, golden: dict[str, Any], limit: float) -> None:
    """Norm and projection of BatchNorm statistics after one forward."""
    state = gaitdiff.opengait.state_dict(model)
    for key, want in golden.items():
        if isinstance(want, int):
            assert state[key].item() == want
            continue
        value = state[key].double()
        z = torch.from_numpy(standard("buffer/" + key, list(value.shape), GOLDEN["salt"]))
        assert value.norm().item() == pytest.approx(want[0], rel=limit), key
        assert (value * z).sum().item() == pytest.approx(want[1], abs=limit * want[0]), key
