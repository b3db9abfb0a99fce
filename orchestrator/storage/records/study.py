"""``study.json``: what a study is, and what it reads."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from orchestrator.config import Scalar, StudyConfig
from vitaclip.config import Config
from vitaclip.data.identity import DataIdentity


class StudyInputs(Config):
    """What a study reads: a later start on anything else is refused."""

    data: dict[str, DataIdentity] = Field({}, description="by dataset/split")
    backbones: dict[str, str] = Field({}, description="model and weights -> SHA-256 of all tensors")

    def differences(self, other: StudyInputs) -> list[str]:
        """In words, what ``other`` has under a name that is known here, but otherwise."""
        data = [
            f"dataset {name}: {text}"
            for name in sorted(self.data.keys() & other.data.keys())
            for text in self.data[name].differences(other.data[name])
        ]
        backbones = [
            f"backbone {name}: its weights are others ({self.backbones[name][:12]} was recorded, "
            f"found {other.backbones[name][:12]})"
            for name in sorted(self.backbones.keys() & other.backbones.keys())
            if self.backbones[name] != other.backbones[name]
        ]
        return data + backbones

    def joined(self, other: StudyInputs) -> StudyInputs:
        """Both, where the study has become larger."""
        return StudyInputs(data=self.data | other.data, backbones=self.backbones | other.backbones)


class StudyInfo(Config):
    """``study.json``."""

    id: str
    created_at: AwareDatetime
    config: StudyConfig
    config_hash: str
    provenance: dict[str, Scalar] = Field(
        description="of the first start; each attempt at a trial has its own code"
    )
    inputs: StudyInputs = StudyInputs()
