"""Runs a command: an error becomes one line, and the exit code tells of which kind it was."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from typing import Any

from typer import Typer, TyperException
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from vitaclip.errors import InputError, VitaClipError
from vitaclip.extras import missing_package
from vitaclip.terminal import print_error, show_warnings

Door = Callable[..., int | None]  # its parameters are the command's arguments and options


def new_app(*doors: Door, **options: Any) -> Typer:
    """An app of these doors in this project's style: plain help, which ``-h`` shows too, and
    Python's own tracebacks.
    """
    names = {"help_option_names": ["-h", "--help"]}
    app = Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=names, **options
    )
    for door in doors:
        app.command(cls=_Command)(door)
    return app


def run_alone(door: Door, program: str, arguments: Sequence[str] | None) -> int:
    """Runs one command as a program of its own; else like :func:`run`."""
    return run(new_app(door, add_completion=False), program, arguments)


def run(app: Typer, program: str, arguments: Sequence[str] | None) -> int:
    """Runs ``app`` under the name ``program`` with ``arguments`` (default: this process's).

    Returns:
        What the command returned, or 0; 2 for input that cannot be used, 130 after Ctrl-C, and 1
        for any other failure.
    """
    show_warnings()
    command = get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return command.main(words, program, standalone_mode=False) or 0
    except TyperException as error:
        print_error(_usage_error(error))
        return 2
    except ModuleNotFoundError as error:
        name = " ".join([program, *words[:1]] if isinstance(command, TyperGroup) else [program])
        if (lack := missing_package(f"`{name}`", error)) is None:
            raise
        print_error(lack)
        return 2
    except VitaClipError as error:
        print_error(error)
        return 2 if isinstance(error, InputError) else 1


class _Command(TyperCommand):
    """A command whose options with a metavar such as ``DATASET...`` take several words at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several = {
            name
            for parameter in self.params
            if parameter.param_type_name == "option" and (parameter.metavar or "").endswith("...")
            for name in parameter.opts
        }
        return super().parse_args(ctx, _repeated(args, several))


def _repeated(words: Sequence[str], options: Container[str]) -> list[str]:
    """``--on a b``, for one of the options, as ``--on a --on b``."""
    repeated: list[str] = []
    option = None
    for word in words:
        if word.startswith("-"):
            option = word if word in options else None
        elif option and repeated[-1] != option:
            repeated.append(option)
        repeated.append(word)
    return repeated


def _usage_error(error: TyperException) -> InputError:
    """What is wrong with the words of the command line, and where it stands what is allowed."""
    context = getattr(error, "ctx", None)
    hint = f"; `{context.command_path} --help` tells what is allowed" if context else ""
    return InputError(error.format_message().rstrip(".") + hint)
