"""The keys of a model YAML that say how its blocks are trained: `block_lr` and `block_epochs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gam_yolo.arguments import literal
from gam_yolo.errors import UserError, brief
from gam_yolo.io import is_number

__all__ = ["KEYS", "BlockTraining"]

KEYS = ("block_lr", "block_epochs")


@dataclass(frozen=True)
class BlockTraining:
    """How the blocks of a model are trained.

    They are top-level keys of the model YAML, because Ultralytics rejects train arguments that it does not know. So
    checkpoints, resumed trainings and the processes of a multi-GPU training have them too.

    Attributes:
        lr: Key `block_lr`: factor on the learning rates of the blocks' parameters.
        epochs: Key `block_epochs`: number of first epochs in which only the blocks learn.
    """

    lr: float = 1.0
    epochs: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any], at: str) -> BlockTraining:
        """Read the keys of a model YAML, or of a mapping in a study file.

        Args:
            config: The parsed mapping; other keys are passed over.
            at: Where it was read, for the error message.

        Raises:
            UserError: A value is invalid.

        Examples:
            >>> BlockTraining.of({"nc": 80, "block_lr": 10}, "my.yaml")
            BlockTraining(lr=10, epochs=0)
        """
        lr, epochs = (literal(config.get(key, default)) for key, default in zip(KEYS, (1.0, 0), strict=True))
        if not is_number(lr) or not lr > 0:
            expected = "a number above 0, such as 10: the factor on the learning rates of the blocks"
            raise UserError(f"block_lr is {brief(lr)}", at=at, expected=expected)
        if type(epochs) is not int or epochs < 0:
            expected = "a whole number from 0: the first epochs, in which only the blocks learn"
            raise UserError(f"block_epochs is {brief(epochs)}", at=at, expected=expected)
        return cls(lr, epochs)
