"""What an unknown setting was meant to be: by meaning and place first, by spelling last."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

from gaitdiff.errors import nearest

_LIKENESS = 0.75  # of letters: what is less alike leads astray

#: Settings, joined by "+" where it takes several, and other words for them; the first that a verb has is meant.
_MEANINGS = {
    "optim.lr": ("learning_rate", "base_lr", "lr"),
    "data.gait_frames+data.latent_frames": ("frames", "clip", "seq_len"),
    "optim.iterations": ("steps", "max_steps", "epochs", "num_epochs", "iters", "total_iter"),
    "optim.batch": ("batch", "batch_size", "bs"),
    "batch.people+batch.sequences": ("batch", "batch_size", "bs"),
    "recipe": ("config", "cfg", "config_file"),
    "base": ("recipe", "extends", "inherit", "parent", "defaults"),
    "init": ("checkpoint", "ckpt", "pretrained", "weights", "init_from"),
    "data.store": ("data", "dataset", "data_dir", "data_root", "store"),
    "data": ("dataset", "data_dir", "data_root", "store"),
    "out": ("output", "output_dir", "out_dir", "save_dir", "work_dir"),
    "model.name": ("model", "backbone", "arch", "architecture"),
    "machine.device": ("device", "gpu", "gpus", "cuda"),
    "device": ("gpu", "gpus", "cuda"),
    "machine.threads": ("workers", "num_workers", "num_threads"),
    "machine.precision": ("amp", "fp16", "bf16", "half", "dtype"),
    "run.track": ("tensorboard", "trackio", "tracker", "logger", "wandb"),
    "run.log_every": ("log_iter", "log_interval"),
    "run.save_every": ("save_iter", "save_interval"),
    "run.evaluate_every": ("eval_every", "eval_iter", "eval_interval"),
    "optim.milestones": ("scheduler", "lr_scheduler", "lr_schedule"),
    "optim.warmup": ("scheduler", "lr_scheduler", "lr_schedule"),
    "loss.distance": ("metric",),
    "diffusion.p_uncond": ("drop", "cond_drop"),
    "seed": ("random_seed", "manual_seed"),
}
_CONTINUING = ("resume", "resume_from", "continue", "restore")
_ANEW = ("overwrite", "force")

#: Verbs, and other words for them.
_VERBS = {
    "pretrain": ("train", "pre-train", "pretraining", "ssl"),
    "finetune": ("fit", "fine-tune", "finetuning", "supervised"),
    "evaluate": ("test", "score", "eval", "validate", "benchmark"),
    "embed": ("infer", "inference", "predict", "features", "extract", "encode"),
    "reproduce": ("table1", "table2", "table3", "fig2", "fig3", "fig4", "fig5", "paper", "tables"),
    "sweep": ("grid", "search", "ablation", "ablate", "hyperparameters", "tune"),
    "compare-walks": ("similarity", "match", "recognize", "recognise"),
    "generate": ("sample", "synthesize", "synthesise", "imagine"),
    "report": ("plot", "visualize", "visualise"),
    "export": ("convert", "onnx"),
    "data walkers": ("walkers", "data generate", "data make", "data synthetic"),
    "data import": ("import", "prepare", "preprocess", "data prepare", "data preprocess"),
    "data split": ("split",),
    "data inspect": ("info", "stats", "show", "inspect", "data info", "data stats", "data show"),
    "data verify": ("check", "verify", "data check"),
    "data export": ("data convert",),
    "recipes": ("configs", "config"),
    "models": ("backbones", "presets"),
}


def suggest(key: str, known: Iterable[str], other: Collection[str] = (), verb: str = "") -> str:
    """Return in parentheses, behind a blank, what an unknown setting was meant to be, or "" when nothing is near.

    Args:
        key: the setting as it was written; "-" and "_" are the same.
        known: what there is: settings, or flags with their "--".
        other: the settings of the other stage.
        verb: what takes those.
    """
    word, names = _plain(key), {_plain(name): name for name in known}
    if _last(word) in _CONTINUING and "out" in names:
        return " (the same command with the same --out continues a run)"
    if _last(word) in _ANEW and {"out", "recipe"} <= names.keys():
        return " (no run is written over: choose another --out)"
    if meant := _by_meaning(word, names) or _by_place(word, names):
        return f" (did you mean {meant}?)"
    others = {name: name for name in other}
    if meant := repr(word) if word in others else _by_meaning(word, others) or _by_place(word, others):
        return f" ({meant} is a setting of {verb})"
    meant = _by_spelling(word, names)
    return f" (did you mean {meant}?)" if meant else ""


def suggest_verb(verb: str, known: Iterable[str]) -> str:
    """Return in parentheses, behind a blank, which verb an unknown one was meant to be, or "" when none is near."""
    word = verb.lower().replace("_", "-")
    if _plain(word) in _CONTINUING:
        return " (the command that began a run continues it, with the same --out)"
    meant = next((one for one, words in _VERBS.items() if word in words), None)
    return f" (did you mean {meant!r}?)" if meant else nearest(word, known, _LIKENESS)


def _by_meaning(word: str, names: Mapping[str, str]) -> str:
    for settings, words in _MEANINGS.items():
        parts = settings.split("+")
        if _last(word) in words and all(part in names for part in parts):
            return " and ".join(repr(names[part]) for part in parts)
    return ""


def _by_place(word: str, names: Mapping[str, str]) -> str:
    """Settings of the same name in another group."""
    return " or ".join(repr(names[name]) for name in names if _last(name) == _last(word))


def _by_spelling(word: str, names: Mapping[str, str]) -> str:
    begun = [name for name in names if name.startswith(word)]
    if len(begun) == 1:
        return repr(names[begun[0]])
    if begun and "data.store" in begun:  # --dat
        return repr(names["data.store"])
    if close := difflib.get_close_matches(word, names, 1, _LIKENESS):
        return repr(names[close[0]])
    close = difflib.get_close_matches(_last(word), {_last(name) for name in names}, 1, _LIKENESS)
    return _by_place(close[0], names) if close else ""


def _plain(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
