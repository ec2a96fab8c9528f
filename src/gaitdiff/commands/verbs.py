"""One function a verb: its signature is its options, its first line its help, its work is another's.

Positional parameters are given as such, keyword-only ones as flags. What is slow to load is imported by the function
that needs it, so that help and mistakes in the flags cost no seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

#: The flag of pretrain and finetune that has no value.
DRY_RUN = "--dry-run"
#: Texts of options that several verbs have.
Checkpoint = Annotated[Path, "run folder, checkpoint, or weights that ship, such as walkers"]
Store = Annotated[Path, "folder of a sequence store"]
Device = Annotated[str, "auto, cpu, cuda or mps"]
Workers = Annotated[int | None, "processes (default: one a core)"]
Features = Annotated[
    Literal["auto", "raw", "embedding", "neck"],
    "the backbone's raw features, the head's embeddings, or what its BN neck makes of them, which published DeepGaitV2 "
    "numbers are of (default: embeddings where a head was trained)",
]
Metric = Annotated[
    Literal["cosine", "euclidean"] | None,
    "distance (default: the one that the checkpoint was trained with, cosine for one from pretraining)",
]
Resize = Annotated[bool, "convert frames of another height than the checkpoint was trained on"]


def _data_sets() -> str:
    from gaitdiff.data.importers.datasets import NAMES

    return f"auto, which tells it from the folders' names, or one of {', '.join(NAMES)}"


def _presets() -> str:
    from gaitdiff.walkers import list_presets

    return f"one of {', '.join(list_presets())}"


def prepare(device: str) -> None:
    """Set this process up for a device, as ``machine.device`` names it."""
    from gaitdiff.config.schema import MachineConfig
    from gaitdiff.training.device import prepare_process

    prepare_process(MachineConfig(device=device))


def quickstart(
    *,
    out: Annotated[Path, "folder"] = Path("runs/quickstart"),
    small: Annotated[bool, "a tiny run that shows the way, in about a minute"] = False,
    device: Device = "auto",
    seed: Annotated[int, "of walkers and training"] = 0,
) -> None:
    """Run the whole method, from made-up walkers to a report."""
    from gaitdiff.commands.quickstart import run

    prepare(device)
    run(out, small=small, device=device, seed=seed)


def data_walkers(
    *,
    people: Annotated[int, "number of identities"],
    sequences: Annotated[int, "sequences of each"],
    preset: Annotated[str, _presets] = "lite",
    seed: Annotated[int, "the same seed gives the same bytes"] = 0,
    frames: Annotated[int, "frames of each sequence"] = 40,
    test_people: Annotated[int | None, "identities of the test split (default: three in ten)"] = None,
    workers: Workers = None,
    out: Annotated[Path, "folder of the new store"],
) -> None:
    """Make synthetic walking people as a sequence store."""
    from gaitdiff.walkers import generate

    made = generate(
        out,
        people=people,
        sequences=sequences,
        preset=preset,
        seed=seed,
        frames=frames,
        test_people=test_people,
        workers=workers,
    )
    print(made)


def data_import(
    source: Annotated[str, "folder, .zip or .tar file"],
    *,
    as_: Annotated[str, _data_sets] = "auto",
    out: Annotated[Path, "folder of the new store"],
    partition: Annotated[Path | None, "JSON file with TRAIN_SET and TEST_SET"] = None,
    size: Annotated[int | None, "height of the frames, 64 or 128 (default: as found, or 64)"] = None,
    layout: Annotated[str, "what folders of frames mean, such as '*/subject/sequence'"] = "auto",
    split: Annotated[
        str | None,
        "auto (by chance), train, test, or halves (each track's first half is looked for among the second ones), in "
        "place of the data set's own",
    ] = None,
    test_fraction: Annotated[float | None, "share of the people in the test split"] = None,
    seed: Annotated[int, "of the split into train and test"] = 0,
    workers: Workers = None,
    codec: Annotated[str, "raw reads three times as fast and takes nine times the space"] = "lz4-columns",
    dry_run: Annotated[bool, "only look, and say what would be imported"] = False,
) -> None:
    """Align silhouettes and pack them into a sequence store; the same command continues after a kill."""
    from gaitdiff.data.importers import import_data

    import_data(
        source,
        out,
        kind=as_,
        partition=partition,
        size=size,
        layout=layout,
        split=split,
        test_fraction=test_fraction,
        seed=seed,
        workers=workers,
        codec=codec,
        dry_run=dry_run,
    )


def data_split(
    store: Store,
    *,
    out: Annotated[Path, "folder of the new store; frames are linked, not copied"],
    val_people: Annotated[int, "training people to set aside for validation"],
    seed: Annotated[int, "of the draw"] = 0,
) -> None:
    """Set training people aside, to choose checkpoints by."""
    from gaitdiff.data.split import split_store

    print(split_store(store, out, val_people, seed))


def data_inspect(
    store: Store, *, sheet: Annotated[Path | None, "contact sheet (default: beside the store)"] = None
) -> None:
    """Check a store's checksums, print its table, draw a contact sheet."""
    from gaitdiff.data.quality.inspect import inspect

    inspect(store, sheet=sheet)


