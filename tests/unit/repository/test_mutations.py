"""The list of mutations cannot rot: each still changes its file, and its tests exist (``make
mutations`` runs them).
"""

from __future__ import annotations

import ast

import pytest

from testing.paths import ROOT
from tests.drivers.mutations.mutation import Mutation, read_mutations

MUTATIONS = read_mutations()


def test_there_are_enough_and_none_stands_there_twice() -> None:
    assert len({mutation.promise for mutation in MUTATIONS}) == len(MUTATIONS) >= 30


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_every_mutation_changes_its_file_into_other_valid_code(mutation: Mutation) -> None:
    text = (ROOT / mutation.file).read_text()
    changed = mutation.applied_to(text)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.promise)
def test_every_test_that_is_to_catch_it_exists(mutation: Mutation) -> None:
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        body = ast.parse((ROOT / "tests" / file).read_text()).body
        names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        assert not name or name.partition("[")[0] in names, test


def test_text_that_stands_there_twice_or_not_at_all_is_refused() -> None:
    mutation = Mutation("p", "file.py", "a", "b", ["t"])
    for text in ("", "a a"):
        with pytest.raises(ValueError, match=r"file\.py: found \d times, needed once: 'a'"):
            mutation.applied_to(text)
