"""The optimiser is `torch.optim.AdamW`, to the bit, without what that class imports."""

import subprocess
import sys

import torch

from tyro_cli.training.optimizer import AdamW

BETAS, EPSILON = (0.9, 0.95), 1e-8


def parameters() -> list[torch.nn.Parameter]:
    """Return two matrices and a parameter that never gets a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = (7, 5), (3,), (2, 2)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def groups(of: list[torch.nn.Parameter]) -> list[dict]:
    return [
        {"params": of[:1], "lr": 1e-2, "weight_decay": 0.1},
        {"params": of[1:], "lr": 3e-2, "weight_decay": 0.0},
    ]


def test_it_steps_as_the_class_of_torch_does_to_the_bit():
    mine, theirs = parameters(), parameters()
    optimizer = AdamW(groups(mine), BETAS, EPSILON)
    reference = torch.optim.AdamW(groups(theirs), betas=BETAS, eps=EPSILON, fused=True)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        for one, other in zip(mine[:2], theirs[:2], strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for each in (optimizer, reference):
            each.param_groups[0]["lr"] = 1e-2 / (step + 1)
            each.step()
        for one, other in zip(mine, theirs, strict=True):
            assert torch.equal(one, other)
        for one, other in zip(mine[:2], theirs[:2], strict=True):
            assert optimizer.state[one].keys() == reference.state[other].keys()
            for name, value in reference.state[other].items():
                assert torch.equal(optimizer.state[one][name], value), name
        assert mine[2] not in optimizer.state and theirs[2] not in reference.state
        optimizer.zero_grad()
        assert all(one.grad is None for one in mine)


def test_a_worker_that_is_set_up_and_steps_imports_nothing_that_only_compiling_needs():
    """Nearly half of what a worker takes to start (benchmarks/NOTES.md)."""
    script = (
        "import sys, torch\n"
        "from tyro_cli.experiments import worker\n"
        "from tyro_cli.training.hardware import configure_process\n"
        "configure_process('cpu', 1, deterministic=True)\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "assert not torch.is_deterministic_algorithms_warn_only_enabled()\n"
        "from tyro_cli.training.optimizer import AdamW\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "weight.grad = torch.ones(2)\n"
        "group = {'params': [weight], 'lr': 0.1, 'weight_decay': 0.0}\n"
        "AdamW([group], (0.9, 0.95), 1e-8).step()\n"
        "assert not {'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
