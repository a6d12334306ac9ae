"""Training steps whose blocks `torch.compile` makes into kernels.

Invariant: nothing is wrapped, so parameters keep names, storage and ties; and only what runs inside
`Compiled.steps` is compiled, so checks and evaluations are those of the plain program. Each shape
gets code of its own, which does not depend on what was compiled before it. The code lies in a
folder that no other process reads, and is gone when the process ends.
"""

import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any

import torch

from tyro_cli.errors import DeviceError
from tyro_cli.models.layers import Block
from tyro_cli.training.tasks import Model


class Compiled:
    """A model whose blocks are compiled, one after the other, when they are first used.

    Args:
        model: On its device; changed in place.
    """

    def __init__(self, model: Model) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="wtie-compiled-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._folder.name
        import torch._functorch.config as functorch
        import torch._inductor.config as inductor

        # No cache of pickled graphs, and no helper processes that outlive a signal.
        settings: Any = inductor
        settings.fx_graph_cache, settings.compile_threads = False, 1
        settings.deterministic = torch.are_deterministic_algorithms_enabled()
        functorch.enable_autograd_cache = False
        for module in model.modules():
            if isinstance(module, Block):
                module.compile(dynamic=False)
        torch.compiler.set_stance("force_eager")

    def steps(self) -> AbstractContextManager[Any]:
        """Within this, blocks run compiled."""
        stance: AbstractContextManager[Any] = torch.compiler.set_stance("default")
        return stance


def check_compiler(device: str) -> None:
    """Refuse `training.compile` where there is nothing that could compile.

    Raises:
        DeviceError: As said.
    """
    if device == "cuda":
        if find_spec("triton") is None:
            raise DeviceError(
                "training.compile: true needs triton, which this installation of torch lacks",
                "install a CUDA build of torch, or take training.compile out",
            )
        return
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise DeviceError(
            f"training.compile: true needs a C++ compiler, and there is no {compiler!r} here",
            "install g++, name another in CXX, or take training.compile out",
        )
