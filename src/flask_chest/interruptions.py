"""Which exceptions end a request or a process, and so pass through whatever guards the app's own code."""

from __future__ import annotations

_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)
_SCHEDULERS = frozenset({"asyncio", "concurrent", "eventlet", "gevent", "greenlet", "trio"})
"""Those throw exceptions of theirs, time-outs and cancellations, into whatever code runs."""


def pass_interruption(error: BaseException) -> None:
    """Raise *error* again if it ends the request or the process.

    Any other that is no ``Exception`` comes from the code that is guarded: that of a panic in an extension
    module, or of a class that somebody derived from the wrong base.
    """
    if isinstance(error, Exception):
        return
    if isinstance(error, _ENDS) or any(
        str(base.__module__).partition(".")[0] in _SCHEDULERS for base in type(error).__mro__
    ):
        raise error
