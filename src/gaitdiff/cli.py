"""The command line: one function a verb, nothing else."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gaitdiff.errors import UserError, nearest

_HELP = """usage: gaitdiff VERB [options]

gait recognition that learns from unlabelled walks

  quickstart        the whole method, from made-up walkers to a report
  data walkers      make synthetic walking people
  data import       turn folders of silhouettes into a sequence store
  data inspect      check a store, show its table and a contact sheet
  data verify       check every frame of a store, find sequences that look wrong
  data export       a store in OpenGait's layout of folders and pickles
  pretrain          stage 1: learn a backbone without labels, by diffusion
  finetune          stage 2: recognition, from a pretrained backbone or from scratch
  evaluate          rank-1, rank-5, mAP, mINP of a checkpoint, beside the gait energy image
  submit            the file that a benchmark's site takes, checked
  export            a checkpoint as an ONNX file
  import-opengait   a checkpoint file of OpenGait as a checkpoint
  export-opengait   a checkpoint as a file that OpenGait loads
  models            models and their presets

gaitdiff VERB --help shows the options of a verb."""


class _Parser(argparse.ArgumentParser):
    """Mistakes in the flags become the same one sentence as all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _prepare(device: str) -> None:
    from gaitdiff.config.schema import MachineConfig
    from gaitdiff.training.device import prepare_process

    prepare_process(MachineConfig(device=device))


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        choices=("auto", "raw", "embedding", "neck"),
        default="auto",
        help="the backbone's raw features, the head's embeddings, or what its BN neck makes of them, which published "
        "DeepGaitV2 numbers are of (default: embeddings where a head was trained)",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    _add_features(parser)
    parser.add_argument(
        "--metric",
        type=str.lower,
        choices=("cosine", "euclidean"),
        default=None,
        help="distance (default: the one that the checkpoint was trained with, cosine for one from pretraining)",
    )
    parser.add_argument(
        "--resize", action="store_true", help="convert frames of another height than the checkpoint was trained on"
    )


