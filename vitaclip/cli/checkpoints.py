"""``vitaclip import-checkpoint``, ``export-checkpoint``, ``export-backbone`` and
``convert-backbone``: files of others in and out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from vitaclip.cli.class_names import class_names
from vitaclip.config import BackboneConfig


def import_checkpoint(
    released: Annotated[
        Path, Argument(parser=Path, metavar="RELEASED", help="the released file (.pth)")
    ],
    folder: Annotated[
        Path, Argument(parser=Path, metavar="FOLDER", help="the checkpoint folder to write")
    ],
    classes: Annotated[str, Option(help="its class names in its order: a file, or 'a,b,c'")],
    backbone: Annotated[
        str, Option(help="open_clip model name of its CLIP")
    ] = "ViT-B-16-quickgelu",
    pretrained: Annotated[
        str, Option(help="open_clip tag or local file of its CLIP's weights")
    ] = "openai",
    extract_backbone: Annotated[
        Path | None, Option(parser=Path, help="write the CLIP it holds here and use that")
    ] = None,
    position: Annotated[
        Literal["end", "middle", "front"], Option(help="where the class name stands")
    ] = "end",
) -> None:
    """Turns a released Vita-CLIP checkpoint into one of ours."""
    from vitaclip import released_checkpoint

    config = released_checkpoint.import_checkpoint(
        released,
        folder,
        class_names(classes),
        BackboneConfig(name=backbone, pretrained=pretrained),
        position=position,
        extract_backbone=extract_backbone,
    )
    print(
        f"{folder}: {config.prompts.num_global} global prompts, {config.text.num_context} text "
        f"contexts, {config.data.num_frames} frames"
    )


def export_checkpoint(
    folder: Annotated[Path, Argument(parser=Path, metavar="FOLDER", help="a checkpoint folder")],
    released: Annotated[
        Path, Argument(parser=Path, metavar="RELEASED", help="the file to write (.pth)")
    ],
) -> None:
    """Turns a checkpoint of ours into the released format."""
    from vitaclip import released_checkpoint

    released_checkpoint.export_checkpoint(folder, released)


def export_backbone(
    folder: Annotated[Path, Argument(parser=Path, metavar="FOLDER", help="a checkpoint folder")],
    weights: Annotated[
        Path, Argument(parser=Path, metavar="WEIGHTS", help="the file to write (.safetensors)")
    ],
) -> None:
    """Writes a CLIP of trained weights as a file.

    The checkpoint is one of full_finetune or lora. Another training starts from the file:
    backbone.pretrained takes it.
    """
    from vitaclip import tuned_backbone

    tuned_backbone.export_backbone(folder, weights)


def convert_backbone(
    weights: Annotated[
        Path, Argument(parser=Path, metavar="WEIGHTS", help="the file to read, such as ViT-B-16.pt")
    ],
    safetensors: Annotated[
        Path, Argument(parser=Path, metavar="SAFETENSORS", help="the file to write")
    ],
) -> None:
    """Turns CLIP weights of any layout into safetensors.

    OpenAI's TorchScript archives are read too. Nothing in a file is executed.
    """
    from vitaclip.model.clip_weights import convert_clip_weights

    convert_clip_weights(weights, safetensors)
