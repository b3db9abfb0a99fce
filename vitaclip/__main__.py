"""``python -m vitaclip``: predict one's own videos, convert checkpoints, look after data."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vitaclip.class_names import parse_class_names
from vitaclip.config import BackboneConfig, EvalConfig
from vitaclip.data.commands import add_commands
from vitaclip.data.manifest import read_class_list
from vitaclip.errors import DataError, InputError, VitaClipError
from vitaclip.model.clip_weights import convert_clip_weights
from vitaclip.predict import VideoPrediction, predict
from vitaclip.released_checkpoint import export_checkpoint, import_checkpoint
from vitaclip.terminal import print_error, show_warnings, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 if it worked, 2 for input that cannot be used, 1 for any other
    failure.
    """
    show_warnings()
    try:
        args = _parser().parse_args(arguments)
        args.run(args)
    except VitaClipError as error:
        print_error(error)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vitaclip", description="Predict, convert, look after data."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_import(commands)
    _add_export(commands)
    _add_convert(commands)
    add_commands(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("predict", help="the most probable classes of one's own videos")
    parser.add_argument("checkpoint", type=Path, help="a checkpoint folder")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument(
        "--classes",
        help="a file with a name per line, or names: 'a,b,c' (default: the trained ones)",
    )
    parser.add_argument(
        "--views", type=EvalConfig.parse, default="1x1", help="temporal x spatial, such as 4x3"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> None:
    predictions = predict(
        args.checkpoint,
        args.videos,
        _class_names(args.classes) if args.classes is not None else None,
        views=args.views,
    )
    if args.json:
        print(json.dumps([asdict(prediction) for prediction in predictions], indent=1))
    else:
        for prediction in predictions:
            print(shown(_table(prediction)))
    broken = [prediction.error for prediction in predictions if prediction.error is not None]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(predictions)} videos cannot be read: {'; '.join(broken)}"
        )


def _table(prediction: VideoPrediction) -> str:
    if prediction.error is not None:
        return f"{prediction.video}: cannot be read"
    rows = zip(prediction.probabilities, prediction.classes, strict=True)
    names = (
        "trained classes" if prediction.learned_context else "plain names, without learned context"
    )
    title = f"{prediction.video} ({names})"
    return "\n".join([title, *(f"  {probability:6.1%}  {name}" for probability, name in rows)])


def _class_names(text: str) -> tuple[str, ...]:
    """Names from a file, or separated by commas."""
    # os.path takes any text, such as a long list of names
    if os.path.isfile(text):  # noqa: PTH113
        return read_class_list(Path(text))
    allowed = "give a file with a name per line, or two names or more: a,b,c"
    if os.path.isdir(text):  # noqa: PTH112
        raise InputError(f"--classes: '{text}' is a folder; {allowed}")
    if (
        "," not in text
        or text.startswith(("/", "./", "../"))
        or text.lower().endswith((".txt", ".csv"))
    ):
        raise InputError(f"--classes: found no file '{text}'; {allowed}")
    return parse_class_names(text, "--classes")


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "import-checkpoint", help="a released Vita-CLIP checkpoint into ours"
    )
    parser.add_argument("released", type=Path, help="the released file (.pth)")
    parser.add_argument("folder", type=Path, help="the checkpoint folder to write")
    parser.add_argument(
        "--classes", required=True, help="its class names in its order: a file, or 'a,b,c'"
    )
    parser.add_argument(
        "--backbone", default="ViT-B-16-quickgelu", help="open_clip model name of its CLIP"
    )
    parser.add_argument(
        "--pretrained", default="openai", help="open_clip tag or local file of its CLIP's weights"
    )
    parser.add_argument(
        "--extract-backbone", type=Path, help="write the CLIP it holds here and use that"
    )
    parser.add_argument(
        "--position", choices=["end", "middle", "front"], default="end", help="of the class name"
    )
    parser.set_defaults(run=_import)


def _import(args: argparse.Namespace) -> None:
    config = import_checkpoint(
        args.released,
        args.folder,
        _class_names(args.classes),
        BackboneConfig(name=args.backbone, pretrained=args.pretrained),
        position=args.position,
        extract_backbone=args.extract_backbone,
    )
    print(f"{args.folder}: {config.prompts.num_global} global prompts, {config.text.num_context} "
          "text contexts, "
          f"{config.data.num_frames} frames")  # fmt: skip


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "export-checkpoint", help="a checkpoint of ours into the released format"
    )
    parser.add_argument("folder", type=Path, help="a checkpoint folder")
    parser.add_argument("released", type=Path, help="the file to write (.pth)")
    parser.set_defaults(run=lambda args: export_checkpoint(args.folder, args.released))


def _add_convert(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "convert-backbone",
        help="CLIP weights of any layout, OpenAI's TorchScript too, into safetensors",
    )
    parser.add_argument("weights", type=Path, help="the file to read, such as OpenAI's ViT-B-16.pt")
    parser.add_argument("safetensors", type=Path, help="the file to write (.safetensors)")
    parser.set_defaults(run=lambda args: convert_clip_weights(args.weights, args.safetensors))


if __name__ == "__main__":
    sys.exit(main())
