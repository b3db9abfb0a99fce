"""docs/guides/add_method.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from testing.paths import ROOT

USE = """\
import sys
from pathlib import Path
import torch
from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import TrainConfig
from vitaclip.methods.build import build_model

backbone = {"name": "quickstart-tiny", "pretrained": "quickstart"}
config = TrainConfig.model_validate({"method": "NAME", "backbone": backbone})
model = build_model(config, ["walking", "running"])
save_checkpoint(Path("checkpoint"), model, config, Progress())
again, _ = load_model(Path("checkpoint"))
video = torch.rand(1, 3, 2 * model.num_frames, model.image_size, model.image_size)
features = again.encode_video(video)
assert torch.equal(features, model.encode_video(video))
print(type(again).__name__, sorted(model.trainable()), *model.logits(features, again.encode_classes()).shape)
"""  # noqa: E501


def test_a_method_is_one_file_and_its_name(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guides/add_method.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    [(folder, file)] = re.findall(r"Save it in `(\S+)` as (\w+\.py)", guide)
    [config, name] = re.findall(r'In `(\S+)` add `"(\w+)"` to `MethodName`', guide)[0]
    shutil.copytree(ROOT / "vitaclip", tmp_path / "vitaclip")
    (tmp_path / folder / file).write_text(code)
    text = (tmp_path / config).read_text()
    (tmp_path / config).write_text(
        text.replace("MethodName = Literal[", f'MethodName = Literal["{name}",')
    )
    done = subprocess.run(
        [sys.executable, "-c", USE.replace("NAME", name)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "FrameWeights ['frame_weights', 'logit_scale'] 1 2\n"
