"""Working on a cluster: a real scheduler and real workers, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dask_processes import DaskProcesses
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_medtransformer.cluster import connect, normal_address, pack_array, unpack_array
from napari_medtransformer.errors import ClusterLost, ClusterUnreachable, InvalidOption


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    started = DaskProcesses(tmp_path_factory.mktemp("dask"))
    started.start_worker()
    yield started
    started.stop()


def test_work_runs_in_another_process_and_its_errors_come_back_as_they_are(processes: DaskProcesses) -> None:
    with connect(processes.address, timeout=60) as cluster:
        assert cluster.state == "connected"
        assert cluster.call(os.getpid) == processes.workers[0].pid
        with pytest.raises(ZeroDivisionError):
            cluster.call(divmod, 1, 0)
    assert cluster.state == "local"
    with pytest.raises(ClusterLost, match="no connection"):
        cluster.call(os.getpid)


def test_a_result_that_is_longer_on_its_way_than_between_two_looks_comes(
    processes: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medtransformer.cluster._POLL_SECONDS", 0.001)
    with connect(processes.address, timeout=60) as cluster:
        for size in (10, 50_000_000):
            task = cluster.submit(bytes, size)
            while not task.done():
                time.sleep(0.01)
            assert len(task.result(timeout=60)) == size


def test_a_time_limit_passes_and_one_may_ask_again(processes: DaskProcesses) -> None:
    with connect(processes.address, timeout=60) as cluster:
        task = cluster.submit(time.sleep, 1.0)
        with pytest.raises(TimeoutError, match="gave no answer within 0.1 s"):
            task.result(timeout=0.1)
        assert task.result(timeout=60) is None


def test_an_error_of_the_work_that_looks_like_a_time_limit_is_raised(processes: DaskProcesses) -> None:
    with connect(processes.address, timeout=60) as cluster:
        task = cluster.submit(exec, "raise TimeoutError('of the work itself')")
        with pytest.raises(TimeoutError, match="of the work itself"):
            task.result(timeout=60)


def test_work_of_a_killed_worker_is_done_by_another_and_without_any_it_is_said(processes: DaskProcesses) -> None:
    with connect(processes.address, timeout=60) as cluster:
        told: list[str] = []
        cluster.subscribe(told.append)
        cluster.patience = 1.0
        first = processes.workers[-1]
        task = cluster.submit(time.sleep, 1.5)
        time.sleep(0.3)
        threading.Timer(0.2, processes.start_worker).start()
        processes.kill(first)
        cluster.patience = 60.0
        assert task.result() is None
        second = processes.workers[-1]
        assert cluster.call(os.getpid) == second.pid
        cluster.patience = 1.0
        processes.kill(second)
        with pytest.raises(ClusterLost, match="no worker any more"):
            cluster.call(os.getpid)
        assert cluster.state == "reconnecting"
        processes.start_worker()
        cluster.patience = 60.0
        assert cluster.call(os.getpid) == processes.workers[-1].pid
        assert cluster.state == "connected"
        assert told[-1] == "connected"
        assert "reconnecting" in told


def test_a_scheduler_that_dies_is_noticed_and_found_again_at_its_address(tmp_path: Path) -> None:
    processes = DaskProcesses(tmp_path)
    try:
        processes.start_worker()
        cluster = connect(processes.address, timeout=60)
        cluster.timeout = 2.0
        port = processes.port
        processes.stop()
        with pytest.raises(ClusterLost):
            cluster.call(os.getpid)
        assert cluster.state == "reconnecting"
        processes.start_scheduler(port)
        processes.start_worker()
        cluster.timeout = 60.0
        assert cluster.call(os.getpid) == processes.workers[-1].pid
        cluster.close()
        assert cluster.reconnect() is False
    finally:
        processes.stop()


def test_work_of_a_connection_that_was_given_up_is_done_on_the_next_one(tmp_path: Path) -> None:
    processes = DaskProcesses(tmp_path)
    try:
        processes.start_worker()
        with connect(processes.address, timeout=60) as cluster:
            port = processes.port
            asked, not_asked = (cluster.submit(time.sleep, 1.0) for _ in range(2))
            with pytest.raises(TimeoutError):
                asked.result(timeout=0.1)
            processes.stop()
            processes.start_scheduler(port)
            processes.start_worker()
            assert cluster.reconnect()
            assert asked.result(timeout=60) is None
            assert not_asked.result(timeout=60) is None
            left = cluster.submit(time.sleep, 0.0)
        with pytest.raises(ClusterLost, match="was lost"):
            left.result(timeout=60)
    finally:
        processes.stop()


def test_an_address_where_nobody_listens_says_how_to_start_a_scheduler() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(ClusterUnreachable, match=f"no scheduler answers at tcp://127.0.0.1:{port}.*--port {port}"):
        connect(f"127.0.0.1:{port}", timeout=1)


def test_a_scheduler_without_workers_says_how_to_start_one(tmp_path: Path) -> None:
    processes = DaskProcesses(tmp_path)
    try:
        with pytest.raises(ClusterUnreachable, match="has no worker; start one with: dask worker"):
            connect(processes.address, timeout=2)
    finally:
        processes.stop()


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterUnreachable, match="pip install distributed"):
        connect("tcp://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore:Mismatched versions")
def test_other_versions_are_refused_with_both_numbers(
    processes: DaskProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed.client

    here = distributed.client.version_module.get_versions

    def newer(packages: object = None) -> dict[str, dict[str, object]]:
        said = here(packages)
        return {**said, "packages": {**said["packages"], "napari-medtransformer": "99.0"}}

    monkeypatch.setattr(distributed.client.version_module, "get_versions", newer)
    with pytest.raises(ClusterUnreachable, match="worker at .* has napari-medtransformer .*, here is 99.0"):
        connect(processes.address, timeout=60)


@pytest.mark.parametrize("text", ["", "tcp://", "box", "tcp://box", "box:port", "http://box:80", "tcp://box:99999"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ClusterUnreachable, match="no scheduler's address"):
        normal_address(text)


@pytest.mark.parametrize("given", [None, 5, b"tcp://box:8786", ["tcp://box:8786"], np.ones((2, 2))])
def test_what_is_of_another_type_is_no_address_and_no_timeout(given: object) -> None:
    with pytest.raises(ClusterUnreachable, match="a scheduler's address is a text, not"):
        normal_address(given)
    with pytest.raises(InvalidOption, match="a timeout in seconds is a finite number above 0, not"):
        connect("tcp://127.0.0.1:9", -5 if isinstance(given, int) else given)


def test_an_address_may_leave_out_its_protocol() -> None:
    assert normal_address(" box:8786/ ") == "tcp://box:8786"
    assert normal_address("tls://[::1]:8786") == "tls://[::1]:8786"


@given(arrays(st.sampled_from([np.int16, np.float32, np.uint8, np.bool_, np.float64]), array_shapes(min_side=0)))
def test_arrays_travel_without_loss(array: np.ndarray) -> None:
    back = unpack_array(pack_array(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_a_slice_of_ct_travels_in_a_third_of_its_size() -> None:
    rng = np.random.default_rng(0)
    image = np.float32(np.clip(rng.normal(0.5, 0.05, (512, 512)) * 400, 0, 400).round() / 400)
    assert len(pack_array(image).data) < 0.35 * image.nbytes


def test_importing_the_module_does_not_import_distributed() -> None:
    code = "import sys, napari_medtransformer.cluster; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
