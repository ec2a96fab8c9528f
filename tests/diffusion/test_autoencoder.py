"""The autoencoders: where their weights come from, and what they leave of a silhouette."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gaitdiff.diffusion.autoencoder import Autoencoder, load_autoencoder
from gaitdiff.diffusion.taesd import VARIABLE, AutoencoderTiny, Taesd
from gaitdiff.errors import UserError
from reference import RECORDED

GOLDEN = RECORDED / "street.npz"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def student() -> Autoencoder:
    return load_autoencoder("student")


@pytest.fixture(scope="module")
def street() -> Tensor:
    """Eight frames of each of six people in a street, (6, 8, 64, 64) in 0..1."""
    return torch.from_numpy(np.load(GOLDEN)["frames"]).float().view(6, 8, 64, 64) / 255


@pytest.fixture(scope="module")
def street_latents() -> Tensor:
    """TAESD's latents of the same frames, (6, 4, 8, 8, 8)."""
    return torch.from_numpy(np.load(GOLDEN)["taesd_latents"]).float()


def iou(a: Tensor, b: Tensor) -> float:
    a, b = (x.flatten(0, 1).flatten(1) > 0.5 for x in (a, b))
    return ((a & b).sum(1) / (a | b).sum(1)).mean().item()


# --- the student -------------------------------------------------------------------------------------------------


def test_student_gives_silhouettes_back(student: Autoencoder, street: Tensor) -> None:
    latents = student.encode(street)
    assert latents.shape == (6, 4, 8, 8, 8)
    decoded = student.decode(latents)
    assert decoded.shape == street.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert iou(decoded, street) > 0.93


def test_student_s_latents_are_taesd_s(student: Autoencoder, street: Tensor, street_latents: Tensor) -> None:
    """On real people, whom the student never saw; a channel or a frame out of place would break this."""
    latents = student.encode(street)
    error = (latents - street_latents).square().mean().sqrt() / street_latents.std()
    assert error < 0.25
    for channel in range(4):
        pair = torch.stack((latents[:, channel].flatten(), street_latents[:, channel].flatten()))
        assert torch.corrcoef(pair)[0, 1] > 0.95


def test_student_decodes_taesd_s_latents(student: Autoencoder, street: Tensor, street_latents: Tensor) -> None:
    assert iou(student.decode(street_latents), street) > 0.93


def test_student_is_small_and_ships_in_half_precision() -> None:
    from gaitdiff.diffusion import student as module

    assert (Path(module.__file__).parent / "assets" / "student.safetensors").stat().st_size < 1_000_000


def test_chunks_do_not_show(student: Autoencoder, street: Tensor) -> None:
    chunked = Autoencoder(student.codec, chunk=5)
    torch.testing.assert_close(chunked.encode(street), student.encode(street), rtol=1e-4, atol=1e-4)
    latents = student.encode(street)
    torch.testing.assert_close(chunked.decode(latents), student.decode(latents), rtol=1e-4, atol=1e-4)


def test_autoencoder_is_frozen(student: Autoencoder, street: Tensor) -> None:
    clips = street[:1].clone().requires_grad_()
    assert not student.encode(clips).requires_grad
    assert not any(p.requires_grad for p in student.parameters())
    student.train()
    assert not any(m.training for m in student.modules())


