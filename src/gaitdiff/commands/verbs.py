"""One function a verb: its signature is its options, its first line its help, its work is another's.

Positional parameters are given as such, keyword-only ones as flags. What is slow to load is imported by the function
that needs it, so that help and mistakes in the flags cost no seconds. Verbs of data and of training lie beside this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from gaitdiff.commands.options import Checkpoint, Device, Features, Metric, Precision, Resize, Store, prepare


def report(
    runs: Annotated[tuple[str, ...], "run folders, of one data set"],
    *,
    out: Annotated[Path | None, "folder (default: report in the first run)"] = None,
    device: Device = "auto",
) -> None:
    """Write a page on runs: curves, scores, who is taken for whom, settings."""
    from gaitdiff.commands.report import run

    prepare()
    print(run([Path(folder) for folder in runs], out, device))


def evaluate(
    checkpoint: Checkpoint,
    *,
    data: Store,
    features: Features = "auto",
    metric: Metric = None,
    resize: Resize = False,
    protocol: Annotated[
        str,
        "gait3d (one probe a person), leave-one-out, casia-b, oumvlp, sustech1k, ccpg, grew or hid (default: that of "
        "the store's data set)",
    ] = "auto",
    setting: Annotated[str | None, "of casia-b and oumvlp: single-view (default) or cross-view"] = None,
    device: Device = "auto",
    precision: Precision = "float32",
    split: Annotated[
        Literal["test", "val"], "whom to score on: test people, or those set aside by data split"
    ] = "test",
    json: Annotated[Path | None, "write the scores there too, with all details"] = None,
    submission: Annotated[Path | None, "write the CSV file for GREW's or HID's server"] = None,
    save_features: Annotated[Path | None, "keep the features there, a .npy file"] = None,
) -> None:
    """Score a checkpoint on the test split of a store, beside the gait energy image."""
    from gaitdiff.commands.evaluate import score_checkpoint

    prepare()
    score_checkpoint(
        checkpoint,
        data,
        features,
        metric,
        protocol,
        device,
        json,
        setting=setting,
        submission=submission,
        save_features=save_features,
        resize=resize,
        split=split,
        precision=precision,
    )


def submit(
    site: Annotated[Literal["grew", "hid"], "whose site takes it"],
    checkpoint: Checkpoint,
    *,
    data: Store,
    out: Annotated[Path, "archive to write, such as submission.zip"],
    probes: Annotated[Path | None, "the official list of probe videos, such as the sample submission"] = None,
    features: Features = "auto",
    metric: Metric = None,
    resize: Resize = False,
    device: Device = "auto",
) -> None:
    """Write the archive that a benchmark's site takes, checked, beside local scores."""
    from gaitdiff.commands.submit import submit as run

    prepare()
    run(site, checkpoint, data, out, probes=probes, features=features, metric=metric, device=device, resize=resize)


def embed(
    checkpoint: Checkpoint,
    store: Store,
    *,
    out: Annotated[Path, "file to create, such as features.npz"],
    features: Features = "auto",
    split: Annotated[Literal["train", "val", "test", "all"], "whose walks"] = "all",
    resize: Resize = False,
    device: Device = "auto",
    precision: Precision = "float32",
) -> None:
    """Write the features of a store's walks, with their names, as arrays for NumPy."""
    from gaitdiff.commands.embed import embed_store

    prepare()
    made = embed_store(
        checkpoint,
        store,
        out,
        features=features,
        split=None if split == "all" else split,
        resize=resize,
        device=device,
        precision=precision,
    )
    if made:
        print(made)


def compare_walks(
    checkpoint: Checkpoint,
    store: Store,
    a: Annotated[str, "a walk: its row number, or subject/condition/view/sequence as in the store's manifest.csv"],
    b: Annotated[str, "another"],
    *,
    features: Features = "auto",
    metric: Metric = None,
    resize: Resize = False,
    device: Device = "auto",
    json: Annotated[Path | None, "file to write all numbers to as well"] = None,
) -> None:
    """Say how alike two walks are, beside walks of one person and of different people."""
    from gaitdiff.commands.compare_walks import compare_walks as run

    prepare()
    found = run(checkpoint, store, a, b, features=features, metric=metric, resize=resize, device=device, json_file=json)
    print("\n".join(found.lines()))


