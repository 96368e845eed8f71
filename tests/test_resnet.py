"""Attention in residual blocks: what is computed, what the paper's sizes are, and training with `yolo classify`."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from defusedxml import ElementTree
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from ultralytics.nn.tasks import ClassificationModel

from gam_yolo.errors import UserError
from gam_yolo.registry import BLOCKS
from gam_yolo.resnet import AttentionResNet, attend, cifar_stem


def net(name: str = "resnet18", **kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    resnet: nn.Module = models.get_model(name, num_classes=7, **kwargs).eval()
    return resnet


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_attention_acts_on_the_branch_before_the_addition(name: str) -> None:
    """The same network, computed with hooks on the last batch norm of each residual block instead."""
    x, plain = torch.randn(2, 3, 64, 48), net(name)
    attended = attend(copy.deepcopy(plain), "GAM", preset="paper").eval()
    blocks = [m for m in plain.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    theirs = [m for m in attended.modules() if isinstance(m, (BasicBlock, Bottleneck))]
    assert len(blocks) == len(theirs) == sum(type(m) is BLOCKS["GAM"] for m in attended.modules())
    for a, b in zip(blocks, theirs, strict=True):
        last = a.bn2 if isinstance(a, BasicBlock) else a.bn3
        last.register_forward_hook(lambda _m, _x, out, b=b: b.attention(out))
    torch.testing.assert_close(attended(x), plain(x))
    assert type(attended) is ResNet


@pytest.mark.parametrize("block", BLOCKS)
def test_every_registered_block_fits_and_identity_start_changes_nothing(block: str) -> None:
    x, plain = torch.randn(1, 3, 32, 32), net()
    assert attend(copy.deepcopy(plain), block)(x).shape == (1, 7)
    if block in {"GAM_Attention", "GAMAttention"}:  # the forks' signature has no start
        return
    torch.testing.assert_close(attend(copy.deepcopy(plain), block, start="identity")(x), plain(x), rtol=0, atol=0)


def test_plain_weights_load_before_and_after() -> None:
    x, trained = torch.randn(1, 3, 32, 32), net("resnext50_32x4d")
    before = attend(copy.deepcopy(trained), "SE", start="identity")
    torch.manual_seed(1)
    after = attend(models.resnext50_32x4d(num_classes=7).eval(), "SE", start="identity")
    missing = after.load_state_dict(trained.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(".attention." in key for key in missing.missing_keys)
    torch.testing.assert_close(before(x), trained(x))
    torch.testing.assert_close(after(x), trained(x))


def test_survives_pickling_copying_compiling_and_export(tmp_path: Path) -> None:
    x, attended = torch.randn(2, 3, 32, 32), attend(net(), "CBAM")
    want = attended(x).detach()
    buffer = io.BytesIO()
    torch.save(attended, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    torch.testing.assert_close(loaded(x), want)
    torch.testing.assert_close(copy.deepcopy(attended)(x), want)
    torch.testing.assert_close(torch.compile(attended, backend="eager", fullgraph=True)(x), want)
    torch.testing.assert_close(torch.jit.trace(attended, x)(x), want)
    torch.onnx.export(attended, (x,), str(tmp_path / "net.onnx"), input_names=["x"], dynamo=False)
    (got,) = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-3, atol=1e-4)


def test_distributed_batch_norms_keep_the_attention() -> None:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(attend(net(), "GAM"))
    assert sum(type(m) is BLOCKS["GAM"] for m in converted.modules()) == 8


def test_precision_and_mode_are_the_networks() -> None:
    attended = attend(net().double().train(), "SE")
    assert all(p.dtype is torch.float64 for p in attended.parameters())
    assert all(m.training for m in attended.modules())
    assert not any(m.training for m in attend(net().eval(), "SE").modules())


def test_a_network_is_unchanged_when_one_of_its_layers_rejects_the_block() -> None:
    resnet = net()
    stages = nn.Sequential(resnet.layer4, resnet.layer1)  # type: ignore[arg-type]  # 512 channels wide, then 64
    before = [type(m) for m in stages.modules()]
    with pytest.raises(UserError, match=r"reduction is 256\. Expected a whole number from 1 to 64"):
        attend(stages, "SE", reduction=256)
    assert [type(m) for m in stages.modules()] == before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: attend(net(), "GAMM"), "no block is named 'GAMM'. Did you mean 'GAM'?"),
        (lambda: attend(net(), "SE", reduction=100), "reduction is 100. Expected a whole number from 1 to 64"),
        (lambda: attend(net(), "SE", reductoin=4), "Did you mean 'reduction'?"),
        (lambda: attend(attend(net(), "SE"), "SE"), "ResNet has no residual block to put SE on"),
        (lambda: attend(nn.Conv2d(3, 3, 1), "SE"), "Conv2d has no residual block"),
        (lambda: AttentionResNet(3, "resnet51"), "Did you mean 'resnet50'?"),
        (lambda: AttentionResNet(3, "vgg11"), "model is 'vgg11'. Expected one of resnet"),
        (lambda: AttentionResNet(3, "resnet18", stem="cifr"), "Did you mean 'cifar'?"),
        (
            lambda: AttentionResNet(3, "resnet18", arguments={"reduction": 4}),
            "{'reduction': 4}, but no block. Write {block: GAM",
        ),
        (lambda: AttentionResNet(3, "resnet18", weights="DEFALT"), "Did you mean 'DEFAULT'?"),
    ],
)
def test_bad_input_is_reported_in_one_line(call: Any, says: str) -> None:
    with pytest.raises(UserError) as error:
        call()
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# The paper's sizes. What it counts, worked out from its figures: multiply-adds of convolutions and linear layers, four
# operations for each value of a batch norm (as the counter thop does), and a GAM without batch norms in its spatial
# branch and with the biases of one of its two pairs of layers. Ours has both pairs' biases and the batch norms.
PER_VALUE = 4


def sizes(model: str, nc: int, stem: str, size: int, **gam: Any) -> tuple[int, int, int]:
    """Parameters, multiply-adds of convolutions and linear layers, and values that batch norms outside GAM see."""
    seen = 0

    def count(_module: nn.Module, _input: object, out: Tensor) -> None:
        nonlocal seen
        seen += out.numel()

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        built = AttentionResNet(nc, model, block="GAM" if gam else None, arguments=gam or None, stem=stem).eval()
        for name, m in built.named_modules():
            if isinstance(m, nn.BatchNorm2d) and "attention" not in name:
                m.register_forward_hook(count)
        built(torch.empty(1, 3, size, size))
    return sum(p.numel() for p in built.parameters()), counter.get_total_flops() // 2, seen


RESNET50 = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
RESNET18 = [64] * 2 + [128] * 2 + [256] * 2 + [512] * 2


@pytest.mark.parametrize(
    ("net_", "widths", "paper"),
    [
        (("resnet50", 100, "cifar", 32), RESNET50, ("23.71", "1.31", "149.47", "8.02")),
        (("resnet18", 1000, "imagenet", 224), RESNET18, ("11.69", "1.82", "16.04", "2.47")),
    ],
    ids=["ResNet50 CIFAR-100", "ResNet18 ImageNet"],
)
def test_the_papers_sizes(net_: tuple[str, int, str, int], widths: list[int], paper: tuple[str, ...]) -> None:
    parameters, macs, seen = sizes(*net_)
    with_gam, macs_gam, seen_gam = sizes(*net_, preset="paper")
    assert seen == seen_gam
    # Of the bases' operations the paper gives one, 1.3 G; by the same counting it is 1.31 G.
    assert (f"{parameters / 1e6:.2f}", f"{(macs + PER_VALUE * seen) / 1e9:.2f}") == paper[:2]
    assert with_gam == parameters + sum(100 * c * (c // 16) + 4 * (c + c // 16) for c in widths)
    counted = parameters + sum(100 * c * (c // 16) + c + c // 16 for c in widths)
    assert (f"{counted / 1e6:.2f}", f"{(macs_gam + PER_VALUE * seen) / 1e9:.2f}") == paper[2:]


def test_the_papers_operations_identify_its_stem() -> None:
    """Both stems have 23.71 M parameters; only the one without strides needs 1.3 G at 32x32."""
    cifar, imagenet = sizes("resnet50", 100, "cifar", 32), sizes("resnet50", 100, "imagenet", 32)
    assert (cifar[0], imagenet[0]) == (23_705_252, 23_712_932)
    assert (cifar[1], imagenet[1]) == (1_298_014_208, 83_615_744)


@pytest.mark.parametrize(
    ("gam", "parameters", "macs"),
    [
        ({"preset": "paper"}, 16_049_672, 2_456_326_144),
        ({"preset": "paper", "spatial": False}, 11_778_592, 1_826_918_400),
        ({"preset": "paper", "channel": False}, 15_960_592, 2_443_481_088),
        ({"preset": "paper", "pool": "max"}, 16_049_672, 2_456_326_144),
    ],
    ids=["both", "channel only", "spatial only", "max-pooling"],
)
def test_the_ablations_sizes(gam: dict[str, Any], parameters: int, macs: int) -> None:
    """The figures of docs/resnet.md."""
    assert sizes("resnet18", 1000, "imagenet", 224, **gam)[:2] == (parameters, macs)


def test_cifar_stem_keeps_the_resolution() -> None:
    resnet = cifar_stem(models.resnet18())
    seen: list[torch.Size] = []
    resnet.layer1.register_forward_hook(lambda _m, _x, out: seen.append(out.shape))
    resnet.eval()(torch.rand(1, 3, 32, 32))
    assert seen == [(1, 64, 32, 32)]


def test_pretrained_weights_are_loaded_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a file in the place of torchvision's download."""
    torch.manual_seed(5)
    pretrained = models.resnet18()
    known = models.ResNet18_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(pretrained.state_dict(), tmp_path / "checkpoints" / known.url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    loaded = AttentionResNet(5, "resnet18", "SE", stem="cifar", weights="DEFAULT").resnet.state_dict()
    own = {"fc.weight", "fc.bias", "conv1.weight"}
    for key, value in pretrained.state_dict().items():
        assert torch.equal(loaded[key], value) == (key not in own), key


def model(*args: Any, nc: int = 3) -> ClassificationModel:
    row = [-1, 1, "AttentionResNet", list(args)]
    return ClassificationModel({"nc": nc, "backbone": [], "head": [row], "yaml_file": "my-cls.yaml"}, verbose=False)


def test_a_row_builds_the_network_and_behaves_like_ultralytics_classify() -> None:
    built = model("nc", "resnet18", {"block": "SE", "stem": "cifar"}, nc=5)
    x = torch.rand(2, 3, 32, 32)
    assert built.train()(x).shape == (2, 5)
    probabilities, logits = built.eval()(x)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    assert sum(type(m) is BLOCKS["SE"] for m in built.modules()) == 8


def test_a_trained_plain_network_is_transferred_completely() -> None:
    """As `pretrained=plain.pt` does: Ultralytics matches by key and shape, and all keys of the plain network stay."""
    plain, attended = model("nc", "resnet18"), model("nc", "resnet18", {"block": "GAM"})
    attended.load(plain, verbose=False)
    loaded = attended.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["nc", "resnet18", {"blok": "SE"}], "has no argument 'blok'. Expected ("),
        (["nc", "resnet18", {"block": "SEE"}], "no block is named 'SEE'. Did you mean 'SE'?"),
        (["nc", "resnet17"], "Did you mean 'resnet18'?"),
        ([10, "resnet18"], "the first argument is not the number of classes. Write [-1, 1, AttentionResNet, [nc]]"),
    ],
)
def test_a_bad_row_is_reported_with_file_and_row(args: list[Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        model(*args)
    assert str(error.value).startswith("my-cls.yaml, row 0 [-1, 1, AttentionResNet, [")
    assert says in str(error.value)


def test_it_is_the_only_row() -> None:
    row = [-1, 1, "AttentionResNet", ["nc"]]
    with pytest.raises(UserError, match=r"is a whole network\. Write it as the only row"):
        ClassificationModel({"nc": 3, "backbone": [], "head": [row, [-1, 1, "Classify", ["nc"]]]}, verbose=False)


def test_torchvisions_models_are_not_imported_for_a_yolo() -> None:
    code = "import sys, ultralytics.nn.tasks; sys.exit('torchvision.models' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def crops(voc: Path, folder: Path) -> None:
    """Cut a few annotated objects out of real photographs into an ImageNet-style folder."""
    numbers = dict.fromkeys(("car", "cat", "person"), 0)
    for file in sorted((voc / "Annotations").glob("*.xml")):
        for thing in ElementTree.parse(file).iter("object"):
            name = thing.findtext("name", "")
            if numbers.get(name, 9) >= 9:
                continue
            box = [int(float(thing.findtext(f"bndbox/{side}", "0"))) for side in ("xmin", "ymin", "xmax", "ymax")]
            target = folder / ("train" if numbers[name] < 6 else "val") / name / f"{numbers[name]}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(voc / "JPEGImages" / f"{file.stem}.jpg").crop(tuple(box)).resize((48, 48)).save(target)  # type: ignore[arg-type]
            numbers[name] += 1
        if min(numbers.values()) == 9:
            return


def test_plain_yolo_classify_trains_and_the_checkpoint_loads_safely(shared: Path, tmp_path: Path) -> None:
    crops(shared / "data" / "VOC2007", tmp_path / "data")
    yolo = str(Path(sys.executable).with_name("yolo"))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [yolo, "classify", "train", "model=resnet18-gam-cls.yaml", f"data={tmp_path / 'data'}", "imgsz=32"]
    command += ["epochs=1", "batch=6", "workers=0", "plots=False", "device=cpu", f"project={tmp_path}", "name=run"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    code = (
        "import json, sys, torch; from ultralytics import YOLO; model = YOLO(sys.argv[1]);"
        "result = model.predict(sys.argv[2], imgsz=32, device='cpu', verbose=False)[0];"
        "kinds = sorted({type(m).__name__ for m in model.model.modules()});"
        "print(json.dumps([kinds, result.names, float(result.probs.data.sum())]))"
    )
    best, image = tmp_path / "run" / "weights" / "best.pt", next((tmp_path / "data" / "val" / "cat").iterdir())
    done = subprocess.run(
        [sys.executable, "-c", code, best, image],
        env=env | {"ULTRALYTICS_SAFE_LOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kinds, names, total = json.loads(done.stdout.splitlines()[-1])
    assert {"AttentionResNet", "AttendedBasicBlock", "GAM"} <= set(kinds)
    assert list(names.values()) == ["car", "cat", "person"]
    assert total == pytest.approx(1, abs=1e-5)
