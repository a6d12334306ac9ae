"""Every contract of the tie and of the pair fails when its line in the code is broken.

Each row of `BREAKS` is a file, a line of it, what the line is broken into, and the test that must
then fail. The package is copied, broken and tested; tests/README.md lists the rows in words.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONTRACTS = "tests/test_tie_contracts.py"
THREE_WAY = "tests/test_three_way_contracts.py"
LOOP = "tests/training/test_loop.py"
TYING, LOSS = "models/tying.py", "models/head_loss.py"
MODEL, INITIAL = "models/language_model.py", "models/initialization.py"
TRANSLATION = "models/translation_model.py"
TRAINING, OPTIMIZER = "training/loop.py", "training/optimizer.py"
CHECKPOINTS, BATCHES = "training/checkpoints.py", "data/batches.py"
TASKS = "training/tasks.py"
PROCESSES, TOGETHER = "training/processes.py", "tests/training/test_processes.py"

BREAKS = {
    "tied and untied alike": (
        TYING,
        'return VocabularyMatrix(vocab_size, d_model) if tying == "none" else None',
        "return VocabularyMatrix(vocab_size, d_model)",
        f"{CONTRACTS}::test_sharing_is_on_when_tied_and_off_when_not",
    ),
    "the softmax ignores the tie": (
        TYING,
        "return model.embedding.weight if model.head is None else model.head.weight",
        "return model.embedding.weight.detach().clone()",
        f"{CONTRACTS}::test_the_tie_survives_deepcopy",
    ),
    "the tie is lost on a dtype move": (
        TYING,
        "return model.embedding.weight if model.head is None else model.head.weight",
        "model.__dict__.setdefault('_kept', model.embedding.weight.data)\n"
        "    return model._kept if model.head is None else model.head.weight",
        f"{CONTRACTS}::test_the_tie_survives_a_dtype_move",
    ),
    "the softmax of a compiled model is frozen": (
        TYING,
        "return model.embedding.weight if model.head is None else model.head.weight",
        "return model.embedding.weight.detach() if 'hidden' in model.__dict__ "
        "else model.embedding.weight if model.head is None else model.head.weight",
        f"{CONTRACTS}::test_the_tie_survives_compile",
    ),
    "a broken tie goes unseen": (
        TYING,
        'raise BrokenArm("the arm is tied, yet embedding and softmax use two matrices")',
        "pass",
        f"{CONTRACTS}::test_a_broken_tie_is_caught",
    ),
    "loading does not copy": (
        CHECKPOINTS,
        "parameter.copy_(stored)",
        "pass",
        f"{CONTRACTS}::test_the_tie_survives_save_and_load_with_the_same_loss",
    ),
    "flags are trusted, not tensors": (
        CHECKPOINTS,
        "if set(tensors) != set(own):",
        "if False:",
        f"{CONTRACTS}::test_a_checkpoint_of_the_other_arm_is_refused",
    ),
    "the shared matrix is stepped twice": (
        OPTIMIZER,
        "    groups = []\n",
        "    groups = [dict(params=[model.embedding.weight.view_as(model.embedding.weight)"
        ".detach().requires_grad_()], role='head', base_rate=1.0, lr=1.0, weight_decay=0.0)]\n",
        f"{CONTRACTS}::test_the_tie_survives_one_optimizer_step_and_stays_one_entry",
    ),
    "the ledger counts the head of a tied model": (
        "ledger/parameters.py",
        'if model.tying == "none":',
        "if True:",
        f"{CONTRACTS}::test_the_ledger_equals_the_model",
    ),
    "an untied model is counted short": (
        TYING,
        "        parameter.untyped_storage().data_ptr(): parameter",
        "        parameter.shape: parameter",
        f"{CONTRACTS}::test_untied_minus_tied_is_vocabulary_times_width",
    ),
    "initial values come from one running generator": (
        INITIAL,
        "    for name, parameter in model.named_parameters():\n        if parameter.dim() == 1:",
        "    running = torch.Generator().manual_seed(seed)\n"
        "    for name, parameter in model.named_parameters():\n"
        "        if parameter.dim() != 1:\n"
        "            parameter.normal_(0, 0.02, generator=running)\n"
        "            continue\n"
        "        if parameter.dim() == 1:",
        f"{CONTRACTS}::test_shared_initial_parameters_are_bit_equal",
    ),
    "batches depend on more than seed and step": (
        TASKS,
        "            seed,\n        )",
        "            seed + (settings.model.tying == 'none'),\n        )",
        f"{CONTRACTS}::test_the_first_batches_of_two_arms_are_equal",
    ),
    "masks depend on the arm": (
        TRAINING,
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index, rank)',
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index,'
        " self.settings.model.tying)",
        f"{CONTRACTS}::test_both_arms_draw_the_same_dropout_masks",
    ),
    "the tie is not looked at on the device": (
        TRAINING,
        "verify_tie(self.model.to(context.device))",
        "self.model.to(context.device)",
        f"{CONTRACTS}::test_a_tie_that_breaks_on_the_way_to_the_device_fails_the_cell",
    ),
    "the tie is not looked at in training": (
        TRAINING,
        "if step % TIE_CHECK_STEPS == 0:",
        "if False:",
        f"{CONTRACTS}::test_a_tie_that_breaks_in_training_fails_the_cell",
    ),
    "the tie is not looked at when saving": (
        CHECKPOINTS,
        "    verify_tie(model)\n\n    def write",
        "    def write",
        f"{CONTRACTS}::test_a_tie_that_breaks_in_training_fails_the_cell",
    ),
    "the softmax uses a frozen copy": (
        TYING,
        "return model.embedding.weight if model.head is None else model.head.weight",
        "model.__dict__.setdefault('_copy', model.embedding.weight.detach().clone())\n"
        "    return model._copy if model.head is None else model.head.weight",
        f"{CONTRACTS}::test_a_tied_softmax_really_uses_the_embedding",
    ),
    "dropout runs on": (
        "models/layers.py",
        "torch.Generator(device).manual_seed(key)",
        "torch.default_generator",
        f"{CONTRACTS}::test_dropout_masks_depend_on_the_key_alone",
    ),
    "the output side gives the matrix no gradient": (
        LOSS,
        "matrix_gradient[rows] += logits_CV[:, rows].t() @ hidden_CD",
        "pass",
        f"{CONTRACTS}::test_the_training_loss_gives_the_shared_matrix_both_gradients",
    ),
    "the input side gives the matrix no gradient": (
        MODEL,
        "embed(tokens_BT, self.embedding.weight,",
        "embed(tokens_BT, self.embedding.weight.detach(),",
        f"{CONTRACTS}::test_the_shared_gradient_is_the_sum_of_two",
    ),
    "the shared matrix always counts as head": (
        "ledger/parameters.py",
        'return "embedding" if model.tying == "none" else model.tied_role',
        'return "embedding" if model.tying == "none" else "head"',
        f"{CONTRACTS}::test_the_shared_matrix_takes_the_role_it_is_given",
    ),
    "evaluation advances what training draws from": (
        TRAINING,
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index, rank)',
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index,'
        " len(self.progress.evaluations))",
        f"{CONTRACTS}::test_how_often_evaluation_runs_changes_no_training_loss",
    ),
    "a head that never learns goes unseen": (
        TRAINING,
        "if self.without_gradient and self.train_tokens:",
        "if False:",
        f"{CONTRACTS}::test_an_arm_whose_head_never_learns_is_broken",
    ),
    "a tensor that never moves goes unseen": (
        TRAINING,
        "if digest == self.initial_parameters[name]",
        "if False",
        f"{CONTRACTS}::test_a_tensor_that_never_moves_breaks_the_arm",
    ),
    "the initial loss is not looked at": (
        TRAINING,
        "if not loss_nats <= uniform_nats + 1.0:",
        "if False:",
        f"{CONTRACTS}::test_an_ill_initialized_arm_fails_before_its_first_step",
    ),
    "three-way tied and in-out alike": (
        TYING,
        'return None if tying == "three-way" else VocabularyMatrix(vocab_size, d_model)',
        "return VocabularyMatrix(vocab_size, d_model)",
        f"{THREE_WAY}::test_a_model_has_as_many_matrices_as_its_tie_says",
    ),
    "the encoder reads with a copy": (
        TYING,
        "return model.embedding.weight if own is None else own.weight",
        "return model.embedding.weight.detach().clone() if own is None else own.weight",
        f"{THREE_WAY}::test_the_tie_survives_a_dtype_move_and_deepcopy",
    ),
    "the encoder of a compiled model is frozen": (
        TYING,
        "return model.embedding.weight if own is None else own.weight",
        "frozen = model.embedding.weight.detach() if 'hidden' in model.__dict__ "
        "else model.embedding.weight\n    return frozen if own is None else own.weight",
        f"{THREE_WAY}::test_the_tie_survives_compile",
    ),
    "a broken three-way tie goes unseen": (
        TYING,
        'raise BrokenArm("the arm is tied three-way, yet encoder and decoder read with two '
        'matrices")',
        "pass",
        f"{THREE_WAY}::test_a_broken_tie_is_caught",
    ),
    "the encoder gives the shared matrix no gradient": (
        TRANSLATION,
        "embed(source_BS, source_matrix(self),",
        "embed(source_BS, source_matrix(self).detach(),",
        f"{THREE_WAY}::test_the_shared_gradient_is_the_sum_of_an_untied_twins",
    ),
    "the decoder gives the shared matrix no gradient": (
        TRANSLATION,
        "embed(tokens_BT, self.embedding.weight,",
        "embed(tokens_BT, self.embedding.weight.detach(),",
        f"{THREE_WAY}::test_the_training_loss_gives_the_shared_matrix_all_three_gradients",
    ),
    "the ledger counts an encoder's embedding that is shared": (
        "ledger/parameters.py",
        'if model.tying != "three-way":',
        "if True:",
        "tests/ledger/test_translation.py::test_the_saving_is_the_formula",
    ),
    "moments are not restored": (
        CHECKPOINTS,
        "restore_optimizer(optimizer, model, moments, step)",
        "pass",
        f"{LOOP}::test_a_stopped_cell_ends_with_the_same_bytes",
    ),
    "records behind the checkpoint stay": (
        TRAINING,
        "truncate_records(metrics, self._is_behind)",
        "truncate_records(metrics, lambda record: True)",
        f"{LOOP}::test_a_cell_killed_at_a_checkpoint_ends_with_the_same_bytes",
    ),
    "what a stop left undone stays undone": (
        TRAINING,
        "self._after_step()  # what a stop right after this step left undone",
        "pass",
        f"{LOOP}::test_a_stopped_cell_ends_with_the_same_bytes",
    ),
    "a loss that is not finite is stepped on": (
        TRAINING,
        "if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):",
        "if False:",
        f"{LOOP}::test_a_number_that_is_not_finite_stops_before_the_update",
    ),
    "gradients of several processes are not summed": (
        PROCESSES,
        "self._exchange(flat, self.device_group)",
        "pass",
        f"{TOGETHER}::test_one_exchange_holds_every_gradient_once",
    ),
    "a share weighs as much as the batch": (
        TASKS,
        "yield MicroBatch(len(micro) / len(batch), loss)",
        "yield MicroBatch(len(micro) / len(tokens), loss)",
        f"{TOGETHER}::test_shares_and_micro_batches_weigh_as_their_windows_do",
    ),
    "all ranks draw the same masks": (
        TRAINING,
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index, rank)',
        'key = keyed_seed("dropout", self.context.seed, self.progress.step, index, 0)',
        f"{TOGETHER}::test_masks_are_keyed_by_rank_and_those_of_rank_zero_are_those_of_one_process",
    ),
    "ranks that differ go on": (
        PROCESSES,
        "if not torch.equal(extremes[0], -extremes[1]):",
        "if False:",
        f"{TOGETHER}::test_a_weight_that_differs_in_its_last_bit_fails_the_cell",
    ),
    "another number of processes is no other numerics": (
        CHECKPOINTS,
        'ONE_PROCESS | state["fingerprint"]',
        '{"processes": 2} | state["fingerprint"]',
        f"{TOGETHER}::test_another_number_of_processes_is_another_numeric_fingerprint",
    ),
    "other numerics are taken in silence": (
        CHECKPOINTS,
        "if saved != current_fingerprint:",
        "if False:",
        f"{LOOP}::test_a_checkpoint_of_another_cell_or_other_numerics_is_refused",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_line_breaks_its_contract(tmp_path: Path, repository: Path, name: str) -> None:
    file, line, broken, test = BREAKS[name]
    for part in ("tyro_cli", "tests"):  # with what is compiled; but for what is being compiled
        shutil.copytree(
            repository / part, tmp_path / part, ignore=shutil.ignore_patterns("*.pyc.*")
        )
    shutil.copy(repository / "pyproject.toml", tmp_path)
    target = tmp_path / "tyro_cli" / file
    source = target.read_text()
    assert source.count(line) == 1, f"{file} no longer holds the line to break, once: {line}"
    target.write_text(source.replace(line, broken))
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,  # only against hanging: compiling is slow where cores are shared
    )
    report = outcome.stdout[-3000:]
    assert outcome.returncode == 1, f"still passes when broken:\n{report}"
    for mistake in ("NameError", "SyntaxError", "ImportError", "IndentationError"):
        assert mistake not in report, f"the break itself is wrong:\n{report}"
