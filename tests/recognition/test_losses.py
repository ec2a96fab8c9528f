"""Losses against golden numbers, brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gaitdiff.errors import UserError
from gaitdiff.recognition.losses import Distance, cross_entropy, pairwise_distance, triplet_loss, triplet_terms
from reference import golden_arrays, golden_document

TRIPLETS = ["normal", "tight", "collapsed", "wide_margin", "duplicate_row"]
ENTROPIES = ["scale16_smooth", "scale16_plain", "scale1_plain", "scale1_smooth"]
COMBINED = ["gaitbase", "plain_bnneck", "gaitgl_c128", "gaitgl_c256"]
DISTANCES: list[Distance] = ["euclidean", "cosine"]
UNEQUAL = [0, 0, 0, 1, 2, 2, 7]
#: One identity with so many rows that the loss goes another way about them.
CROWD = [3] * 52 + UNEQUAL


@pytest.mark.parametrize("case", TRIPLETS)
def test_triplet_equals_the_reference(case: str) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"triplet/{case}"]
    embedding = torch.from_numpy(arrays[f"triplet/{case}/embeddings"]).requires_grad_()
    labels = torch.from_numpy(arrays["labels"])
    terms = triplet_terms(embedding, labels, want["margin"], "euclidean")
    terms.loss.mean().backward()
    assert terms.loss.mean().item() == pytest.approx(want["loss_float64"], abs=1e-4)
    assert terms.loss.tolist() == pytest.approx(want["loss_per_part_float64"], abs=1e-4)
    assert terms.violated.tolist() == want["nonzero_triplets_per_part"]
    assert terms.hardest.tolist() == pytest.approx(want["hard_loss_per_part"], abs=5e-3)
    assert terms.mean_distance.tolist() == pytest.approx(want["mean_distance_per_part"], rel=1e-4)
    assert embedding.grad.norm().item() == pytest.approx(want["grad_norm_float64"], rel=1e-4)
    grad = arrays[f"triplet/{case}/grad_float64"]
    assert np.abs(embedding.grad.numpy() - grad).max() < 1e-3 * np.abs(grad).max()


@pytest.mark.parametrize("case", TRIPLETS)
def test_triplet_in_float64_equals_the_reference_in_float64(case: str) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"triplet/{case}"]
    embedding = torch.from_numpy(arrays[f"triplet/{case}/embeddings"]).double().requires_grad_()
    terms = triplet_terms(embedding, torch.from_numpy(arrays["labels"]), want["margin"], "euclidean")
    terms.loss.mean().backward()
    assert terms.loss.dtype == torch.float64
    assert terms.loss.tolist() == pytest.approx(want["loss_per_part_float64"], abs=1e-8)
    grad = arrays[f"triplet/{case}/grad_float64"]
    assert np.abs(embedding.grad.numpy() - grad).max() < 1e-6 * np.abs(grad).max()


@pytest.mark.parametrize("side_by_side", [False, True], ids=["contiguous", "classes side by side"])
@pytest.mark.parametrize("case", ENTROPIES)
def test_cross_entropy_equals_the_reference(case: str, side_by_side: bool) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"cross_entropy/{case}"]
    logits, labels = torch.from_numpy(arrays[f"cross_entropy/{case}/logits"]), torch.from_numpy(arrays["labels"])
    logits = (as_heads_give_them(logits) if side_by_side else logits).requires_grad_()
    loss = cross_entropy(logits, labels, want["scale"], want["label_smoothing"])
    loss.backward()
    assert loss.item() == pytest.approx(want["loss"], rel=1e-5)
    assert logits.grad.norm().item() == pytest.approx(want["grad_norm"], rel=1e-4)
    grad = arrays[f"cross_entropy/{case}/grad"]
    assert np.abs(logits.grad.numpy() - grad).max() < 1e-5 * np.abs(grad).max()
    # The gradient is scale (share - target) / (n P): the shares in it are right as often as the reference was.
    classes, parts = logits.shape[1:]
    smooth = want["label_smoothing"]
    target = F.one_hot(labels, classes)[:, :, None] * (1 - smooth) + smooth / classes
    share = logits.grad * (len(labels) * parts / want["scale"]) + target
    assert share.sum(1).sub(1).abs().max() < 1e-5
    assert (share.argmax(1) == labels[:, None]).float().mean().item() == pytest.approx(want["accuracy"])


@pytest.mark.parametrize("case", COMBINED)
def test_combined_losses_equal_the_reference(case: str) -> None:
    arrays, want = golden_arrays("losses"), golden_document("losses")[f"combined/{case}"]
    labels = torch.from_numpy(arrays["labels"])
    embedding = torch.from_numpy(arrays[f"triplet/{want['triplet_case']}/embeddings"])
    logits = torch.from_numpy(arrays[f"cross_entropy/{want['ce_logits']}/logits"])
    triplet = triplet_loss(embedding, labels, want["triplet_margin"], "euclidean")
    entropy = cross_entropy(logits, labels, want["ce_scale"], want["ce_label_smoothing"])
    total = want["triplet_weight"] * triplet + want["ce_weight"] * entropy
    assert total.item() == pytest.approx(want["total"], rel=1e-5)


def brute_force(embedding: Tensor, labels: list[int], margin: float, distance: Distance) -> list[list[float]]:
    """Loss, violated and hardest of each part by the definition, triplet by triplet, in float64."""
    found = []
    for x in embedding.detach().double().permute(2, 0, 1).numpy():
        gap = np.linalg.norm(x[:, None] - x[None], axis=2)
        if distance == "cosine":
            unit = x / np.linalg.norm(x, axis=1, keepdims=True)
            gap = 1 - unit @ unit.T
        rows = range(len(labels))
        violations = [
            gap[a, p] - gap[a, n] + margin
            for a in rows
            for p in rows
            for n in rows
            if labels[p] == labels[a] != labels[n] and gap[a, p] - gap[a, n] + margin > 0
        ]
        found.append([np.mean(violations or [0.0]), len(violations), max(violations, default=0.0)])
    return np.array(found).T.tolist()


@pytest.mark.parametrize("labels", [UNEQUAL, CROWD], ids=["few", "crowd"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_triplet_equals_brute_force(distance: Distance, labels: list[int]) -> None:
    embedding = torch.randn(len(labels), 5, 3, generator=torch.Generator().manual_seed(0))
    terms = triplet_terms(embedding, torch.tensor(labels), 0.2, distance)
    loss, violated, hardest = brute_force(embedding, labels, 0.2, distance)
    assert terms.loss.tolist() == pytest.approx(loss, rel=1e-5)
    assert terms.violated.tolist() == violated
    assert terms.hardest.tolist() == pytest.approx(hardest, rel=1e-5)


@pytest.mark.parametrize("labels", [UNEQUAL, CROWD], ids=["few", "crowd"])
@pytest.mark.parametrize("margin", [0.0, 1.0, -1.0])
def test_a_tie_is_no_violation(labels: list[int], margin: float) -> None:
    # Points on a line at whole numbers: distances are exact, and many of them equal up to the margin.
    embedding = torch.randint(0, 6, (len(labels), 1, 4), generator=torch.Generator().manual_seed(1)).float()
    terms = triplet_terms(embedding, torch.tensor(labels), margin, "euclidean")
    loss, violated, hardest = brute_force(embedding, labels, margin, "euclidean")
    assert terms.violated.tolist() == violated
    assert terms.loss.tolist() == pytest.approx(loss, rel=1e-5)
    assert terms.hardest.tolist() == hardest


@pytest.mark.parametrize("labels", [UNEQUAL, CROWD], ids=["few", "crowd"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_triplet_gradient_equals_finite_differences(distance: Distance, labels: list[int]) -> None:
    x = torch.randn(len(labels), 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names = torch.tensor(labels)
    assert torch.autograd.gradcheck(
        lambda x: triplet_terms(x, names, 0.3, distance).loss, x.requires_grad_(), fast_mode=True
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_distance_gradient_equals_finite_differences(distance: Distance) -> None:
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    apart = ~torch.eye(5, dtype=torch.bool)  # a row's distance to itself has a kink
    assert torch.autograd.gradcheck(lambda x: pairwise_distance(x, distance)[:, apart], x)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_cross_entropy_gradient_equals_finite_differences(side_by_side: bool, smoothing: float) -> None:
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    logits = (as_heads_give_them(logits) if side_by_side else logits).requires_grad_()
    labels = torch.tensor([0, 5, 2, 2], dtype=torch.int32)
    assert torch.autograd.gradcheck(lambda x: 3 * cross_entropy(x, labels, 2.5, smoothing), logits)


def test_cross_entropy_stays_finite_for_large_logits() -> None:
    logits = torch.tensor([[[1e4], [0.0], [-1e4]]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([2]), scale=1.0, smoothing=0.0)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert logits.grad.flatten().tolist() == [1.0, 0.0, -1.0]


def test_gradient_is_zero_where_rows_coincide() -> None:
    for row in (torch.ones(3), torch.zeros(3)):
        embedding = row[None, :, None].repeat(4, 1, 2).requires_grad_()
        for distance in DISTANCES:
            embedding.grad = None
            triplet_loss(embedding, torch.tensor([0, 0, 1, 1]), 0.2, distance).backward()
            assert embedding.grad.abs().max() < 1e-6


def test_one_identity_has_no_triplets() -> None:
    for rows in (4, 60):
        embedding = torch.randn(rows, 3, 2, requires_grad=True)
        terms = triplet_terms(embedding, torch.zeros(rows, dtype=torch.long), 0.2, "euclidean")
        terms.loss.mean().backward()
        assert terms.loss.tolist() == terms.violated.tolist() == terms.hardest.tolist() == [0, 0]
        assert not embedding.grad.any()


@pytest.mark.parametrize("labels", [UNEQUAL, CROWD], ids=["few", "crowd"])
def test_a_broken_part_shows_in_its_loss_alone(labels: list[int]) -> None:
    embedding = torch.randn(len(labels), 5, 3)
    embedding[2, 1, 1] = torch.nan
    for distance in DISTANCES:
        assert triplet_terms(embedding, torch.tensor(labels), 0.2, distance).loss.isnan().tolist() == [0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, labels = torch.randn(7, 5, 3).to(dtype), torch.tensor(UNEQUAL) % 5
    for loss in (lambda x: triplet_loss(x, labels, 0.2, "cosine"), lambda x: cross_entropy(x, labels)):
        half, full = x.clone().requires_grad_(), x.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = loss(half)
            ours.backward()
        want = loss(full)
        want.backward()
        assert ours.dtype == torch.float32
        assert ours.item() == want.item()
        assert torch.equal(half.grad, full.grad.to(dtype))


def test_differentiating_twice_is_refused() -> None:
    labels = torch.tensor(UNEQUAL) % 5
    for distance in ("cosine", "euclidean"):
        x = torch.randn(7, 5, 3, requires_grad=True)
        with pytest.raises(UserError, match="leave out create_graph"):
            torch.autograd.grad(triplet_loss(x, labels, distance=distance), x, create_graph=True)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, Tensor):
                self.numbers = max(self.numbers, made.untyped_storage().nbytes() // made.element_size())
        return result


@pytest.mark.parametrize("most", [4, 40, 100])
def test_memory_does_not_depend_on_who_is_who(most: int) -> None:
    n, parts = 128, 6
    labels = torch.cat([torch.zeros(most, dtype=torch.long), torch.arange(n - most) // 4 + 1])
    with Largest() as largest:
        triplet_loss(torch.randn(n, 16, parts, requires_grad=True), labels).backward()
    assert largest.numbers == n * n * parts


def test_no_number_is_awaited_from_a_device() -> None:
    # Tensors of the device "meta" hold no numbers: whoever asks for one gets an error.
    labels = torch.zeros(64, dtype=torch.long, device="meta")
    for loss in (lambda x: triplet_loss(x, labels), lambda x: cross_entropy(x, labels)):
        x = torch.randn(64, 5, 3, device="meta", requires_grad=True)
        loss(x).backward()
        assert x.grad.shape == x.shape


def test_mistakes_are_refused_in_one_sentence() -> None:
    x, labels = torch.ones(2, 3, 1), torch.tensor([0, 1])
    wrong: Distance = "euclidian"  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"'euclidian'.*did you mean 'euclidean'"):
        triplet_loss(x, labels, 0.2, wrong)
    with pytest.raises(UserError, match=r"from 0 to 1, not 1\.5"):
        cross_entropy(x, labels, smoothing=1.5)
    with pytest.raises(UserError, match=r"2 embeddings but labels of the shape \(3,\)"):
        triplet_loss(x, torch.tensor([0, 1, 1]))
    with pytest.raises(UserError, match=r"embeddings must have the shape \(n, C, P\).*\(2, 3\)"):
        triplet_loss(x[:, :, 0], labels)
    with pytest.raises(UserError, match=r"none of them 0, not \(0, 3, 1\)"):
        triplet_loss(x[:0], labels[:0])
    with pytest.raises(UserError, match="integers, not float32"):
        triplet_loss(x, labels.float())
    with pytest.raises(UserError, match="from 0 to 3, but the logits have the 3 classes 0 to 2"):
        cross_entropy(x, torch.tensor([0, 3]))
    with pytest.raises(UserError, match="from -1 to 0"):
        cross_entropy(x, torch.tensor([0, -1]))
    with pytest.raises(UserError, match=r"2 logits but labels of the shape \(2, 1\)"):
        cross_entropy(x, labels[:, None])
    with pytest.raises(UserError, match=r"logits must have the shape \(n, classes, P\)"):
        cross_entropy(x[0], labels)


def as_heads_give_them(logits: Tensor) -> Tensor:
    """The same numbers with the classes of one sequence and part side by side in memory."""
    return logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)


def test_labels_may_be_a_list_or_an_array() -> None:
    embedding, labels = torch.randn(4, 3, 2), [0, 0, 1, 1]
    for given in (labels, np.array(labels), torch.tensor(labels, dtype=torch.int32)):
        assert triplet_loss(embedding, given) == triplet_loss(embedding, torch.tensor(labels))


def test_a_model_without_classes_has_no_cross_entropy() -> None:
    with pytest.raises(UserError, match="never classifies"):
        cross_entropy(None, torch.tensor([0]))
