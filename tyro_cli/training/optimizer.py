"""AdamW with one group a role.

A parameter stands in exactly one group, so a shared matrix is stepped and decayed once, under the
role that `model.tied_role` gives it. Learning rate and weight decay of a group are the
configuration's, times the role's multipliers.
"""

import torch
from torch import Tensor, nn

from tyro_cli.config.schema import ModelConfig, OptimizerConfig
from tyro_cli.errors import DamagedRecord
from tyro_cli.ledger.parameters import role_of
from tyro_cli.storage.checkpoints import MOMENTS


def make_optimizer(
    model: nn.Module, model_config: ModelConfig, config: OptimizerConfig
) -> torch.optim.AdamW:
    """Return a fused AdamW (Loshchilov & Hutter 2019) whose groups carry `role` and `base_rate`."""
    members: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        members.setdefault(role_of(name, model_config), []).append(parameter)
    groups = []
    for role, parameters in members.items():
        multipliers = getattr(config.roles, role)
        groups.append(
            {
                "params": parameters,
                "role": role,
                "base_rate": config.learning_rate * multipliers.rate,
                "weight_decay": config.weight_decay * multipliers.decay,
            }
        )
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=betas, eps=config.epsilon, fused=True
    )


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the moments by parameter name, `MOMENT/NAME`, for a checkpoint."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor], step: int
) -> None:
    """Put the moments of `step` updates back, in place of whatever the optimiser holds.

    Raises:
        DamagedRecord: If they are not the moments of this model.
    """
    expected = {
        f"{moment}/{name}": (parameter.shape, parameter.dtype)
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
    }
    if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != expected:
        raise DamagedRecord("the moments of the optimiser are not those of this model")
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            **{
                moment: tensors[f"{moment}/{name}"].to(parameter.device).clone()
                for moment in MOMENTS
            },
        }
