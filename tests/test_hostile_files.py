"""Files that want to run code, or to fill the memory: every command that reads one rejects it in one line."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

import gam_yolo
from gam_yolo import UserError
from gam_yolo.checkpoints import reject_code, trusting
from gam_yolo.cli import app
from gam_yolo.cli.console import exit_on_error
from gam_yolo.discovery import discover

DATA = "path: images\ntrain: .\nval: .\nnames: [cat]\n"


class Calls:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists if something was executed."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "executed"


@pytest.fixture
def model(shared: Path) -> Any:
    """What `yolov8n.pt` holds."""
    return torch.load(shared / "weights/yolov8n.pt", weights_only=False)


# Each of these reads a checkpoint.
VERBS: dict[str, Callable[[Path, bool], object]] = {
    "compare": lambda file, trust: gam_yolo.compare({"a": file, "b": "plain.pt"}, data="d.yaml", trust=trust),
    "look": lambda file, trust: gam_yolo.look(file, "image.jpg", trust=trust),
    "export-plain": lambda file, trust: gam_yolo.export_plain(file, trust=trust),
    "transfer from": lambda file, trust: gam_yolo.transfer(file, "yolov8n-gam.yaml", trust=trust),
    "transfer to": lambda file, trust: gam_yolo.transfer("plain.pt", file, trust=trust),
    "study": lambda file, trust: gam_yolo.run_study(study(file), project="studies", trust=trust),
}


def study(pretrained: Path) -> Path:
    variants = {"plain": {"model": "yolov8n.yaml"}, "gam": {"model": "yolov8n-gam.yaml"}}
    recipe = {"epochs": 1, "imgsz": 32, "device": "cpu"}
    content = {"data": "d.yaml", "pretrained": str(pretrained), "seeds": [0], "variants": variants, "recipe": recipe}
    Path("study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return Path("study.yaml")


@pytest.fixture
def surroundings(mark: Path, shared: Path) -> Path:
    """What the commands need besides the hostile file."""
    from PIL import Image

    Path("images").mkdir()
    for name in ("image.jpg", "images/a.jpg"):
        Image.new("RGB", (64, 64)).save(name)
    Path("images/a.txt").write_text("0 .5 .5 .5 .5\n")
    Path("d.yaml").write_text(DATA.replace("path: images", f"path: {mark.parent / 'images'}"))
    Path("plain.pt").symlink_to(shared / "weights/yolov8n.pt")
    return mark


@pytest.mark.parametrize("verb", VERBS)
def test_no_command_runs_code_from_a_checkpoint(verb: str, surroundings: Path, model: Any) -> None:
    evil = surroundings.with_name("evil.pt")
    torch.save({**model, "note": Calls(Path.touch, surroundings)}, evil)
    with pytest.raises(UserError, match=r"evil\.pt: cannot be loaded .*could run code\. If you trust .*--trust"):
        VERBS[verb](evil, False)
    assert not surroundings.exists()
    try:  # it is the model of another dataset, or has no blocks: what matters is that it was loaded
        VERBS[verb](evil, True)
    except UserError as error:
        assert "run code" not in str(error)  # noqa: PT017  # most commands reject it later for another reason
    assert surroundings.exists()


class Own(nn.Module):
    """A layer of a user who has not registered it."""


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (lambda mark: Calls(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda _: Calls(getattr, nn.Module, "__subclasses__"), "looks up '__subclasses__'"),
        (lambda _: Calls(getattr, nn.Module(), "load_state_dict"), "looks up 'load_state_dict'"),
        (lambda mark: Calls(DetectionModel, {"activation": f"open({str(mark)!r}, 'w')"}), "calls the constructor"),
        (lambda mark: Calls(torch.load, str(mark)), "torch.serialization.load"),
        (lambda _: Calls(torch.hub.load, "a/b", "c"), "torch.hub.load"),
        (lambda _: Own(), r"test_hostile_files.Own"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_each_way_to_run_code_is_named(
    content: Callable[[Path], object], names: str, protocol: int, mark: Path, model: Any
) -> None:
    torch.save({**model, "note": content(mark)}, "evil.pt", pickle_protocol=protocol)
    with pytest.raises(UserError, match=names):
        reject_code(Path("evil.pt"))
    assert not mark.exists()
    with trusting(True):
        reject_code(Path("evil.pt"))


def test_a_forged_module_is_not_imported(mark: Path) -> None:
    Path("planted.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for name in ("planted", "ultralytics.nn.text_model"):  # importing the second installs packages
        content = b"\x80\x02c" + name.encode() + b"\nCLIP\n."
        pack({"archive/data.pkl": content})
        with pytest.raises(UserError, match=rf"'{name}\.CLIP', which is no known layer"):
            reject_code(Path("forged.pt"))
    assert not mark.exists()


def pack(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile("forged.pt", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("archive/version", "3\n")


@pytest.mark.usefixtures("mark")
def test_an_archive_that_unpacks_to_more_than_a_model() -> None:
    harmless = pickle.dumps({}, 2)
    pack({"archive/data.pkl": harmless, "archive/data/0": bytes(1 << 27)}, zipfile.ZIP_DEFLATED)
    assert Path("forged.pt").stat().st_size < 1 << 18
    with pytest.raises(UserError, match=r"unpacks to 134,\d{3},\d{3} bytes"):
        reject_code(Path("forged.pt"))
    pack({"archive/data.pkl": harmless})
    reject_code(Path("forged.pt"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(1000),
        b"MZ" + bytes(1000),
        pickle.dumps({"a": 1}, 2),
        b"\x80\x02" + b"(" * 10_000,
    ],
)
@pytest.mark.usefixtures("mark")
def test_what_is_no_checkpoint_is_one_line(content: bytes) -> None:
    Path("forged.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"^forged\.pt: (is empty, cut off|cannot be loaded as a checkpoint)") as error:
        reject_code(Path("forged.pt"))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.usefixtures("mark")
def test_a_checkpoint_whose_path_torch_cannot_open_is_not_called_damaged() -> None:
    folder = Path(os.fsdecode(b"caf\xe9"))  # as a disk that was written with Latin-1 has it
    folder.mkdir()
    torch.save({"model": None}, Path("good.pt"))
    Path("good.pt").rename(folder / "good.pt")
    with pytest.raises(UserError, match=r"good\.pt: has a path that is not UTF-8, which torch cannot open\. Rename it"):
        reject_code(folder / "good.pt")


@pytest.mark.usefixtures("mark")
def test_old_formats_and_torchscript_need_trust() -> None:
    buffer = io.BytesIO()
    torch.save(collections.OrderedDict(a=torch.zeros(1)), buffer, _use_new_zipfile_serialization=False)
    Path("old.pt").write_bytes(buffer.getvalue())
    torch.jit.script(nn.ReLU()).save("script.pt")
    for name, says in (("old.pt", "format of PyTorch before 1.6"), ("script.pt", "TorchScript archive")):
        with pytest.raises(UserError, match=says):
            reject_code(Path(name))


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolov8n-gam.yaml", "yolov8n-seg.yaml", "yolo11n-pose.yaml"])
@pytest.mark.usefixtures("mark")
def test_what_ultralytics_saves_passes(name: str) -> None:
    YOLO(name).save("own.pt")
    reject_code(Path("own.pt"))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.yaml", BOMB),
        ("tag.yaml", "!!python/object/apply:os.system ['touch executed']"),
        ("deep.yaml", "[" * 20_000),
        ("cycle.yaml", "backbone: &a [*a]\nhead: *a\nvariants: *a\nseeds: *a\nnames: *a\npath: .\nval: *a\n"),
        (
            "model.yaml",
            f"nc: 1\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead: [[0, 1, Detect, [nc]]]\nx: {{\n{BOMB}}}",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["check", "place", "study", "prepare", "compare"])
def test_yaml_bombs_are_one_line(verb: str, name: str, content: str, mark: Path) -> None:
    Path(name).write_text(content)
    Path("a.json").write_text("[]")
    arguments = {
        "check": [name],
        "place": [name, "--block", "GAM", "--at", "0"],
        "study": [name, "--dry-run"],
        "prepare": [name],
        "compare": ["a.json", "a=a.json", "--data", name],
    }[verb]
    assert len(outcome(verb, *arguments)) < 1000
    assert not mark.exists()


def outcome(*arguments: str) -> str:
    """Run a command as a shell does; return its one-line error, or an empty string."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
        exit_on_error(),
    ):
        app(list(arguments))
    if ended.value.code != 2:
        return ""
    lines = [line for line in (err.getvalue() or out.getvalue()).splitlines() if line.strip()]
    assert len(lines) == 1 or arguments[0] == "check"
    return lines[0]


