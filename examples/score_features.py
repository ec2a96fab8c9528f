"""Score features from anywhere by the field's protocols: here random ones, so that chance is what comes out.

python examples/score_features.py
"""

from __future__ import annotations

import numpy as np

from gaitdiff.evaluation import evaluate

people, types, views = 20, ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "cl-01"), ("000", "090", "180")
names = [(f"{person:03}", kind, view) for person in range(people) for kind in types for view in views]
labels, kinds, seen = zip(*names, strict=True)
features = np.random.default_rng(0).normal(size=(len(names), 64, 16)).astype(np.float32)  # (N, C, P)

scores = evaluate("casia-b", features, labels, kinds, seen)
print(f"rank-1 {scores['rank1']:.1f}, rank-5 {scores['rank5']:.1f}: chance is {100 * 2 / (2 * people):.1f}")
for condition in ("NM", "BG", "CL"):
    print(condition, scores[condition]["per_probe_view"]["rank1"])
print(scores["counts"], scores["missing"])