def test_float32_under_autocast(student: Autoencoder, street: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = student.encode(street[:1])
    assert torch.equal(inside, student.encode(street[:1]))


# --- where TAESD's weights come from -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoencoderTiny, Path]:
    """Random weights under the original's keys (two files) and diffusers' (folder, and single files)."""
    torch.manual_seed(0)
    tiny = AutoencoderTiny()
    state = {key: tensor.contiguous() for key, tensor in tiny.state_dict().items()}
    root = tmp_path_factory.mktemp("taesd")
    for name in ("original", "diffusers", "single"):
        (root / name).mkdir()

    halves: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in state.items():
        part, _, number, rest = key.split(".", 3)
        halves[part][f"{int(number) + (part == 'decoder')}.{rest}"] = tensor
    for part, half in halves.items():
        save_file(half, root / "original" / f"taesd_{part}.safetensors")
    save_file(state, root / "diffusers" / "diffusion_pytorch_model.safetensors")
    (root / "diffusers" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderTiny", "in_channels": 3}))
    save_file(state, root / "single" / "autoencoder.safetensors")
    both = {f"{part}.{key}": tensor for part, half in halves.items() for key, tensor in half.items()}
    save_file(both, root / "single" / "original.safetensors")
    return tiny, root


@pytest.mark.parametrize(
    "source",
    [
        "original",
        "original/taesd_encoder.safetensors",
        "original/taesd_decoder.safetensors",
        "diffusers",
        "single/autoencoder.safetensors",
        "single/original.safetensors",
    ],
)
def test_every_layout_loads_to_the_same_autoencoder(
    source: str, layouts: tuple[AutoencoderTiny, Path], street: Tensor
) -> None:
    tiny, root = layouts
    loaded = load_autoencoder(str(root / source))
    loaded.in_half = False
    frames = street[:1, :2, 8:24, 24:40]
    rgb = frames.transpose(0, 1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        latents = tiny.encode(2 * rgb - 1).latents  # (2, 4, 2, 2)
        decoded = (tiny.decode(latents).sample.mean(1) + 1) / 2
    torch.testing.assert_close(loaded.encode(frames)[0].transpose(0, 1), latents)
    torch.testing.assert_close(loaded.decode(loaded.encode(frames))[0], decoded.clamp(0, 1))


def test_environment_variable_says_where_taesd_is(
    layouts: tuple[AutoencoderTiny, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, root = layouts
    monkeypatch.setenv(VARIABLE, str(root / "original"))
    loaded, own = load_autoencoder("taesd").state_dict(), Taesd(tiny).state_dict()
    assert loaded.keys() == {f"codec.{key}" for key in own}
    for key, tensor in own.items():
        assert torch.equal(loaded[f"codec.{key}"], tensor)


def test_missing_and_broken_weights_are_one_sentence(tmp_path: Path, layouts: tuple[AutoencoderTiny, Path]) -> None:
    with pytest.raises(UserError, match=r"no autoencoder at .*student"):
        load_autoencoder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"taesd_encoder\.safetensors is missing; .*student"):
        load_autoencoder(str(tmp_path))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match=r"broken\.safetensors cannot be read as safetensors"):
        load_autoencoder(str(broken))
    good = dict(layouts[0].state_dict())
    del good["decoder.layers.0.weight"]
    save_file({k: v.contiguous() for k, v in good.items()}, tmp_path / "lacking.safetensors")
    with pytest.raises(UserError, match=r"lacks 'decoder\.layers\.0\.weight'"):
        load_autoencoder(str(tmp_path / "lacking.safetensors"))


def test_hub_out_of_reach_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"'madebyollin/taesd' is no path here, and could not be fetched .*\"student\".*GAITDIFF_TAESD"
    ):
        load_autoencoder("taesd")


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} does not say where TAESD's weights are")
def test_taesd_s_round_trip_of_people_in_a_street(street: Tensor, street_latents: Tensor) -> None:
    taesd = load_autoencoder("taesd")
    taesd.in_half = False
    latents = taesd.encode(street[:, ::2])
    torch.testing.assert_close(latents, street_latents[:, :, ::2], rtol=2e-3, atol=2e-3)
    assert iou(taesd.decode(latents), street[:, ::2]) >= 0.9


@pytest.mark.parametrize(
    ("clips", "sentence"),
    [
        (torch.rand(2, 64, 64), r"clips must have the shape \(B, T, H, W\), none of them 0, not \(2, 64, 64\)"),
        (torch.rand(2, 3, 1, 64, 64), r"not \(2, 3, 1, 64, 64\)"),
        (torch.rand(0, 3, 64, 64), r"not \(0, 3, 64, 64\)"),
        (torch.rand(1, 2, 64, 44), "64x44, .* multiples of 8"),
        (255 * torch.rand(1, 2, 64, 64), "divide by 255"),
        (torch.rand(1, 2, 64, 64).to_sparse(), "dense tensor"),
        (2 * torch.rand(1, 2, 64, 64) - 1, "scale them"),
        (torch.full((1, 2, 64, 64), float("nan")), "from nan"),
        (torch.zeros(1, 2, 64, 64, dtype=torch.uint8), "floats, not uint8"),
        (np.zeros((1, 2, 64, 64), np.float32), "must be a tensor, not ndarray"),
    ],
)
def test_what_is_no_clip_is_refused(clips: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        load_autoencoder("student").encode(clips)


def test_what_are_no_latents_is_refused() -> None:
    for latents in (torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 2, 8, 8)):
        with pytest.raises(UserError, match=r"latents must have the shape \(B, 4, T, h, w\), none"):
            load_autoencoder("student").decode(latents)
