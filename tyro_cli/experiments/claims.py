"""The claim of a study as its manifest keeps it, with the models that are only counted.

Nothing is trained for those: the ledger counts the experiment's model at other sizes, and published
models from their own configuration files.
"""

from typing import Any

from tyro_cli.config.claims import LedgerGrid
from tyro_cli.config.schema import Settings
from tyro_cli.config.studies import LoadedStudy
from tyro_cli.errors import UsageError
from tyro_cli.experiments.plan import base_settings
from tyro_cli.ledger.huggingface import hf_ledger
from tyro_cli.ledger.parameters import parameter_counts, source_vocab_of


def claim_record(loaded: LoadedStudy) -> dict[str, Any] | None:
    """Return the claim of a study as a record, or None where it makes none.

    Raises:
        ConfigurationError: A model to be counted is not possible, or the configuration of a
            published one cannot be counted.
    """
    claim = loaded.study.claim
    if claim is None:
        return None
    return {
        "number": claim.number,
        "parts": claim.parts,
        "sentence": claim.sentence,
        "depends_on": claim.depends_on,
        "findings": [finding.model_dump(mode="json") for finding in claim.findings],
        "counted": [] if claim.ledger is None else _counted(loaded, claim.ledger),
        "published": [] if claim.ledger is None else _published(loaded, claim.ledger),
    }


def _counted(loaded: LoadedStudy, grid: LedgerGrid) -> list[dict[str, Any]]:
    """Count the experiment's model at every size of the grid."""
    settings = base_settings(loaded.points[0].loaded)
    step = 2 * settings.model.num_heads
    for index, d_model in enumerate(grid.d_model):
        if d_model % step:
            raise loaded.error(
                ("claim", "ledger", "d_model", index),
                f"{d_model} cannot be split into {settings.model.num_heads} heads of even size",
                f"take a multiple of {step}",
            )
    return [
        _count(loaded, settings, vocab_size, d_model)
        for d_model in grid.d_model
        for vocab_size in grid.vocab_size
    ]


def _published(loaded: LoadedStudy, grid: LedgerGrid) -> list[dict[str, Any]]:
    """Count published models, each from its own configuration file."""
    models = []
    for index, shape in enumerate(grid.shapes):
        path = loaded.path.parent / shape
        try:
            model = hf_ledger(path)
        except UsageError as error:
            where = ("claim", "ledger", "shapes", index)
            raise loaded.error(where, error.message, error.remedy) from error
        models.append(
            {
                "name": path.stem,
                "vocab_size": model.vocab_size,
                "d_model": model.d_model,
                "untied_total": model.untied_total,
                "saving": model.saving,
                "tied": model.tied,
                "embedding_and_head": model.embedding + model.head,
            }
        )
    return models


def _count(
    loaded: LoadedStudy, settings: Settings, vocab_size: int, d_model: int
) -> dict[str, Any]:
    """Count the experiment's model at one size, untied and tied, and take the difference."""
    totals = []
    source = source_vocab_of(settings, vocab_size)
    for tying in ("none", "in-out"):
        changed = {"d_model": d_model, "d_ff": None, "tying": tying}
        model = settings.model.model_copy(update=changed)
        counts = parameter_counts(model, vocab_size, settings.data.context_length, source)
        totals.append(sum(counts.values()))
    return {
        "name": f"{loaded.points[0].loaded.experiment.name}, d {d_model:,}",
        "vocab_size": vocab_size,
        "d_model": d_model,
        "untied_total": totals[0],
        "saving": totals[0] - totals[1],
    }
