"""The formats of manifest.json, result.json and performance.json as the analysis reads them.

Invariant: a record that validates is finite and agrees with itself (derived numbers follow from
their sums, components sum to their total). Types are strict: "3" is no number. Keys this version
does not know are ignored. Reading files and comparing records with each other is left to `records`.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["valid", "test"]
At = Literal["best", "last"]
Metric = Literal[
    "nats_per_word", "nats_per_token", "bits_per_byte", "word_perplexity", "token_perplexity"
]

FORMAT = 1
"""Version of manifest.json and result.json that is read."""

SUM_TOLERANCE = 1e-6
"""Relative room for rounding where a recorded number must equal one computed from other records."""

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


def exp_or_none(nats: float) -> float | None:
    """Return the perplexity of a mean in nats, or None where it exceeds what a float64 holds."""
    try:
        return math.exp(nats)
    except OverflowError:
        return None


class Record(BaseModel):
    """A part of a record: types as written (no "3" for 3), finite numbers, unknown keys ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class SplitScores(Record):
    """The sums of one scored split and what is derived from them; null where it does not apply."""

    nats: NonNegative
    tokens: Size
    words: Count
    bytes: Count
    unknown_words: Count
    nats_per_token: NonNegative
    token_perplexity: NonNegative | None
    nats_per_word: NonNegative | None
    word_perplexity: NonNegative | None
    bits_per_byte: NonNegative | None

    @model_validator(mode="after")
    def _derived_numbers_follow_from_the_sums(self) -> "SplitScores":
        expected = {
            "nats_per_token": self.nats / self.tokens,
            "nats_per_word": self.nats / self.words if self.words else None,
            "bits_per_byte": self.nats / math.log(2) / self.bytes if self.bytes else None,
            "token_perplexity": exp_or_none(self.nats / self.tokens),
            "word_perplexity": exp_or_none(self.nats / self.words) if self.words else None,
        }
        for name, value in expected.items():
            recorded = getattr(self, name)
            if recorded is None:
                continue
            if value is None or not math.isclose(recorded, value, rel_tol=SUM_TOLERANCE):
                raise ValueError(f"{name} is {recorded}, but its sums give {value}")
        return self


class Evaluation(Record):
    """The final scores of one checkpoint."""

    step: Count
    valid: SplitScores
    test: SplitScores | None = None
    """None of a trial of a search, which is not shown test."""
    train_part: SplitScores
    generalisation_gap_nats: float


class Evaluations(Record):
    """The scores of the best-valid checkpoint (the primary result) and of the last one."""

    best: Evaluation | None = None
    last: Evaluation | None = None


class InitialParameter(Record):
    """Shape and hash of one parameter as it was drawn."""

    shape: list[Count]
    sha256: Hash


class Pairing(Record):
    """What proves that two cells are a pair; `analysis/pairs.py` compares them."""

    initial_parameters: dict[str, InitialParameter] = Field(min_length=1)
    batches: list[Annotated[tuple[Count, Hash], Field(strict=False)]]
    fingerprint: dict[str, Any] = Field(min_length=1)
    numeric_drift: list[dict[str, Any]] = []
    """Resumes under another fingerprint that the user allowed."""


class Training(Record):
    """How the training of a cell went."""

    steps: Count
    planned_steps: Count
    tokens: Count
    best_step: Count | None = None
    stopped_early: bool = False
    still_improving: bool | None = None
    learning_rate: NonNegative


class Divergence(Record):
    """Where a cell stopped because a number was no longer finite."""

    step: Count
    what: str


class CountedParameters(Record):
    """Parameters as counted in the model that was trained."""

    total: Count
    unique_storage: Count
    tied: bool


class Quality(Record):
    """How good the translations of one split are, at the best-valid checkpoint."""

    bleu: Annotated[float, Field(ge=0, le=101)]
    chrf: Annotated[float, Field(ge=0, le=101)]
    copy_bleu: Annotated[float, Field(ge=0, le=101)]
    copy_chrf: Annotated[float, Field(ge=0, le=101)]
    sentences: Size
    signatures: dict[str, str]
    """How `bleu` and `chrf` were computed: sacrebleu's own lines, and the search."""