XML_BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotation><filename>&i;</filename></annotation>"
)
XML_FILE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation><filename>&a;</filename></annotation>'


@pytest.mark.parametrize("xml", [XML_BOMB, XML_FILE, "<a>" * 50_000])
@pytest.mark.usefixtures("mark")
def test_xml_bombs_are_one_line(xml: str) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        Path("voc", folder).mkdir(parents=True)
    Path("voc/ImageSets/Main/val.txt").write_text("0\n")
    Path("voc/Annotations/0.xml").write_text(xml)
    Path("a.json").write_text("[]")
    Path("b.json").write_text("[ ]")
    assert "0.xml" in outcome("compare", "a.json", "b.json", "--gt", "voc")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '"\\ud800"', "1e999", "NaN"])
@pytest.mark.usefixtures("mark")
def test_json_bombs_are_one_line(content: str) -> None:
    Path("a.json").write_text(content)
    Path("b.json").write_text("[]")
    Path("c.json").write_text("[ ]")
    for arguments in (["compare", "b.json", "c.json", "--gt", "a.json"], ["power", "a.json"]):
        assert "a.json" in outcome(*arguments)


def test_an_image_that_unpacks_to_gigabytes(mark: Path) -> None:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    Path("images").mkdir()
    Path("images/a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    Path("images/a.txt").write_text("0 .5 .5 .5 .5\n")
    Path("d.yaml").write_text(DATA.replace("path: images", f"path: {mark.parent / 'images'}"))
    Path("a.json").write_text("[]")
    Path("b.json").write_text("[ ]")
    assert "a.png" in outcome("compare", "a.json", "b.json", "--data", "d.yaml")


@pytest.mark.usefixtures("mark")
@pytest.mark.parametrize("name", ["~", "é", "[1, 2]", "b=a.json", "a\nb", "x" * 5000, "/dev/zero", "\u202egnp.exe"])
@pytest.mark.parametrize("verb", ["check", "prepare", "study"])
def test_names_that_are_no_yaml_are_one_line(verb: str, name: str) -> None:
    assert outcome(verb, name)


@pytest.mark.usefixtures("mark")
def test_a_name_cannot_reverse_the_text_after_it() -> None:
    Path("model.yaml").write_text("backbone: ['\u202egnp.exe']\nhead: []\n")
    shown = outcome("place", "model.yaml", "--block", "GAM", "--at", "0")
    assert "gnp.exe" in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    "line",
    [
        ["prepare", "a.yaml", "\x1b[31mred.yaml"],
        ["\x1b[2J"],
        ["check", "--\u202eno"],
    ],
)
def test_what_was_typed_is_shown_as_text_in_usage_errors(line: list[str]) -> None:
    shown = CliRunner().invoke(app, line, env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert "\\x1b" in shown.output or "\\u202e" in shown.output
    assert not re.search("[\x1b\u202e]", shown.output)


@pytest.mark.usefixtures("mark")
def test_the_name_of_a_broken_block_file_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("bad.py").write_text("raise ValueError('\\x1b[31mred')\n")
    monkeypatch.setenv("GAM_YOLO_BLOCKS", "bad.py:\x1b[31m.py")
    with pytest.warns(UserWarning, match="could not be imported"):
        failures = discover()
    assert failures[0].startswith("'bad.py' (of GAM_YOLO_BLOCKS) could not be imported (ValueError: \\x1b[31mred)")
    assert failures[1].startswith("'\\x1b[31m.py' (of GAM_YOLO_BLOCKS) could not be imported")


@pytest.mark.usefixtures("mark")
def test_a_split_is_not_searched_for_in_the_whole_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("d.yaml").write_text("path: .\ntrain: /\nval: /\nnames: [cat]\n")
    for name in "ab":
        Path(f"{name}.json").write_text("[]")
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("searched"))
    with pytest.raises(UserError, match=r"'val': is /, the whole file system\. Expected a folder of images"):
        gam_yolo.compare(["a.json", "b.json"], data="d.yaml")
