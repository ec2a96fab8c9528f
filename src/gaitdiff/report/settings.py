"""The end of a report: its settings, the commands that repeat it, and what its words mean."""

from __future__ import annotations

import html
import shlex
from collections.abc import Sequence
from pathlib import Path

from gaitdiff.config.command_line import command
from gaitdiff.evaluation.features import BASELINE
from gaitdiff.report.pieces import definitions
from gaitdiff.training.run_folder import read_config

_WORDS = {
    "rank-1": "Share of the probes whose nearest gallery sequence is the same person. Rank-5: any of the nearest five.",
    "mAP, mINP": "How early all sequences of the right person come in the ranking: on average, and the last of them.",
    "probe, gallery": "A probe is the sequence that asks who walks there; the gallery holds sequences of known people.",
    BASELINE: "The mean silhouette of a sequence, compared as it is: the baseline that needs no learning.",
    "raw features": "What the backbone gives before any head, and so before any label.",
    "condition gap": (
        "How much larger the denoiser's loss is with another sequence's condition (shuffled), or with none (dropped), "
        "than with the right one, for the same noise. Near zero, the backbone has no say and learns nothing."
    ),
    "AP, AN": (
        "Mean cosine distance of raw features: anchor-positive, between two clips of one sequence, and "
        "anchor-negative, between clips of different sequences. Useful features have AN well above AP."
    ),
    "t, ᾱ": "Noise level, and the share of the latent's variance that is still signal at that level.",
}


def settings(facts: dict[str, str], runs: Sequence[Path], store: Path) -> str:
    """Facts, the commands that repeat the runs, and what the words mean."""
    commands = [command(read_config(run)) for run in runs]
    commands.append(["gaitdiff evaluate", shlex.quote(str(runs[-1])), f"--data {shlex.quote(str(store))}"])
    return (
        definitions(facts)
        + "<h3>Commands</h3>\n"
        + "<p>Each stage as a command of its own; with another <code>--out</code> it runs anew.</p>\n"
        + "\n".join(_command(words) for words in commands)
        + "\n<h3>Words</h3>\n"
        + definitions(_WORDS)
    )


def _command(words: Sequence[str]) -> str:
    """A command that wraps between its flags only."""
    flags = " ".join(f'<span class="flag">{html.escape(word)}</span>' for word in words)
    return f"<pre><code>{flags}</code></pre>"
