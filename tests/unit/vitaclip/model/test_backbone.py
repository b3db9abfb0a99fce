"""CLIP weights in every naming they come in, at their true names and shapes, against open_clip's
own features.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip.model import CLIP, resize_pos_embed
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitaclip.clip_config import num_layers, read_clip_config
from vitaclip.config import BackboneConfig, DataConfig, ModelConfig
from vitaclip.errors import InputError
from vitaclip.methods.video_model import VideoModel
from vitaclip.model import hub
from vitaclip.model.backbone import check_backbone, load_backbone, weights_sha256

ONE_FRAME = ModelConfig(data=DataConfig(num_frames=1))
OPENAI_NAMES = ["ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"]

HF_PLACES = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def random_clip(name: str, image_size: int | None = None) -> CLIP:
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    if image_size:
        config["vision_cfg"]["image_size"] = image_size
    return CLIP(**config).eval()


def to_hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's naming to Hugging Face's, as their published files have it."""
    renamed: dict[str, Tensor] = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    for name, tensor in weights.items():
        tower, rest = (
            ("vision_model", name.removeprefix("visual."))
            if name.startswith("visual.")
            else ("text_model", name)
        )
        if name in ("visual.proj", "text_projection"):
            renamed[
                f"{'visual_projection' if tower == 'vision_model' else 'text_projection'}.weight"
            ] = tensor.T.contiguous()
        elif name == "logit_scale":
            renamed[name] = tensor
        elif rest.startswith("transformer.resblocks."):
            _, _, layer, rest = rest.split(".", 3)
            for ours, theirs in (
                ("ln_", "layer_norm"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
                ("attn.", "self_attn."),
            ):
                rest = rest.replace(ours, theirs)
            parts = (
                dict(zip("qkv", tensor.chunk(3), strict=True))
                if "in_proj" in rest
                else {"": tensor}
            )
            for part, value in parts.items():
                leaf = rest.replace("in_proj_", f"{part}_proj.") if part else rest
                renamed[f"{tower}.encoder.layers.{layer}.{leaf}"] = value.contiguous()
        else:
            renamed[f"{tower}.{HF_PLACES[rest]}"] = tensor
    return renamed


def write(weights: dict[str, Tensor], naming: str, folder: Path) -> Path:
    if naming == "openai":  # a pickle of tensors, half precision, with OpenAI's scalars
        scalars = {
            "input_resolution": torch.tensor(224),
            "context_length": torch.tensor(77),
            "vocab_size": torch.tensor(49408),
        }
        torch.save(weights | scalars, folder / "openai.pt")
        return folder / "openai.pt"
    if naming == "open_clip":  # a training checkpoint under DDP
        torch.save(
            {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 1},
            folder / "open_clip.pt",
        )
        return folder / "open_clip.pt"
    save_file(to_hugging_face(weights), folder / "model.safetensors")
    return folder / "model.safetensors"


@torch.no_grad()
def assert_same_features(found: VideoModel, wanted: CLIP, image_size: int) -> None:
    images = torch.randn(2, 3, image_size, image_size)
    names = ["abseiling", "playing the didgeridoo"]
    torch.testing.assert_close(
        found.encode_video(images[:, :, None]), wanted.encode_image(images), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        found.encode_names(names),
        wanted.encode_text(open_clip.tokenize(names)),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("name", "naming"),
    list(zip(OPENAI_NAMES, ["openai", "open_clip", "hugging_face"], strict=True)),
)
def test_each_naming_at_true_shapes(name: str, naming: str, tmp_path: Path) -> None:
    clip = random_clip(name)
    path = write(clip.state_dict(), naming, tmp_path)
    backbone = load_backbone(BackboneConfig(name=name, pretrained=str(path)))
    model = VideoModel(backbone, ONE_FRAME)
    assert_same_features(model, clip, backbone.image_size)
    assert num_layers(BackboneConfig(name=name)) == len(clip.visual.transformer.resblocks)


def test_model_configs_are_those_that_open_clip_reads() -> None:
    read = {}
    for name in open_clip.list_models():
        with suppress(InputError):  # no plain CLIP
            read[name] = read_clip_config(BackboneConfig(name=name))
    assert len(read) > 40
    for name, found in read.items():
        wanted = open_clip.get_model_config(name)
        assert found == {key: value for key, value in wanted.items() if key != "custom_text"}


@pytest.mark.parametrize("naming", ["openai", "open_clip", "hugging_face"])
def test_every_naming_gives_the_same_backbone(naming: str, tmp_path: Path, small_name: str) -> None:
    weights = random_clip(small_name).state_dict()
    hashes = {
        load_backbone(
            BackboneConfig(name=small_name, pretrained=str(write(weights, n, tmp_path)))
        ).sha256
        for n in ("openai", naming)
    }
    assert len(hashes) == 1


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(
    tmp_path: Path, small_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counted(clip: CLIP) -> str:
        hashed.append(weights_sha256(clip))
        return hashed[-1]

    monkeypatch.setattr("vitaclip.model.backbone.weights_sha256", counted)
    weights = random_clip(small_name).state_dict()
    path = write(weights, "openai", tmp_path)
    config = BackboneConfig(name=small_name, pretrained=str(path))
    found = [load_backbone(config).sha256 for _ in range(2)]
    weights["logit_scale"] = weights["logit_scale"] + 1
    assert write(weights, "openai", tmp_path) == path
    found.append(load_backbone(config).sha256)
    found.append(load_backbone(config.model_copy(update={"image_size": 48})).sha256)
    assert found == [hashed[0], hashed[0], hashed[1], hashed[2]]
    assert len({*hashed}) == 3


@pytest.fixture
def small_name(small_backbone: BackboneConfig) -> str:
    return small_backbone.name


def test_other_image_size_interpolates_positions_as_open_clip(
    tmp_path: Path, small_name: str
) -> None:
    weights = random_clip(small_name).state_dict()
    path = write(weights, "openai", tmp_path)
    wanted = random_clip(small_name, image_size=48)
    resized = dict(weights)
    resize_pos_embed(resized, wanted)
    wanted.load_state_dict(resized)
    backbone = load_backbone(BackboneConfig(name=small_name, pretrained=str(path), image_size=48))
    assert_same_features(VideoModel(backbone, ONE_FRAME), wanted, 48)


def test_keys_that_do_not_fit_are_listed(tmp_path: Path, small_name: str) -> None:
    weights = random_clip(small_name).state_dict()
    weights["visual.extra"] = torch.zeros(1)
    del weights["visual.ln_post.bias"]
    weights["text_projection"] = torch.zeros(3, 3)
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises(InputError) as error:
        load_backbone(BackboneConfig(name=small_name, pretrained=str(tmp_path / "bad.safetensors")))
    for part in (
        "3 keys",
        "missing: visual.ln_post.bias",
        "not used: visual.extra",
        "text_projection: found (3, 3), needed (32, 16)",
    ):
        assert part in str(error.value)


def test_pickles_that_hold_more_than_tensors_are_refused(tmp_path: Path, small_name: str) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"logit_scale": Path("x")}, path)
    with pytest.raises(InputError, match=r"logit_scale is no tensor but pathlib\..*PosixPath"):
        load_backbone(BackboneConfig(name=small_name, pretrained=str(path)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "ViT-B-61"}, r"did you mean 'ViT-B-16'\?"),
        ({"name": "RN50", "pretrained": "random"}, "no CLIP ViT"),
        (
            {"name": "ViT-B-16", "pretrained": "opena"},
            r"no tag of ViT-B-16 \(did you mean 'openai'\?\)",
        ),
        (
            {"name": "ViT-B-16", "pretrained": "random", "image_size": 230},
            "multiples of the patch size 16",
        ),
        ({"name": "coca_ViT-B-32", "pretrained": "random"}, "CoCa"),
    ],
)
def test_bad_names_are_refused_before_any_weights_are_read(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_backbone(BackboneConfig(**config))


def test_random_weights_are_no_way_to_fill_the_memory() -> None:
    with pytest.raises(
        InputError, match="'random' is for tests, with models of at most 500000000 weights"
    ):
        load_backbone(BackboneConfig(name="ViT-bigG-14", pretrained="random"))


def test_the_tag_decides_about_quick_gelu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``ViT-B-32`` with OpenAI's weights needs QuickGELU although the name does not say so."""
    weights = random_clip("ViT-B-32").state_dict()
    path = write(weights, "open_clip", tmp_path)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda tag_config: str(path))
    by_tag = load_backbone(BackboneConfig(name="ViT-B-32", pretrained="openai"))
    assert type(by_tag.clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_a_hub_that_cannot_be_reached_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    attempts: list[object] = []

    def refuse(address: object, timeout: float) -> None:
        attempts.append(address)
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    slept: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", slept.append)
    for name, tag in (("ViT-B-32", "openai"), ("ViT-B-32", "laion2b_s34b_b79k")):
        with pytest.raises(InputError, match="could not be downloaded.*local file"):
            load_backbone(BackboneConfig(name=name, pretrained=tag))
    assert (len(attempts), slept) == (2, [])
    assert not constants.HF_HUB_OFFLINE


def test_unreachable_weights_are_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(tag_config: dict[str, object]) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    with pytest.raises(InputError, match="could not be downloaded.*local file"):
        load_backbone(BackboneConfig(name="ViT-B-32", pretrained="openai"))


def test_quickstart_backbone_is_what_the_repository_ships() -> None:
    config = BackboneConfig(name="quickstart-tiny", pretrained="quickstart")
    backbone = load_backbone(config)
    shipped = load_file("vitaclip/quickstart/quickstart-tiny.safetensors")
    row = int(shipped["token_ids"][5])
    torch.testing.assert_close(
        backbone.clip.token_embedding.weight[row], shipped["token_embedding.weight"][5].float()
    )
    assert num_layers(config) == len(backbone.clip.visual.transformer.resblocks)


def test_loading_clip_imports_no_tracker() -> None:
    """timm would import wandb, whose folders a killed process leaves behind."""
    code = "import sys, vitaclip.model.backbone; assert 'wandb' not in sys.modules; import wandb"
    subprocess.run([sys.executable, "-c", code], check=True)
