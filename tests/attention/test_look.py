"""`look`, from checkpoints and images to the page: findings, heat maps, and what a block is worth."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner
from ultralytics import RTDETR, YOLO

import gam_yolo
from gam_yolo import GAM, Comparison, UserError, ultralytics_api
from gam_yolo.attention.heatmap import _predictions, faithfulness, layer_cam
from gam_yolo.attention.look import _Reader
from gam_yolo.attention.statistics import GateValues, chance_inside
from gam_yolo.attention.worth import ALL, measure_worth, save_without
from gam_yolo.cli import app
from gam_yolo.report.formatting import signed
from gam_yolo.report.predictions import Settings


def sized(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return torch.empty(1, *shape).uniform_(low, high, generator=torch.Generator().manual_seed(0))


def finding(*gates: torch.Tensor, peak: float = 1.0) -> str:
    values = GateValues("spatial", peak)
    for gate in gates:
        values.add(gate, np.zeros((0, 4)), (64, 64))
    return values.summary().finding


def test_findings_in_plain_words() -> None:
    ones = torch.ones(1, 8, 6, 6)
    assert finding(ones) == "still the identity: 1 everywhere"
    assert finding(0 * ones) == "dead: 0 everywhere, nothing passes"
    assert finding(0.62 * ones).startswith("constant: 0.62 everywhere")
    assert finding((sized(8, 6, 6) > 0.5).float()).startswith("saturated: 100%")
    assert "close to 0 or 2" in finding(2 * (sized(8, 6, 6) > 0.5).float(), peak=2.0)
    assert finding(sized(8, 6, 6), sized(8, 6, 6) + 0.1) == "varies over channels, positions and images"
    fixed = torch.linspace(0.1, 0.9, 8).view(1, 8, 1, 1).expand(1, 8, 6, 6)
    assert finding(fixed, fixed) == "a fixed scale for each channel: the same at every position and for every image"
    half = torch.cat((sized(4, 6, 6, low=0.2), torch.zeros(1, 4, 6, 6)), 1)
    assert finding(half).endswith("4 of 8 channels are dead")


@pytest.mark.parametrize(("middle", "width"), [(0.5, 3e-6), (0.5, 0.0), (0.0, 2e-6), (1e9, 1e3), (-1e20, 0.0)])
def test_values_that_hardly_differ_have_a_histogram(middle: float, width: float) -> None:
    values = GateValues("spatial", 1.0)
    values.add(sized(8, 6, 6, low=middle - width, high=middle + width), np.zeros((0, 4)), (64, 64))
    found = values.summary()
    assert sum(found.shares) == pytest.approx(1)
    assert np.all(np.diff(found.edges) > 0)
    assert found.edges[0] <= found.mean <= found.edges[-1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gate_of_a_diverged_training_is_reported(value: float) -> None:
    gate = sized(8, 6, 6)
    gate[0, 3, 2, 1] = value
    with pytest.raises(UserError, match=r"gate 'spatial' has values that are not finite\. The training has diverged"):
        finding(gate)


def test_a_raw_gate_is_never_saturated() -> None:
    assert not finding(5 * (sized(8, 6, 6) > 0.5).float()).startswith("saturated")


@pytest.mark.parametrize("seed", range(3))
def test_the_chance_inside_boxes_is_that_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 5, (7, 9)).astype(np.float32)  # with ties
    boxes = np.array([[10, 5, 60, 40], [80, 60, 300, 90.5]])
    inside: list[float] = []
    outside: list[float] = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            x, y = (j + 0.5) * 144 / 9, (i + 0.5) * 112 / 7
            hit = any(left <= x < right and top <= y < bottom for left, top, right, bottom in boxes)
            (inside if hit else outside).append(value)
    pairs = [(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    assert chance_inside(values, boxes, (112, 144)) == pytest.approx(np.mean(pairs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """Checkpoints with COCO's weights: a GAM that does something and a CBAM at its identity; and photographs."""
    path = tmp_path_factory.mktemp("look")
    weights = shared / "weights" / "yolov8n.pt"
    gam_yolo.place("yolov8n.yaml", block="GAM", at="p3", args={"preset": "strips", "start": "zero"}).save(
        path / "yolov8-a.yaml"
    )
    gam_yolo.place(path / "yolov8-a.yaml", block="CBAM", at="p4", args={"start": "identity"}).save(
        path / "yolov8-b.yaml"
    )
    torch.manual_seed(0)
    model = YOLO(path / "yolov8n-b.yaml").load(weights)
    (gam,) = (module for module in model.model.modules() if isinstance(module, GAM))
    for parameter in gam.parameters():
        nn.init.normal_(parameter, std=0.05)
    for name, saved in (("gam.pt", model), ("plain.pt", YOLO(weights))):
        saved.save(path / name)
        content = torch.load(path / name, weights_only=False)
        torch.save({**content, "train_args": {"imgsz": 160}}, path / name)
    names = sorted((shared / "data/coco/val2017").glob("*.jpg"))[:6]
    (path / "photos").mkdir()
    for photo in names:
        Image.open(photo).convert("RGB").save(path / "photos" / f"{photo.stem} ü.png")
    return path


