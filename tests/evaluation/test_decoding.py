"""Beam search: against greedy, an exhaustive and an uncached search, batched, ordered and tied."""

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tests.tiny_translation import batch_of, settings
from tyro_cli.evaluation import decoding
from tyro_cli.evaluation.decoding import Translation, translate
from tyro_cli.models.layers import padding_mask
from tyro_cli.models.translation_model import TranslationModel, build_translation_model
from tyro_cli.models.tying import softmax_matrix

V, LONGEST = 14, 10


def sentences(count: int, seed: int) -> list[list[int]]:
    """Return random sentences of 1 to 8 words, `<eos>` (0) at their end."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [[*torch.randint(1, V, (n,), generator=generator).tolist(), 0] for n in lengths]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More threads only get into each other's way with models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained() -> TranslationModel:
    """Return a model that has half learned to write a sentence backwards, in float64."""
    config = settings(d_model=32, num_layers=1, tying="three-way").model
    model = build_translation_model(config, V, V, LONGEST, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(100):
        sources = sentences(32, 1000 + step)
        batch = batch_of(sources, [source[-2::-1] for source in sources])
        optimizer.zero_grad()
        model.loss(*batch, label_smoothing=0.1)[0].backward()
        optimizer.step()
    return model.double()


SOURCES = sentences(30, seed=1)


def search(
    model: TranslationModel, sources: list[list[int]], **options: float
) -> list[Translation]:
    chosen: dict[str, float] = {"beam_size": 4, "length_penalty": 1.0} | options
    dtype = model.embedding.weight.dtype
    return translate(model, sources, dtype=dtype, **chosen)  # type: ignore[arg-type]


def tokens_of(translations: list[Translation]) -> list[list[int]]:
    return [translation.tokens for translation in translations]


class Uncached:
    """What `Decoding` does, by reading every target from its start at every step."""

    def __init__(
        self, model: TranslationModel, source: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> None:
        self.model, self.source, self.lengths, self.dtype = model, source, lengths, dtype
        self.read: Tensor | None = None

    def step(self, tokens: Tensor) -> Tensor:
        column = tokens.unsqueeze(1)
        self.read = column if self.read is None else torch.cat((self.read, column), dim=1)
        owners = torch.arange(len(tokens)) // (len(tokens) // len(self.source))
        with torch.no_grad():
            hidden = self.model.hidden(
                self.source[owners], self.lengths[owners], self.read, self.dtype, None
            )
            return torch.log_softmax(hidden[:, -1] @ softmax_matrix(self.model).t(), dim=-1)

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        assert self.read is not None
        self.read = self.read[rows]
        if sentences is not None:
            self.source, self.lengths = self.source[sentences], self.lengths[sentences]


def test_the_model_is_worth_searching(trained: TranslationModel) -> None:
    right = [
        one == s[-2::-1]
        for one, s in zip(tokens_of(search(trained, SOURCES)), SOURCES, strict=True)
    ]
    assert 5 <= sum(right) <= 29  # it knows something, and not everything


def test_a_beam_of_one_is_greedy_search(trained: TranslationModel) -> None:
    found = search(trained, SOURCES, beam_size=1)
    for source, translation in zip(SOURCES, found, strict=True):
        uncached = Uncached(
            trained, torch.tensor([source]), torch.tensor([len(source)]), torch.float64
        )
        tokens = [0]
        while len(tokens) <= LONGEST:
            following = int(uncached.step(torch.tensor(tokens[-1:]))[0].argmax())
            if following == 0 or len(tokens) == LONGEST:
                break
            tokens.append(following)
        assert translation.tokens == tokens[1:]


@pytest.mark.parametrize("beam_size", [1, 4])
def test_cached_equals_uncached(
    trained: TranslationModel, monkeypatch: pytest.MonkeyPatch, beam_size: int
) -> None:
    cached = search(trained, SOURCES, beam_size=beam_size)
    monkeypatch.setattr(decoding, "Decoding", Uncached)
    uncached = search(trained, SOURCES, beam_size=beam_size)
    assert tokens_of(cached) == tokens_of(uncached)
    for one, other in zip(cached, uncached, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-12)


@pytest.mark.parametrize("beam_size", [1, 5])
def test_batching_and_order_change_no_translation(
    trained: TranslationModel, monkeypatch: pytest.MonkeyPatch, beam_size: int
) -> None:
    together = search(trained, SOURCES, beam_size=beam_size)
    alone = [search(trained, [source], beam_size=beam_size)[0] for source in SOURCES]
    assert tokens_of(together) == tokens_of(alone)
    assert [one.score for one in together] == pytest.approx([one.score for one in alone], rel=1e-12)
    backwards = search(trained, SOURCES[::-1], beam_size=beam_size)
    assert tokens_of(backwards) == tokens_of(together)[::-1]
    sizes = []
    original = decoding._search

    def counted(state: object, num_sentences: int, *rest: object) -> list[Translation]:
        sizes.append(num_sentences)
        return original(state, num_sentences, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decoding, "_search", counted)
    monkeypatch.setattr(decoding, "DECODING_POSITIONS", 7 * LONGEST * beam_size)
    assert tokens_of(search(trained, SOURCES, beam_size=beam_size)) == tokens_of(together)
    assert sizes == [7] * 4 + [2]


def test_in_float32_only_near_ties_may_differ(trained: TranslationModel) -> None:
    model = build_translation_model(trained.config, V, V, LONGEST, seed=0)
    model.load_state_dict(trained.state_dict())
    exact = search(trained, SOURCES)
    alone = [search(model, [source])[0] for source in SOURCES]
    for rough in (search(model, SOURCES), alone):
        for one, other in zip(exact, rough, strict=True):
            assert one.tokens == other.tokens or abs(one.score - other.score) < 1e-4


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
def test_a_score_is_the_models_own(trained: TranslationModel, length_penalty: float) -> None:
    found = search(trained, SOURCES[:9], length_penalty=length_penalty)
    model = build_translation_model(trained.config, V, V, LONGEST, seed=0)
    model.load_state_dict(trained.state_dict())
    nats = model.nats(*batch_of(SOURCES[:9], tokens_of(found))).sum(dim=1)
    for one, expected in zip(found, nats.tolist(), strict=True):
        assert -one.log_probability == pytest.approx(expected, rel=1e-4)
        length = len(one.tokens) + 1
        assert one.score == pytest.approx(one.log_probability / length**length_penalty)


def test_a_larger_penalty_prefers_longer_translations(trained: TranslationModel) -> None:
    lengths = [
        sum(map(len, tokens_of(search(trained, SOURCES, length_penalty=penalty))))
        for penalty in (0.0, 1.0, 3.0)
    ]
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5])
def test_a_beam_that_holds_everything_finds_the_best_of_all(length_penalty: float) -> None:
    config = settings(d_model=16, num_layers=1).model
    model = build_translation_model(config, 4, 4, 4, seed=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter *= 12  # so that the tokens' probabilities differ
    sources = [[1, 2, 0], [3, 0], [2, 2, 1, 0], [0]]
    found = search(model, sources, beam_size=64, length_penalty=length_penalty)
    targets = [list(t) for n in range(4) for t in itertools.product((1, 2, 3), repeat=n)]
    chosen = set()
    for source, translation in zip(sources, found, strict=True):
        mask = padding_mask(torch.tensor([len(source)]), len(source), torch.float64)
        encoded = model.encode(torch.tensor([source]), mask, torch.float64, None)
        seen = model.decoder.sources(encoded, mask)
        scores = []
        for target in targets:
            hidden = model.decode(torch.tensor([[0, *target]]), seen, torch.float64, None)
            log_probabilities = torch.log_softmax(hidden[0] @ softmax_matrix(model).t(), dim=-1)
            out = torch.tensor([*target, 0])
            total = log_probabilities.gather(1, out.unsqueeze(1)).sum().item()
            scores.append(total / len(out) ** length_penalty)
        best = max(range(len(targets)), key=scores.__getitem__)
        assert translation.tokens == targets[best]
        assert translation.score == pytest.approx(scores[best], rel=1e-9)
        chosen.add(best)
    assert len(chosen) > 1


class Scripted:
    """A decoding whose log probabilities depend on the tokens read alone."""

    def __init__(self, following: Callable[[list[int]], list[float]]) -> None:
        self.following = following
        self.read: list[list[int]] = []
        self.steps = 0

    def step(self, tokens: Tensor) -> Tensor:
        self.steps += 1
        self.read = self.read or [[] for _ in tokens]
        for row, token in zip(self.read, tokens.tolist(), strict=True):
            row.append(token)
        return torch.tensor([self.following(row[1:]) for row in self.read]).log()

    def select(self, rows: Tensor, sentences: Tensor | None) -> None:
        self.read = [list(self.read[row]) for row in rows.tolist()]


def run(script: Scripted, beam_size: int, length_penalty: float, longest: int = 6) -> Translation:
    (found,) = decoding._search(
        script,  # type: ignore[arg-type]
        1,
        beam_size,
        length_penalty,
        longest,
        lambda: None,
    )
    return found


def test_a_hypothesis_that_fills_the_positions_ends() -> None:
    script = Scripted(lambda read: [1e-9, 0.6, 0.4 - 1e-9])
    found = run(script, beam_size=1, length_penalty=1.0)
    assert found.tokens == [1] * 5 and script.steps == 6
    assert found.log_probability == pytest.approx(5 * math.log(0.6) + math.log(1e-9))


def test_the_search_goes_on_while_a_live_hypothesis_can_win() -> None:
    def following(read: list[int]) -> list[float]:
        return (
            [0.4, 0.35, 0.25]
            if not read
            else [0.02, 0.97, 0.01]
            if len(read) < 4
            else [0.98, 0.01, 0.01]
        )

    # Ending at once has -0.92; four words have log(.35 * .97^3 * .98) = -1.16 over five tokens.
    script = Scripted(following)
    found = run(script, beam_size=2, length_penalty=1.0)
    assert found.tokens == [1, 1, 1, 1]
    # Without the division the short one wins, and nothing that lives can do better.
    script = Scripted(following)
    assert run(script, beam_size=2, length_penalty=0.0).tokens == []
    assert script.steps == 1


def test_an_end_outside_the_beam_does_not_count() -> None:
    script = Scripted(lambda read: [0.3, 0.36, 0.34] if not read else [0.5, 0.25, 0.25])
    found = run(script, beam_size=2, length_penalty=0.0)
    # Ending at once (0.3) would beat both that live (0.36 * 0.5), yet it was third of two.
    assert found.tokens == [1]


def test_k_finished_hypotheses_end_the_search() -> None:
    script = Scripted(lambda read: [0.5, 0.5 - 1e-3, 1e-3])
    found = run(script, beam_size=2, length_penalty=3.0, longest=50)
    assert script.steps == 2 and found.tokens == [1]


def test_equal_scores_go_to_the_lower_token_and_the_higher_hypothesis() -> None:
    script = Scripted(
        lambda read: [0.1, 0.3, 0.3, 0.3] if len(read) < 2 else [0.97, 0.01, 0.01, 0.01]
    )
    for beam_size in (1, 2, 3, 5):
        assert run(script := Scripted(script.following), beam_size, 1.0).tokens == [1, 1]


def test_the_largest_of_many_equal_scores_are_the_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 3.0, 3.0, 2.0, 3.0], [0.0] * 7, list(range(7))])
    values, places = decoding._largest(scores, 3)
    assert values.tolist() == [[3.0] * 3, [0.0] * 3, [6.0, 5.0, 4.0]]
    assert places.tolist() == [[1, 3, 4], [0, 1, 2], [6, 5, 4]]
    many = torch.zeros(2, 5000)
    many[1, 4000:] = 1.0
    assert decoding._largest(many, 4)[1].tolist() == [[0, 1, 2, 3], [4000, 4001, 4002, 4003]]


def test_a_poll_can_stop_the_search(trained: TranslationModel) -> None:
    calls: Iterator[int] = iter(range(1000))

    def poll() -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate(trained, SOURCES, beam_size=2, length_penalty=1.0, dtype=torch.float64, poll=poll)
    assert next(calls) == 4


def test_nothing_is_translated_to_nothing(trained: TranslationModel) -> None:
    assert search(trained, []) == []
