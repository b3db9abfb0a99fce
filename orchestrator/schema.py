"""``vitaclip schema``: what an editor wants to know of study files."""

from __future__ import annotations


def schema() -> None:
    """Prints the JSON schema of study files, for editors.

    `vitaclip schema > study.schema.json`, and a line `# yaml-language-server:
    $schema=study.schema.json` in a study file, make an editor with the YAML language server
    complete and check it.
    """
    from orchestrator.commands.schema import study_schema

    print(study_schema(), end="")
