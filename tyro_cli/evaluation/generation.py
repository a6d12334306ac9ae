"""Generation: draw the tokens that follow a prompt, one at a time.

The model reads at most its context; older tokens fall out of the window. One generator, seeded by
the caller, makes every draw, so the same seed gives the same text.
"""

from collections.abc import Iterator

import torch

from tyro_cli.models.language_model import LanguageModel


@torch.no_grad()
def generate_tokens(
    model: LanguageModel,
    prompt: list[int],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield up to `max_tokens` token ids that follow `prompt` (at least one token).

    Args:
        model: A trained model.
        prompt: Token ids; the stream's leading `<eos>` is a fair prompt for nothing.
        max_tokens: How many tokens to draw.
        temperature: 0 takes the likeliest token; larger values flatten the distribution.
        top_k: Draw among the k likeliest tokens only.
        seed: Of the generator.
    """
    device = model.embedding.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    tokens = list(prompt)
    for _ in range(max_tokens):
        window = torch.tensor([tokens[-model.context_length :]], device=device)
        logits_V = model.logits(window)[0]
        if temperature == 0:
            chosen = int(logits_V.argmax())
        else:
            logits_V = logits_V / temperature
            if top_k is not None and top_k < len(logits_V):
                logits_V[logits_V < logits_V.topk(top_k).values[-1]] = -torch.inf
            probabilities_V = torch.softmax(logits_V, dim=-1)
            chosen = int(torch.multinomial(probabilities_V, 1, generator=generator))
        tokens.append(chosen)
        yield chosen
