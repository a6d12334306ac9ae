"""An encoder-decoder Transformer for translation (Vaswani et al. 2017), of the language model's layers.

It reads top to bottom: encode the source, decode the target that looks at it, head loss. Training
and decoding run the same code: keys and values of the source are computed once for all target
positions, and `Decoding` keeps those of the target from one position to the next. Padding changes
no sentence: no position attends to it, and no loss counts it. What the three vocabulary matrices
share is `tying`'s business alone.

Shapes: B sentences, S source positions, T target positions, D d_model, V target vocabulary,
R rows of a decoding step, N = B * T tokens.
"""  # noqa: E501

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tyro_cli.config.schema import ModelConfig
from tyro_cli.models.head_loss import IGNORED, head_loss, target_nats
from tyro_cli.models.initialization import initialize
from tyro_cli.models.layers import (
    Block,
    Cache,
    Dropout,
    Source,
    embed,
    fixed_positions,
    make_final_norm,
    padding_mask,
)
from tyro_cli.models.shapes import padding_of
from tyro_cli.models.tying import (
    VocabularyMatrix,
    make_head,
    make_source_embedding,
    softmax_matrix,
    source_matrix,
)


class Encoder(nn.Module):
    """The blocks that read the source."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.resolved_encoder_layers))
        self.final_norm = make_final_norm(config)

    def forward(
        self, x_BSD: Tensor, rotary_2SK: Tensor | None, mask_B11S: Tensor, dropout: Dropout | None
    ) -> Tensor:
        """Return `[B, S, D]`; what it holds at padding means nothing."""
        for block in self.blocks:
            x_BSD = block(x_BSD, rotary_2SK, dropout, mask_B11S)
        return self.final_norm(x_BSD)


class Decoder(nn.Module):
    """The blocks that read the target and look at the source."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(config, has_source=True) for _ in range(config.num_layers)
        )
        self.final_norm = make_final_norm(config)

    def sources(self, encoded_BSD: Tensor, mask_B11S: Tensor) -> list[Source]:
        """Return what each block sees of the encoded source."""
        return [
            cast(Block, block).cross_attention.source(encoded_BSD, mask_B11S)
            for block in self.blocks
        ]

    def forward(
        self,
        x_BTD: Tensor,
        rotary_2TK: Tensor | None,
        sources: list[Source],
        dropout: Dropout | None,
        caches: list[Cache] | None = None,
    ) -> Tensor:
        """Return `[B, T, D]`; with caches `x_BTD` is the position that follows what they hold."""
        for index, block in enumerate(self.blocks):
            cache = None if caches is None else caches[index]
            x_BTD = block(x_BTD, rotary_2TK, dropout, source=sources[index], cache=cache)
        return self.final_norm(x_BTD)


