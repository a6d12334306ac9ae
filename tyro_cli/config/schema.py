"""What an experiment file may say: one frozen model a section, one documented field a key.

The docstring under a field is its documentation: it becomes docs/CONFIG.md and the editor's hover
text. Unknown keys are forbidden and values are never coerced from another type, so a model that
exists is valid. Problems that concern several keys name those keys (see `values.refuse`); turning a
problem into a place in a file is left to `loading`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from tyro_cli.config.paths import value_at, without
from tyro_cli.config.seeds import LARGEST_SEED
from tyro_cli.config.values import (
    FolderName,
    Name,
    Number,
    Probability,
    Seeds,
    SplitName,
    Text,
    Truth,
    Whole,
    refuse,
    tuple_from_list,
)

# The 256 bytes and `<eos>`: all of `byte`, and what `bpe` and `unigram` start from.
BYTE_VOCAB_SIZE = 257

# What an arm may change and a level of a study may set; the rest is one for the whole experiment.
SECTIONS_OF_AN_ARM = ("data", "model", "training", "evaluation")

# The built-in corpus that `data.synthetic` describes.
SYNTHETIC = "synthetic"

# What else lies in a run folder beside the arms: an arm of that name would collide.
RESERVED_ARM_NAMES = frozenset(
    {
        "tables",
        "plots",
        "trials",
        "tuned",
        "experiment.yaml",
        "resolved.yaml",
        "manifest.json",
        "probes.json",
        "tokenizer.json",
        "source-tokenizer.json",
        "report.html",
        "tags.json",
    }
)


class Section(BaseModel):
    """A part of the configuration: frozen, without unknown keys, documented under each field."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=False,
        protected_namespaces=(),
    )


class SplitNames(Section):
    """Which file stems (or split names on the hub) hold the three splits."""

    train: SplitName = "train"
    """Stem of the training split's file, for example `train` for `train.txt`."""

    valid: SplitName = "valid"
    """Stem of the validation split's file; the best checkpoint is chosen on it."""

    test: SplitName = "test"
    """Stem of the test split's file; the reported numbers are measured on it."""


class TokenizerConfig(Section):
    """The tokenizer, trained on the whole training split and on nothing else."""

    kind: Literal["bpe", "unigram", "word", "byte"]
    """`bpe`: byte-level BPE; `unigram`: unigram model over bytes; `word`: whitespace words, one
    `<eos>` a line; `byte`: the 256 bytes and `<eos>`."""

    vocab_size: Annotated[Whole, Field(ge=3, le=2**24)] | None = None
    """Number of token types, `<eos>` included. Needed for `bpe` and `unigram` (258 or more);
    optional for `word`, where it must equal the corpus's own count; 257 or absent for `byte`."""

    sharing: Literal["joint", "separate"] | None = None
    """Translation: `joint`: one vocabulary for source and target, trained on both; `separate`: one
    each, both of this kind and size. Left out: `joint`."""

    @model_validator(mode="after")
    def _fits_kind(self) -> "TokenizerConfig":
        size = self.vocab_size
        keys = ("vocab_size", "kind")
        if self.kind in ("bpe", "unigram"):
            if size is None:
                refuse([(keys, f"is missing; the tokenizer {self.kind} needs it")])
            elif size <= BYTE_VOCAB_SIZE:
                smallest = BYTE_VOCAB_SIZE + 1
                refuse(
                    [
                        (
                            keys,
                            f"must be at least {smallest} for {self.kind} "
                            f"(256 bytes, <eos> and what is learned), not {size}",
                        )
                    ]
                )
        elif self.kind == "byte" and size not in (None, BYTE_VOCAB_SIZE):
            refuse([(keys, f"must be {BYTE_VOCAB_SIZE} or absent for byte, not {size}")])
        return self


class Languages(Section):
    """The two sides of a parallel corpus, as its files or columns name them."""

    source: SplitName
    """What is translated from: the suffix of its files, for example `en` for `train.en`, or its
    key in the column `translation`."""

    target: SplitName
    """What is translated into."""

    @model_validator(mode="after")
    def _two(self) -> "Languages":
        if self.source == self.target:
            refuse([(("target", "source"), f"is the source language too: {self.target}")])
        return self