def data_verify(
    store: Store,
    *,
    json: Annotated[Path | None, "write the report there too, with every sequence"] = None,
    workers: Workers = None,
) -> None:
    """Check every frame of a store, and say which sequences look wrong."""
    from gaitdiff.data.quality.verify import verify_store

    verify_store(store, json_file=json, workers=workers)


def data_export(
    store: Store,
    *,
    out: Annotated[Path, "folder to create"],
    split: Annotated[Literal["train", "val", "test"] | None, "only this part (default: all)"] = None,
) -> None:
    """Write a store in OpenGait's layout of folders and pickles."""
    from gaitdiff.exchange.opengait_data import export_store

    print(export_store(store, out, split=split))


def pretrain(*words: str) -> None:
    """Stage 1: learn a backbone from unlabelled sequences, by diffusion."""
    from gaitdiff.config.recipe import parse_config
    from gaitdiff.config.schema import PretrainConfig

    config = parse_config(PretrainConfig, "gaitdiff pretrain", [word for word in words if word != DRY_RUN])
    from gaitdiff.training.device import prepare_process

    prepare_process(config.machine)
    if DRY_RUN in words:
        from gaitdiff.commands.dry_run import describe

        return print(describe(config))
    from gaitdiff.training.pretrain import pretrain as run

    print(run(config))


def finetune(*words: str) -> None:
    """Stage 2: recognition with labels, from a pretrained backbone or from scratch."""
    from gaitdiff.config.recipe import parse_config
    from gaitdiff.config.schema import FinetuneConfig

    config = parse_config(FinetuneConfig, "gaitdiff finetune", [word for word in words if word != DRY_RUN])
    from gaitdiff.training.device import prepare_process

    prepare_process(config.machine)
    if DRY_RUN in words:
        from gaitdiff.commands.dry_run import describe

        return print(describe(config))
    from gaitdiff.training.finetune import finetune as run

    print(run(config))


def label_curve(
    checkpoints: Annotated[tuple[str, ...], "run folders, checkpoints or weights that ship, as NAME=PATH or PATH"],
    *,
    data: Store,
    out: Annotated[Path, "folder for runs, scores and figures"],
    people: Annotated[str, "numbers of labelled people, between commas"] = "5,10,20,40,all",
    seeds: Annotated[int, "runs of each kind, with seeds from 0"] = 3,
    recipe: Annotated[str, "of finetune"] = "walkers/finetune",
    set_: Annotated[tuple[str, ...], "a setting of finetune, such as optim.iterations=500; may be repeated"] = (),
    device: Device = "auto",
) -> None:
    """Compare fine-tuning pretrained backbones with training from scratch, by the number of labelled people."""
    from gaitdiff.commands.label_curve import named_checkpoints, run
    from gaitdiff.errors import UserError

    if seeds < 1:
        raise UserError(f"--seeds is {seeds}, but a comparison takes at least 1")
    prepare(device)
    named = named_checkpoints(checkpoints)
    print(run(named, data, out, recipe=recipe, people=people, seeds=range(seeds), settings=set_, device=device).file)


def report(
    runs: Annotated[tuple[str, ...], "run folders, of one data set"],
    *,
    out: Annotated[Path | None, "folder (default: report in the first run)"] = None,
    device: Device = "auto",
) -> None:
    """Write a page on runs: curves, scores, who is taken for whom, settings."""
    from gaitdiff.commands.report import run

    prepare(device)
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
    split: Annotated[
        Literal["test", "val"], "whom to score on: test people, or those set aside by data split"
    ] = "test",
    json: Annotated[Path | None, "write the scores there too, with all details"] = None,
    submission: Annotated[Path | None, "write the CSV file for GREW's or HID's server"] = None,
    save_features: Annotated[Path | None, "keep the features there, a .npy file"] = None,
) -> None:
    """Score a checkpoint on the test split of a store, beside the gait energy image."""
    from gaitdiff.commands.evaluate import score_checkpoint

    prepare(device)
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

    prepare(device)
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
) -> None:
    """Write the features of a store's walks, with their names, as arrays for NumPy."""
    from gaitdiff.commands.embed import embed_store

    prepare(device)
    part = None if split == "all" else split
    print(embed_store(checkpoint, store, out, features=features, split=part, resize=resize, device=device))


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
) -> None:
    """Say how alike two walks are, beside walks of one person and of different people."""
    from gaitdiff.commands.compare_walks import compare_walks as run

    prepare(device)
    found = run(checkpoint, store, a, b, features=features, metric=metric, resize=resize, device=device)
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

    _prepare(device)
    chosen = GUIDANCE if guidance is None else guidance
    checked = run_it(run, out, Wish(like, chosen, frames, steps, count, seed, check, judge), device)
    print("\n".join([*([str(out)] if out else []), *(checked.lines() if checked else [])]))


def export(
    checkpoint: Checkpoint, *, out: Annotated[Path, "file to create, such as model.onnx"], features: Features = "auto"
) -> None:
    """Write a checkpoint as an ONNX file, checked by onnxruntime."""
    from gaitdiff.exchange.opengait_checkpoint import export_checkpoint

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


def export_opengait(checkpoint: Checkpoint, *, out: Annotated[Path, "file to create, such as model.pt"]) -> None:
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