class KnownEntropyRecord(Record):
    """What is known of the source of a text, in nats a token; docs/STATISTICS.md explains each."""

    entropy_rate_nats: NonNegative
    unigram_entropy_nats: NonNegative
    probability_current: NonNegative
    reversible_excess_nats: NonNegative
    true_nats_per_token: dict[Split, NonNegative] = Field(min_length=2)
    """What the source itself scores on each split."""


class CellResult(Record):
    """`result.json`: one cell that is done or diverged."""

    format: Literal[1]
    cell_id: str
    arm: str
    seed: Count
    status: Literal["done", "diverged"]
    diverged: Divergence | None = None
    settings: dict[str, Any]
    vocab_size: Size
    parameters: CountedParameters
    pairing: Pairing
    training: Training
    evaluations: Evaluations | None = None
    signatures: dict[Split, dict[str, str]] | None = None
    quality: dict[Split, Quality] | None = None
    """Translation alone."""
    known_entropy: KnownEntropyRecord | None = None
    """Where the source of the text is known."""

    @model_validator(mode="after")
    def _status_fits_what_is_there(self) -> "CellResult":
        if self.status == "diverged" and self.diverged is None:
            raise ValueError("status is diverged, but `diverged` does not say where")
        if self.status == "done":
            evaluations = self.evaluations
            if evaluations is None or evaluations.best is None or evaluations.last is None:
                raise ValueError("status is done, but `evaluations` lacks the best or the last")
            if (evaluations.best.test is None) != (evaluations.last.test is None):
                raise ValueError("test is scored at one of the checkpoints alone")
            is_translated = self.settings.get("task") == "translation" and self.saw_test
            for split in self.splits:
                if not (self.signatures or {}).get(split):
                    raise ValueError(f"status is done, but `signatures.{split}` is missing")
                if is_translated and split not in (self.quality or {}):
                    raise ValueError(f"status is done, but `quality.{split}` is missing")
        return self

    @property
    def saw_test(self) -> bool:
        """Whether test was scored; of a cell that is done, a trial of a search alone lacks it."""
        return self.evaluation("best").test is not None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits on which a cell that is done was scored."""
        return ("valid", "test") if self.saw_test else ("valid",)

    def scores(self, split: Split, at: At) -> SplitScores:
        """Return the scores of one split at one checkpoint; only a cell that is done has them."""
        evaluation = self.evaluation(at)
        scores = evaluation.valid if split == "valid" else evaluation.test
        assert scores is not None, "a trial of a search is asked for valid alone"
        return scores

    def evaluation(self, at: At) -> Evaluation:
        """Return the final scores of one checkpoint; only a cell that is done has them."""
        evaluations = self.evaluations
        evaluation = None if evaluations is None else getattr(evaluations, at)
        assert isinstance(evaluation, Evaluation), "only a cell that is done has scores"
        return evaluation

    def signature(self, split: Split, metric: str) -> str:
        """Return the line that says how a metric was computed, or "" where none was recorded."""
        return (self.signatures or {}).get(split, {}).get(metric, "")


class Performance(Record):
    """`performance.json`: times, rates and memory of one cell, and what trained it."""

    train_seconds: NonNegative | None = None
    train_tokens_per_second: NonNegative | None = None
    evaluation_seconds: NonNegative | None = None
    final_evaluation_seconds: NonNegative | None = None
    peak_memory_bytes: Count | None = None
    start_up_seconds: NonNegative | None = None
    processors: list[str] = []  # in the order in which they worked on it; or GPUs

    @property
    def seconds(self) -> float:
        """Training and evaluation together, as far as they were recorded."""
        parts = (self.train_seconds, self.evaluation_seconds, self.final_evaluation_seconds)
        return sum(part or 0.0 for part in parts)


class LedgerRowRecord(Record):
    """One component of the ledger."""

    component: str
    parameters: Count
    share: NonNegative
    forward_flops_per_token: Count


class LedgerRecord(Record):
    """The account of parameters, bytes and FLOPs of one arm."""

    vocab_size: Size
    d_model: Size
    tying: str
    rows: list[LedgerRowRecord] = Field(min_length=1)
    total: Count
    non_embedding: Count
    checkpoint_bytes: Count
    optimizer_bytes: Count
    training_memory_bytes: Count
    forward_flops_per_token: Count
    source_vocab_size: Size | None = None

    @model_validator(mode="after")
    def _rows_sum_to_the_total(self) -> "LedgerRecord":
        counted = sum(row.parameters for row in self.rows)
        if counted != self.total:
            raise ValueError(f"rows hold {counted:,} parameters, but total is {self.total:,}")
        return self


class MatchRecord(Record):
    """How a budget-matched arm was solved."""

    by: str
    value: int
    parameters_of: str
    target_parameters: Count
    parameters: Count
    difference: int


class ArmRecord(Record):
    """One arm as the manifest keeps it."""

    order: Count
    settings: dict[str, Any]
    match: MatchRecord | None = None
    ledger: LedgerRecord


class PlanRecord(Record):
    """One start of the experiment: the cells it planned, and whether results were there already."""

    seeds: list[Count]
    arms: list[str]
    after_results: bool = False


class SettingRecord(Record):
    """One setting of a search: its name, and every searched key with its value."""

    name: str
    values: dict[str, float] = Field(min_length=1)


class SearchPlan(Record):
    """One start of a search that changed it, and whether results of contrasts were there."""

    settings: list[str]
    seeds: list[Count]
    shared: Literal["own", "baseline-best"]
    after_results: bool = False


class TuningRecord(Record):
    """The search of a run as of its newest start: every setting is a trial at every seed."""

    shared: Literal["own", "baseline-best"]
    budget: dict[str, Any] | None = None
    settings: list[SettingRecord] = Field(min_length=1)
    seeds: list[Count] = Field(min_length=1)
    plans: list[SearchPlan] = Field(min_length=1)

    @model_validator(mode="after")
    def _settings_are_of_one_grid(self) -> "TuningRecord":
        keys = self.settings[0].values.keys()
        names = {setting.name for setting in self.settings}
        if len(names) < len(self.settings):
            raise ValueError("two settings have one name")
        if any(setting.values.keys() != keys for setting in self.settings):
            raise ValueError("its settings do not search the same keys")
        if any(not names.issuperset(plan.settings) for plan in self.plans):
            raise ValueError("plans name a setting that is not one of the settings")
        return self


class OverlapRecord(Record):
    """What source and target have in common on the pairs that were trained on (`data.overlap`)."""

    source_rows: Count
    target_rows: Count
    shared_rows: Count | None
    """Null where each side has a vocabulary of its own."""
    shared_target_tokens: Annotated[float, Field(ge=0, le=1)]
    source_tokens_per_word: NonNegative
    target_tokens_per_word: NonNegative


class PairCounts(Record):
    """Pairs of a split: those that are used, and those that were dropped, by reason."""

    pairs: Count
    empty_pairs: Count
    long_pairs: Count


class PairsRecord(Record):
    """What the manifest of a run that translates says of its data."""

    overlap: OverlapRecord
    splits: dict[str, PairCounts]


class Manifest(Record):
    """`manifest.json`: what the run is, and which cells were planned."""

    format: Literal[1]
    run_id: str
    name: str
    task: str
    baseline: str
    margin: Annotated[float, Field(gt=0)]
    vocab_size: Size
    source_vocab_size: Size | None = None
    """Translation alone: tokens of the source's vocabulary, which may be the same one."""
    arms: dict[str, ArmRecord] = Field(min_length=1)
    plans: list[PlanRecord]
    tuning: TuningRecord | None = None
    hardware: Any = None
    """What the run was made on, of any shape."""
    data: Any = None
    """What was trained on, of any shape; of pairs a `PairsRecord`."""

    @property
    def processor(self) -> str | None:
        """The processor that the run was made on, where it says."""
        name = self.hardware.get("processor") if isinstance(self.hardware, dict) else None
        return name if isinstance(name, str) else None

    @model_validator(mode="after")
    def _names_refer_to_arms(self) -> "Manifest":
        if self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is not one of the arms")
        for plan in self.plans:
            for arm in plan.arms:
                if arm not in self.arms:
                    raise ValueError(f"plans name the arm {arm!r}, which is not one of the arms")
        return self