def quickstart(argv: Sequence[str]) -> None:
    """Walkers, pretraining, fine-tuning and training from scratch, evaluation, table, report."""
    parser = _Parser(prog="gaitdiff quickstart", description=quickstart.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a tiny run that shows the way, in about a minute")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    from gaitdiff.commands.quickstart import run

    _prepare(device=args.device)
    run(args.out, small=args.small, device=args.device, seed=args.seed)


def data_walkers(argv: Sequence[str]) -> None:
    """Make synthetic walking people as a sequence store."""
    from gaitdiff.walkers import generate, list_presets

    parser = _Parser(prog="gaitdiff data walkers", description=data_walkers.__doc__)
    parser.add_argument("--people", type=int, required=True, help="number of identities")
    parser.add_argument("--sequences", type=int, required=True, help="sequences of each")
    parser.add_argument("--preset", default="lite", help=f"one of {', '.join(list_presets())} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=40, help="frames of each sequence (default: %(default)s)")
    parser.add_argument("--test-people", type=int, default=None, help="identities of the test split")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    args = parser.parse_args(argv)
    path = generate(
        args.out,
        people=args.people,
        sequences=args.sequences,
        preset=args.preset,
        seed=args.seed,
        frames=args.frames,
        test_people=args.test_people,
        workers=args.workers,
    )
    print(path)


def data_import(argv: Sequence[str]) -> None:
    """Align silhouettes and pack them into a sequence store; after a kill the same command continues."""
    from gaitdiff.data.importers.datasets import NAMES

    parser = _Parser(prog="gaitdiff data import", description=data_import.__doc__)
    parser.add_argument("source", help="folder, .zip or .tar file")
    parser.add_argument("--as", dest="kind", default="auto", help=f"auto (default) or one of {', '.join(NAMES)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new store")
    parser.add_argument("--partition", type=Path, default=None, help="JSON file with TRAIN_SET and TEST_SET")
    parser.add_argument(
        "--size", type=int, default=None, help="height of the frames, 64 or 128 (default: as found, or 64)"
    )
    parser.add_argument(
        "--layout",
        default="auto",
        help="what folders of frames mean, such as '*/subject/sequence' (default: %(default)s)",
    )
    parser.add_argument("--split", default=None, help="auto (by chance), train or test, in place of the data set's own")
    parser.add_argument("--test-fraction", type=float, default=None, help="share of the people in the test split")
    parser.add_argument("--seed", type=int, default=0, help="of the split into train and test (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument(
        "--codec",
        default="lz4-columns",
        help="raw reads three times as fast and takes nine times the space (%(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only look, and say what would be imported")
    args = parser.parse_args(argv)
    from gaitdiff.data.importers import import_data

    import_data(
        args.source,
        args.out,
        kind=args.kind,
        partition=args.partition,
        size=args.size,
        layout=args.layout,
        split=args.split,
        test_fraction=args.test_fraction,
        seed=args.seed,
        workers=args.workers,
        codec=args.codec,
        dry_run=args.dry_run,
    )


def data_inspect(argv: Sequence[str]) -> None:
    """Check a store's checksums, print its table, draw a contact sheet."""
    parser = _Parser(prog="gaitdiff data inspect", description=data_inspect.__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--sheet", type=Path, default=None, help="contact sheet (default: beside the store)")
    args = parser.parse_args(argv)
    from gaitdiff.data.quality.inspect import inspect

    inspect(args.store, sheet=args.sheet)


def data_verify(argv: Sequence[str]) -> None:
    """Check every checksum and frame of a store, say how its frames are aligned and which sequences look wrong."""
    parser = _Parser(prog="gaitdiff data verify", description=data_verify.__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--json", type=Path, default=None, help="write the report there too, with every sequence")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    args = parser.parse_args(argv)
    from gaitdiff.data.quality.verify import verify_store

    verify_store(args.store, json_file=args.json, workers=args.workers)


def data_export(argv: Sequence[str]) -> None:
    """Write a store in OpenGait's layout: <id>/<type>/<view>/<view>.pkl, and partition.json."""
    parser = _Parser(prog="gaitdiff data export", description=data_export.__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--split", choices=("train", "test"), default=None, help="only this part (default: all)")
    args = parser.parse_args(argv)
    from gaitdiff.exchange.opengait_data import export_store

    print(export_store(args.store, args.out, split=args.split))


def pretrain(argv: Sequence[str]) -> None:
    """Stage 1: learn a backbone from unlabelled sequences."""
    from gaitdiff.config.recipe import parse_config
    from gaitdiff.config.schema import PretrainConfig

    config = parse_config(PretrainConfig, "gaitdiff pretrain", argv)
    from gaitdiff.training.device import prepare_process
    from gaitdiff.training.pretrain import pretrain as run

    prepare_process(config.machine)
    print(run(config))


def finetune(argv: Sequence[str]) -> None:
    """Stage 2: recognition with labels."""
    from gaitdiff.config.recipe import parse_config
    from gaitdiff.config.schema import TransferConfig

    config = parse_config(TransferConfig, "gaitdiff finetune", argv)
    from gaitdiff.training.device import prepare_process
    from gaitdiff.training.finetune import finetune as run

    prepare_process(config.machine)
    print(run(config))


def evaluate(argv: Sequence[str]) -> None:
    """Score a checkpoint on the test split of a store, beside the gait energy image."""
    parser = _Parser(prog="gaitdiff evaluate", description=evaluate.__doc__)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of a sequence store")
    _add_comparison(parser)
    parser.add_argument(
        "--protocol",
        default="auto",
        help="gait3d (one probe a person), leave-one-out, casia-b, oumvlp, sustech1k, ccpg, grew or hid (default: that "
        "of the store's data set)",
    )
    parser.add_argument("--setting", default=None, help="of casia-b and oumvlp: single-view (default) or cross-view")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=None, help="write the scores there too, with all details")
    parser.add_argument("--submission", type=Path, default=None, help="write the CSV file for GREW's or HID's server")
    parser.add_argument("--save-features", type=Path, default=None, help="keep the features there, a .npy file")
    args = parser.parse_args(argv)
    from gaitdiff.commands.evaluate import score_checkpoint

    _prepare(device=args.device)
    score_checkpoint(
        args.checkpoint,
        args.data,
        args.features,
        args.metric,
        args.protocol,
        args.device,
        args.json,
        setting=args.setting,
        submission=args.submission,
        save_features=args.save_features,
        resize=args.resize,
    )


def submit(argv: Sequence[str]) -> None:
    """Write the archive that a benchmark's site takes, checked, and print the local protocol's scores beside it."""
    parser = _Parser(prog="gaitdiff submit", description=submit.__doc__)
    parser.add_argument("site", type=str.lower, choices=("grew", "hid"))
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="folder of a sequence store")
    parser.add_argument("--out", type=Path, required=True, help="archive to write, such as submission.zip")
    parser.add_argument(
        "--probes", type=Path, default=None, help="the official list of probe videos, such as the sample submission"
    )
    _add_comparison(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    args = parser.parse_args(argv)
    from gaitdiff.commands.submit import submit as run

    _prepare(device=args.device)
    run(
        args.site,
        args.checkpoint,
        args.data,
        args.out,
        probes=args.probes,
        features=args.features,
        metric=args.metric,
        device=args.device,
        resize=args.resize,
    )


def export(argv: Sequence[str]) -> None:
    """Write a checkpoint as one ONNX file for any number of clips and frames, checked by onnxruntime."""
    parser = _Parser(prog="gaitdiff export", description=export.__doc__)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="file to create, such as model.onnx")
    _add_features(parser)
    args = parser.parse_args(argv)
    from gaitdiff.exchange.opengait_checkpoint import export_checkpoint

    print(export_checkpoint(args.checkpoint, args.out, args.features))


def import_opengait(argv: Sequence[str]) -> None:
    """Turn a checkpoint file of OpenGait into a checkpoint that evaluate, finetune and export take."""
    parser = _Parser(prog="gaitdiff import-opengait", description=import_opengait.__doc__)
    parser.add_argument("file", type=Path, help=".pt file that OpenGait saved; nothing in it is executed")
    parser.add_argument("--model", required=True, help="its model, one of gaitdiff models")
    parser.add_argument("--preset", default="gait3d", help="the model's preset (default: %(default)s)")
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting in which the model differs from the preset, such as channels=[32,64,128]; may be repeated",
    )
    parser.add_argument(
        "--size", type=int, choices=(64, 128), default=None, help="height of the frames it was trained on, if known"
    )
    parser.add_argument("--drop-classifier", action="store_true", help="leave out the columns of its identities")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new checkpoint")
    args = parser.parse_args(argv)
    from gaitdiff.exchange.opengait_checkpoint import import_opengait as run
    from gaitdiff.exchange.opengait_checkpoint import parse_overrides

    overrides = parse_overrides(args.override)
    print(run(args.file, args.out, args.model, args.preset, overrides, args.drop_classifier, args.size))


def export_opengait(argv: Sequence[str]) -> None:
    """Write a checkpoint with a trained head as a file that OpenGait loads."""
    parser = _Parser(prog="gaitdiff export-opengait", description=export_opengait.__doc__)
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="file to create, such as model.pt")
    args = parser.parse_args(argv)
    from gaitdiff.exchange.opengait_checkpoint import export_opengait as run

    print(run(args.checkpoint, args.out))


def models(argv: Sequence[str]) -> None:
    """List models and their presets."""
    _Parser(prog="gaitdiff models", description=models.__doc__).parse_args(argv)
    from gaitdiff.models import list_models, list_presets

    for name in list_models():
        print(f"{name}: {', '.join(list_presets(name))}")


_VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "quickstart": quickstart,
    "data walkers": data_walkers,
    "data import": data_import,
    "data inspect": data_inspect,
    "data verify": data_verify,
    "data export": data_export,
    "pretrain": pretrain,
    "finetune": finetune,
    "evaluate": evaluate,
    "submit": submit,
    "export": export,
    "import-opengait": import_opengait,
    "export-opengait": export_opengait,
    "models": models,
}

