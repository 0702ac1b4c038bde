"""Workers on this machine: how many, and what each sees before JAX starts."""

import pytest

from mdsens.campaign import machine as this_machine
from mdsens.campaign.machine import local, n_cores, require_dask, visible_gpus, worker_environments
from mdsens.errors import CampaignError, InputError


@pytest.fixture
def machine(monkeypatch):
    """Sets which GPUs there are."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)

    def with_gpus(text):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)

    return with_gpus


def test_one_worker_a_gpu_and_each_sees_its_own(machine):
    machine("2,GPU-8f1a")  # as a queue gives them
    first, second = worker_environments()
    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("2", "GPU-8f1a")
    assert first["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true" and first["JAX_ENABLE_X64"] == "1"
    assert "JAX_PLATFORMS" not in first


def test_workers_that_share_a_gpu_do_not_take_its_memory_at_once(machine):
    machine("0")
    shared = worker_environments(2)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in shared] == ["0", "0"]
    assert {one["XLA_PYTHON_CLIENT_PREALLOCATE"] for one in shared} == {"false"}


def test_without_gpus_workers_share_the_cores(machine, monkeypatch):
    machine("")
    monkeypatch.setattr(this_machine, "n_cores", lambda: 8)
    assert len(worker_environments()) == 8
    (one, *_) = worker_environments(4)
    assert one["NPROC"] == one["OMP_NUM_THREADS"] == "2" and one["JAX_PLATFORMS"] == "cpu"
    assert worker_environments(99)[0]["NPROC"] == "1"


def test_gpus_are_counted_by_the_driver_and_left_out_where_jax_is_told_to(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert visible_gpus() == []
    assert n_cores() >= 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, "many", True])
def test_what_is_no_number_of_workers_is_refused(workers):
    with pytest.raises(InputError, match="workers = "):
        worker_environments(workers)


def test_without_dask_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setattr(this_machine, "find_spec", lambda name: None)
    with pytest.raises(CampaignError, match=r"pip install 'mdsens\[campaign\]'"):
        require_dask()
    with pytest.raises(CampaignError, match="local workers need Dask"), local(1):
        pass
