"""What every test process has: real data, folders and a screen of its own, and a torch that leaves cores to others."""

from __future__ import annotations

import functools
import gc
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine with much to do is slow; what is tested is what comes out.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Set before torch or numpy start their pools: on small machines spinning OpenMP threads cost more than they give.
# Workers side by side share the cores; they inherit what the process that started them has set.
_CORES = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
os.environ["OMP_NUM_THREADS"] = str(min(_CORES, int(os.environ.get("OMP_NUM_THREADS", "2"))))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What belongs to whoever runs the tests is neither read nor written: settings, preferences, weights, kept sessions. By
# the environment, so that it holds for programs that tests start; a test that keeps something points elsewhere. Every
# process has folders of its own, napari's settings and icons included: workers do not wait for, or see, each other.
_HOME = tempfile.TemporaryDirectory(prefix="medt-tests-", ignore_cleanup_errors=True)
Path(_HOME.name, "preferences.json").write_text('{"disk_gb": 0}')  # no encoded slices on disk
os.environ |= {
    "MEDT_SETTINGS": f"{_HOME.name}/settings.json",
    "MEDT_PREFERENCES": f"{_HOME.name}/preferences.json",
    "MEDT_CACHE": f"{_HOME.name}/weights",
    "XDG_STATE_HOME": f"{_HOME.name}/state",
    "XDG_CACHE_HOME": f"{_HOME.name}/cache",
    "XDG_CONFIG_HOME": f"{_HOME.name}/config",
}
os.environ.setdefault("MEDT_TESTS_TURNS", _HOME.name)  # the same for all workers: that of the process that starts them

# Workers must agree on which tests there are: sets have one order in all of them; see `pytest_generate_tests`, too.
os.environ.setdefault("PYTHONHASHSEED", "0")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

# What tests share is imported by the programs that they start, too.
_HELPERS = str(Path(__file__).parent / "helpers")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_HELPERS, os.environ.get("PYTHONPATH"))))

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Give every worker a screen of its own; a single process uses the one it has, if any."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    starts_workers = config.getoption("dist", "no") != "no"
    has_screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if is_worker or not (starts_workers or has_screen):
        from own_screen import start_screen

        start_screen()


@pytest.hookimpl(tryfirst=True)  # before pytest makes the cases
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Leave addresses of objects out of the names of cases: in every process they are others."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        ids = mark.kwargs.get("ids")
        if callable(ids):
            mark.kwargs["ids"] = functools.partial(_without_address, ids)


def _without_address(name_of: Callable[[object], object], value: object) -> str | None:
    name = name_of(value)  # None: pytest finds one
    return None if name is None else _ADDRESS.sub("", str(name))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before the clock of the test's time limit starts
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test marked alone have the machine for itself."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    from turns import turn

    with turn(Path(os.environ["MEDT_TESTS_TURNS"]), alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collections; every closed viewer asks for one, of a third second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def team_of() -> Iterator[Callable[[int], None]]:
    """Sets how many threads torch uses; afterwards it is the number from before."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or $MEDT_SHARED_DATA; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MEDT_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MEDT_SHARED_DATA to a folder that has it")
    return folder
