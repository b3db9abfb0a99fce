"""Other machines' services may be slow, wrong or gone: each gets one attempt of bounded length, and
one message.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from vitaclip.errors import InputError

ATTEMPT_S = 15.0
_Result = TypeVar("_Result")


def attempt(service: str, call: Callable[[], _Result], advice: str) -> _Result:
    """What ``call`` returns or raises, if it ends in time.

    A call that hangs goes on in a thread that ends with this process: libraries retry for minutes,
    and cannot be told to stop.

    Raises:
        InputError: it has not ended after ``ATTEMPT_S`` seconds; names the service, and says what
            to do.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # whatever it is, the caller gets it
            errors.append(error)

    thread = threading.Thread(target=run, name=f"attempt at {service}", daemon=True)
    thread.start()
    thread.join(ATTEMPT_S)
    if thread.is_alive():
        raise InputError(f"{service}: no answer within {ATTEMPT_S:.0f} s; {advice}")
    if errors:
        raise errors[0]
    return results[0]
