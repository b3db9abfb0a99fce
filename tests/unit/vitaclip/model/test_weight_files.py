"""Files of weights as people have them: each is read or refused in one line, and nothing in them is
executed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orchestrator.storage.stores.local import LocalStore
from tests.unit.vitaclip.model.test_backbone import random_clip, to_hugging_face
from vitaclip.__main__ import main
from vitaclip.checkpoint import save_checkpoint
from vitaclip.checkpoint_info import Progress
from vitaclip.config import BackboneConfig, PromptConfig, TrainConfig
from vitaclip.data.folders import LocalFolder
from vitaclip.errors import InputError
from vitaclip.methods.build import build_model
from vitaclip.model.backbone import check_backbone, load_backbone
from vitaclip.model.tensor_file import read_tensor_file, write_tensors
from vitaclip.released_checkpoint import export_checkpoint

QUICK_GELU_NAME, GELU_NAME = "ViT-test-two-quickgelu", "ViT-test-two"


@pytest.fixture(scope="module")
def weights(small_backbone: BackboneConfig) -> dict[str, Tensor]:
    state: dict[str, Tensor] = random_clip(small_backbone.name).state_dict()
    return {name: tensor for name, tensor in state.items() if name != "attn_mask"}


def refused(path: Path, backbone: BackboneConfig) -> str:
    with pytest.raises(InputError) as error:
        check_backbone(backbone.model_copy(update={"pretrained": str(path)}))
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("around", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_layouts_that_training_code_writes(
    weights: dict[str, Tensor],
    small_backbone: BackboneConfig,
    tmp_path: Path,
    around: str | None,
    prefix: str,
    dtype: torch.dtype,
) -> None:
    named = {prefix + name: nn.Parameter(tensor.to(dtype)) for name, tensor in weights.items()}
    beside = {
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
        "args": [None, 1.5, "x"],
    }
    torch.save({around: named, **beside} if around else named, tmp_path / "weights.pt")
    clip = load_backbone(
        small_backbone.model_copy(update={"pretrained": str(tmp_path / "weights.pt")})
    ).clip
    assert torch.equal(clip.visual.proj, weights["visual.proj"].to(dtype).float())


def empty(path: Path) -> None:
    path.write_bytes(b"")


def bare_pickle(content: object) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pickle.dumps(content))


def saved(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def truncated(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])


def truncated_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1500])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (empty, "the file is empty"),
    "folder": (Path.mkdir, "is a folder"),
    "absent": (lambda path: None, "no file"),
    "text": (lambda path: path.write_text("not weights"), "reading it failed"),
    "html": (lambda path: path.write_text("<html>404</html>" * 9), "reading it failed"),
    "truncated": (truncated, "reading it failed"),
    "truncated safetensors": (truncated_safetensors, "reading it failed"),
    "zip": (other_zip, "without data.pkl"),
    "pickled list": (bare_pickle([1, 2]), "bare pickle"),
    "list": (saved([torch.zeros(1)]), "found a list, needed are named tensors"),
    "tensor": (saved(torch.zeros(1)), "needed are named tensors"),
    "text in it": (saved("hello"), "found a str"),
    "number": (saved(7), "found a int"),
    "nothing": (saved({}), "needed are named tensors"),
    "model is a list": (saved({"model": [torch.zeros(1)]}), "model is no tensor but a list"),
    "module": (saved(nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
    "number among tensors": (saved({"logit_scale": 4.6}), "logit_scale is no tensor but a float"),
    "other tensors": (saved({"fc.weight": torch.zeros(1)}), "not used: fc.weight"),
    "positions in no grid": (
        saved({"visual.positional_embedding": torch.zeros(7, 32)}),
        "visual.positional_embedding",
    ),
    "positions without width": (
        saved({"visual.positional_embedding": torch.tensor(1.0)}),
        "visual.positional_embedding",
    ),
    "Hugging Face scalars": (
        saved({"vision_model.a.q_proj.weight": torch.tensor(1.0)}),
        "keys do not fit",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_cannot_be_used_is_refused_in_plain_words(
    kind: str,
    suffix: str,
    tmp_path: Path,
    small_backbone: BackboneConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, message = UNUSABLE[kind]
    path = tmp_path / f"weights{suffix}"
    make(path)
    assert message in refused(path, small_backbone)
    if message not in ("not used: fc.weight", "visual.positional_embedding", "keys do not fit"):
        assert main(["convert-backbone", str(path), str(tmp_path / "out.safetensors")]) == 2
        assert (
            main(["import-checkpoint", str(path), str(tmp_path / "ours"), "--classes", "a,b"]) == 2
        )
        assert capsys.readouterr().err.count(f"error: {path}") == 2


class Tower(nn.Module):
    """A tree of modules with the names, and the constants, of a CLIP's."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.attn_mask = torch.zeros(7, 7)  # a constant, no weight: OpenAI's text tower holds one
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in weights.items():
            head, _, rest = name.partition(".")
            if rest:
                parts.setdefault(head, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(head, nn.Parameter(tensor))
            else:
                self.register_buffer(head, tensor)
        for head, part in parts.items():
            self.add_module(head, Tower(part))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn_mask.sum()


def openai_archive(weights: dict[str, Tensor], path: Path) -> Path:
    """A TorchScript archive as OpenAI publishes them: half precision, with its three scalars."""
    scalars = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    half = {name: tensor.half() for name, tensor in weights.items()}
    tower = Tower(half | {name: torch.tensor(value) for name, value in scalars.items()})
    torch.jit.script(tower).save(str(path))
    return path


def test_torchscript_archives_are_read_and_converted_without_being_run(
    weights: dict[str, Tensor],
    small_backbone: BackboneConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = openai_archive(weights, tmp_path / "ViT-B-16.pt")
    wanted = dict(torch.jit.load(archive).state_dict().items())
    for executes in ("torch.jit.load", "torch.load", "pickle.loads", "pickle.load"):
        monkeypatch.setattr(executes, None)
    found = read_tensor_file(archive).tensors
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    converted = tmp_path / "ViT-B-16.safetensors"
    assert main(["convert-backbone", str(archive), str(converted)]) == 0
    hashes = {
        load_backbone(small_backbone.model_copy(update={"pretrained": str(path)})).sha256
        for path in (archive, converted)
    }
    assert len(hashes) == 1
    assert {tensor.dtype for tensor in load_file(converted).values()} == {torch.float32}


class Runs:
    """Unpickled the usual way, it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.trace, "executed")


@pytest.mark.parametrize("place", ["root", "entry", "beside"])
def test_nothing_is_executed(
    place: str, weights: dict[str, Tensor], small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    runs = Runs(tmp_path / "trace")
    content = {
        "root": runs,
        "entry": weights | {"visual.proj": runs},
        "beside": {"model": weights, "args": runs},
    }
    torch.save(content[place], tmp_path / "evil.pt")
    config = small_backbone.model_copy(update={"pretrained": str(tmp_path / "evil.pt")})
    if place == "beside":
        load_backbone(config)
    else:
        assert "is no tensor" in refused(tmp_path / "evil.pt", small_backbone) or place == "root"
    assert not (tmp_path / "trace").exists()


def zip_of(
    path: Path, content: bytes, values: bytes = b"\0" * 4, compression: int = zipfile.ZIP_STORED
) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", values)


def tensor_pickle(size: str, stride: str, count: int = 1) -> bytes:
    """``{"logit_scale": a view of size and stride}`` over ``count`` float32 values."""
    dump = pickle.dumps(((size, stride), count), 2)
    assert dump
    storage = (
        "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + "0X\x03\0\0\0cpuI" + f"{count}\ntQ"
    )
    view = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n{size}{stride}I00\n)tR"
    return b"\x80\x02}X\x0b\0\0\0logit_scale" + view.encode() + b"s."


def many_views(count: int) -> bytes:
    """``count`` tensors that are each all of the same million values."""
    tensor = tensor_pickle("(I1000000\nt", "(I1\nt", 10**6).removeprefix(
        b"\x80\x02}X\x0b\0\0\0logit_scale"
    )[:-2]
    rest = b"".join(b"I%d\nh\0" % i for i in range(count))
    return b"\x80\x02}(I-1\n" + tensor + b"q\0" + rest + b"u."


def nested_modules(path: Path) -> None:
    module, depth = b"c__torch__.a\nM\n)\x81}X\x01\0\0\0m", 1000
    zip_of(path, b"\x80\x02" + module * depth + b"N" + b"sb" * depth + b".")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            "a/code/__torch__/a.py", "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        )


def overlapping(path: Path) -> None:
    zip_of(path, tensor_pickle(")", ")"), b"\0" * 10_000)
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    count = data.count(b"PK\x01\x02")
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    end[8:12] = (count * 9).to_bytes(2, "little") * 2
    end[12:16] = (len(entry) * 9).to_bytes(4, "little")
    path.write_bytes(data[:start] + entry * 9 + end)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "repeated": (
        lambda p: zip_of(p, tensor_pickle("(I100000\nI1000000\nt", "(I0\nI0\nt")),
        "but 1 values",
    ),
    "out of reach": (
        lambda p: zip_of(p, tensor_pickle("(I1\nt", "(I0\nt", 10**11)),
        "needs 400000000000 bytes",
    ),
    "negative": (lambda p: zip_of(p, tensor_pickle("(I-1\nt", "(I1\nt")), "no possible shape"),
    "many dimensions": (
        lambda p: zip_of(p, tensor_pickle("(" + "I1\n" * 99 + "t", "(" + "I1\n" * 99 + "t")),
        "shape",
    ),
    "expands": (
        lambda p: zip_of(p, b"\x80\x02" + b"N" * 10**8 + b".", b"", zipfile.ZIP_DEFLATED),
        "over 64 MB",
    ),
    "values expand": (
        lambda p: zip_of(
            p,
            tensor_pickle("(I25000000\nt", "(I1\nt", 25_000_000),
            b"\0" * 10**8,
            zipfile.ZIP_DEFLATED,
        ),
        "expands to over 64 MB",
    ),
    "overlapping": (overlapping, "overlap"),
    "shared over and over": (
        lambda p: zip_of(p, many_views(50_000), b"\0" * 4_000_000),
        "over and over",
    ),
    "maker that is enormous as text": (
        lambda p: zip_of(p, b"\x80\x02]q\0" + b"(h\0h\0lq\0" * 200 + b")R."),
        "tensors",
    ),
    "modules in modules": (nested_modules, "500 characters"),
    "nested": (
        lambda p: zip_of(p, b"\x80\x02" + b"]" * 1 + b"\x85" * 4_000_000 + b"."),
        "named tensors",
    ),
    "nested key": (
        lambda p: zip_of(p, b"\x80\x02})" + b"\x85" * 3_000_000 + b"Ns."),
        "neither text nor number",
    ),
    "memory by call": (
        lambda p: zip_of(p, b"\x80\x02cbuiltins\nbytearray\n(I100000000000\ntR."),
        "bytearray",
    ),
    "far memo": (lambda p: zip_of(p, b"\x80\x02}r\xff\xff\xff\x7f."), "named tensors"),
    "long number": (lambda p: zip_of(p, b"\x80\x02I" + b"9" * 10**6 + b"\n."), "reading it failed"),
    "unfinished": (lambda p: zip_of(p, b"\x80\x02}"), "reading it failed"),
    "underflow": (lambda p: zip_of(p, b"\x80\x02sR."), "reading it failed"),
}


READ_ALL = """
import json, resource, sys
from pathlib import Path
from vitaclip.model.tensor_file import read_tensor_file
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (size, size))
def seconds(): return resource.getrusage(resource.RUSAGE_SELF).ru_utime
answers = {}
for path in sys.argv[1:]:
    before = seconds()
    try: answer = str(read_tensor_file(Path(path)))
    except Exception as error: answer = f"{type(error).__name__} {error}"
    answers[Path(path).name] = answer, seconds() - before
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float]]:
    """What reading each hostile file gave, and the seconds, in a process that may take 1 GB for
    it.
    """
    folder = tmp_path_factory.mktemp("hostile")
    for kind, (make, _) in HOSTILE.items():
        make(folder / kind)
    command = [sys.executable, "-c", READ_ALL, *(str(folder / kind) for kind in HOSTILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_take_neither_memory_nor_time(
    kind: str, answers: dict[str, tuple[str, float]]
) -> None:
    answer, seconds = answers[kind]
    assert answer.startswith("InputError")
    assert HOSTILE[kind][1] in answer
    assert seconds < 10


def activation(config: BackboneConfig) -> str:
    return type(load_backbone(config).clip.visual.transformer.resblocks[0].mlp.gelu).__name__


def openai_state(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights | {"input_resolution": torch.tensor(224)}, folder / "clip.pt")
    return folder / "clip.pt"


def hub_folder(hidden_act: str) -> Callable[[dict[str, Tensor], Path], Path]:
    def write(weights: dict[str, Tensor], folder: Path) -> Path:
        save_file(to_hugging_face(weights), folder / "model.safetensors")
        towers = {f"{tower}_config": {"hidden_act": hidden_act} for tower in ("vision", "text")}
        (folder / "config.json").write_text(json.dumps(towers))
        return folder / "model.safetensors"

    return write


def open_clip_folder(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    return folder / "open_clip_model.safetensors"


def converted(weights: dict[str, Tensor], folder: Path) -> Path:
    openai = openai_state(weights, folder)
    assert main(["convert-backbone", str(openai), str(folder / "clip.safetensors")]) == 0
    return folder / "clip.safetensors"


def unmarked(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "clip.safetensors")
    return folder / "clip.safetensors"


@pytest.mark.parametrize(
    ("write", "name", "used", "warning"),
    [
        (openai_state, GELU_NAME, "QuickGELU", f"write '{QUICK_GELU_NAME}'"),
        (openai_state, QUICK_GELU_NAME, "QuickGELU", None),
        (converted, GELU_NAME, "QuickGELU", f"write '{QUICK_GELU_NAME}'"),
        (hub_folder("quick_gelu"), GELU_NAME, "QuickGELU", f"write '{QUICK_GELU_NAME}'"),
        (hub_folder("gelu"), QUICK_GELU_NAME, "GELU", f"write '{GELU_NAME}'"),
        (hub_folder("gelu"), GELU_NAME, "GELU", None),
        (open_clip_folder, GELU_NAME, "QuickGELU", f"write '{QUICK_GELU_NAME}'"),
        (unmarked, GELU_NAME, "GELU", "does not say whether its weights were trained with it"),
        (unmarked, QUICK_GELU_NAME, "QuickGELU", None),
    ],
)
def test_the_file_decides_about_its_activation_and_a_wrong_name_is_told(
    write: Callable[[dict[str, Tensor], Path], Path],
    name: str,
    used: str,
    warning: str | None,
    tmp_path: Path,
    two_names: None,
    weights: dict[str, Tensor],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write(weights, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert activation(BackboneConfig(name=name, pretrained=str(path))) == used
    assert (warning in caplog.text) if warning else not caplog.records


@pytest.fixture
def two_names(small_backbone: BackboneConfig, tmp_path: Path) -> None:
    """One architecture under a name with QuickGELU and one without, as open_clip has them."""
    config = open_clip.get_model_config(small_backbone.name)
    for name in (GELU_NAME, QUICK_GELU_NAME):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config | {"quick_gelu": name == QUICK_GELU_NAME}))
        open_clip.add_model_config(path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_written_files_are_as_readable_as_any_other(
    umask: int, mode: int, small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    config = TrainConfig(backbone=small_backbone, prompts=PromptConfig(cls_proj="released"))
    previous = os.umask(umask)
    try:
        save_checkpoint(tmp_path, build_model(config, ["walk"]), config, Progress())
        export_checkpoint(tmp_path, tmp_path / "released.pth")
        write_tensors(tmp_path / "t.safetensors", {"a": torch.zeros(2)})
        LocalStore(tmp_path / "store").write_json("a/b.json", 1)
        folder = LocalFolder(tmp_path / "prepared")
        with folder.locked():
            folder.write("list.csv", b"")
    finally:
        os.umask(previous)
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()
    }
    assert len(modes) == 7
    assert set(modes.values()) == {mode}


def test_what_interrupts_a_write_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(2)})
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"t\.safetensors: cannot be written \(No space left"):
        write_tensors(path, {"a": torch.ones(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_views_of_one_storage_are_written_apart(tmp_path: Path) -> None:
    values = torch.arange(6.0)
    torch.save(
        {"all": values, "part": values[2:4], "turned": values.view(2, 3).T}, tmp_path / "views.pt"
    )
    write_tensors(tmp_path / "out.safetensors", read_tensor_file(tmp_path / "views.pt").tensors)
    found = load_file(tmp_path / "out.safetensors")
    assert torch.equal(found["part"], values[2:4])
    assert torch.equal(found["turned"], values.view(2, 3).T)


def test_what_is_no_clip_is_not_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole Vita-CLIP is imported, not converted; other models are neither."""
    torch.save(
        {"model": {"visual.patch_embed.proj.weight": torch.zeros(2)}}, tmp_path / "released.pth"
    )
    assert (
        main(
            ["convert-backbone", str(tmp_path / "released.pth"), str(tmp_path / "out.safetensors")]
        )
        == 2
    )
    assert "not the weights of a CLIP: visual.conv1.weight is missing" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_of_many_keys_that_do_not_fit_some_are_named(
    small_backbone: BackboneConfig, tmp_path: Path
) -> None:
    save_file({f"layer.{i}": torch.zeros(1) for i in range(5000)}, tmp_path / "other.safetensors")
    message = refused(tmp_path / "other.safetensors", small_backbone)
    assert "keys do not fit" in message
    assert "not used: layer.0\n" in message
    assert "missing: logit_scale" in message
    assert len(message.splitlines()) == 1 + 2 * 11
