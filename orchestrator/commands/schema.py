"""The JSON schema of a study file, by which editors complete and check what is typed."""

from __future__ import annotations

import json

from orchestrator.config import StudyConfig
from orchestrator.search.search_space import field_names


def study_schema() -> str:
    """The schema as text."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **StudyConfig.model_json_schema(),
        "title": "A study file of vitaclip",
    }
    schema["properties"]["search_space"]["propertyNames"] = {"enum": list(field_names())}
    return json.dumps(schema, indent=1) + "\n"
