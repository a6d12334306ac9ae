"""When the gradients of the roles are measured in training, and on what.

Invariant: the measurement is a pure function of weights and data, so a cell that resumes records
the same numbers, and it leaves the training state as it is. The same windows or pairs of valid are
taken in every arm, seed and step. How the roles are told apart is left to
`evaluation.probes.roles`.
"""

from typing import Any

import numpy as np

from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared_pairs import PreparedPairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.evaluation.probes.roles import (
    THREE_ROLES,
    TWO_ROLES,
    Role,
    probe_batch,
    probe_pairs,
    role_record,
)
from tyro_cli.evaluation.probes.rows import count_tokens, frequency_bands
from tyro_cli.models.initialization import keyed_seed
from tyro_cli.training.tasks import Model

KIND = "role_gradients"


class RoleGradients:
    """The measurement of one cell, every so many steps from its first on.

    Args:
        settings: The arm's settings.
        data: Its data.
    """

    def __init__(self, settings: Settings, data: Prepared) -> None:
        every_steps = settings.evaluation.role_gradients_every_steps
        assert every_steps is not None, "made only where it is asked for"
        self.every_steps = every_steps
        context_length = settings.data.context_length
        # As much at a time as goes through the model in training; the estimate of memory knows.
        micro_tokens = settings.training.resolved_micro_batch_tokens
        seed = keyed_seed(KIND)
        self.roles: tuple[Role, ...] = TWO_ROLES
        self.batch: tuple[np.ndarray, ...]
        if isinstance(data, PreparedPairs):
            if data.sharing == "joint":  # else a row of the encoder's is another token's
                self.roles = THREE_ROLES
            self.batch = probe_pairs(data.splits["valid"], micro_tokens, seed).arrays()
            read = data.splits["train"].target
        else:
            valid, num_windows = data.splits["valid"].tokens, micro_tokens // context_length
            windows = probe_batch(valid, context_length, num_windows, seed)
            self.batch = windows[:, :-1], windows[:, 1:]
            read = data.splits["train"].tokens
        self.bands = frequency_bands(count_tokens(read, data.vocab_size))

    def record(self, model: Model, step: int) -> dict[str, Any] | None:
        """Return the record of the weights that the update after `step` updates starts from.

        Like the loss of that update it is of step `step + 1`. None where nothing is due.
        """
        if step % self.every_steps:
            return None
        roles = role_record(model, self.batch, self.bands, self.roles)
        return {"kind": KIND, "step": step + 1, **roles}
