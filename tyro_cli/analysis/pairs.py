"""The proof that two cells are a pair: they differ in nothing but their arm (docs/STATISTICS.md).

Invariant: only what the two records say is compared, and everything they say about their start and
their data is: fingerprint, consumed batches, and every initial parameter both models have. A pair
that does not match gets no contrast; what a contrast is, is left to `contrasts`.
"""

from dataclasses import dataclass
from typing import Literal

from tyro_cli.analysis.formats import CellResult

ProofStatus = Literal["identical start", "same data", "mismatch"]

NAMES_OF_THE_TIE = frozenset({"head.weight", "source_embedding.weight"})
"""Parameters that one arm of a tie owns and the other does not."""

SCALED_BY_DEPTH = (".attention.output.weight", ".feed_forward.down.weight")
"""Matrices whose draw is divided by the root of the number of layers: between models of different
depth they start from one draw at two scales, so their hashes say nothing."""


@dataclass(frozen=True)
class PairProof:
    """What two records prove about their cells.

    Attributes:
        status: `identical start`: same batches, and every initial parameter that both models can
            have is bit-equal. `same data`: same batches, but the models have other shapes, as in a
            budget-matched arm; what has equal shape is bit-equal. `mismatch`: not a pair.
        reason: What was compared, or what does not match.
    """

    status: ProofStatus
    reason: str

    @property
    def verified(self) -> bool:
        """Whether the two cells may be set against each other."""
        return self.status != "mismatch"


def verify_pair(first: CellResult, second: CellResult) -> PairProof:
    """Compare what two results keep about their start and their data."""
    if first.seed != second.seed:
        return _mismatch(f"seeds differ: {first.seed} and {second.seed}")
    problem = _fingerprints_differ(first, second) or _batches_differ(first, second)
    if problem:
        return _mismatch(problem)
    return _compare_initial_parameters(first, second)


def _mismatch(reason: str) -> PairProof:
    return PairProof("mismatch", reason)


def _fingerprints_differ(first: CellResult, second: CellResult) -> str:
    # A fingerprint that says nothing of processes is that of one.
    one, other = ({"processes": 1} | cell.pairing.fingerprint for cell in (first, second))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            return (
                f"{key} of the machine differs: {one.get(key)!r} for {first.arm}, "
                f"{other.get(key)!r} for {second.arm}"
            )
    return ""


def _batches_differ(first: CellResult, second: CellResult) -> str:
    """Compare the running hashes up to the last step that both cells reached."""
    one, other = dict(first.pairing.batches), dict(second.pairing.batches)
    if not one or not other:
        return "no record of the batches consumed"
    last_step = min(max(one), max(other))
    for step in sorted({*one.keys() & other.keys(), last_step}):
        if step not in one or step not in other:
            return f"only one of them recorded the batches consumed up to step {step:,}"
        if one[step] != other[step]:
            return f"the batches consumed differ at step {step:,}"
    return ""


def _compare_initial_parameters(first: CellResult, second: CellResult) -> PairProof:
    one, other = first.pairing.initial_parameters, second.pairing.initial_parameters
    common = sorted(one.keys() & other.keys())
    same_shape = [name for name in common if one[name].shape == other[name].shape]
    if _depth(first) != _depth(second):
        same_shape = [name for name in same_shape if not name.endswith(SCALED_BY_DEPTH)]
    for name in same_shape:
        if one[name].sha256 != other[name].sha256:
            return _mismatch(f"initial values of {name} differ")
    only_one = (one.keys() ^ other.keys()) - NAMES_OF_THE_TIE
    last_step = min(max(dict(cell.pairing.batches)) for cell in (first, second))
    compared = f"batches equal up to step {last_step:,}, {len(same_shape)} initial parameters equal"
    if len(same_shape) < len(common) or only_one or not common:
        return PairProof("same data", f"{compared}, others differ in shape or scale")
    return PairProof("identical start", compared)


def _depth(result: CellResult) -> object:
    model = result.settings.get("model")
    names = ("num_layers", "num_encoder_layers")
    return [model.get(name) for name in names] if isinstance(model, dict) else None