class TargetScript(Section):
    """A controlled transform: some words of the target get letters that the source never uses."""

    disjoint_fraction: Annotated[Number, Field(ge=0.0, le=1.0)]
    """Fraction of the target's word types whose letters are mapped to a disjoint alphabet; a
    smaller fraction lies inside a larger one. Quality is computed after mapping back."""


class SyntheticConfig(Section):
    """The chain that the corpus `synthetic` is drawn from: a stationary bigram chain on V states.

    Its transitions are softmax(t E M E^T), where E has random rows of length 1 and M turns them by
    an angle; t is solved for the entropy rate. docs/STATISTICS.md says what is known of it.
    """

    states: Annotated[Whole, Field(ge=4, le=256)]
    """V, the number of states, each of which is one word; the first is the end of a line."""

    rank: Annotated[Whole, Field(ge=2, le=256)] = 8
    """Columns of E; even, and at most the states."""

    irreversibility: Annotated[Number, Field(ge=0.0, le=1.0)]
    """The angle of M in quarter turns: 0 is a reversible chain; the probability current grows with
    it."""

    entropy_fraction: Annotated[Number, Field(ge=0.1, le=0.95)] = 0.5
    """Entropy rate as a fraction of ln V: equal on all chains that share it and the states."""

    train_tokens: Annotated[Whole, Field(ge=100, le=20_000_000)]
    """Tokens of the training split, to the end of the line; fewer are the beginning of more."""

    heldout_tokens: Annotated[Whole, Field(ge=100, le=20_000_000)]
    """Tokens of valid, and of test, to the end of the line."""

    seed: Annotated[Whole, Field(ge=0, le=LARGEST_SEED)] = 0
    """Keys E and all draws; chains that differ in irreversibility alone have the same E."""

    @model_validator(mode="after")
    def _rank_fits(self) -> "SyntheticConfig":
        keys = ("rank", "states")
        if self.rank % 2:
            refuse([(keys, f"must be even, not {self.rank} (M turns pairs of columns)")])
        if self.rank > self.states:
            refuse([(keys, f"{self.rank} is more than states ({self.states})")])
        return self


class DataConfig(Section):
    """The corpus, its tokenizer and the length of a training window."""

    corpus: Text
    """A built-in name (`kjv`, `synthetic`; for translation `kjv-web`),
    `hf:OWNER/NAME[:CONFIG][@REVISION]`, or a folder, taken from the current directory where it is
    relative."""

    synthetic: SyntheticConfig | None = None
    """The chain that the corpus `synthetic` is drawn from; for that corpus alone."""

    splits: SplitNames = SplitNames()
    """Names of the splits, where the corpus names them otherwise."""

    languages: Languages | None = None
    """Translation: the two sides. Left out: those of the built-in corpus (`kjv-web`: from `kjv` to
    `web`)."""

    format: Literal["plain", "wikitext"] = "plain"
    """What a document is, and whether `<eos>` counts as a word: `plain` takes blocks between blank
    lines (chapters for `kjv`); `wikitext` takes articles, and counts one `<eos>` a line."""

    tokenizer: TokenizerConfig
    """The tokenizer and its vocabulary."""

    context_length: Annotated[Whole, Field(ge=2, le=131_072)]
    """Length of a window in tokens: what the model sees at once. Translation: the most tokens of a
    sentence, its `<eos>` included, on either side."""

    unusable_pairs: Literal["drop", "refuse"] | None = None
    """Translation: what becomes of pairs with an empty side, or with more than context_length
    tokens on a side: `drop` counts them by split and goes on, `refuse` names the first one and
    stops. Left out: `drop`."""

    target_script: TargetScript | None = None
    """Translation: write a part of the target in a script of its own. Left out: the text as it
    is."""

    train_fraction: Annotated[Number, Field(gt=0.0, le=1.0)] = 1.0
    """Fraction of the training tokens that is used, in whole documents; a smaller fraction lies
    inside a larger one. The tokenizer always sees the whole training split."""

    @property
    def disjoint_fraction(self) -> float:
        """The fraction of the target's word types written in a script of its own."""
        return 0.0 if self.target_script is None else self.target_script.disjoint_fraction


