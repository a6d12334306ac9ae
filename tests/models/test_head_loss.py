"""The chunked head loss against plain float64 cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tyro_cli.models import head_loss as module
from tyro_cli.models.head_loss import IGNORED, head_loss, target_nats


def case(n: int, d: int, v: int, seed: int, ignored: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=generator)
    matrix = torch.randn(v, d, generator=generator)
    targets = torch.randint(v, (n,), generator=generator)
    targets[torch.rand(n, generator=generator) < ignored] = IGNORED
    return hidden, matrix, targets


def oracle(
    hidden: torch.Tensor, matrix: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, ...]:
    """Objective, nats and the objective's gradients in float64, by autograd through all logits."""
    hidden, matrix = (x.detach().double().requires_grad_() for x in (hidden, matrix))
    logits, counted = hidden @ matrix.t(), max(int((targets != IGNORED).sum()), 1)

    def mean(label_smoothing: float) -> torch.Tensor:
        return (
            F.cross_entropy(
                logits,
                targets,
                ignore_index=IGNORED,
                reduction="sum",
                label_smoothing=label_smoothing,
            )
            / counted
        )

    objective = mean(smoothing)
    objective.backward()
    return objective.detach(), mean(0.0).detach(), hidden.grad, matrix.grad


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    v=st.integers(2, 67),
    chunk=st.integers(1, 45),
    seed=st.integers(0, 10**6),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_loss_and_gradients_equal_the_float64_oracle(
    n: int, d: int, v: int, chunk: int, seed: int, ignored: float, smoothing: float
) -> None:
    hidden, matrix, targets = case(n, d, v, seed, ignored)
    expected, expected_nats, hidden_gradient, matrix_gradient = oracle(
        hidden, matrix, targets, smoothing
    )
    hidden.requires_grad_()
    matrix.requires_grad_()
    objective, nats = head_loss(
        hidden, matrix, targets, label_smoothing=smoothing, chunk_tokens=chunk
    )
    (3.0 * objective).backward()
    torch.testing.assert_close(objective.detach().double(), expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(nats.double(), expected_nats, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(hidden.grad.double(), 3 * hidden_gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(matrix.grad.double(), 3 * matrix_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_large_vocabulary_costs_no_accuracy(smoothing: float) -> None:
    """Sums over 33,278 float32 values stay within 1e-6 of the loss, at chunks of any size."""
    hidden, matrix, targets = case(45, 24, 33_278, 3, 0.2)
    expected, expected_nats, *_ = oracle(hidden, matrix, targets, smoothing)
    for chunk in (7, 45):
        objective, nats = head_loss(
            hidden, matrix, targets, label_smoothing=smoothing, chunk_tokens=chunk
        )
        assert objective.item() == pytest.approx(expected.item(), rel=1e-6, abs=0)
        assert nats.item() == pytest.approx(expected_nats.item(), rel=1e-6, abs=0)


def test_a_likely_token_among_very_many_costs_no_accuracy() -> None:
    """131,071 terms of 3e-7 beside a 1: a running float32 sum loses a hundredth of this loss."""
    hidden, matrix = torch.ones(1, 1), torch.zeros(131_072, 1)
    matrix[7] = 15.0
    targets = torch.tensor([7])
    expected = oracle(hidden, matrix, targets)[1].item()
    assert head_loss(hidden, matrix, targets)[1].item() == pytest.approx(expected, abs=1e-6)
    assert target_nats(hidden, matrix, targets).item() == pytest.approx(expected, abs=1e-6)


def test_only_the_objective_has_a_gradient_and_smoothing_leaves_the_nats_alone() -> None:
    hidden, matrix, targets = case(19, 6, 31, 5, 0.3)
    hidden.requires_grad_()
    objective, nats = head_loss(hidden, matrix, targets, label_smoothing=0.1)
    plain, same = head_loss(hidden, matrix, targets)
    assert objective.requires_grad and not nats.requires_grad
    assert nats.item() == same.item() == plain.item() != objective.item()


def test_body_and_matrix_gradients_are_scaled_alike_in_bfloat16() -> None:
    hidden, matrix, targets = case(64, 32, 97, 2, 0.0)
    ratios = []
    for factor in (1.0, 1 / 3):
        low = hidden.bfloat16().requires_grad_()
        own = matrix.clone().requires_grad_()
        (head_loss(low, own, targets)[0] * factor).backward()
        ratios.append((low.grad.float().norm() / factor, own.grad.norm() / factor))
    assert ratios[0][0].item() == pytest.approx(ratios[1][0].item(), rel=2e-4)
    assert ratios[0][1].item() == pytest.approx(ratios[1][1].item(), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_all_positions_ignored_gives_zero_and_no_gradient(smoothing: float) -> None:
    hidden, matrix, targets = case(7, 5, 11, 0, 1.0)
    hidden.requires_grad_()
    loss, nats = head_loss(hidden, matrix.requires_grad_(), targets, label_smoothing=smoothing)
    loss.backward()
    assert loss.item() == nats.item() == 0.0 and not hidden.grad.any() and not matrix.grad.any()


def test_evaluation_nats_equal_the_training_loss() -> None:
    hidden, matrix, targets = case(29, 8, 53, 4, 0.0)
    nats = target_nats(hidden, matrix, targets)
    loss, _ = head_loss(hidden, matrix, targets, chunk_tokens=6)
    torch.testing.assert_close(nats.double().mean().float(), loss)
    log_probabilities = F.log_softmax(hidden.double() @ matrix.double().t(), -1)
    expected = -log_probabilities[torch.arange(29), targets]
    torch.testing.assert_close(nats.double(), expected, rtol=1e-6, atol=1e-6)


def test_the_softmax_slices_of_a_chunk_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, matrix, targets = case(31, 4, 17, 9, 0.2)
    whole = target_nats(hidden, matrix, targets)
    monkeypatch.setattr(module, "HEAD_SLICE_BYTES", 17 * 4 * 3)
    monkeypatch.setattr(module, "HEAD_CHUNK_BYTES", 17 * 4 * 7)
    torch.testing.assert_close(target_nats(hidden, matrix, targets), whole)


def test_bfloat16_products_stay_near_float32() -> None:
    hidden, matrix, targets = case(256, 64, 301, 1, 0.0)
    matrix = matrix * 0.1
    exact, _, _, matrix_gradient = oracle(hidden, matrix, targets)
    matrix.requires_grad_()
    loss, _ = head_loss(hidden.bfloat16(), matrix, targets)
    loss.backward()
    assert abs(loss.item() - exact.item()) < 5e-3 * exact.item()
    assert matrix.grad.dtype == torch.float32
    difference = (matrix.grad.double() - matrix_gradient).norm() / matrix_gradient.norm()
    assert difference < 0.02
