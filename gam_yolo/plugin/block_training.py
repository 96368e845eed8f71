"""Let a model YAML say how its blocks are trained, and let a training's log end with how far they have moved.

`block_lr: 10` multiplies the learning rates of the blocks' parameters by 10. After Ultralytics has built its optimizer,
they are moved into groups of their own, with the same settings otherwise. So warm-up, schedule, log and checkpoints
treat them as Ultralytics' own groups.

`block_epochs: 3` lets only the blocks learn in the first three epochs. All other parameters and the statistics of their
batch norms do not change. What learns depends on the epoch alone, so a resumed training continues as it would have.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt
from torch import nn

from gam_yolo import ultralytics_api
from gam_yolo.errors import UserError

__all__ = ["patch"]


def patch(trainer: ModuleType) -> None:
    """Wrap `BaseTrainer.build_optimizer` of the module `ultralytics.engine.trainer`.

    Raises:
        UserError: It is missing, or has other parameters than those we know.
    """
    signature = inspect.signature(ultralytics_api.ASSUMPTIONS["BaseTrainer.build_optimizer"].get(trainer))

    def build(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from gam_yolo.arguments import source
        from gam_yolo.registry import blocks_in
        from gam_yolo.training_keys import BlockTraining

        optimizer = wrapped(*args, **kwargs)
        model = signature.bind(instance, *args, **kwargs).arguments["model"]
        blocks = blocks_in(model)
        if not blocks:
            return optimizer
        configs = (getattr(module, "yaml", None) for module in model.modules())  # it may be wrapped
        config = next((found for found in configs if isinstance(found, dict)), {})
        keys = BlockTraining.of(config, source(config))
        own = {id(p) for block in blocks.values() for p in block.parameters()}
        log = trainer.LOGGER.info
        if own and keys.lr != 1:
            log(_split(optimizer, own, keys.lr, ", ".join(blocks)))
        if keys.epochs:
            if not own:
                raise UserError("block_epochs is given, but no block has parameters", at=source(config))
            if getattr(instance, "world_size", 0) > 1 and getattr(instance.args, "compile", False):
                # torch's reducer then takes the set of trained parameters of the first step for that of all steps.
                fix = "Leave out compile or block_epochs"
                raise UserError("block_epochs does not work with compile on several GPUs", at=source(config), fix=fix)
            _train_alone(instance, model, blocks, keys.epochs, log)
        instance.add_callback("on_train_end", _log_movement)
        return optimizer

    wrapt.wrap_function_wrapper(trainer, "BaseTrainer.build_optimizer", build)


def _split(optimizer: Any, own: set[int], factor: float, names: str) -> str:
    """Move the blocks' parameters into groups of their own, and return the line for the log."""
    rates: dict[bool, set[float]] = {True: set(), False: set()}
    for group in list(optimizer.param_groups):
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in group["params"]:
            parts[id(parameter) in own].append(parameter)
        if parts[True]:
            group["params"] = parts[False]
            optimizer.add_param_group({**group, "params": parts[True], "lr": group["lr"] * factor})
            rates[True].add(group["lr"] * factor)
        if parts[False]:
            rates[False].add(group["lr"])
    of_blocks, others = (", ".join(f"{rate:g}" for rate in sorted(rates[key])) for key in (True, False))
    return f"block_lr={factor:g}: lr={of_blocks} for {names} ({len(own)} parameters), lr={others} for all others"


def _train_alone(
    trainer: Any, model: nn.Module, blocks: dict[str, nn.Module], epochs: int, log: Callable[[str], None]
) -> None:
    """Have the trainer freeze all but the blocks during the first epochs."""
    inside = {id(module) for block in blocks.values() for module in block.modules()}
    others = [module for module in model.modules() if id(module) not in inside]
    norms = [module for module in others if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    # Without those that the train argument `freeze` has frozen for good.
    parameters = [p for module in others for p in module.parameters(recurse=False) if p.requires_grad]
    log(f"block_epochs={epochs}: until epoch {epochs} has ended, only the blocks learn: {', '.join(blocks)}")

    def start_batch(trainer: Any) -> None:
        alone = trainer.epoch < epochs
        if alone:
            for norm in norms:  # Ultralytics sets the mode of all modules at each start and restart of an epoch
                norm.eval()
        if parameters and parameters[0].requires_grad == alone:
            for parameter in parameters:
                parameter.requires_grad_(not alone)

    trainer.add_callback("on_train_batch_start", start_batch)


def _log_movement(trainer: Any) -> None:
    """Log how much each block changes its input on validation images, by the averaged weights of the last epoch."""
    from gam_yolo.movement import describe, movement

    try:
        images = next(iter(trainer.test_loader))["img"].to(trainer.device)
        images = images.float() / (1 if images.is_floating_point() else 255)
        found = movement(trainer.ema.ema.float(), images)
    except Exception as error:  # a training that has ended well must not fail now
        ultralytics_api.warn(f"how far the blocks have moved could not be measured: {error}")
        return
    for line in describe(found):
        ultralytics_api.info(line)