class DropoutConfig(Section):
    """Dropout probabilities by place; all three are written."""

    embedding: Probability
    """Probability on the sum of token and position embedding."""

    residual: Probability
    """Probability on what attention and feed-forward add to the residual stream."""

    output: Probability
    """Probability on the hidden state that enters the head."""


def _dropout_kind(value: object) -> str:
    return "map" if isinstance(value, Mapping | DropoutConfig) else "number"


class ModelConfig(Section):
    """The Transformer, and how its input embedding and its softmax matrix relate."""

    family: Literal["llama", "gpt2"] = "llama"
    """`llama`: RMSNorm, rotary positions, SwiGLU, no biases; `gpt2`: LayerNorm, learned positions,
    GELU, biases."""

    d_model: Annotated[Whole, Field(ge=1, le=65_536)]
    """Width of the residual stream and of the embeddings."""

    num_layers: Annotated[Whole, Field(ge=0, le=1024)]
    """Number of blocks, in translation of the decoder; 0 leaves embedding, final norm and head."""

    num_encoder_layers: Annotated[Whole, Field(ge=1, le=1024)] | None = None
    """Translation: number of blocks of the encoder. Left out: num_layers."""

    num_heads: Annotated[Whole, Field(ge=1, le=4096)]
    """Number of attention heads; divides d_model, and with rotary positions leaves an even size."""

    d_ff: Annotated[Whole, Field(ge=1, le=1_048_576)] | None = None
    """Width of the feed-forward layer. Left out: 8/3 of d_model rounded up to a multiple of 16 for
    `llama`, 4 times d_model for `gpt2`."""

    dropout: Annotated[
        Annotated[Probability, Tag("number")] | Annotated[DropoutConfig, Tag("map")],
        Discriminator(_dropout_kind),
    ] = 0.0
    """Dropout probability: one number for all three places, or a map of `embedding`, `residual`
    and `output`."""

    positions: Literal["learned", "rotary", "sinusoidal"] | None = None
    """How a token's place is told: `learned` vectors or fixed `sinusoidal` ones are added to the
    embedding, `rotary` turns query and key. Left out: `rotary` for `llama`, `learned` for
    `gpt2`."""

    norm_place: Literal["pre", "post"] = "pre"
    """`pre`: every sublayer normalises what it reads, and a last norm follows the blocks; `post`:
    what a sublayer adds to is normalised after it, and there is no last norm."""

    final_norm: Truth = True
    """Whether a norm stands between the last block and the softmax (`norm_place: pre` alone); false
    leaves nothing between them, and with num_layers 0 nothing between embedding and softmax."""

    tying: Literal["none", "in-out", "three-way"] = "none"
    """`in-out`: one matrix is both the input embedding (of the decoder) and the softmax matrix;
    `three-way` (translation, joint vocabulary): the encoder's input embedding too; `none`: a matrix
    each."""

    tied_role: Literal["embedding", "head"] = "head"
    """Whose rate and decay multipliers the shared matrix takes (training.optimizer.roles)."""

    embedding_scale: Literal["none", "sqrt_d"] = "none"
    """`sqrt_d` multiplies token embeddings by the square root of d_model."""

    head_scale: Literal["none", "inverse_sqrt_d"] = "none"
    """`inverse_sqrt_d` divides the logits by the square root of d_model."""

    embedding_std: Annotated[Number, Field(gt=0.0, le=10.0)] | None = None
    """Standard deviation of the initial embedding and head. Left out: min(0.02, 2.5 / d_model),
    in every arm."""

    @property
    def dropouts(self) -> DropoutConfig:
        """The dropout probabilities of the three places."""
        if isinstance(self.dropout, DropoutConfig):
            return self.dropout
        return DropoutConfig(embedding=self.dropout, residual=self.dropout, output=self.dropout)

    @property
    def has_final_norm(self) -> bool:
        """Whether a norm follows the last block of a stack."""
        return self.final_norm and self.norm_place == "pre"

    @property
    def resolved_positions(self) -> str:
        """How a token's place is told, with the family's default where it is left out."""
        return self.positions or ("learned" if self.family == "gpt2" else "rotary")

    @property
    def resolved_encoder_layers(self) -> int:
        """The blocks of the encoder, in translation."""
        return self.num_layers if self.num_encoder_layers is None else self.num_encoder_layers

    @property
    def resolved_d_ff(self) -> int:
        """The feed-forward width, with the family's default where none is given."""
        if self.d_ff is not None:
            return self.d_ff
        if self.family == "gpt2":
            return 4 * self.d_model
        return -(-8 * self.d_model // (3 * 16)) * 16

    @property
    def resolved_embedding_std(self) -> float:
        """The initial standard deviation of embedding and head, with its default.

        A tied model gives the token just read a logit of up to `std * d_model`.
        """
        if self.embedding_std is not None:
            return self.embedding_std
        return min(0.02, 2.5 / self.d_model)

    @model_validator(mode="after")
    def _final_norm_fits(self) -> "ModelConfig":
        if not self.final_norm and self.norm_place == "post":
            message = "takes out the norm behind the last block; post has none there: take it out"
            refuse([(("final_norm", "norm_place"), message)])
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> "ModelConfig":
        head_size, rest = divmod(self.d_model, self.num_heads)
        keys = ("num_heads", "d_model", "positions", "family")
        if rest:
            divisors = [n for n in range(1, self.d_model + 1) if self.d_model % n == 0]
            nearest = min(divisors, key=lambda n: (abs(n - self.num_heads), n))
            refuse(
                [
                    (
                        keys,
                        f"{self.num_heads} heads do not divide d_model {self.d_model}; "
                        f"{nearest} would",
                    )
                ]
            )
        if self.resolved_positions == "rotary" and head_size % 2:
            where = "for llama " if self.positions is None else ""
            refuse(
                [
                    (
                        keys,
                        f"the head size d_model / num_heads = {head_size} must be even {where}"
                        "(rotary positions turn pairs of numbers)",
                    )
                ]
            )
        return self


class Budget(Section):
    """How long a cell trains: exactly one of the three."""

    tokens: Annotated[Whole, Field(ge=1, le=10**15)] | None = None
    """Training tokens, in translation of both sides without padding; at least one whole step."""

    epochs: Annotated[Number, Field(gt=0.0, le=1e6)] | None = None
    """Passes over the training tokens, in whole steps; may be fractional."""

    steps: Annotated[Whole, Field(ge=1, le=10**12)] | None = None
    """Optimiser steps."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Budget":
        given = [key for key in BUDGET_KEYS if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            refuse([((), f"exactly one of {', '.join(BUDGET_KEYS)}; found {found}")])
        return self


BUDGET_KEYS = ("tokens", "epochs", "steps")


class RoleMultipliers(Section):
    """What one role's parameters multiply the optimiser's settings by."""

    rate: Annotated[Number, Field(ge=0.0, le=1000.0)] = 1.0
    """Multiplies the learning rate."""

    decay: Annotated[Number, Field(ge=0.0, le=1000.0)] = 1.0
    """Multiplies the weight decay."""


class VectorMultipliers(RoleMultipliers):
    """The multipliers of one-dimensional parameters, which are not decayed by default."""

    decay: Annotated[Number, Field(ge=0.0, le=1000.0)] = 0.0
    """Multiplies the weight decay."""


class Roles(Section):
    """Rate and decay multipliers by the role of a parameter."""

    embedding: RoleMultipliers = RoleMultipliers()
    """Token embedding and learned positions (and the shared matrix, if tied_role says so)."""

    head: RoleMultipliers = RoleMultipliers()
    """The softmax matrix (and the shared matrix, unless tied_role says otherwise)."""

    matrices: RoleMultipliers = RoleMultipliers()
    """The matrices of attention and feed-forward."""

    vectors: VectorMultipliers = VectorMultipliers()
    """Norm gains and all biases."""


class OptimizerConfig(Section):
    """The optimiser and its settings."""

    kind: Literal["adamw"] = "adamw"
    """The optimiser: AdamW."""

    learning_rate: Annotated[Number, Field(gt=0.0, le=100.0)]
    """Peak learning rate, reached at the end of the warm-up."""

    weight_decay: Annotated[Number, Field(ge=0.0, le=100.0)] = 0.1
    """Decoupled weight decay; each step shrinks a weight by learning rate times this."""

    beta1: Probability = 0.9
    """Decay of the running mean of the gradient."""

    beta2: Probability = 0.95
    """Decay of the running mean of its square."""

    epsilon: Annotated[Number, Field(gt=0.0, le=1.0)] = 1e-8
    """Added to the root of the second moment."""

    roles: Roles = Roles()
    """Multipliers by role."""


class ScheduleConfig(Section):
    """How the learning rate moves over the steps."""

    kind: Literal["cosine", "constant"] = "cosine"
    """`cosine` falls to final_fraction of the peak; `constant` stays after the warm-up."""

    warmup_fraction: Annotated[Number, Field(ge=0.0, le=1.0)] = 0.05
    """Fraction of the steps over which the rate rises linearly to its peak."""

    final_fraction: Annotated[Number, Field(ge=0.0, le=1.0)] = 0.1
    """The last rate as a fraction of the peak (`cosine` only)."""


class EarlyStopping(Section):
    """Stop before the budget is used when validation no longer improves."""

    patience: Annotated[Whole, Field(ge=1, le=10**6)]
    """Evaluations in a row without a new best validation loss before the cell stops."""


class TrainingConfig(Section):
    """Budget, batches, optimiser, schedule and arithmetic."""

    budget: Budget
    """How long to train."""

    batch_tokens: Annotated[Whole, Field(ge=2, le=10**9)]
    """Tokens in one optimiser step; a multiple of data.context_length. Translation: the most
    tokens of both sides together, padding included; room for one pair of the longest sentences."""

    micro_batch_tokens: Annotated[Whole, Field(ge=2, le=10**9)] | None = None
    """Tokens in one forward pass, gradients being accumulated; divides batch_tokens and is a
    multiple of data.context_length (translation: room for one pair of the longest sentences). Left
    out: the whole batch at once."""

    label_smoothing: Annotated[Number, Field(ge=0.0, lt=1.0)] | None = None
    """Translation: part of the target's probability that training spreads evenly over the
    vocabulary (Szegedy et al. 2016, section 7); every reported loss is without it. Left out: 0."""

    optimizer: OptimizerConfig
    """The optimiser."""

    schedule: ScheduleConfig = ScheduleConfig()
    """The learning-rate schedule."""

    gradient_clip: Annotated[Number, Field(gt=0.0, le=1e6)] | None = 1.0
    """Largest global gradient norm; null turns clipping off."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products; master weights are float32. `auto` takes bf16 where the
    hardware multiplies it faster than float32."""

    deterministic: Truth = True
    """Same bytes from the same start; false gives that promise up for speed, and is recorded."""

    compile: Truth = False
    """Language modelling: compile the blocks with torch.compile before the first step. That takes a
    minute and a C++ compiler (on a GPU: triton); no gain was seen on a CPU."""

    early_stopping: EarlyStopping | None = None
    """Stops when the valid loss no longer improves. Off unless given."""

    checkpoint_every_steps: Annotated[Whole, Field(ge=1, le=10**12)] | None = None
    """Steps between checkpoints. Left out: one at every evaluation."""

    @property
    def resolved_micro_batch_tokens(self) -> int:
        """Tokens of one forward pass: the whole batch where that is left out."""
        return self.micro_batch_tokens or self.batch_tokens


ROLE_GRADIENTS = "evaluation.role_gradients_every_steps"
"""The key that measures and changes no number: cells of one arm may differ in it."""


class EvaluationConfig(Section):
    """When validation runs, and how much context a scored token has."""

    every_steps: Annotated[Whole, Field(ge=1, le=10**12)] | None = None
    """Steps between evaluations on valid. Left out: a twentieth of all steps, at least 1."""

    stride: Annotated[Whole, Field(ge=1, le=131_072)] | None = None
    """Tokens scored in each window of the final sweep, at most data.context_length; equal to it
    means disjoint windows. Left out: half of context_length. Not for translation, where every
    sentence is scored as a whole."""

    beam_size: Annotated[Whole, Field(ge=1, le=100)] | None = None
    """Translation: hypotheses kept by the beam search of the final evaluation; 1 is greedy. Left
    out: 5."""

    length_penalty: Annotated[Number, Field(ge=0.0, le=10.0)] | None = None
    """Translation: finished hypotheses are ranked by log probability / length^this; 0 favours
    short ones. Left out: 1."""

    role_gradients_every_steps: Annotated[Whole, Field(ge=1, le=10**12)] | None = None
    """Steps between measurements of the gradients that word vectors get at the input and at the
    softmax, in translation with one vocabulary also at the encoder's input, each a pass of its own
    on a fixed part of valid, from the first step on; `wtie probe` shows them. It changes no number
    of training and is in no identity. Left out: none."""

    @property
    def resolved_beam_size(self) -> int:
        """Hypotheses kept at a time, 5 where that is left out."""
        return self.beam_size or 5

    @property
    def resolved_length_penalty(self) -> float:
        """The exponent of a hypothesis' length, 1 where that is left out."""
        return 1.0 if self.length_penalty is None else self.length_penalty


class AnalysisConfig(Section):
    """How the verdict is reached; nothing here changes training."""

    margin: Annotated[Number, Field(gt=0.0, le=1.0)] = 0.01
    """Equivalence margin, relative in word perplexity: 0.01 is 1 %, ln(1.01) nats a word."""


TunedKey = Literal[
    "training.optimizer.learning_rate",
    "training.optimizer.roles.embedding.rate",
    "training.optimizer.roles.embedding.decay",
    "training.optimizer.roles.head.rate",
    "training.optimizer.roles.head.decay",
    "training.optimizer.roles.matrices.rate",
    "training.optimizer.roles.matrices.decay",
    "training.optimizer.roles.vectors.rate",
    "training.optimizer.roles.vectors.decay",
]


class TuneConfig(Section):
    """A small search for learning rates, made for each arm by itself with the same trials."""

    grid: Annotated[
        dict[TunedKey, Annotated[tuple[Number, ...], BeforeValidator(tuple_from_list)]],
        Field(min_length=1),
    ]
    """What is tried, two or more values a key, for example `training.optimizer.learning_rate:
    [5e-4, 1e-3, 2e-3]`. A key is the learning rate, or `training.optimizer.roles.ROLE.rate` or
    `.decay`. Every combination is tried for every arm, so no arm may set such a key itself."""

    seeds: Seeds
    """The seeds of every trial; none of them may be a seed of the contrasts."""

    budget: Budget | None = None
    """How long a trial trains. Left out: as long as every other cell."""

    shared: Literal["own", "baseline-best"] = "own"
    """The setting that all arms share in the first contrast: `own` is what the experiment says,
    `baseline-best` what the search finds best for the baseline."""


class Settings(Section):
    """What one arm resolves to: everything that decides its numbers, except the seed."""

    task: Literal["language-modeling", "translation"]
    """What is trained."""

    data: DataConfig
    """The corpus, its tokenizer and the window."""

    model: ModelConfig
    """The model."""

    training: TrainingConfig
    """Budget, batches and optimiser."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluation."""

    @model_validator(mode="after")
    def _sections_fit(self) -> "Settings":
        refuse(
            problems_between_sections(
                self.task,
                self.data.context_length,
                self.training.batch_tokens,
                self.training.micro_batch_tokens,
                self.evaluation.stride,
            )
            + self._problems_of_task()
            + synthetic_problems(self.task, self.data)
        )
        return self

    @property
    def resolved_stride(self) -> int:
        """Tokens that a window of an evaluation scores: half of the context where left out."""
        return self.evaluation.stride or self.data.context_length // 2

    def as_record(self) -> dict[str, Any]:
        """Return plain values, as records keep them.

        Keys that came after the first records are left out where they are not given, so that what
        was recorded before and after is equal.
        """
        record = without_later_keys(self.model_dump(mode="json"))
        optional = (*TRANSLATION_KEYS, *KEYS_LEFT_OUT)
        return without(record, *(path for path in optional if value_at(record, path) is None))

    def _problems_of_task(self) -> list[tuple[tuple[str, ...], str]]:
        """Return the keys that the task has no use for, and what its data cannot carry."""
        problems: list[tuple[tuple[str, ...], str]] = []
        if self.task == "language-modeling":
            for path in TRANSLATION_KEYS:
                value: Any = self
                for key in path.split("."):
                    value = getattr(value, key)
                if value is not None:
                    problems.append(((path, "task"), "is for the task translation; take it out"))
            if self.model.tying == "three-way":
                message = "three-way ties an encoder too: the task must be translation"
                problems.append((("model.tying", "task"), message))
            return problems
        if self.model.tying == "three-way" and self.data.tokenizer.sharing == "separate":
            message = (
                "three-way needs one vocabulary for both sides, since a row is then a source token "
                "and a target token: set data.tokenizer.sharing: joint"
            )
            problems.append((("model.tying", "data.tokenizer.sharing"), message))
        if self.model.num_layers == 0:
            message = "a decoder without layers never looks at its source; set it to 1 or more"
            problems.append((("model.num_layers", "task"), message))
        if self.data.format != "plain":
            problems.append((("data.format", "task"), "translation reads lines; take it out"))
        if self.evaluation.stride is not None:
            message = "translation scores every sentence as a whole; take it out"
            problems.append((("evaluation.stride", "task"), message))
        if self.training.compile:
            message = "batches of translation have too many shapes to compile; take it out"
            problems.append((("training.compile", "task"), message))
        return problems


TRANSLATION_KEYS = (
    "data.languages",
    "data.tokenizer.sharing",
    "data.unusable_pairs",
    "data.target_script",
    "model.num_encoder_layers",
    "training.label_smoothing",
    "evaluation.beam_size",
    "evaluation.length_penalty",
)
"""Keys that translation alone has a use for; None where they are left out."""

KEYS_LEFT_OUT = ("data.synthetic", "model.positions", ROLE_GRADIENTS)
"""Keys that came after the first records: absent from a record where they are None."""

LATER_DEFAULTS = {"model.norm_place": "pre", "model.final_norm": True, "training.compile": False}
"""Keys that came later too, with what the program did before it had them."""


def without_later_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the later keys that say what the program did before."""
    same = [path for path, value in LATER_DEFAULTS.items() if value_at(record, path) == value]
    return without(record, *same)


def synthetic_problems(task: str, data: DataConfig) -> list[tuple[tuple[str, ...], str]]:
    """Check that the corpus `synthetic` has its chain and what reads it, and no other corpus does.

    Returns:
        What `values.refuse` takes.
    """
    if data.corpus != SYNTHETIC:
        message = f"is for the corpus {SYNTHETIC}; take it out"
        return [(("data.synthetic", "data.corpus"), message)] if data.synthetic else []
    problems: list[tuple[tuple[str, ...], str]] = []
    if data.synthetic is None:
        message = f"is missing; the corpus {SYNTHETIC} needs its chain, at least `states`, "
        message += "`irreversibility`, `train_tokens` and `heldout_tokens`"
        problems.append((("data.synthetic", "data.corpus"), message))
    if task != "language-modeling":
        message = f"{SYNTHETIC} is one text: the task must be language-modeling"
        problems.append((("data.corpus", "task"), message))
    if data.tokenizer.kind != "word":
        message = f"must be word for the corpus {SYNTHETIC}, where a state is a word and a token"
        problems.append((("data.tokenizer.kind", "data.corpus"), message))
    if data.train_fraction < 1:
        message = "set data.synthetic.train_tokens instead: fewer are the beginning of more"
        problems.append((("data.train_fraction", "data.corpus"), message))
    return problems


def problems_between_sections(
    task: str | None,
    context_length: int | None,
    batch_tokens: int | None,
    micro_batch_tokens: int | None,
    stride: int | None,
) -> list[tuple[tuple[str, ...], str]]:
    """Check what `data`, `training` and `evaluation` must agree on.

    Args:
        task: `task`; here and below None stands for a value that is left out or not valid by
            itself.
        context_length: `data.context_length`.
        batch_tokens: `training.batch_tokens`.
        micro_batch_tokens: `training.micro_batch_tokens`.
        stride: `evaluation.stride`.

    Returns:
        What `values.refuse` takes.
    """
    where = "data.context_length"
    problems: list[tuple[tuple[str, ...], str]] = []

    def check(key: str, other: str, is_wrong: bool, message: str) -> None:
        if is_wrong:
            problems.append(((key, other), message))

    if task == "translation":
        longest = 2 * context_length if context_length else None
        for key, tokens in (
            ("training.batch_tokens", batch_tokens),
            ("training.micro_batch_tokens", micro_batch_tokens),
        ):
            if longest and tokens:
                message = f"{tokens} has no room for two sentences of {where} ({context_length})"
                check(key, where, tokens < longest, f"{message}: at least {longest}")
        if batch_tokens and micro_batch_tokens:
            message = f"{micro_batch_tokens} is more than training.batch_tokens ({batch_tokens})"
            is_wrong = micro_batch_tokens > batch_tokens
            check("training.micro_batch_tokens", "training.batch_tokens", is_wrong, message)
        return problems
    if context_length and batch_tokens:
        nearest = max(1, round(batch_tokens / context_length)) * context_length
        message = f"{batch_tokens} is not a multiple of {where} ({context_length}); {nearest} is"
        check("training.batch_tokens", where, batch_tokens % context_length != 0, message)
    if context_length and micro_batch_tokens:
        message = f"{micro_batch_tokens} is not a multiple of {where} ({context_length})"
        is_wrong = micro_batch_tokens % context_length != 0
        check("training.micro_batch_tokens", where, is_wrong, message)
    if batch_tokens and micro_batch_tokens:
        message = f"{micro_batch_tokens} does not divide training.batch_tokens ({batch_tokens})"
        is_wrong = batch_tokens % micro_batch_tokens != 0
        check("training.micro_batch_tokens", "training.batch_tokens", is_wrong, message)
    if context_length and stride:
        message = f"{stride} is more than {where} ({context_length}); some tokens would be skipped"
        check("evaluation.stride", where, stride > context_length, message)
    return problems


class Match(Section):
    """Give an arm the parameter count of another one (`match` in an arm)."""

    parameters_of: Text
    """The arm whose number of parameters is to be met."""

    by: Literal["d_ff", "d_model", "num_layers"]
    """The key that is solved for; the closest whole number is taken, and the rest is printed."""


class Arm(Section):
    """A named variant of the base, resolved."""

    name: Name
    """The arm's name."""

    settings: Settings
    """The base with the arm's overrides; a match is not solved yet."""

    overrides: dict[str, Any] = {}
    """What the file says of this arm, without `match`."""

    match: Match | None = None
    """The budget match that the arm asks for."""


class Experiment(Section):
    """One experiment file: a base configuration, its arms and its seeds."""

    name: FolderName
    """Name of the experiment, the first half of its run folder's name: letters, digits, `.`, `_`
    and `-`."""

    task: Literal["language-modeling", "translation"]
    """What is trained: `language-modeling`, a decoder that continues a text; `translation`, an
    encoder and a decoder."""

    data: DataConfig
    """The corpus, its tokenizer and the window."""

    model: ModelConfig
    """The base model."""

    training: TrainingConfig
    """Budget, batches, optimiser, schedule and arithmetic."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """When and how evaluation runs."""

    analysis: AnalysisConfig = AnalysisConfig()
    """How the verdict is reached."""

    tune: TuneConfig | None = None
    """A search for learning rates that are fair to each arm: tables then show the contrast at the
    shared setting and at each arm's best. Off unless given."""

    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """The variants to compare: for each arm a name and what it changes in `model`, `training` or
    `evaluation`; `{}` is the base as it stands. `match: {parameters_of: ARM, by: KEY}` solves one
    model key so that the arm has as many parameters as another arm."""

    baseline: Text
    """The arm that the others are compared with."""

    seeds: Seeds
    """The replicates: a list of whole numbers, or text such as `0-4` or `0-2,5`."""

    allow_differences: Annotated[tuple[Text, ...], BeforeValidator(tuple_from_list)] = ()
    """Keys besides `model.tying` in which arms may differ from the baseline, dotted, for example
    `training.optimizer.learning_rate`; a section allows every key below it. Some are shared in any
    case: all of `data`, the batch, the arithmetic and `model.embedding_std`; they can be factors of
    a study."""

    @field_validator("arms", mode="after")
    @classmethod
    def _arm_names_fit(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        problems: list[tuple[tuple[str, ...], str]] = []
        seen: dict[str, str] = {}
        for name in arms:
            folded = name.casefold()
            if folded in RESERVED_ARM_NAMES:
                problems.append(((name,), "is the name of something else in a run folder"))
            elif folded in seen:
                other = seen[folded]
                problems.append(
                    ((name,), f"differs from the arm '{other}' by upper and lower case alone")
                )
            seen.setdefault(folded, name)
        refuse(problems)
        return arms