#: What several processes can share, started by torchrun.
_SHARED = ("pretrain", "finetune")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, or 2 after a mistake that the user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is escaped, so that no name ends the work
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help") or words in (["data"], ["data", "-h"], ["data", "--help"]):
        print(_HELP)
        return 0
    if words[0] == "--version":
        from gaitdiff.version import __version__

        print(__version__)
        return 0
    length = 2 if words[0] == "data" else 1
    verb = " ".join(words[:length])
    try:
        if verb not in _VERBS:
            raise UserError(f"there is no verb {verb!r}{nearest(verb, _VERBS)}: gaitdiff --help lists them")
        _check_processes(verb)
        _VERBS[verb](words[length:])
    except UserError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        return 0
    except OSError as error:
        what = "a file" if error.filename is None else f"{error.filename}"
        return _refuse(f"{what} cannot be used ({error.strerror or error}): choose another")
    except KeyboardInterrupt:
        again = (
            "; the same command continues it" if verb in ("quickstart", "data import", "pretrain", "finetune") else ""
        )
        print(f"gaitdiff: stopped{again}", file=sys.stderr)
        return 130
    return 0


def _check_processes(verb: str) -> None:
    """Refuse several processes at what each of them would do whole, and write to the same place."""
    from gaitdiff.utils.parallel import launched_processes

    if verb not in _SHARED and (count := launched_processes()) > 1:
        raise UserError(f"gaitdiff {verb} runs in one process, not in {count}: start it without torchrun")


def _refuse(sentence: str) -> int:
    """Print what the user can mend, on one line whatever a file's name holds; return the exit code."""
    from gaitdiff.utils.text import printable

    print(f"gaitdiff: {printable(sentence)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
