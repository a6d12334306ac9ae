"""AdamW with one group a role.

A parameter stands in exactly one group, so a shared matrix is stepped and decayed once, under the
role that `model.tied_role` gives it. Learning rate and weight decay of a group are the
configuration's, times the role's multipliers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tyro_cli.config.schema import ModelConfig, OptimizerConfig
from tyro_cli.errors import DamagedRecord
from tyro_cli.ledger.parameters import role_of
from tyro_cli.storage.checkpoints import MOMENTS


class AdamW:
    """AdamW (Loshchilov & Hutter 2019), stepped by torch's fused kernel.

    What is used here of `torch.optim.AdamW`, to the bit. Any class of `torch.optim` imports
    `torch._dynamo` at its first use, which is nearly half of what a worker takes to start
    (benchmarks/NOTES.md); the function that computes the step does not.

    Attributes:
        param_groups: Each with `params`, `lr` and `weight_decay`, and whatever else it was given.
        state: By parameter, from its first step on: both `MOMENTS`, of its shape, and `step`, a
            float32 scalar beside it.
    """

    def __init__(
        self, groups: list[dict[str, Any]], betas: tuple[float, float], epsilon: float
    ) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._betas = betas
        self._epsilon = epsilon

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [one for one in group["params"] if one.grad is not None]
            if not parameters:
                continue
            states = [self._state_of(one) for one in parameters]
            first, second = ([state[moment] for state in states] for moment in MOMENTS)
            with torch.no_grad():
                adamw(
                    parameters,
                    [one.grad for one in parameters],
                    first,
                    second,
                    [],
                    [state["step"] for state in states],
                    fused=True,
                    amsgrad=False,
                    maximize=False,
                    beta1=self._betas[0],
                    beta2=self._betas[1],
                    lr=group["lr"],
                    weight_decay=group["weight_decay"],
                    eps=self._epsilon,
                )

    def zero_grad(self) -> None:
        """Let go of every gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
            self.state[parameter] = moments | {"step": torch.zeros((), device=parameter.device)}
        return self.state[parameter]


def make_optimizer(model: nn.Module, model_config: ModelConfig, config: OptimizerConfig) -> AdamW:
    """Return an optimiser whose groups carry `role` and `base_rate`."""
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
                "lr": config.learning_rate,
                "weight_decay": config.weight_decay * multipliers.decay,
            }
        )
    return AdamW(groups, (config.beta1, config.beta2), config.epsilon)


def set_rate(optimizer: AdamW, factor: float) -> None:
    """Set every group's learning rate to its base rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor


def optimizer_tensors(optimizer: AdamW, model: nn.Module) -> dict[str, Tensor]:
    """Return the moments by parameter name, `MOMENT/NAME`, for a checkpoint."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        for moment in MOMENTS
        if parameter in optimizer.state
    }


def restore_optimizer(
    optimizer: AdamW, model: nn.Module, tensors: dict[str, Tensor], step: int
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