def test_a_look_at_two_models_writes_one_page_and_pictures(folder: Path, tmp_path: Path) -> None:
    models = [f"plain={folder / 'plain.pt'}", f"with <GAM>={folder / 'gam.pt'}", str(folder / "photos")]
    done = CliRunner().invoke(app, ["look", *models, "--limit", "3", "--pictures", "1", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out/look.json").read_text())
    plain, gam = content["models"]
    assert plain["blocks"] == []
    assert "plain has no attention blocks." in content["notes"]
    assert [block["path"] for block in gam["blocks"]] == ["model.16", "model.20"]
    assert [gate["name"] for gate in gam["blocks"][0]["gates"]] == ["channel", "spatial"]
    assert gam["blocks"][0]["change"] > 0.01
    assert gam["blocks"][1]["change"] == 0
    assert gam["blocks"][1]["start"] == "identity"
    assert gam["blocks"][1]["finding"] == "still the identity: it changes its input by 0.0 %"
    page = (tmp_path / "out/look.html").read_text()
    assert "with &lt;GAM&gt;" in page
    assert "<GAM>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")  # self-contained
    pictures = sorted(path.name for path in (tmp_path / "out/pictures").iterdir())
    assert len(pictures) == 2 + 2 + 2 + 2  # detections and heat map of each, two gates of each block
    assert page.count("<img") == len(pictures)


def test_gates_are_those_of_the_block_on_the_maps_of_a_prediction(folder: Path) -> None:
    """The mean of the values, computed from the layers one after another."""
    photo = next((folder / "photos").iterdir())
    found = gam_yolo.look(folder / "gam.pt", photo, pictures=0).models[0].blocks[0].gates[0]
    model = YOLO(folder / "gam.pt")
    kept: list[torch.Tensor] = []
    model.model.model[16].register_forward_pre_hook(lambda _, args: kept.append(args[0].clone()))
    model.predict(photo, imgsz=160, verbose=False)
    with torch.no_grad():
        gate = YOLO(folder / "gam.pt").model.model[16].channel(kept[-1])
    assert found.mean == pytest.approx(float(gate.mean()), rel=0.02)  # of a sample of the values
    assert found.shape == tuple(gate.shape[1:])


def test_every_image_of_a_list_is_read(folder: Path) -> None:
    """As each by itself: the means of the gates, and the drawings."""
    photos = sorted((folder / "photos").iterdir())[:3]
    found = gam_yolo.look(folder / "gam.pt", photos, pictures=3)
    each = [gam_yolo.look(folder / "gam.pt", photo, pictures=1) for photo in photos]
    for block, gate in ((0, 0), (0, 1)):
        means = [one.models[0].blocks[block].gates[gate].mean for one in each]
        assert found.models[0].blocks[block].gates[gate].mean == pytest.approx(np.mean(means), rel=0.01)
        assert np.ptp(means) > 0
    drawn = [picture.models["gam"][1].image.tobytes() for picture in found.pictures]
    assert drawn == [one.pictures[0].models["gam"][1].image.tobytes() for one in each]
    assert [Path(picture.path) for picture in found.pictures] == photos


def test_images_that_cannot_be_read_are_named(folder: Path, tmp_path: Path) -> None:
    photo = next((folder / "photos").iterdir())
    (tmp_path / "with blanks").mkdir()
    for name in ("a.png", "b grey.png"):
        Image.open(photo).convert("L" if "grey" in name else "RGB").save(tmp_path / "with blanks" / name)
    (tmp_path / "with blanks/c torn.png").write_bytes(photo.read_bytes()[:900])
    (tmp_path / "with blanks/d.jpg").touch()
    (tmp_path / "with blanks/notes.txt").write_text("no image")
    note = "2 of 4 images could not be read: c torn.png, d.jpg."
    for given in (tmp_path / "with blanks", sorted(tmp_path.glob("with blanks/*[gj]"))):
        found = gam_yolo.look(folder / "gam.pt", given, imgsz=64, pictures=0)
        assert found.images == 2
        assert note in found.notes
    found = gam_yolo.look(folder / "gam.pt", tmp_path / "with blanks", imgsz=64, pictures=0, limit=2)
    assert note in found.notes
    found = gam_yolo.look(folder / "gam.pt", tmp_path / "with blanks", imgsz=64, pictures=0, limit=1)
    assert not any("could not be read" in text for text in found.notes)  # it did not come to them


def test_a_limit_is_named_only_where_images_are_left(data: Path, folder: Path) -> None:
    """The folder has six photographs, the dataset 24."""
    notes = {
        limit: gam_yolo.look(folder / "plain.pt", folder / "photos", imgsz=64, pictures=0, limit=limit).notes
        for limit in (1, 5, 6)
    }
    use = "Use --limit (in Python limit=) for more."
    assert f"Only the first image was read. {use}" in notes[1]
    assert f"Only the first 5 images were read. {use}" in notes[5]
    assert not any("limit" in note for note in notes[6])
    of_data = gam_yolo.look(folder / "plain.pt", data=data, imgsz=64, pictures=0, limit=2)
    assert of_data.images == 2
    assert of_data.notes == ("plain has no attention blocks.", f"Only the first 2 images were read. {use}")


def test_a_source_that_needs_a_package_that_is_missing_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' source "screen" needs `mss`."""
    monkeypatch.setitem(sys.modules, "mss", None)
    monkeypatch.setattr("ultralytics.utils.checks.AUTOINSTALL", False)
    with pytest.raises(UserError, match=r"the images screen cannot be read \(ModuleNotFoundError: .*mss"):
        gam_yolo.look(folder / "gam.pt", "screen", imgsz=64)


def test_the_images_of_a_dataset_are_looked_at_in_the_order_of_their_names(data: Path, folder: Path) -> None:
    names = sorted(path.name for path in (folder / "set/images").iterdir())
    found = gam_yolo.look(folder / "plain.pt", data=data, imgsz=64, limit=3, pictures=3)
    assert [picture.name for picture in found.pictures] == names[:3]


def test_a_second_look_leaves_no_drawings_of_the_first(folder: Path, tmp_path: Path) -> None:
    photos = sorted((folder / "photos").iterdir())
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/1-mine.png").write_bytes(b"my own")
    gam_yolo.look(folder / "gam.pt", photos[0], imgsz=64, output=tmp_path)
    gam_yolo.look(folder / "plain.pt", photos[1], imgsz=64, output=tmp_path)
    left = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert len(left) == 3
    assert {name.partition("-")[2].partition("-")[0] for name in left - {"1-mine.png"}} == {photos[1].stem.split()[0]}


def image(folder: Path) -> tuple[Any, torch.Tensor]:
    model = YOLO(folder / "gam.pt")
    pixels = Image.open(sorted((folder / "photos").iterdir())[1]).resize((160, 128))
    return model.model.eval(), torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255


def theirs(network: Any, pixels: torch.Tensor, folder: Path) -> Any:
    """Return the map that Ultralytics draws, before it is coloured."""
    plotting = pytest.importorskip("ultralytics.utils.plotting")
    if not hasattr(plotting, "class_activation_map"):
        pytest.skip("this release of Ultralytics has no LayerCAM")
    seen: list[Any] = []

    class Colours:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def applyColorMap(self, cam: Any, kind: int) -> Any:  # noqa: N802  OpenCV's name
            seen.append(cam)
            return real.applyColorMap(cam, kind)

    class Wrapped:
        model = network

        def __call__(self, x: torch.Tensor) -> Any:
            return network(x)

    real = plotting.cv2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "cv2", Colours())
        plotting.class_activation_map(Wrapped(), pixels, ["a.jpg"], folder)
    return seen[0]