def generate(
    run: Annotated[Path, "run folder of gaitdiff pretrain"],
    *,
    like: Annotated[
        str | None,
        "STORE:ROW, a walk to make others like, ROW as for compare-walks; or STORE, its test people by turns",
    ] = None,
    unconditional: Annotated[bool, "like nobody in particular"] = False,
    guidance: Annotated[float | None, "how much the condition counts; 1: as trained (default: 2)"] = None,
    frames: Annotated[int | None, "of each walk (default: as many as the run was trained on)"] = None,
    steps: Annotated[int, "of denoising"] = 16,
    count: Annotated[int, "walks"] = 1,
    seed: Annotated[int, "the same seed gives the same walks"] = 0,
    check: Annotated[bool, "look the walks up among other walks of the test people that they are like"] = False,
    judge: Annotated[Path | None, "whose features --check compares, a checkpoint (default: RUN's backbone)"] = None,
    out: Annotated[Path | None, "a .gif or .png file, or a new store's folder; --check goes without, too"] = None,
    device: Device = "auto",
) -> None:
    """Make walks with a pretrained denoiser, like somebody's or like nobody's, to look at or to train on."""
    from gaitdiff.errors import UserError

    if (like is None) != unconditional:
        raise UserError("give either --like, whom to make walks like, or --unconditional")
    if unconditional and guidance is not None:
        raise UserError("--guidance strengthens a condition, which --unconditional does without: leave one out")
    if out is None and not check:
        raise UserError("give --out: a .gif or .png file, or the folder of a new store")
    from gaitdiff.commands.generate import GUIDANCE, Wish
    from gaitdiff.commands.generate import generate as run_it

    prepare()
    chosen = GUIDANCE if guidance is None else guidance
    checked = run_it(run, out, Wish(like, chosen, frames, steps, count, seed, check, judge), device)
    print("\n".join([*([str(out)] if out else []), *(checked.lines() if checked else [])]))


def export(
    checkpoint: Checkpoint, *, out: Annotated[Path, "file to create, such as model.onnx"], features: Features = "auto"
) -> None:
    """Write a checkpoint as an ONNX file, checked by onnxruntime."""
    from gaitdiff.exchange.onnx import export_checkpoint

    print(export_checkpoint(checkpoint, out, features))


def import_opengait(
    file: Annotated[Path, ".pt file that OpenGait saved; nothing in it is executed"],
    *,
    model: Annotated[str, "its model, one of gaitdiff models"],
    preset: Annotated[str, "the model's preset"] = "gait3d",
    override: Annotated[
        tuple[str, ...],
        "a setting in which the model differs from the preset, such as channels=[32,64,128]; may be repeated",
    ] = (),
    size: Annotated[Literal[64, 128] | None, "height of the frames it was trained on, if known"] = None,
    drop_classifier: Annotated[bool, "leave out the columns of its identities"] = False,
    out: Annotated[Path, "folder of the new checkpoint"],
) -> None:
    """Turn a checkpoint file of OpenGait into a checkpoint."""
    from gaitdiff.exchange.opengait_checkpoint import import_opengait as run
    from gaitdiff.exchange.opengait_checkpoint import parse_overrides

    print(run(file, out, model, preset, parse_overrides(override), drop_classifier, size))


def export_opengait(
    checkpoint: Annotated[Path, "run folder or checkpoint with a trained head"],
    *,
    out: Annotated[Path, "file to create, such as model.pt"],
) -> None:
    """Write a checkpoint with a trained head as a file that OpenGait loads."""
    from gaitdiff.exchange.opengait_checkpoint import export_opengait as run

    print(run(checkpoint, out))


def models() -> None:
    """List models and their presets."""
    from gaitdiff.models import list_models, list_presets

    for name in list_models():
        print(f"{name}: {', '.join(list_presets(name))}")


def recipes() -> None:
    """List recipes, each with the verb that takes it."""
    from gaitdiff.config.recipe import describe_recipes

    print(describe_recipes())
