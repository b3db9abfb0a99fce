"""A CLIP whose own weights a training changed, as a weights file that others can start from."""

from __future__ import annotations

from pathlib import Path

from open_clip.transformer import QuickGELU
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from vitaclip.checkpoint import load_model
from vitaclip.errors import InputError
from vitaclip.methods.full_finetune import FullFinetune
from vitaclip.methods.lora import LoRA
from vitaclip.model.clip_weights import ClipWeights, write_clip_weights


def export_backbone(folder: Path, weights: Path) -> None:
    """Writes the CLIP of a checkpoint as safetensors, for ``backbone.pretrained`` of another
    training: prompts on a fine-tuned CLIP (ViFi-CLIP's "bridge and prompt"). LoRA's changes are
    added to the matrices.

    Raises:
        CheckpointError: the folder is no checkpoint of ours.
        InputError: its method leaves CLIP as it is, or cannot do without what it adds, or
            ``weights`` cannot be written.
    """
    model, config = load_model(folder)
    if not isinstance(model, FullFinetune | LoRA):
        raise InputError(
            f"{folder}: was trained by {config.method.name}, allowed are full_finetune and lora: "
            "they alone end with a CLIP of other weights"
        )
    clip = model.clip
    for module in list(clip.modules()):
        if is_parametrized(module):
            for name in list(module.parametrizations):
                remove_parametrizations(module, name)
    clip.logit_scale.data.copy_(model.logit_scale)
    quick_gelu = isinstance(clip.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)
    write_clip_weights(weights, ClipWeights(dict(clip.state_dict()), quick_gelu))
