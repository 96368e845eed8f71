"""The model YAMLs that Ultralytics ships, and small ones that have what is being tested."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import yaml


def shipped() -> list[Path]:
    """Every model YAML of the installed Ultralytics."""
    import ultralytics

    return sorted((Path(ultralytics.__file__).parent / "cfg" / "models").rglob("*.yaml"))


TINY = """\
# A detector of three strides, small enough to build hundreds of times.
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]] # 0-P1/2
  - [-1, 1, Conv, [16, 3, 4]] # 1-P3/8
  - [-1, 1, Conv, [24, 3, 2]] # 2-P4/16
  - [-1, 1, Conv, [32, 3, 2]] # 3-P5/32

head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 2], 1, Concat, [1]] # cat backbone P4
  - [-1, 1, Conv, [24, 1, 1]] # X4 (6), fused

  - [-1, 1, Conv, [32, 3, 2]]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 1, Conv, [32, 1, 1]] # 9 (P5/32-large)

  - [[1, 6, 9], 1, Detect, [nc]] # Detect(P3, P4, P5)
"""


NASTY: list[Any] = [
    *(None, True, False, 0, -1, -2, -100, 7, 10**6, 10**30, -(10**9), 0.5, 1e308, float("nan"), float("inf")),
    *("", "Conv", "GAM", "GAM_Attention", "nn.Identity", "nn.", "torchvision.ops.", "nc", "d", "ch", "self"),
    *("None", "__import__", "eval", "((((", "\u2028", "1" * 50),
    *([], {}, [[]], [-1], [-1, 99], [-1, 1, "GAM", []], [None, 2, "nearest"]),
    *({"gate": "sigmoid"}, {"reduction": None}, {1: 2}),
]
PIECES = ["[", "]", "{", "}", ":", ",", "-", "&a", "*a", "!!", "\t", "\x00", "\ufeff", "#", "'", "\n", "9", ""]


def mutated(text: str, chance: random.Random, many: int) -> str:
    """Return a model YAML with `many` random changes, in its values or in its characters."""
    if chance.random() < 0.3:
        for _ in range(many):
            at = chance.randrange(len(text))
            piece = chance.choice(PIECES)
            text = text[:at] + piece + text[at + chance.randrange(3) :]
        return text
    config = yaml.safe_load(text)
    for _ in range(many):
        # Walk to a random spot, mostly deep in the rows.
        holder: Any = config
        while True:
            key = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            value = holder[key]
            if not isinstance(value, (list, dict)) or not value or chance.random() < 0.15:
                break
            holder = value
        action = chance.random()
        if action < 0.7:
            holder[key] = copy.deepcopy(chance.choice(NASTY))
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(value))
        if not config:
            break
    return yaml.safe_dump(config, default_flow_style=None)
