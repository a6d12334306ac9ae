"""The kernels that decide how models/ computes: products, attention, dropout.

    python -m benchmarks.kernels

Each figure is the best of five after two warm-up calls, on one thread and on all.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from tyro_cli.experiments.environment import describe_hardware
from tyro_cli.experiments.limits import available_cores
from tyro_cli.models.layers import Dropout, attend
from tyro_cli.training.hardware import configure_process

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(work: Callable[[], object]) -> float:
    """Return the best time of five calls, after two that do not count."""
    times = []
    for _ in range(7):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times[2:])


def products(vocab_size: int, d_model: int = 256, tokens: int = 1024) -> None:
    """Print GFLOP/s of the head's three products: logits, hidden gradient, matrix gradient."""
    for name, dtype in PRECISIONS.items():
        hidden = torch.randn(tokens, d_model, dtype=dtype)
        matrix = torch.randn(vocab_size, d_model, dtype=dtype)
        logits = torch.randn(tokens, vocab_size, dtype=dtype)
        flops = 2 * tokens * d_model * vocab_size / 1e9
        rates = [
            flops / seconds(lambda hidden=hidden, matrix=matrix: hidden @ matrix.t()),
            flops / seconds(lambda logits=logits, matrix=matrix: logits @ matrix),
            flops / seconds(lambda logits=logits, hidden=hidden: logits.t() @ hidden),
        ]
        shown = ", ".join(f"{rate:.0f}" for rate in rates)
        print(f"  products V {vocab_size:>6}, D {d_model}, {name:<8}: {shown} GFLOP/s")


def attention(context_length: int, windows: int = 32, heads: int = 4, head_size: int = 64) -> None:
    """Print forward and backward of plain and flash attention, in milliseconds."""
    for name, dtype in PRECISIONS.items():
        shape = (windows, heads, context_length, head_size)
        q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))

        def flash(q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v) -> None:
            F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()

        def plain(q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v) -> None:
            attend(q, k, v).sum().backward()

        print(
            f"  attention T {context_length}, {windows} windows, {name:<8}: "
            f"flash {1e3 * seconds(flash):.1f} ms, plain {1e3 * seconds(plain):.1f} ms"
        )


def dropout() -> None:
    """Print torch's dropout and ours on a million elements, in milliseconds."""
    x = torch.randn(4096, 256)
    ours = Dropout(0, x.device)
    print(
        f"  dropout of {x.numel():,} elements: torch "
        f"{1e3 * seconds(lambda: F.dropout(x, 0.1, True)):.2f} ms, "
        f"ours {1e3 * seconds(lambda: ours(x, 0.1)):.2f} ms"
    )


def main() -> None:
    """Print every figure, on one thread and on all cores."""
    print(f"{describe_hardware('cpu')}, torch {torch.__version__}")
    for threads in sorted({1, available_cores()}):
        configure_process("cpu", threads, deterministic=False)
        print(f"{threads} thread(s)")
        products(33_278)
        products(8192)
        attention(64)
        attention(128)
        attention(256)
        dropout()


if __name__ == "__main__":
    main()
