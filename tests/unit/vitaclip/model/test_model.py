"""The model against the straightforward reference, for every combination of its switches, and
against open_clip.
"""

from __future__ import annotations

import copy
import functools
import itertools
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from testing.reference_model import reference_logits, reference_step
from vitaclip.config import BackboneConfig, DataConfig, ModelConfig, PromptConfig, TextConfig
from vitaclip.config.model import Precision
from vitaclip.errors import InputError
from vitaclip.methods.text_prompts import NO_PROMPTS
from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model import compilation
from vitaclip.model.backbone import Backbone, build_clip, load_backbone
from vitaclip.model.text import PackedTexts, encode_text, tokenize_classes
from vitaclip.optimizer import accumulate_gradients

TINY = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 3},
}
CLASSES = [
    "abseiling",
    "ride_bike",
    "playing didgeridoo (outside)",
    "tai chi",
    "x",
    "a rather long name of a class",
]
NUM_FRAMES = 3


@pytest.fixture(scope="module")
def tiny_clip() -> CLIP:
    torch.manual_seed(1)
    random = CLIP(**TINY)
    for parameter in random.parameters():  # biases and norms away from their trivial initial values
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return build_clip(TINY, random.state_dict(), source="test").double()


def config_of(prompts: PromptConfig, text: TextConfig) -> ModelConfig:
    return ModelConfig(prompts=prompts, text=text, data=DataConfig(num_frames=NUM_FRAMES))


