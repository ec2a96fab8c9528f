"""TAESD, the Tiny AutoEncoder for Stable Diffusion, on silhouettes; and where its weights may come from.

TAESD is Ollin Boer Bohan's (github.com/madebyollin/taesd, MIT). Its weights are not part of this project.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import cast

from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gaitdiff.errors import UserError
from gaitdiff.utils.files import parse_json, require_regular
from gaitdiff.utils.memory_format import as_images, channels_last

#: The environment variable that says where TAESD's weights are on this machine: a folder or a file.
VARIABLE = "GAITDIFF_TAESD"
HUB_ID = "madebyollin/taesd"
_CLAMP = 3.0  # latents are bent into -3..3 before they are decoded
DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WAYS_OUT = 'use the autoencoder "student", or give the path of a folder with TAESD\'s safetensors'


class Taesd(nn.Module):
    """TAESD on silhouettes, whose three channels are one.

    The three are equal, so that what its first convolution makes of them is what the sum of its weights over them makes
    of one, and the mean of the three that its last one gives is what their mean weights give: the same numbers but for
    rounding. Frames are in 0..1 as they are for TAESD's own layers.
    """

    def __init__(self, tiny: AutoencoderTiny) -> None:
        super().__init__()
        first, *inner = tiny.encoder.layers
        *outer, last = tiny.decoder.layers
        self.encoder = nn.Sequential(_of_one_channel(first), *inner)
        self.decoder = nn.Sequential(*outer, _to_one_channel(last))
        channels_last(self)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """(N, 1, H, W) in 0..1 → (N, 4, H/8, W/8)."""
        return self.encoder(as_images(frames[:, 0]))

    def decode_frames(self, latents: Tensor) -> Tensor:
        """(N, 4, h, w) → (N, 1, 8h, 8w) in 0..1."""
        return self.decoder((latents / _CLAMP).tanh() * _CLAMP).clamp(0, 1)


def _of_one_channel(convolution: nn.Module) -> nn.Conv2d:
    """A convolution of equal channels as one of one of them."""
    assert isinstance(convolution, nn.Conv2d)
    folded = nn.Conv2d(1, convolution.out_channels, 3, padding=1)
    folded.load_state_dict({**convolution.state_dict(), "weight": convolution.weight.detach().sum(1, keepdim=True)})
    return folded


def _to_one_channel(convolution: nn.Module) -> nn.Conv2d:
    """A convolution whose only channel is the mean of another one's."""
    assert isinstance(convolution, nn.Conv2d)
    folded = nn.Conv2d(convolution.in_channels, 1, 3, padding=1)
    folded.load_state_dict({key: value.mean(0, keepdim=True) for key, value in convolution.state_dict().items()})
    return folded


def load_taesd(source: str = "taesd") -> Taesd:
    """Load TAESD from ``source``, as :func:`gaitdiff.diffusion.autoencoder.load_autoencoder` describes it.

    Raises UserError when the weights are missing, unreachable, or not TAESD's.
    """
    return Taesd(load_tiny(source))


def load_tiny(source: str = "taesd") -> AutoencoderTiny:
    """The same as diffusers has it, of three channels in -1..1."""
    if source == "taesd":
        source = os.environ.get(VARIABLE) or HUB_ID
        if source != HUB_ID and not Path(source).expanduser().exists():
            raise UserError(f"{VARIABLE} is set to {source}, where nothing is; correct it, or {WAYS_OUT}")
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        return _from_hub(source)
    raise UserError(f"there is no autoencoder at {source!r}; {WAYS_OUT}")


def _from_hub(repository: str) -> AutoencoderTiny:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # its retries are many lines, our sentence is one
    try:
        weights = hf_hub_download(repository, DIFFUSERS_WEIGHTS)
        config = hf_hub_download(repository, "config.json")
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UserError(
            f"the autoencoder {repository!r} is no path here, and could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); {WAYS_OUT} (or set {VARIABLE} to it)"
        ) from error
    finally:
        logger.setLevel(level)
    return _build(_read(Path(weights)), Path(weights), Path(config))


def _from_folder(folder: Path) -> AutoencoderTiny:
    if (folder / DIFFUSERS_WEIGHTS).is_file():
        config = folder / "config.json"
        return _build(_read(folder / DIFFUSERS_WEIGHTS), folder, config if config.is_file() else None)
    return _from_pair(folder / "taesd_encoder.safetensors", folder / "taesd_decoder.safetensors")


def _from_file(path: Path) -> AutoencoderTiny:
    state = _read(path)
    if not any(key[0].isdigit() for key in state):
        return _build(state, path)
    for part, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if part in path.name:
            pair = {part: path, other: path.with_name(path.name.replace(part, other))}
            return _from_pair(pair["encoder"], pair["decoder"])
    raise UserError(f"{path} is half of TAESD, but its name does not say which; give the folder with both halves")


def _from_pair(encoder: Path, decoder: Path) -> AutoencoderTiny:
    """The original project keeps encoder and decoder in a file each, whose keys do not say which it is."""
    state: dict[str, Tensor] = {}
    for part, path in (("encoder", encoder), ("decoder", decoder)):
        if not path.is_file():
            raise UserError(f"{path} is missing; {WAYS_OUT}")
        state.update({f"{part}.{key}": tensor for key, tensor in _read(path).items()})
    return _build(state, encoder.parent)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(require_regular(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); {WAYS_OUT}") from error


def _build(state: dict[str, Tensor], where: Path, config: Path | None = None) -> AutoencoderTiny:
    try:
        settings = parse_json(require_regular(config).read_text()) if config else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{config} cannot be read as JSON ({error}); {WAYS_OUT}") from error
    tiny = cast(AutoencoderTiny, AutoencoderTiny.from_config(settings))
    renamed = {_diffusers_key(key): tensor.float() for key, tensor in state.items()}
    expected = tiny.state_dict()
    for key in sorted(expected.keys() | renamed.keys()):
        if key not in renamed or key not in expected or renamed[key].shape != expected[key].shape:
            fault = "lacks" if key not in renamed else "has no use for" if key not in expected else "differs at"
            raise UserError(f"{where} does not hold TAESD's weights: it {fault} {key!r}; {WAYS_OUT}")
    tiny.load_state_dict(renamed)
    return tiny


def _diffusers_key(key: str) -> str:
    """Name a tensor as diffusers does.

    The original's "encoder.3.…" is "encoder.layers.3.…"; its decoder counts one more layer in front, without weights.
    """
    match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.(.+)", key)
    if not match:
        return key
    part, number, rest = match.groups()
    return f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"
