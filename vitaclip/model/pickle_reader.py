"""What a pickle says, read without running it: names stay names, and calls are written down, not
made.

Python's own unpickler imports and calls what the file asks for; ``torch.load(weights_only=True)``
calls less, but a few bytes still make it fill the memory, and it refuses TorchScript. A file of
weights needs neither: dicts, lists, numbers, texts, and calls that say where a tensor's values lie.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple


class PickleError(ValueError):
    """The bytes are no pickle, or one that no file of weights needs."""


class Name(NamedTuple):
    """A class or function that the pickle names, such as ``torch FloatStorage``."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:80]


# Stands for a function that is itself made by the pickle.
_NAMELESS: Final = Name("some", "object")


class Outside(NamedTuple):
    """Something that the pickle says lies elsewhere in the file: a tensor's values."""

    place: object


@dataclass
class Made:
    """An object as the pickle would have it made: by calling ``maker`` with ``arguments``;
    ``state`` is set then.

    Items that the pickle puts into it are passed over: only dicts and lists hold weights.
    """

    maker: Name
    arguments: tuple[Any, ...]
    state: object = None

    def __setitem__(self, key: object, value: object) -> None: ...

    def extend(self, items: object) -> None: ...

    append = extend


class _Dict(dict[str | int, Any]):
    """A dict that hashes nothing but texts and numbers: the hash of deeply nested tuples breaks the
    interpreter.
    """

    def __setitem__(self, key: Any, value: object) -> None:
        if not isinstance(key, str | int):
            raise PickleError(f"a key that is neither text nor number: {type(key).__name__}")
        super().__setitem__(key, value)


def read_pickle(content: bytes) -> object:
    """The object that a pickle describes.

    Raises:
        PickleError: the bytes are no pickle, or use what no file of weights needs.
    """
    try:
        return _Reader(io.BytesIO(content)).load()
    except PickleError:
        raise
    except (
        *(pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError, EOFError),
        *(OverflowError, struct.error),
    ) as error:
        raise PickleError("no pickle of named tensors, or a damaged one") from error


# What Python's unpickler does for these operations is harmless: it moves values about.
_HARMLESS: Final = (
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 "
    "FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE "
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL BINPERSID PUT BINPUT LONG_BINPUT MEMOIZE "
    "GET BINGET LONG_BINGET"
)


class _Reader(pickle._Unpickler):
    """Python's unpickler without its means to import, call or set anything."""

    stack: list[Any]
    dispatch: ClassVar = {
        code: action
        for code, action in pickle._Unpickler.dispatch.items()
        if code in {getattr(pickle, name)[0] for name in _HARMLESS.split()}
    }

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def persistent_load(self, pid: object) -> Outside:
        return Outside(pid)

    def _make(self) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple):
            raise PickleError("calls something without a tuple of arguments")
        if maker == Name("collections", "OrderedDict"):
            made: Any = _Dict()
            for key, value in arguments[0] if arguments else ():
                made[key] = value
        else:
            made = Made(maker if isinstance(maker, Name) else _NAMELESS, arguments)
        self.stack.append(made)

    def _set_state(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Made):
            self.stack[-1].state = state

    def _start_dict(self) -> None:
        self.stack.append(_Dict())


_OWN: dict[bytes, Callable[[Any], None]] = {
    pickle.REDUCE: _Reader._make,
    pickle.NEWOBJ: _Reader._make,
    pickle.BUILD: _Reader._set_state,
    pickle.EMPTY_DICT: _Reader._start_dict,
}
_Reader.dispatch.update({code[0]: action for code, action in _OWN.items()})
