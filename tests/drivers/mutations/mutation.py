"""What a mutation is, and the list of all."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutation:
    """One way to break a promise: in ``file``, ``old`` becomes ``new``, and one of ``tests`` must
    fail.
    """

    promise: str
    file: str  # below the repository's root
    old: str
    new: str
    tests: Sequence[str]  # as pytest names them, below ``tests/``

    def is_about(self, words: Sequence[str]) -> bool:
        """Whether the promise or the file holds one of the words; no word: always."""
        return not words or any(word in self.promise or word in self.file for word in words)

    def applied_to(self, text: str) -> str:
        """The mutated text. Raises ValueError unless ``old`` stands in it exactly once."""
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file}: found {text.count(self.old)} times, needed once: {self.old!r}"
            )
        return text.replace(self.old, self.new)


def read_mutations() -> list[Mutation]:
    """All mutations, in the order of the list."""
    content = tomllib.loads(Path(__file__).with_name("list.toml").read_text(encoding="utf-8"))
    return [Mutation(**entry) for entry in content["mutation"]]
