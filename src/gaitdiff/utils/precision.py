"""On what devices bfloat16 is faster than float32."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

#: Environment variables that keep oneDNN, which multiplies matrices, from instructions that a processor has.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
#: What their values contain where bfloat16's are left to it.
_UNLIMITED = ("DEFAULT", "ALL", "BF16", "FP16", "AMX", "AVX10")


def has_fast_bfloat16(device: str) -> bool:
    """Whether a kind of device ("cpu", "cuda", …) multiplies matrices in bfloat16 faster than in float32.

    Of processors these are those with AMX or AVX-512-BF16, unless an environment variable keeps oneDNN from them; on
    others bfloat16 takes many times as long.
    """
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    limits = [os.environ[variable].upper() for variable in _LIMITS if os.environ.get(variable)]
    if any(not any(word in limit for word in _UNLIMITED) for limit in limits):
        return False
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))