def tiny_model(clip: CLIP, prompts: PromptConfig, text: TextConfig) -> VitaCLIP:
    torch.manual_seed(2)
    model = VitaCLIP(Backbone(clip, "test"), config_of(prompts, text), CLASSES).double()
    for parameter in model.trainable().values():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def batch(num_clips: int, num_frames: int = NUM_FRAMES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    video = torch.randn(num_clips, 3, num_frames, 32, 32, generator=generator, dtype=torch.float64)
    return video, torch.randint(len(CLASSES), (num_clips,), generator=generator)


def assert_same_step(
    model: VitaCLIP, num_clips: int, micro_batch_size: int, num_frames: int = NUM_FRAMES
) -> None:
    video, labels = batch(num_clips, num_frames)
    wanted_loss = reference_step(model, video, labels, micro_batch_size)
    wanted = {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    loss = accumulate_gradients(model, video, labels, micro_batch_size=micro_batch_size)
    torch.testing.assert_close(loss, wanted_loss.float(), rtol=1e-6, atol=0)
    found = {name: p.grad for name, p in model.trainable().items() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-11, msg=name)
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("num_global", "local", "summary", "time"),
    list(itertools.product((0, 2), (False, True), (False, True), (False, True))),
)
def test_every_combination_of_visual_prompts(
    tiny_clip: CLIP, num_global: int, local: bool, summary: bool, time: bool
) -> None:
    prompts = PromptConfig(num_global=num_global, local=local, summary=summary, time_embedding=time)
    assert_same_step(
        tiny_model(tiny_clip, prompts, TextConfig(num_context=2)), num_clips=3, micro_batch_size=2
    )


@pytest.mark.parametrize("cls_proj", ["paper", "released"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("num_context", [1, 5])
@pytest.mark.parametrize("depth", [1, 3])
def test_every_combination_of_text_prompts(
    tiny_clip: CLIP,
    cls_proj: str,
    class_specific: bool,
    position: str,
    num_context: int,
    depth: int,
) -> None:
    text = TextConfig(
        num_context=num_context, class_specific=class_specific, position=position, depth=depth
    )
    prompts = PromptConfig(num_global=1, cls_proj=cls_proj)
    assert_same_step(tiny_model(tiny_clip, prompts, text), num_clips=2, micro_batch_size=2)


@pytest.mark.parametrize(
    "layers",
    [
        {"depth": 0},
        {"depth": 2},
        {"global_layers": (0, 1), "local_layers": (1, 3), "summary_layers": (2, 3)},
        {"depth": 1, "summary_layers": (0, 3)},
    ],
)
def test_layer_ranges(tiny_clip: CLIP, layers: dict[str, Any]) -> None:
    model = tiny_model(tiny_clip, PromptConfig(num_global=2, **layers), TextConfig(num_context=2))
    assert_same_step(model, num_clips=2, micro_batch_size=1)
    carrying = [layer.global_prompts is not None for layer in model.vision_prompts.layers]
    assert sum(carrying) == layers.get("global_layers", (0, layers.get("depth")))[1]


def test_a_longer_clip_is_read_as_segments(tiny_clip: CLIP) -> None:
    model = tiny_model(tiny_clip, PromptConfig(), TextConfig(num_context=2))
    assert_same_step(model, num_clips=2, micro_batch_size=2, num_frames=2 * NUM_FRAMES)
    with pytest.raises(InputError, match="4 frames, allowed are multiples of data.num_frames = 3"):
        model.encode_video(batch(1, 4)[0])


def test_activation_checkpointing_changes_nothing(tiny_clip: CLIP) -> None:
    model = tiny_model(tiny_clip, PromptConfig(), TextConfig())
    model.activation_checkpointing = True
    assert_same_step(model, num_clips=2, micro_batch_size=1)


def test_texts_are_read_as_if_each_stood_alone(tiny_clip: CLIP) -> None:
    """They are packed one behind the other, whatever their lengths."""
    model = tiny_model(tiny_clip, NO_PROMPTS, TextConfig(num_context=2, position="middle", depth=2))
    together = model.encode_classes()
    torch.manual_seed(2)
    for index, name in enumerate(CLASSES):
        alone = PackedTexts(tokenize_classes([name], 77, 2), 1, 1)
        prompts = copy.deepcopy(model.text_prompts)
        assert prompts is not None
        prompts.context.data = prompts.context.data[[index]]
        prompts.deep_context[0].data = prompts.deep_context[0].data[[index]]
        expected = encode_text(tiny_clip, alone, prompts)
        torch.testing.assert_close(together[[index]], expected, rtol=1e-9, atol=1e-12)
    names = model.encode_names(CLASSES)
    for index, name in enumerate(CLASSES):
        torch.testing.assert_close(
            names[[index]], model.encode_names([name]), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_frozen_weights_are_held_as_they_are_computed_with(
    small_backbone: BackboneConfig, precision: Precision
) -> None:
    """Bit for bit what autocast makes of the full weights at every step."""
    config = ModelConfig(
        backbone=small_backbone, precision=precision, data=DataConfig(num_frames=NUM_FRAMES)
    )
    models = [VitaCLIP(load_backbone(small_backbone), config, CLASSES) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    held = models[1].placed_on(torch.device("cpu"))
    assert {p.dtype for p in held.trainable().values()} == {torch.float32}
    assert held.clip.visual.conv1.weight.dtype == held.autocast_dtype
    video = torch.randint(256, (2, 3, NUM_FRAMES, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([1, 4])
    losses = [accumulate_gradients(model, video, labels, micro_batch_size=1) for model in models]
    assert losses[0] == losses[1]
    gradients = [
        {name: gradient_of(p) for name, p in model.trainable().items() if p.grad is not None}
        for model in models
    ]
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_a_sweep_of_many_points_compiles_a_few_graphs(
    small_backbone: BackboneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other numbers of prompts, classes and clips are other sizes of the same graphs: two of the
    vision tower's layers with prompts (the last one computes one token), two of those without, two
    of the text tower's, and the frames' embedding.
    """
    counter, real = CompileCounter(), torch.compile
    compilation.compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", functools.partial(real, backend=counter))
    for num_global, depth, num_context, num_classes, num_clips in (
        (2, 1, 2, 3, 4), (4, 2, 4, 6, 2), (8, 1, 8, 5, 3), (16, 2, 3, 4, 5), (3, 0, 16, 6, 4),
        (5, 2, 5, 2, 6),
    ):  # fmt: skip
        config = ModelConfig(
            backbone=small_backbone,
            compile=True,
            prompts=PromptConfig(num_global=num_global, depth=depth),
            text=TextConfig(num_context=num_context, class_specific=num_clips % 2 == 0),
            data=DataConfig(num_frames=NUM_FRAMES),
        )
        model = VitaCLIP(load_backbone(small_backbone), config, CLASSES[:num_classes])
        video = torch.randint(256, (num_clips, 3, NUM_FRAMES, 32, 32), dtype=torch.uint8)
        labels = torch.arange(num_clips) % num_classes
        accumulate_gradients(model, video, labels, micro_batch_size=None)
        with torch.no_grad():
            model.logits(model.encode_video(video[:2]), model.encode_names(["a", "b c d"]))
    compilation.compiled.cache_clear()
    assert counter.frame_count == 7


@pytest.mark.slow  # compiles C++
def test_compiled_layers_change_nothing(tiny_clip: CLIP) -> None:
    model = tiny_model(tiny_clip, PromptConfig(depth=1), TextConfig(num_context=2))
    model.compile_layers = True
    assert_same_step(model, num_clips=2, micro_batch_size=1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def test_micro_batches_give_the_gradient_of_the_whole_batch(tiny_clip: CLIP) -> None:
    model = tiny_model(tiny_clip, PromptConfig(), TextConfig())
    video, labels = batch(5)
    gradients = []
    for size in (None, 2):
        model.zero_grad(set_to_none=True)
        accumulate_gradients(model, video, labels, micro_batch_size=size)
        gradients.append({name: gradient_of(p) for name, p in model.trainable().items()})
    for name in gradients[0]:
        torch.testing.assert_close(
            gradients[0][name], gradients[1][name], rtol=1e-9, atol=1e-12, msg=name
        )


def test_without_prompts_it_is_the_frozen_clip(tiny_clip: CLIP) -> None:
    model = tiny_model(tiny_clip, NO_PROMPTS, TextConfig(num_context=0))
    model.logit_scale.data.copy_(tiny_clip.logit_scale)
    original = CLIP(**TINY).double().eval()
    original.load_state_dict(tiny_clip.state_dict())
    video, _ = batch(2)
    frames = (
        original.encode_image(video.transpose(1, 2).flatten(0, 1))
        .view(2, NUM_FRAMES, -1)
        .mean(dim=1)
    )
    names = [name.replace("_", " ") for name in CLASSES]
    text = original.encode_text(open_clip.tokenize(names))
    wanted = original.logit_scale.exp() * F.normalize(frames, dim=-1) @ F.normalize(text, dim=-1).T
    with torch.no_grad():
        torch.testing.assert_close(
            model.logits(model.encode_video(video), model.encode_names(CLASSES)), wanted
        )
        torch.testing.assert_close(reference_logits(model, video), wanted)
        torch.testing.assert_close(model.encode_classes(), model.encode_names(CLASSES))


def test_text_init_from_words(tiny_clip: CLIP) -> None:
    text = TextConfig(num_context=3, init="a video of")
    model = VitaCLIP(Backbone(tiny_clip, "test"), config_of(PromptConfig(), text), CLASSES)
    words = tiny_clip.token_embedding(
        torch.tensor(open_clip.tokenizer._tokenizer.encode("a video of"))
    )
    assert model.text_prompts is not None
    torch.testing.assert_close(model.text_prompts.context[4].double(), words)
    with pytest.raises(InputError, match="'a video of' has 3 tokens, text.num_context is 4"):
        tiny_model(tiny_clip, PromptConfig(), TextConfig(num_context=4, init="a video of"))


@pytest.mark.parametrize(
    ("prompts", "text", "message"),
    [
        (PromptConfig(depth=4), TextConfig(), "prompts.depth: found 4, allowed is at most 3"),
        (
            PromptConfig(local_layers=(0, 5)),
            TextConfig(),
            "prompts.local_layers: found 5, allowed is at most 3",
        ),
        (PromptConfig(), TextConfig(depth=4), "text.depth: found 4, allowed is at most 3"),
    ],
)
def test_too_deep_is_refused(
    tiny_clip: CLIP, prompts: PromptConfig, text: TextConfig, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model(tiny_clip, prompts, text)


def test_a_class_name_too_long_is_refused(tiny_clip: CLIP) -> None:
    with pytest.raises(InputError, match="allowed are 77; shorten the name"):
        VitaCLIP(Backbone(tiny_clip, "t"), config_of(PromptConfig(), TextConfig()), ["word " * 80])
