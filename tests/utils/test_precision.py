"""bfloat16 is chosen for the processors that multiply it fast, unless oneDNN is kept from it."""

from __future__ import annotations

import pytest
import torch

from gaitdiff.utils.precision import has_fast_bfloat16


@pytest.mark.parametrize(
    ("has", "limit", "fast"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "", True),
        ({"amx_bf16": False, "avx512_bf16": True}, "", True),
        ({"amx_bf16": False, "avx512_bf16": False}, "", False),
        ({}, "", False),
        ({"amx_bf16": True, "avx512_bf16": True}, "AVX2", False),
        ({"amx_bf16": True, "avx512_bf16": True}, "avx512_core_vnni", False),
        ({"amx_bf16": True, "avx512_bf16": True}, "AVX512_CORE_BF16", True),
        ({"amx_bf16": True, "avx512_bf16": True}, "DEFAULT", True),
    ],
)
def test_a_processor(has: dict[str, bool], limit: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", limit)
    assert has_fast_bfloat16("cpu") is fast


def test_other_devices() -> None:
    assert not has_fast_bfloat16("mps")
    assert has_fast_bfloat16("cuda") is (torch.cuda.is_available() and torch.cuda.is_bf16_supported())
