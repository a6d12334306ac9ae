"""A decoder-only Transformer language model, families `llama` and `gpt2`.

It reads top to bottom: embed, blocks, norm, head loss. The model never materialises all logits;
`logits` exists for generation. What embedding and head share is `tying`'s business alone.

Shapes: B batch, T positions, D d_model, V vocabulary, N = B * T tokens.
"""

import torch
from torch import Tensor, nn

from tyro_cli.config.schema import ModelConfig
from tyro_cli.models.head_loss import head_loss, target_nats
from tyro_cli.models.initialization import initialize
from tyro_cli.models.layers import Block, Dropout, embed, fixed_positions, make_final_norm
from tyro_cli.models.tying import VocabularyMatrix, make_head, softmax_matrix


class LanguageModel(nn.Module):
    """The model of one arm.

    Args:
        config: Family, widths, dropout, tying and scales.
        vocab_size: V, at least 2.
        context_length: The most positions the model reads at once.
    """

    sinusoids_TD: Tensor | None
    rotary_2TK: Tensor | None

    def __init__(self, config: ModelConfig, vocab_size: int, context_length: int) -> None:
        super().__init__()
        self.config = config
        self.context_length = context_length
        self.embedding = VocabularyMatrix(vocab_size, config.d_model)
        self.head = make_head(config.tying, vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = make_final_norm(config)
        self.embedding_factor = config.d_model**0.5 if config.embedding_scale == "sqrt_d" else 1.0
        self.head_factor = config.d_model**-0.5 if config.head_scale == "inverse_sqrt_d" else 1.0
        self.positions: VocabularyMatrix | None = None
        if config.resolved_positions == "learned":
            self.positions = VocabularyMatrix(context_length, config.d_model)
        sinusoids_TD, rotary_2TK = fixed_positions(config, context_length)
        self.register_buffer("sinusoids_TD", sinusoids_TD, persistent=False)
        self.register_buffer("rotary_2TK", rotary_2TK, persistent=False)

    def hidden(self, tokens_BT: Tensor, dtype: torch.dtype, dropout: Dropout | None) -> Tensor:
        """Return the final hidden states `[B, T, D]` in `dtype`, normalised unless told otherwise.

        Args:
            tokens_BT: int64 token ids.
            dtype: What products run in: `torch.float32` or `torch.bfloat16`.
            dropout: The masks of this pass in training, else None.
        """
        places_TD = self.sinusoids_TD if self.positions is None else self.positions.weight
        x_BTD = embed(tokens_BT, self.embedding.weight, self.embedding_factor, places_TD)
        x_BTD = x_BTD.to(dtype)
        if dropout is not None:
            x_BTD = dropout(x_BTD, self.config.dropouts.embedding)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.rotary_2TK, dropout)
        x_BTD = self.final_norm(x_BTD)
        if dropout is not None:
            x_BTD = dropout(x_BTD, self.config.dropouts.output)
        return x_BTD if self.head_factor == 1.0 else x_BTD * self.head_factor

    def loss(
        self,
        inputs_BT: Tensor,
        targets_BT: Tensor,
        dtype: torch.dtype = torch.float32,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Return the mean nats per target token, a float32 scalar with a gradient."""
        hidden_BTD = self.hidden(inputs_BT, dtype, dropout)
        hidden_ND = hidden_BTD.flatten(0, 1)
        objective, _ = head_loss(hidden_ND, softmax_matrix(self), targets_BT.flatten())
        return objective

    @torch.no_grad()
    def nats(
        self, inputs_BT: Tensor, targets_BS: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the nats `[B, S]` (float32) of the targets of the last S positions."""
        scored = targets_BS.shape[1]
        hidden_BSD = self.hidden(inputs_BT, dtype, None)[:, -scored:]
        nats_N = target_nats(hidden_BSD.flatten(0, 1), softmax_matrix(self), targets_BS.flatten())
        return nats_N.view(targets_BS.shape)

    @torch.no_grad()
    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the float32 logits `[B, V]` of the token that follows, for generation."""
        hidden_BD = self.hidden(tokens_BT, torch.float32, None)[:, -1]
        return hidden_BD @ softmax_matrix(self).t()


def build_model(
    config: ModelConfig, vocab_size: int, context_length: int, seed: int
) -> LanguageModel:
    """Return a model with the initial values of `seed` (see `initialization`)."""
    model = LanguageModel(config, vocab_size, context_length)
    initialize(model, config, seed)
    return model