class TranslationModel(nn.Module):
    """The model of one arm.

    Args:
        config: Family, widths, positions, dropout, tying and scales.
        source_vocab_size: Tokens of the source's vocabulary; with three-way tying that is V.
        vocab_size: V, at least 2.
        context_length: The most positions of a sentence, on either side.
    """

    sinusoids_TD: Tensor | None
    rotary_2TK: Tensor | None

    def __init__(
        self, config: ModelConfig, source_vocab_size: int, vocab_size: int, context_length: int
    ) -> None:
        super().__init__()
        assert config.tying != "three-way" or source_vocab_size == vocab_size
        self.config = config
        self.context_length = context_length
        self.source_embedding = make_source_embedding(
            config.tying, source_vocab_size, config.d_model
        )
        self.embedding = VocabularyMatrix(vocab_size, config.d_model)
        self.source_positions: VocabularyMatrix | None = None
        self.positions: VocabularyMatrix | None = None
        if config.resolved_positions == "learned":
            self.source_positions = VocabularyMatrix(context_length, config.d_model)
            self.positions = VocabularyMatrix(context_length, config.d_model)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.head = make_head(config.tying, vocab_size, config.d_model)
        self.embedding_factor = config.d_model**0.5 if config.embedding_scale == "sqrt_d" else 1.0
        self.head_factor = config.d_model**-0.5 if config.head_scale == "inverse_sqrt_d" else 1.0
        sinusoids_TD, rotary_2TK = fixed_positions(config, context_length)
        self.register_buffer("sinusoids_TD", sinusoids_TD, persistent=False)
        self.register_buffer("rotary_2TK", rotary_2TK, persistent=False)

    def encode(
        self, source_BS: Tensor, mask_B11S: Tensor, dtype: torch.dtype, dropout: Dropout | None
    ) -> Tensor:
        """Return the encoded source `[B, S, D]` in `dtype`; the mask is a `padding_mask`."""
        own = self.source_positions
        places_TD = self.sinusoids_TD if own is None else own.weight
        x_BSD = embed(source_BS, source_matrix(self), self.embedding_factor, places_TD).to(dtype)
        if dropout is not None:
            x_BSD = dropout(x_BSD, self.config.dropouts.embedding)
        return self.encoder(x_BSD, self.rotary_2TK, mask_B11S, dropout)

    def decode(
        self,
        tokens_BT: Tensor,
        sources: list[Source],
        dtype: torch.dtype,
        dropout: Dropout | None,
        caches: list[Cache] | None = None,
        first: int = 0,
    ) -> Tensor:
        """Return the hidden states `[B, T, D]` that enter the head, in `dtype`.

        Args:
            tokens_BT: int64 target tokens from position `first` on.
            sources: What each block sees of the source.
            dtype: What products run in.
            dropout: The masks of this pass in training, else None.
            caches: What each block read before `first`; T is then 1.
            first: The place of the first token.
        """
        last = first + tokens_BT.shape[1]
        places_TD = self.sinusoids_TD if self.positions is None else self.positions.weight
        places_TD = None if places_TD is None else places_TD[first:last]
        rotary_2TK = None if self.rotary_2TK is None else self.rotary_2TK[:, first:last]
        x_BTD = embed(tokens_BT, self.embedding.weight, self.embedding_factor, places_TD).to(dtype)
        if dropout is not None:
            x_BTD = dropout(x_BTD, self.config.dropouts.embedding)
        x_BTD = self.decoder(x_BTD, rotary_2TK, sources, dropout, caches)
        if dropout is not None:
            x_BTD = dropout(x_BTD, self.config.dropouts.output)
        return x_BTD if self.head_factor == 1.0 else x_BTD * self.head_factor

    def hidden(
        self,
        source_BS: Tensor,
        source_lengths_B: Tensor,
        target_in_BT: Tensor,
        dtype: torch.dtype,
        dropout: Dropout | None,
    ) -> Tensor:
        """Return the hidden states `[B, T, D]` that enter the head, in `dtype`.

        Args:
            source_BS: int64 source tokens; what stands behind a sentence's length is not read.
            source_lengths_B: int64, at least 1 each.
            target_in_BT: int64 target tokens, `<eos>` first; padding behind them is harmless.
            dtype: What products run in: `torch.float32` or `torch.bfloat16`.
            dropout: The masks of this pass in training, else None.
        """
        mask_B11S = padding_mask(source_lengths_B, source_BS.shape[1], dtype)
        encoded_BSD = self.encode(source_BS, mask_B11S, dtype, dropout)
        sources = self.decoder.sources(encoded_BSD, mask_B11S)
        return self.decode(target_in_BT, sources, dtype, dropout)

    def loss(
        self,
        source_BS: Tensor,
        source_lengths_B: Tensor,
        target_in_BT: Tensor,
        target_out_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        dropout: Dropout | None = None,
        label_smoothing: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Return what to minimise and the mean nats per target token, two float32 scalars.

        Only the first has a gradient, and only it is smoothed; see `head_loss`. `target_out_BT` is
        `IGNORED` at padding; the rest is as in `hidden`.
        """
        source_BS, target_in_BT, target_out_BT = self._padded(
            source_BS, target_in_BT, target_out_BT, dtype
        )
        hidden_BTD = self.hidden(source_BS, source_lengths_B, target_in_BT, dtype, dropout)
        return head_loss(
            hidden_BTD.flatten(0, 1),
            softmax_matrix(self),
            target_out_BT.flatten(),
            label_smoothing=label_smoothing,
        )

    def _padded(
        self, source_BS: Tensor, target_in_BT: Tensor, target_out_BT: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make both sides longer, where lengths that come again cost less (`shapes`)."""

        def longer(tokens: Tensor, padding_id: int) -> Tensor:
            room = self.context_length - tokens.shape[1]
            assert room >= 0
            padding = padding_of(tokens.shape[1], tokens.device, dtype)
            return F.pad(tokens, (0, min(padding, room)), value=padding_id)

        return longer(source_BS, 0), longer(target_in_BT, 0), longer(target_out_BT, IGNORED)

    @torch.no_grad()
    def nats(
        self,
        source_BS: Tensor,
        source_lengths_B: Tensor,
        target_in_BT: Tensor,
        target_out_BT: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the nats `[B, T]` (float32) of every target token, unsmoothed, 0 at padding."""
        length = target_out_BT.shape[1]
        source_BS, target_in_BT, target_out_BT = self._padded(
            source_BS, target_in_BT, target_out_BT, dtype
        )
        hidden_BTD = self.hidden(source_BS, source_lengths_B, target_in_BT, dtype, None)
        targets_N = target_out_BT.flatten()
        nats_N = target_nats(hidden_BTD.flatten(0, 1), softmax_matrix(self), targets_N)
        nats_BT = nats_N.masked_fill_(targets_N == IGNORED, 0.0).view(target_out_BT.shape)
        return nats_BT[:, :length]


class Decoding:
    """Targets being written to a batch of sources, one token at a time.

    Rows stand side by side by sentence, equally many each: R is a multiple of B. Keys and values of
    target positions are kept a row, those of the source a sentence, so hypotheses of one sentence
    share them.

    Args:
        model: Where it lies decides the device.
        source_BS: int64 source tokens.
        source_lengths_B: int64, at least 1 each.
        dtype: What products run in.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: TranslationModel,
        source_BS: Tensor,
        source_lengths_B: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model, self.dtype, self.length = model, dtype, 0
        mask_B11S = padding_mask(source_lengths_B, source_BS.shape[1], dtype)
        encoded_BSD = model.encode(source_BS, mask_B11S, dtype, None)
        self.sources = model.decoder.sources(encoded_BSD, mask_B11S)
        self.caches = [Cache() for _ in self.sources]

    @torch.no_grad()
    def step(self, tokens_R: Tensor) -> Tensor:
        """Read each row's next token and return the log probabilities `[R, V]` of what follows.

        They are float32, or float64 where `dtype` is.
        """
        tokens_R1 = tokens_R.to(self.model.embedding.weight.device).unsqueeze(1)
        hidden_R1D = self.model.decode(
            tokens_R1, self.sources, self.dtype, None, self.caches, self.length
        )
        self.length += 1
        logits_RV = hidden_R1D[:, 0] @ softmax_matrix(self.model).to(self.dtype).t()
        precise = torch.promote_types(self.dtype, torch.float32)
        return torch.log_softmax(logits_RV, dim=-1, dtype=precise)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        """Go on with these rows, and these sentences (None: all of them), in this order."""
        for cache in self.caches:
            cache.select(rows)
        if sentences is not None:
            self.sources = [
                Source(*(part[sentences] for part in source)) for source in self.sources
            ]


def build_translation_model(
    config: ModelConfig, source_vocab_size: int, vocab_size: int, context_length: int, seed: int
) -> TranslationModel:
    """Return a model with the initial values of `seed` (see `initialization`)."""
    model = TranslationModel(config, source_vocab_size, vocab_size, context_length)
    initialize(model, config, seed)
    return model
