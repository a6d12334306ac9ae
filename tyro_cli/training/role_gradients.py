"""When the gradients of the two roles are measured in training, and on what.

Invariant: the measurement is a pure function of weights and data, so a cell that resumes records
the same numbers, and it leaves the training state as it is. The same windows of valid are taken in
every arm, seed and step. How the roles are told apart is left to `evaluation.probes.roles`.
"""

from typing import Any

from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared import PreparedData
from tyro_cli.data.preparing import Prepared
from tyro_cli.evaluation.probes.roles import probe_batch, role_record
from tyro_cli.evaluation.probes.rows import count_tokens, frequency_bands
from tyro_cli.models.initialization import keyed_seed
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.training.tasks import Model

KIND = "role_gradients"


class RoleGradients:
    """The measurement of one cell, every so many steps from its first on.

    Args:
        settings: The arm's settings.
        data: Its data.
    """

    def __init__(self, settings: Settings, data: Prepared) -> None:
        self.every_steps = settings.evaluation.role_gradients_every_steps
        if self.every_steps is None:
            return
        assert isinstance(data, PreparedData), "refused for translation"
        training, context_length = settings.training, settings.data.context_length
        # As much at a time as goes through the model in training, so that memory suffices.
        micro_tokens = training.micro_batch_tokens or training.batch_tokens
        self.batch = probe_batch(
            data.splits["valid"].tokens,
            context_length,
            micro_tokens // context_length,
            keyed_seed(KIND),
        )
        counts = count_tokens(data.splits["train"].tokens, data.vocab_size)
        self.bands = frequency_bands(counts)

    def record(self, model: Model, step: int) -> dict[str, Any] | None:
        """Return the record of the weights that the update after `step` updates starts from.

        Like the loss of that update it is of step `step + 1`. None where nothing is due.
        """
        if self.every_steps is None or step % self.every_steps:
            return None
        assert isinstance(model, LanguageModel)
        return {"kind": KIND, "step": step + 1, **role_record(model, self.batch, self.bands)}
