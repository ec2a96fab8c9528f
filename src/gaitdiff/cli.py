"""The command line: a table of verbs, a parser from a verb's signature, and how mistakes are said."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from gaitdiff.commands import verbs, verbs_data, verbs_training
from gaitdiff.commands.options import tell_repeated
from gaitdiff.config.hints import suggest, suggest_verb
from gaitdiff.config.limits import WORD
from gaitdiff.config.values import SHORT, flag_of
from gaitdiff.errors import UserError, shown
from gaitdiff.utils.signals import Stopped, stops
from gaitdiff.utils.threads import spin_briefly

#: Words to the function that they call; a function that takes ``*words`` reads its flags itself.
VERBS: dict[str, Callable[..., None]] = {
    "quickstart": verbs_training.quickstart,
    "data walkers": verbs_data.data_walkers,
    "data import": verbs_data.data_import,
    "data split": verbs_data.data_split,
    "data inspect": verbs_data.data_inspect,
    "data verify": verbs_data.data_verify,
    "data export": verbs_data.data_export,
    "pretrain": verbs_training.pretrain,
    "finetune": verbs_training.finetune,
    "label-curve": verbs_training.label_curve,
    "report": verbs.report,
    "evaluate": verbs.evaluate,
    "submit": verbs.submit,
    "embed": verbs.embed,
    "compare-walks": verbs.compare_walks,
    "generate": verbs.generate,
    "export": verbs.export,
    "import-opengait": verbs.import_opengait,
    "export-opengait": verbs.export_opengait,
    "sweep": verbs_training.sweep,
    "compare": verbs_training.compare,
    "reproduce": verbs_training.reproduce,
    "claims": verbs_training.claims,
    "models": verbs.models,
    "recipes": verbs.recipes,
}

#: Flags whose values are pairs.
_PAIRS = ("set", "override")

_WHAT = "gait recognition that learns from unlabelled walks"

#: What trains, and what several processes can share, started by torchrun.
_TRAIN = ("pretrain", "finetune")
_SHARED = (*_TRAIN, "evaluate", "embed")

#: What else the same command continues after a signal.
_RESUMED = ("quickstart", "data import", "label-curve", "reproduce", "sweep", "claims")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, or 2 after a mistake that the user can fix."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is escaped, so that no name ends the work
            stream.reconfigure(errors="backslashreplace")
    for size in ("COLUMNS", "LINES"):  # where 0 stands for unknown, nothing would be printed
        if not os.environ.get(size, "1").isdecimal() or int(os.environ.get(size, "1")) < 1:
            del os.environ[size]
    spin_briefly()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    length = 2 if words[:1] == ["data"] else 1
    verb = " ".join(words[:length])
    try:
        with stops():
            try:
                _run(verb, words[length:])
            finally:
                _flush()
    except UserError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        return 0
    except OSError as error:
        what = "a file or standard output" if error.filename is None else f"{error.filename}"
        return _refuse(f"{what} cannot be used ({error.strerror or error}): choose another")
    except KeyboardInterrupt as stop:
        if verb in _TRAIN:
            again = " at once; the same command goes on from the newest checkpoint, or begins where there is none"
        else:
            kept = verb in _RESUMED and "--dry-run" not in words
            again = "; the same command continues it" if kept else ""
        print(f"gaitdiff: stopped{f' {stop}' if str(stop) else again}", file=sys.stderr)
        return 128 + (stop.signal if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


def _run(verb: str, words: Sequence[str]) -> None:
    if verb in ("", "-h", "--help"):
        return print(_help())
    if verb in ("data", "data -h", "data --help"):
        return print(_help("data "))
    if verb in ("-V", "--version", "version"):
        from gaitdiff.version import __version__

        return print(__version__)
    if verb not in VERBS:
        raise UserError(f"there is no verb {verb!r}{suggest_verb(verb, VERBS)}: gaitdiff --help lists them")
    from gaitdiff.utils.parallel import launched_processes

    if verb not in _SHARED and (count := launched_processes()) > 1:  # each would do it whole, in the same place
        raise UserError(f"gaitdiff {verb} runs in one process, not in {count}: start it without torchrun")
    function = VERBS[verb]
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return function(*words)
    parser = make_parser(f"gaitdiff {verb}", function)
    values = vars(parser.parse_args(parser.known(words)))
    given = [values.pop(parameter.name) for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    return function(*given, **values)


class _Parser(argparse.ArgumentParser):
    """Mistakes in the flags become the same one sentence as all others."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def known(self, words: Sequence[str]) -> list[str]:
        """The same words, flags by the names that they have here; unknown ones are refused, before missing ones are."""
        found, flags = [], []
        for word in words:
            flag, equals, value = word.partition("=")
            if re.match(r"--?[A-Za-z]", word) and flag not in self._option_string_actions:
                flag = self._other_name(flag)
            found.append(f"{flag}{equals}{value}")
            if not isinstance(self._option_string_actions.get(flag), None | argparse._AppendAction):
                flags.append(flag)
        tell_repeated(flags)
        return found

    def _other_name(self, flag: str) -> str:
        flags, setting = self._option_string_actions, flag.lstrip("-")
        if (shorter := flag_of(setting)) in flags:  # a setting of pretrain and finetune, such as data.store
            return shorter
        name = SHORT.get(setting, setting).rpartition(".")[2].replace("-", "_")
        if any(action.dest.startswith(name) for action in self._actions if not action.option_strings):
            raise UserError(f"unknown option {flag} (what it names is given without a flag)")
        hint = suggest(flag, flags)
        raise UserError(f"unknown option {flag}{hint or f': {self.prog} --help lists all'}")


