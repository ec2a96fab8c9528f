"""Signals that end a process: a Ctrl-C, and what schedulers and closing terminals send."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from gaitdiff.errors import UserError

#: SIGTERM is what schedulers send, SIGHUP what a terminal does that closes; nohup has the latter ignored.
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
        signal: its number.
        note: what was kept, for the user; may be empty.
    """

    def __init__(self, number: int, note: str = "") -> None:
        super().__init__(note)
        self.signal, self.note = number, note


#: What ``follow`` has raised since the outermost block of ``stops`` began, and whose handlers it took away.
_raised: list[tuple[int, str]] = []
_silenced: dict[int, _Handler] = {}
#: Seconds after which a signal is sent again whose ``Stopped`` was lost.
_AGAIN = 0.1


class StopRequest:
    """Whether a signal has come that asks to stop, and which.

    Attributes:
        signal: its number, 0 where none has come.
        note: where the work stands, for the user, should a second one end it at once.
    """

    def __init__(self) -> None:
        self.signal, self.note = 0, ""

    def __bool__(self) -> bool:
        return self.signal != 0


@contextmanager
def stops() -> Iterator[None]:
    """Within the block, a signal that ends the process raises ``Stopped``, so that everything is left in order.

    What is left in order then is not disturbed by more of them. A module that is just being imported may make another
    error of it, which becomes ``Stopped`` again; one that Python drops, as it does within ``__del__``, is raised anew.
    """
    _raised.clear()
    with _handling(follow), _none_lost():
        try:
            yield
        except Exception as error:
            of_an_import = not isinstance(error, UserError) or isinstance(error.__cause__, ImportError)
            if _raised and of_an_import:
                raise Stopped(*_raised[0]) from error
            raise


@contextmanager
def deferred_stops(echo: float = 0.0) -> Iterator[StopRequest]:
    """Within the block, the first such signal is only noted, so that work can end where it is whole; a second raises.

    In another thread than the main one, where Python handles no signals, nothing happens.

    Args:
        echo: seconds within which a second signal is the first one's, passed on by a launcher that got it too.
    """
    request, since = StopRequest(), 0.0

    def note(number: int) -> None:
        nonlocal since
        if request and time.monotonic() - since >= echo:
            follow(number, request.note)
        if not request:
            request.signal, since = number, time.monotonic()
            os.write(2, b"gaitdiff: stopping after this step, which is saved; once more stops at once\n")

    with _handling(note):
        yield request


def follow(number: int, note: str = "") -> NoReturn:
    """End as a signal asked; ``note`` says what was kept."""
    for ending in _ENDING:
        handler = signal.getsignal(ending)
        if isinstance(handler, _Handler):
            _silenced[ending] = handler
            signal.signal(ending, signal.SIG_IGN)
    _raised.append((number, note))
    raise Stopped(number, note)


@contextmanager
def _none_lost() -> Iterator[None]:
    """Within the block, a signal is sent again where Python has dropped what its handler raised."""
    usual = sys.unraisablehook

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, Stopped):
            return usual(what)
        for ending, handler in _silenced.items():
            signal.signal(ending, handler)
        # Not at once: within this function it would be dropped for good.
        threading.Thread(target=_send_later, args=(what.exc_value.signal,), daemon=True).start()

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = usual


def _send_later(number: int) -> None:
    time.sleep(_AGAIN)
    os.kill(os.getpid(), number)


class _Handler:
    """A handler of ours."""

    def __init__(self, handle: Callable[[int], None]) -> None:
        self._handle = handle

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._handle(number)


@contextmanager
def _handling(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle the signals that are not ignored, and leave them as they were; ignored while ours further out clear up."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, _Handler(handle))
    try:
        yield
    finally:
        for number, previous in before.items():
            if not (signal.getsignal(number) is signal.SIG_IGN and isinstance(previous, _Handler)):
                signal.signal(number, previous)