def test_the_heat_map_is_ultralytics_own(folder: Path, tmp_path: Path) -> None:
    network, pixels = image(folder)
    ours = layer_cam(network, pixels)
    assert ours.max() > 0.9
    assert np.abs(ours.numpy() * 255 - theirs(network, pixels, tmp_path)).max() <= 1.01  # it is rounded down there


@pytest.fixture(scope="module", params=["yolov10n", "yolo26n", "rtdetr-l"])  # their boxes need no suppression
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of another architecture, with random weights."""
    path = tmp_path_factory.mktemp(request.param)
    source = path / f"{request.param}-gam.yaml"
    try:
        placed = gam_yolo.place(f"{request.param}.yaml", block="GAM", at="neck", args={"preset": "strips"})
    except UserError:
        pytest.skip(f"this release of Ultralytics has no {request.param}")
    placed.save(source)
    torch.manual_seed(0)
    (RTDETR if "rtdetr" in source.name else YOLO)(source).save(path / "best.pt")
    return path / "best.pt"


def test_other_heads_are_looked_at(other: Path, folder: Path, tmp_path: Path) -> None:
    photo = sorted((folder / "photos").iterdir())[1]
    found = gam_yolo.look(other, photo, imgsz=64, confidence=1e-6, pictures=1, output=tmp_path)
    (model,) = found.models
    assert model.blocks
    assert all(block.kind == "GAM" and block.gates for block in model.blocks)
    assert model.faithfulness is not None
    # The boxes lie where Ultralytics draws them on the photograph.
    (result,) = ultralytics_api.model(other).predict(photo, imgsz=64, conf=1e-6, verbose=False)
    yolo = ultralytics_api.model(other)
    frame = next(_Reader(yolo).frames(photo, {"imgsz": 64, "conf": 1e-6}))
    left, top, right, bottom = frame.content
    shown = (frame.boxes[:, :4] - [left, top, left, top]) / [right - left, bottom - top, right - left, bottom - top]
    assert np.abs(shown - result.boxes.xyxyn.numpy()).max() < 0.02
    # What the explained predictions are is what is detected.
    with torch.no_grad():
        boxes, scores = _predictions(yolo.model, frame.image.clone())
    best = scores[0].amax(1).argmax()
    assert float(scores[0, best].max()) == pytest.approx(float(result.boxes.conf.max()), abs=1e-5)
    strongest = frame.boxes[frame.boxes[:, 4].argmax(), :4]
    inside = boxes[0, best].numpy().clip([left, top, left, top], [right, bottom, right, bottom])
    assert np.abs(inside - strongest).max() < 1


def test_the_heat_map_of_other_heads_is_ultralytics_own(other: Path, folder: Path, tmp_path: Path) -> None:
    network = ultralytics_api.model(other).model.eval()
    pixels = image(folder)[1][..., :128]
    ours = layer_cam(network, pixels, confidence=2.0)  # of the strongest prediction, as no score reaches 0.25
    assert np.abs(ours.numpy() * 255 - theirs(network, pixels, tmp_path)).max() <= 1.01


@pytest.mark.parametrize("base", ["yoloe-11n", "yolov8n-worldv2", "yolov9t", "yolov5n"])
def test_detectors_by_text_and_older_ones_are_looked_at(base: str, folder: Path, tmp_path: Path) -> None:
    try:
        placed = gam_yolo.place(f"{base}.yaml", block="SE", at="head-inputs", args={"start": "zero"})
    except UserError:
        pytest.skip(f"this release of Ultralytics has no {base}")
    placed.save(tmp_path / f"{base}.yaml")
    torch.manual_seed(0)
    ultralytics_api.model(tmp_path / f"{base}.yaml").save(tmp_path / "best.pt")
    photo = sorted((folder / "photos").iterdir())[1]
    found = gam_yolo.look(tmp_path / "best.pt", photo, imgsz=64, confidence=1e-9, pictures=1)
    (model,) = found.models
    assert [block.change for block in model.blocks] == [0, 0, 0]
    assert model.faithfulness is not None


def test_a_video_is_read_frame_by_frame(folder: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for number in range(7):
        writer.write(np.full((64, 96, 3), 30 * number, np.uint8))
    writer.release()
    found = gam_yolo.look(folder / "gam.pt", tmp_path / "clip.avi", imgsz=64, vid_stride=2, pictures=2, output=tmp_path)
    assert found.images == 3  # Ultralytics counts frames 2, 4, 6
    assert [picture.name for picture in found.pictures] == ["clip.avi", "clip.avi"]
    assert len(list((tmp_path / "pictures").iterdir())) == 2 * (2 + 2 + 2)


def test_a_true_map_passes_the_test_of_faithfulness(folder: Path) -> None:
    network, pixels = image(folder)
    found = faithfulness(network, pixels)
    assert found is not None
    deletion, insertion, random_deletion, random_insertion = found
    assert deletion < random_deletion
    assert insertion > random_insertion


def test_heat_maps_are_tested_on_images_with_detections_only(folder: Path) -> None:
    photos = sorted((folder / "photos").iterdir())
    yolo = YOLO(folder / "plain.pt")
    best = [float(yolo.predict(photo, imgsz=160, conf=1e-3, verbose=False)[0].boxes.conf.max()) for photo in photos]
    confidence = sorted(best)[2] + 1e-4  # above the strongest detection of half of the photographs
    assert sum(score > confidence for score in best) == 3
    for limit, images in ((confidence, 3), (max(best) + 1e-4, None)):
        (found,) = gam_yolo.look(folder / "plain.pt", photos, confidence=limit, pictures=6).models
        assert (found.faithfulness and found.faithfulness.images) == images


def test_a_model_without_a_block_is_the_model_built_without_its_row(folder: Path) -> None:
    """The row removed from the YAML and the weights transferred: another way to the same predictions."""
    removed = YOLO(save_without(folder / "gam.pt", ["model.16"], folder / "removed.pt"))
    gam_yolo.place("yolov8n.yaml", block="CBAM", at="p4", args={"start": "identity"}).save(folder / "yolov8-c.yaml")
    built = YOLO(folder / "yolov8n-c.yaml").load(folder / "gam.pt")
    x = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = built.model.eval()(x)[0]
        whole = YOLO(folder / "gam.pt").model.eval()(x)[0]
        torch.testing.assert_close(removed.model.eval()(x)[0], expected)
    assert (whole - expected).abs().max() > 1


def test_blocks_inside_a_row_are_looked_at_and_worth_what_the_base_is_without_them(
    folder: Path, shared: Path, tmp_path: Path, data: Path
) -> None:
    """All blocks removed, the model is the plain one."""
    gam_yolo.place("yolov8n.yaml", block="ECA", at="inside 6").save(tmp_path / "yolov8-in.yaml")
    YOLO(tmp_path / "yolov8n-in.yaml").load(shared / "weights/yolov8n.pt").save(tmp_path / "in.pt")
    found = gam_yolo.look(tmp_path / "in.pt", data=data, imgsz=160, limit=1, pictures=0, replicates=100).models[0]
    assert [block.path for block in found.blocks] == ["model.6.m.0.attention", "model.6.m.1.attention"]
    assert [worth.block for worth in found.worth] == ["6.m.0.attention ECA", "6.m.1.attention ECA", ALL]
    files = {"plain": folder / "plain.pt", "in": tmp_path / "in.pt"}
    compared = gam_yolo.compare(files, data=data, imgsz=160, replicates=100).variants
    assert compared["in"].metrics["AP"].value == found.AP
    assert compared["plain"].metrics["AP"].value == found.worth[-1].AP
    assert found.AP != found.worth[-1].AP


@pytest.fixture(scope="module")
def data(folder: Path, shared: Path) -> Path:
    """A dataset of which the plain model finds all."""
    data = folder / "data.yaml"
    images = shared / "data/coco/val2017"
    names = YOLO(folder / "plain.pt").names
    picked = sorted(images.glob("*.jpg"))[:24]
    (folder / "set/images").mkdir(parents=True, exist_ok=True)
    (folder / "set/labels").mkdir(exist_ok=True)
    whole = YOLO(folder / "plain.pt")
    for file in picked:
        (folder / "set/images" / file.name).write_bytes(file.read_bytes())
        found = whole.predict(file, imgsz=160, conf=0.3, verbose=False)[0].boxes
        rows = [f"{int(c)} {' '.join(map(str, box))}" for c, box in zip(found.cls, found.xywhn.tolist(), strict=True)]
        (folder / "set/labels" / f"{file.stem}.txt").write_text("\n".join(rows))
    data.write_text(json.dumps({"path": str(folder / "set"), "train": "images", "val": "images", "names": names}))
    return data


def test_compare_looks_where_the_variants_differ(data: Path, folder: Path, tmp_path: Path) -> None:
    models = [f"plain={folder / 'plain.pt'}", f"gam={folder / 'gam.pt'}"]
    arguments = ["compare", *models, "--data", str(data), "--replicates", "100", "--look", "-o", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "look/look.json").read_text())
    plain, gam = content["models"]
    assert (plain["name"], gam["name"]) == ("plain", "gam")
    assert gam["worth"]
    report = (tmp_path / "report.html").read_text()
    page = (tmp_path / "look/look.html").read_text()
    drawn = {file.name for file in (folder / "set/images").iterdir() if f"<h2>{file.name}</h2>" in page}
    assert content["images"] == 24  # the images that are drawn, and others for the findings
    assert 0 < len(drawn) <= 6
    shown = re.findall(r'<h3>(\S+): gam finds(?:(?!<h3>).)*<p class="soft">Heat maps', report, re.S)
    assert set(shown) == drawn
    heat = re.findall(r'<img src="(data:image/jpeg;base64,[^"]+)" alt="(\S+), (\w+): heat map', report)
    assert [(name, model) for _, name, model in heat] == [(name, model) for name in shown for model in ("plain", "gam")]
    assert len({url for url, *_ in heat}) == len(heat)
    assert all(url in page for url, *_ in heat)  # the same drawings
    assert "http" not in report.replace("http://www.w3.org", "")  # self-contained

    saved = json.loads((tmp_path / "report.json").read_text())["variants"]
    assert saved[0]["look"]["blocks"] == []
    rows = {row["block"]: row for row in saved[1]["look"]["blocks"]}
    assert [*rows] == ["16 GAM", "20 CBAM", ALL]
    assert rows["20 CBAM"]["findings"][0] == "still the identity: it changes its input by 0.0 %"
    assert rows["20 CBAM"]["lost"]["value"] == 0
    worth = {one["block"]: one["lost"] for one in gam["worth"]}
    table = re.search(r"What each block does, and what it is worth.*?</table>", report, re.S)
    assert table
    for name, row in rows.items():
        assert row["lost"]["value"] == worth[name]["value"]
        assert signed(worth[name]["value"]) in table[0]
        assert all(text in table[0] for text in row["findings"])
    assert "No attention blocks" not in table[0]
    assert json.loads(Comparison.load(tmp_path / "report.json").to_json())["variants"] == saved
    assert rows["16 GAM"]["findings"][1] in (tmp_path / "report.md").read_text()


def test_the_function_looks_as_the_command_does_and_writes_nothing(
    data: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = {"gam": folder / "gam.pt", "plain": folder / "plain.pt"}
    said: list[str] = []
    found = gam_yolo.compare(models, data=data, replicates=100, look=True, progress=said.append)
    blocks = found.variants["gam"].look
    assert blocks is not None
    assert [block.block for block in blocks.blocks] == ["16 GAM", "20 CBAM", ALL]
    assert found.pictures
    assert all([panel.caption.partition(":")[0] for panel in p.heat] == ["gam", "plain"] for p in found.pictures)
    assert any("still the identity" in text for text in said)
    assert list(tmp_path.iterdir()) == []


def test_a_look_that_fails_leaves_the_report_and_a_note(
    data: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        assert (tmp_path / "report.html").is_file()  # the result comes before the pictures
        raise RuntimeError("no memory left")

    monkeypatch.setattr("gam_yolo.attention.look.layer_cam", fail)
    models = [folder / "plain.pt", folder / "gam.pt"]
    found = gam_yolo.compare(models, data=data, replicates=100, look=True, output=tmp_path)
    note = "The blocks could not be looked at (RuntimeError: no memory left)."
    assert note in found.notes
    assert note in (tmp_path / "report.html").read_text()
    assert found.variants["gam"].metrics["AP"].value is not None


def test_compare_rejects_what_it_cannot_look_at_before_it_compares(data: Path, folder: Path, tmp_path: Path) -> None:
    models = [f"plain={folder / 'plain.pt'}", f"gam={folder / 'gam.pt'}"]
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text("[]")
    files = [f"{name}={tmp_path / name}.json" for name in ("a", "b")]
    out = tmp_path / "out"
    for arguments, message in (
        ([*models, "--gt", str(tmp_path)], "--look is given without a dataset. Give a dataset YAML: --data"),
        ([*files, "--data", str(data)], "a.json: --look: the variant a is not of checkpoints. Expected a .pt file"),
    ):
        done = CliRunner().invoke(app, ["compare", *arguments, "--look", "-o", str(out)])
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)
        assert not out.exists()


def test_what_a_block_is_worth_is_the_map_that_is_lost_without_it(data: Path, folder: Path) -> None:
    photo = next((folder / "set/images").iterdir())
    settings = Settings(str(data), "val", None, 16, "")
    blocks = gam_yolo.look(folder / "gam.pt", photo, pictures=0).models[0].blocks
    whole_ap, worth = measure_worth(folder / "gam.pt", blocks, settings, replicates=100)
    by_block = {one.block: one for one in worth}
    assert [*by_block] == ["16 GAM", "20 CBAM", ALL]
    assert whole_ap is not None
    gam, cbam = by_block["16 GAM"].lost, by_block["20 CBAM"].lost
    assert cbam.value == 0
    assert gam.value == pytest.approx(whole_ap - (by_block["16 GAM"].AP or 0))
    assert gam.value < 0  # the random gate spoils what the base finds, so the model gains without it
    assert gam.low is not None
    assert gam.low <= gam.value <= (gam.high or 0)
    assert by_block[ALL].AP == by_block["16 GAM"].AP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "there are no models"),
        ({"images": None}, "there are no images"),
        ({"images": "missing.jpg"}, "missing.jpg cannot be read"),
        ({"limit": 0}, r"--limit \(in Python limit=\) is 0. Expected 1 or more"),
        ({"vid_stride": 0}, r"--vid-stride \(in Python vid_stride=\) is 0. Expected 1 or more"),
        ({"imgsz": 0}, r"--imgsz \(in Python imgsz=\) is 0. Expected 1 or more"),
        ({"batch": 0}, r"--batch \(in Python batch=\) is 0. Expected 1 or more"),
        ({"replicates": 9}, r"--replicates \(in Python replicates=\) is 9. Expected a number from 100 to 100000"),
        ({"device": "77"}, "device '77' is not available"),
        ({"images": Image.new("RGB", (8, 8))}, "the images are a Image. Expected a path, or a list of paths"),
        ({"models": ["best.onnx"]}, r"best\.onnx"),
        ({"confidence": 2}, r"--conf \(in Python confidence=\) is 2. Expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_looked_at_is_reported(
    folder: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    given = {"models": folder / "gam.pt", "images": folder / "photos", "output": tmp_path / "out", **arguments}
    with pytest.raises(UserError, match=message):
        gam_yolo.look(given.pop("models"), **given)
    assert not (tmp_path / "out").exists()


def test_a_page_in_place_of_a_file_is_rejected_before_anything_takes_time(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: is a file\. Expected a folder for the page"):
        gam_yolo.look(folder / "gam.pt", folder / "photos", output=tmp_path / "file")