def make_parser(prog: str, function: Callable[..., None]) -> _Parser:
    """Make a parser from a signature: positional parameters, and keyword-only ones as flags.

    Args:
        function: its annotations are ``Annotated[type, help]``, help being a text or a function that makes it. A
            ``bool`` is a flag without a value; a tuple of words is several of them, or behind a flag that may be
            repeated one at a time; a ``Literal`` is a choice, of words in any case. "_" at the end of a name that
            Python keeps for itself is left out.
    """
    parser = _Parser(prog=prog, description=inspect.getdoc(function), allow_abbrev=False)
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint, text = get_args(hints[name])
        text = text() if callable(text) else text
        default, options = parameter.default, _options(hint)
        if parameter.kind is not parameter.KEYWORD_ONLY:
            several = {"nargs": "*" if default == () else "+"} if get_origin(hint) is tuple else options
            parser.add_argument(name, help=text, **several)
            continue
        if default is parameter.empty:
            options["required"] = True
        else:
            options["default"] = list(default) if isinstance(default, tuple) else default
            hidden = default in (None, "") or isinstance(default, bool | tuple) or "(default:" in text
            text += "" if hidden else " (default: %(default)s)"
        flag = name.rstrip("_").replace("_", "-")
        if "choices" not in options and options.get("action") != "store_true":
            options["metavar"] = "KEY=VALUE" if flag in _PAIRS else flag.upper()
        parser.add_argument(f"--{flag}", dest=name, help=text, **options)
    return parser


def _options(hint: Any) -> dict[str, Any]:
    """What ``add_argument`` needs for a type."""
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is tuple:
        return {"action": "append"}
    (kind,) = [part for part in get_args(hint) if part is not NoneType] if NoneType in get_args(hint) else [hint]
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return {"type": str.lower if isinstance(choices[0], str) else type(choices[0]), "choices": choices}
    return {"type": whole if kind is int else kind}


def whole(text: str) -> int:
    """The type of an option that takes a whole number, one that a machine word holds."""
    number = int(text)
    if abs(number) >= WORD:
        raise argparse.ArgumentTypeError(f"{shown(number)} is not between -2^63 and 2^63")
    return number


whole.__name__ = "int"  # as argparse says it: "invalid int value"


def _help(group: str = "") -> str:
    """All verbs, or those whose words begin so, with a line each."""
    some = {verb: function for verb, function in VERBS.items() if verb.startswith(group)}
    texts = {verb: (inspect.getdoc(function) or "").rstrip(".") for verb, function in some.items()}
    lines = "\n".join(f"  {verb:{max(map(len, texts)) + 3}}{text}" for verb, text in texts.items())
    usage = "usage: gaitdiff data VERB [options]" if group else f"usage: gaitdiff VERB [options]\n\n{_WHAT}"
    return f"{usage}\n\n{lines}\n\ngaitdiff VERB --help shows the options of a verb."


def _flush() -> None:
    """Write out what was printed; where that fails, the process does not try again at its end."""
    if not sys.stdout:  # closed by who started the process
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def _refuse(sentence: str) -> int:
    """Print what the user can fix, on one line whatever a file's name holds; return the exit code."""
    from gaitdiff.utils.text import printable

    print(f"gaitdiff: {printable(sentence)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
