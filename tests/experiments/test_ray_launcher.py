"""What the Ray launcher asks of a cluster, and where it lets a cell work; Ray is not needed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tyro_cli.errors import CellFailed, DeviceError, UsageError
from tyro_cli.experiments.launchers import ray_node
from tyro_cli.experiments.launchers.ray import RayLauncher
from tyro_cli.experiments.limits import WORKER_BYTES
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.storage.files import move_aside

CELL = 2**20
GIB = 2**30


def cluster(*nodes, hosts=None, dead=()):
    """A module `ray` that is connected to nodes of these resources."""
    listed = [
        {
            "Alive": index not in dead,
            "NodeID": str(index),
            "RayletSocketName": "",
            "NodeManagerHostname": hosts[index] if hosts else "here",
            "Resources": {"memory": 8 * GIB, **resources},
        }
        for index, resources in enumerate(nodes)
    ]
    context = SimpleNamespace(get_node_id=lambda: "0")
    return SimpleNamespace(nodes=lambda: listed, get_runtime_context=lambda: context)


def launcher(*nodes, storage=None, **more):
    return RayLauncher(cluster(*nodes, **more), storage)


def workers(launcher, asked=None, num_cells=100, device="cpu", cell_bytes=CELL):
    return launcher.choose_workers(asked, num_cells, cell_bytes, device, "tied")


@pytest.fixture
def spec(tmp_path):
    folder = tmp_path / "runs" / "small-1234" / "tied" / "seed-0"
    return CellSpec("0" * 64, "tied", 0, {}, str(folder), "data", 4, "cpu", "fp32", 1)


# how many


def test_as_many_cells_as_cores_memory_and_cells_allow():
    two = launcher({"CPU": 4}, {"CPU": 2})
    assert workers(two) == 6
    assert workers(two, num_cells=3) == 3
    assert workers(two, asked=2) == 2
    assert workers(two, asked=50, num_cells=7) == 7
    assert workers(two, cell_bytes=3 * GIB) == 4, "two cells fit the memory of each node"
    assert workers(launcher({"CPU": 4}, {"CPU": 2}, dead=[1])) == 4


def test_a_cell_that_fits_no_node_is_refused():
    two = launcher({"CPU": 4}, {"CPU": 2})
    each = (8 * GIB + WORKER_BYTES) / 2**20
    with pytest.raises(DeviceError, match=rf"no node .* has {each:,.0f} MiB of memory .*\(tied\)"):
        workers(two, cell_bytes=8 * GIB)
    with pytest.raises(DeviceError, match="has a GPU"):
        workers(two, device="cuda")
    with pytest.raises(DeviceError, match="has a CPU"):
        workers(launcher({"CPU": 0}))


def test_threads_are_cores_shared_out_and_no_more_than_a_node_has():
    two = launcher({"CPU": 8}, {"CPU": 4})
    assert [two.share_cores(cells) for cells in (1, 2, 3, 12, 50)] == [8, 6, 4, 1, 1]


def test_a_gpu_is_shared_by_the_cells_that_run_at_once():
    two = launcher({"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1})
    assert workers(two, device="cuda") == 2
    assert [two._gpus_of_cell(cells) for cells in (1, 2, 3, 4, 6)] == [1, 1, 0.5, 0.5, 0.3333]


# where


def test_other_machines_need_a_storage(tmp_path):
    with pytest.raises(UsageError, match=r"other machines \(there\)") as caught:
        launcher({"CPU": 1}, {"CPU": 1}, hosts=["here", "there"])
    assert "--storage" in caught.value.remedy
    launcher({"CPU": 1}, {"CPU": 1}, hosts=["here", "there"], dead=[1])
    launcher({"CPU": 1}, {"CPU": 1}, hosts=["here", "there"], storage=tmp_path)


def test_without_a_storage_a_cell_works_in_its_own_folder(spec):
    assert launcher({"CPU": 1})._working_folder(spec) == Path(spec.folder)


def test_in_a_storage_a_cell_keeps_its_folder_until_it_begins_anew(spec, tmp_path):
    storage = tmp_path / "storage"
    first = launcher({"CPU": 1}, storage=storage)._working_folder(spec)
    assert first.parent == storage / "small-1234" / "tied"
    assert first.name.startswith("seed-0-")
    assert launcher({"CPU": 1}, storage=storage)._working_folder(spec) == first
    other = launcher({"CPU": 1}, storage=tmp_path / "other")._working_folder(spec)
    assert other.parent == tmp_path / "other" / "small-1234" / "tied"
    move_aside(Path(spec.folder))
    anew = launcher({"CPU": 1}, storage=storage)._working_folder(spec)
    assert anew.parent == first.parent
    assert anew != first


@pytest.mark.parametrize("text", ['{"folder": "/etc/seed-0-1"}', '{"folder": 1}', "[]"])
def test_a_storage_record_that_names_another_place_is_not_followed(spec, tmp_path, text):
    storage = tmp_path / "storage"
    Path(spec.folder).mkdir(parents=True)
    (Path(spec.folder) / "storage.json").write_text(text)
    folder = launcher({"CPU": 1}, storage=storage)._working_folder(spec)
    assert folder.parent == storage / "small-1234" / "tied"


def test_a_cell_that_is_named_out_of_the_storage_is_refused(spec, tmp_path):
    strange = replace(spec, folder=f"{tmp_path}/runs/x/../seed-0")
    with pytest.raises(Exception, match=r"\.\."):
        launcher({"CPU": 1}, storage=tmp_path / "storage")._working_folder(strange)


# the node


def test_a_node_of_other_versions_trains_nothing():
    ray_node._check_versions(ray_node.versions())
    with pytest.raises(CellFailed, match=r"protocol 1, the driver 2: .* are no pairs"):
        ray_node._check_versions(ray_node.versions() | {"protocol": "2"})


def test_a_mailbox_gives_each_event_once_and_tells_every_cell_to_stop():
    mailbox = ray_node.Mailbox()
    assert mailbox.exchange([{"kind": "step"}]) is False
    assert mailbox.take() == [{"kind": "step"}]
    assert mailbox.take() == []
    mailbox.stop()
    assert mailbox.exchange([]) is True
    assert mailbox.exchange([]) is True
