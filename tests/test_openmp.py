"""Both faces settle how torch waits and where its arrays lie; the library does not, and a user's choice stands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from napari_medtransformer.openmp import keep_to, without_team

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def variable_after(code: str, variable: str, **chosen: str) -> str:
    """What an environment variable is after some code, in a process where nothing but `chosen` was chosen."""
    ours = (*WAITING, "THP_MEM_ALLOC_ENABLE")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | chosen
    code = f"import os; {code}; print(os.environ.get({variable!r}))"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(
    "variable, ours, other",
    [("GOMP_SPINCOUNT", "100000", "7"), ("KMP_BLOCKTIME", "1", "30"), ("THP_MEM_ALLOC_ENABLE", "1", "0")],
)
@pytest.mark.parametrize(
    "module, is_chosen, is_set",
    [
        ("napari_medtransformer.cli", False, True),
        ("napari_medtransformer.plugin", False, True),
        ("napari_medtransformer.plugin", True, False),
        ("napari_medtransformer", False, False),
    ],
)
def test_programs_wait_briefly_in_large_pages(
    variable: str, ours: str, other: str, module: str, is_chosen: bool, is_set: bool
) -> None:
    chosen = {variable: other} if is_chosen else {}
    expected = ours if is_set else other if is_chosen else "None"
    assert variable_after(f"import {module}", variable, **chosen) == expected


def test_a_policy_of_the_users_is_not_refined() -> None:
    assert variable_after("import napari_medtransformer.cli", "GOMP_SPINCOUNT", OMP_WAIT_POLICY="PASSIVE") == "None"


def in_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_thread_keeps_to_its_number_and_leaves_others_theirs(team_of) -> None:
    team_of(3)

    def kept() -> tuple[int, int]:
        keep_to(2)
        return torch.get_num_threads(), in_a_thread(torch.get_num_threads)

    assert in_a_thread(kept) == (2, 3)
    assert torch.get_num_threads() == 3


def test_without_a_team_a_thread_is_alone_and_has_it_back_after(team_of) -> None:
    team_of(3)
    with without_team():
        assert torch.get_num_threads() == 1
        assert in_a_thread(torch.get_num_threads) == 3
    assert (torch.get_num_threads(), in_a_thread(torch.get_num_threads)) == (3, 3)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts a process' threads where Linux lists them")
def test_a_thread_without_a_team_starts_none() -> None:
    code = """
import os, threading, time, torch
from napari_medtransformer.openmp import without_team

def beyond_python():
    return len(os.listdir("/proc/self/task")) - threading.active_count()

def started_by(function):
    before, done, gate = beyond_python(), threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (function(), done.set(), gate.wait()))
    thread.start()
    done.wait()
    more = beyond_python() - before
    gate.set()
    thread.join()
    while os.path.isdir(f"/proc/self/task/{thread.native_id}"):  # it has ended, and is listed for a moment yet
        time.sleep(0.01)
    return more

def work():
    torch.randn(1_000_000).exp()

def alone():
    with without_team():
        work()

print(started_by(alone), started_by(work))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "3"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    without, within = map(int, run.stdout.split())
    assert without == 0 < within
