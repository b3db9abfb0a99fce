"""Ways to damage a file: within its structure, within its text, within its bytes. All draw from one
generator.
"""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        7,
        0.5,
        2**31,
        2**32,
        2**63,
        -(2**63),
        10**30,
        1e-320,
        1e308,
        -0.0,
    ),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        " ",
        "0",
        "1",
        "-1",
        "nan",
        "null",
        "true",
        "a" * 10_000,
    ),
    *(
        "\0",
        "\n",
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "é",
        "[/bold]",
        "[x]",
        "<b>",
        "../..",
        "/",
        ".",
        "{0.__class__}",
    ),
    *(
        "2026-01-02T03:04:05Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        "random",
        "a.b.c",
        "%s",
        "${x}",
    ),
    *([], {}, [None], [[]], {"": None}, {"a": {"b": {}}}, [0] * 1000, ["x"] * 1000),
)
_WORDS = (
    *(
        "&a ",
        "*a",
        "<<: *a",
        "!!python/object/apply:os.system [ls]",
        "!!binary a",
        "!!set {}",
        "!<x> ",
        "? ",
        "- ",
    ),
    *(
        ": ",
        ", ",
        "{",
        "}",
        "[",
        "]",
        "|\n ",
        ">9\n",
        "---\n",
        "...\n",
        "%YAML 1.1\n---\n",
        "\t",
        "\r\n",
        "#",
        '"',
        "'",
    ),
    *(
        "\\x00",
        "\\ud800",
        "\0",
        "\ufeff",
        "\x85",
        "\u2028",
        "1e999",
        "0x" + "f" * 99,
        "9" * 101,
        ".inf",
        "1:30",
        "~",
    ),
    *(
        "2001-01-01",
        "9999-99-99",
        "null",
        "no",
        "\x1b]0;x\x07",
        "[/bold]",
        ",,",
        " 0",
        "0\n",
        "..",
        "/",
        "\udcff",
    ),
)


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested lists and dicts."""
    found: list[tuple[Any, Any]] = []
    open_ = [value]
    while open_:
        container = open_.pop()
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        found += [(container, key) for key in keys]
        open_ += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


def damage_value(value: Any, rng: random.Random) -> Any:
    """A copy of nested lists and dicts that is changed in one to three places."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = nodes(value) if isinstance(value, dict | list) else []
        if not places or rng.random() < 0.01:
            return rng.choice(HOSTILE)
        _damage_place(*rng.choice(places), places, rng)
    return value


def _damage_place(
    container: Any, key: Any, places: list[tuple[Any, Any]], rng: random.Random
) -> None:
    kind = rng.randrange(7)
    other, other_key = rng.choice(places)
    if kind == 0:
        del container[key]
    elif kind == 1:
        container[key] = copy.deepcopy(other[other_key])
    elif kind == 2 and isinstance(container, dict):
        container[rng.choice([str(other_key), "x", "", "_" * 1000, f"{key}.x"])] = container.pop(
            key
        )
    elif kind == 3 and isinstance(container, list):
        container.extend(copy.deepcopy(container) * rng.choice((1, 1, 50)))
    elif kind == 4:
        container[key] = _nested(container[key], rng)
    elif kind == 5:
        container[key] = _nudged(container[key], rng)
    else:
        container[key] = copy.deepcopy(rng.choice(HOSTILE))


def _nested(value: Any, rng: random.Random) -> Any:
    for _ in range(rng.choice((1, 2, 30, 300))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def _nudged(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, value * 10**9, float(value), str(value)))
    if isinstance(value, str):
        return damage_text(value, rng)
    return [value]


def damage_text(text: str, rng: random.Random) -> str:
    """A text with one to three words put in, cut out or doubled."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        start = rng.randrange(len(text) + 1)
        stop = min(len(text), start + rng.choice((0, 0, 1, 3, 20, 200)))
        kind = rng.randrange(4)
        middle = (
            rng.choice(_WORDS) * rng.choice((1, 1, 1, 40, 900)) if kind else text[start:stop] * 2
        )
        text = text[:start] + middle + text[stop:]
        if kind == 3:
            lines = text.split("\n")
            rng.shuffle(lines)
            text = "\n".join(lines)
    return text


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are flipped, cut, doubled, overwritten or made up."""
    kind, start = rng.randrange(6), rng.randrange(len(data) + 1)
    stop = min(len(data), start + rng.choice((1, 4, 100, 10_000)))
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + data[stop:]
    if kind == 2:
        return data[:stop] + data[start:]
    if kind == 3:
        return data[:start] + rng.randbytes(stop - start) + data[stop:]
    if kind == 4:
        return rng.randbytes(rng.choice((0, 1, 10, 1000)))
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 3, 30)) if data else 0):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def damage_json_file(path: Path, rng: random.Random) -> None:
    """Damages a JSON file: mostly within its structure."""
    if rng.random() < 0.7:
        path.write_text(json.dumps(damage_value(json.loads(path.read_text()), rng)))
    else:
        damage_text_file(path, rng)


def damage_text_file(path: Path, rng: random.Random) -> None:
    """Damages a text file: mostly within its text."""
    if rng.random() < 0.7:
        text = damage_text(path.read_text(encoding="utf-8"), rng)
        path.write_bytes(
            text.encode("utf-8", "surrogateescape" if "\ud800" not in text else "surrogatepass")
        )
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
