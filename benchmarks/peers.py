"""The other side: what a user would pick instead, as its own documentation would run it.

The word language model is the classic PyTorch example, rebuilt: `nn.TransformerEncoder`, sinusoidal
positions, SGD with clipped gradients, `nn.NLLLoss`, float32.
"""

import math
import tempfile
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import Start
from benchmarks.ours import StepWatch
from benchmarks.shapes import Shape


def hugging_face_trainer(
    start: Start, seconds: float, *, shape: dict[str, Any], tied: bool, threads: int
) -> float:
    """Return seconds for a million tokens of transformers' `Trainer` on a GPT-2 in bf16."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback
    from transformers import TrainingArguments as Arguments

    chosen = Shape(**shape)
    torch.set_num_threads(threads)
    config = GPT2Config(
        vocab_size=chosen.vocab_size,
        n_positions=chosen.context_length,
        n_embd=chosen.d_model,
        n_layer=chosen.num_layers,
        n_head=chosen.num_heads,
        n_inner=chosen.d_ff,
        embd_pdrop=chosen.dropout,
        resid_pdrop=chosen.dropout,
        attn_pdrop=0.0,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    watch = StepWatch(start, seconds)

    class Stop(TrainerCallback):  # type: ignore[misc]
        """Ends training when enough steps were timed."""

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
            """Count a step."""
            control.should_training_stop = watch.step()
            return control

    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            output_dir=folder,
            per_device_train_batch_size=chosen.batch_windows,
            max_steps=10**6,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            bf16=True,
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
        )
        windows = torch.from_numpy(chosen.tokens(64 * chosen.batch_tokens).astype("int64")).view(
            -1, chosen.context_length
        )
        examples = [{"input_ids": window, "labels": window} for window in windows]
        model = GPT2LMHeadModel(config)
        Trainer(model, arguments, train_dataset=examples, callbacks=[Stop()]).train()
    return watch.seconds_per_million(chosen.batch_tokens)


class WordLanguageModel(nn.Module):
    """The classic word language model in its Transformer form; returns log probabilities."""

    positions: Tensor
    mask: Tensor

    def __init__(self, shape: Shape, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        layer = nn.TransformerEncoderLayer(
            shape.d_model, shape.num_heads, shape.d_ff, shape.dropout
        )
        self.encoder = nn.TransformerEncoder(layer, shape.num_layers, enable_nested_tensor=False)
        self.decoder = nn.Linear(shape.d_model, shape.vocab_size)
        self.dropout = nn.Dropout(shape.dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.embedding.weight
        place = torch.arange(shape.context_length).unsqueeze(1)
        rate = torch.exp(torch.arange(0, shape.d_model, 2) * (-math.log(1e4) / shape.d_model))
        positions = torch.zeros(shape.context_length, 1, shape.d_model)
        positions[:, 0, 0::2] = torch.sin(place * rate)
        positions[:, 0, 1::2] = torch.cos(place * rate)
        self.register_buffer("positions", positions)
        mask = nn.Transformer.generate_square_subsequent_mask(shape.context_length)
        self.register_buffer("mask", mask)

    def forward(self, tokens_TB: Tensor) -> Tensor:
        """Return log probabilities `[T, B, V]`."""
        x = self.embedding(tokens_TB) * math.sqrt(self.embedding.embedding_dim)
        x = self.encoder(self.dropout(x + self.positions[: len(tokens_TB)]), mask=self.mask)
        return torch.log_softmax(self.decoder(x), dim=-1)


def word_language_model(
    start: Start, seconds: float, *, shape: dict[str, Any], tied: bool, threads: int
) -> float:
    """Return seconds for a million tokens of the classic loop, float32 and SGD."""
    chosen = Shape(**shape)
    torch.set_num_threads(threads)
    model = WordLanguageModel(chosen, tied)
    criterion = nn.NLLLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    windows, length = chosen.batch_windows, chosen.context_length
    columns = torch.from_numpy(chosen.tokens((64 * length + 1) * windows).astype("int64"))
    tokens_TB = columns.view(windows, -1).t().contiguous()
    watch, place = StepWatch(start, seconds), 0
    while True:
        inputs = tokens_TB[place : place + length]
        targets = tokens_TB[place + 1 : place + 1 + length].reshape(-1)
        model.zero_grad()
        criterion(model(inputs).view(-1, chosen.vocab_size), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        place = (place + length) % (64 * length)
        if watch.step():
            return watch.seconds_per_million(chosen.batch_tokens)
