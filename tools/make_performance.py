"""Write docs/performance.md from the results of the benchmarks.

python tools/make_performance.py
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_SOURCE = ROOT / "tools" / "performance.md"
#: Of the paper: iterations of stage 1 on Gait3D, and sequences of a step.
ITERATIONS, BATCH = 120_000, 64
_SECONDS_AN_HOUR = 3600
_WAYS = ("alone", "two side by side")


def main() -> None:
    """Run the command line."""
    (ROOT / "docs" / "performance.md").write_text(document(), encoding="utf-8")


def document() -> str:
    """The page: tools/performance.md with tables in the place of their names."""
    text = _SOURCE.read_text(encoding="utf-8")
    for name, table in _TABLES.items():
        text = text.replace(f"{{{name}}}", table())
    return "\n\n".join(_wrapped(paragraph) for paragraph in text.split("\n\n"))


def _wrapped(paragraph: str) -> str:
    """A paragraph of prose in lines that can be read; tables, lists and headings as they are."""
    if paragraph.startswith(("|", "#", "-", " ")):
        return paragraph
    return textwrap.fill(" ".join(paragraph.split()), 120, break_long_words=False, break_on_hyphens=False)


def _result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(name: str) -> str:
    machine, commit = _result(name)["machine"], _result(name)["commit"]
    product = _result(name).get("matrix_product_gflops", {})
    words = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, at {commit}"
    reached = " and ".join(f"{rate} GFLOP/s in {kind}" for kind, rate in product.items())
    return words + (f"; a matrix product reaches {reached} there" if reached else "")


def _pretraining() -> str:
    head = ["size", "side", "seconds a step", "times as fast as the peer", "of a matrix product", "operators", "MB"]
    rows = []
    for size in ("walkers", "paper"):
        for side, told in _result("pretrain_step")[size]["sides"].items():
            rows.append([size, side, *_step(told)])
    return _table([*head, "waits for the loader"], rows)


def _step(told: dict[str, Any]) -> list[str]:
    waits = f"{told['waiting_for_data']:.1%}" if "waiting_for_data" in told else ""
    cells = [f"{told['median_s']:.3g}", f"{told['speed_up']:.2f}", f"{told['of_matrix_product']:.2f}"]
    return [*cells, f"{told['operators']:,}", f"{told['peak_memory_mb']:,}", waits]


def _parts() -> str:
    result = _result("pretrain_step")
    sides = {
        f"{size}, {name.removeprefix('ours, ')}": side["seconds_of_parts"]
        for size in ("walkers", "paper")
        for name, side in result[size]["sides"].items()
        if "seconds_of_parts" in side
    }
    parts = list(dict.fromkeys(part for side in sides.values() for part in side))
    rows = []
    for name, seconds in sides.items():
        total = sum(seconds.values())
        rows.append([name, *(f"{seconds.get(part, 0) / total:.0%}" for part in parts)])
    names = {"inputs": "augmentation, latents, noise"}
    return _table(["size and side", *(names.get(part, part) for part in parts)], rows)


def _bound() -> str:
    result = _result("pretrain_step")
    ours, peer = (result["paper"]["sides"][name] for name in ("ours, student", "peer, TAESD, float32"))
    rate = result["matrix_product_gflops"]["bfloat16"]
    best = peer["median_s"] * rate / ours["gflop"]
    return (
        f"At paper size it is {ours['speed_up']:.1f}; if all of its {ours['gflop']:.0f} GFLOP went as fast as a matrix "
        f"product, it would be {best:.1f}."
    )


def _labels() -> str:
    head = ["model / preset", "sequences × frames", "peer, s", "ours in float32", "ours", "of a matrix product", "MB"]
    rows = []
    for case, told in _result("train_step").items():
        if "/" not in case:
            continue
        sides = told["sides"]
        peer, whole, half = sides["peer, float32"], sides["ours, float32"], sides.get("ours", sides["ours, float32"])
        size = f"{told['sequences']} × {told['frames']}"
        speeds = [f"{side['speed_up']:.2f}" for side in (whole, half)]
        memory = f"{half['peak_memory_mb']:,} (peer {peer['peak_memory_mb']:,})"
        rows.append([case, size, f"{peer['median_s']:.3g}", *speeds, f"{half['of_matrix_product']:.2f}", memory])
    return _table(head, rows)


def _features() -> str:
    rows = []
    for case, sides in _result("embed")["models"].items():
        peer, *others = (sides[name] for name in sides)
        apart = f"{others[-1]['differ_by']:.1%}"
        reached = f"{others[-1]['of_matrix_product']:.2f}"
        speeds = [f"{side['speed_up']:.2f}" for side in others]
        rows.append([case, f"{peer['sequences_a_second']:.3g}", *speeds, apart, reached])
    head = ["model, preset", "plain network, a second", "ours one at a time", "ours", "in bfloat16", "then differs by"]
    head.append("and of a matrix product")
    return _table(head, rows)


def _half() -> str:
    """How much faster a matrix product is in bfloat16."""
    rates = _result("pretrain_step")["matrix_product_gflops"]
    return f"{rates['bfloat16'] / rates['float32']:.1f}"


def _scaling() -> str:
    result = _result("scaling")
    per = {size: f"{1000 * seconds / int(size):.3g}" for size, seconds in result["batch"].items()}
    rows = [
        ["batch, ms a sequence", ", ".join(f"{size}: {value}" for size, value in per.items())],
        ["frames of the gait clip, s a step", _listed(result["gait_frames"])],
        ["processes × threads, s a step", _listed(result["processes"])],
        ["gallery, s of ranking 100 probes", _listed(_numbers(result["gallery"], "seconds"))],
        ["gallery, MB that ranking took", _listed(_numbers(result["gallery"], "memory_mb"))],
    ]
    return _table(["what grows", "time or memory"], rows)


def _numbers(results: dict[str, dict[str, float]], key: str) -> dict[str, float]:
    return {f"{int(size):,}": told[key] for size, told in results.items()}


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace(' x ', ' × ')}: {value:.3g}" for name, value in values.items())


def _busy() -> str:
    machines = [_result(name)["seconds_a_step"] for name in ("busy_machine", "busy_machine_avx2")]
    rows = []
    for spins in machines[0]:
        rows.append(["not set" if spins == "none" else f"{int(spins):,}"])
        for told in machines:
            rows[-1] += [f"{told[spins][how]:.2f}" for how in _WAYS] if spins in told else ["", ""]
    return _table(["GOMP_SPINCOUNT", *_WAYS, *(f"another machine: {how}" for how in _WAYS)], rows)


def _whole_runs() -> str:
    sides, gpu = _result("pretrain_step")["paper"]["sides"], _result("pretrain_step_gpu")["paper"]
    steps = BATCH / 4  # of 4 sequences each on the CPU
    rows, cpu = [], f"two cores of the {_result('pretrain_step')['machine']['processor']} above"
    for name in ("ours, student", "ours, TAESD", "peer, TAESD, float32"):
        hours = sides[name]["median_s"] * steps * ITERATIONS / _SECONDS_AN_HOUR
        rows.append([cpu, name, f"{hours:,.0f}", ""])
    for how, told in (("as a CUDA graph", ""), ("machine.compile true", ", `machine.compile true`")):
        hours = max(gpu[how]["seconds_in_loop"]) * ITERATIONS / _SECONDS_AN_HOUR
        rows.append(["one NVIDIA H200", f"ours, student{told}", f"{hours:.1f}", f"{gpu[how]['peak_memory_mb']:,}"])
    return _table(["machine", "side", "hours", "MB of the GPU"], rows)


def _gpu_step() -> str:
    result = _result("pretrain_step_gpu")
    small = {way: result["walkers"][way] for way in ("kernel by kernel", "as a CUDA graph", "kernels alone")}
    rows = [["walkers/pretrain, step alone", way, f"{milliseconds}"] for way, milliseconds in small.items()]
    for how in ("as a CUDA graph", "machine.compile true"):
        times = " and ".join(f"{1e3 * one:.1f}" for one in result["paper"][how]["seconds_in_loop"])
        rows.append(["gait3d/pretrain_smplgait, loop with data", how, times])
    return _table(["one NVIDIA H200", "how", "ms a step"], rows)


def _loader() -> str:
    """Of each pace the stalls, in words."""
    found = [
        f"{told['stalls']} of {told['batches']} at {pace} ms" for pace, told in _result("loader")["paces_ms"].items()
    ]
    return ", ".join(found)


_TABLES = {
    "pretraining": _pretraining,
    "pretraining machine": lambda: _machine("pretrain_step"),
    "parts": _parts,
    "paper bound": _bound,
    "labels": _labels,
    "labels machine": lambda: _machine("train_step"),
    "features": _features,
    "walks": lambda: f"{_result('embed')['sequences']}",
    "features machine": lambda: _machine("embed"),
    "half": _half,
    "loader": _loader,
    "loader alone": lambda: f"{_result('loader')['batch_alone_ms']:.0f}",
    "loader machine": lambda: _machine("loader"),
    "scaling": _scaling,
    "scaling machine": lambda: _machine("scaling"),
    "busy": _busy,
    "busy machine": lambda: _machine("busy_machine"),
    "other busy machine": lambda: _machine("busy_machine_avx2"),
    "whole runs": _whole_runs,
    "gpu step": _gpu_step,
}

if __name__ == "__main__":
    main()
