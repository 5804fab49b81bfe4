"""The short form of benchmarks/fuzz_volumes.py: damaged files end in a volume or in one of our errors, and quickly."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fuzzer(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_volumes", repository / "benchmarks" / "fuzz_volumes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_volumes"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_damaged_files_of_every_format_end_in_a_volume_or_in_one_of_our_errors(fuzzer: ModuleType) -> None:
    tallies = fuzzer.fuzz(count=320, seed=20240607)
    assert [line for tally in tallies.values() for line in tally.broken] == []
    assert len(tallies) >= 20
    outcomes = sum((tally.outcomes for tally in tallies.values()), start=type(next(iter(tallies.values())).outcomes)())
    assert outcomes["volume"] > 20  # the damage is not so heavy that nothing is left to read
    assert outcomes["UnreadableFile"] > 100


@pytest.mark.skipif(sys.platform == "win32", reason="stopping a process is POSIX")
def test_the_fuzzer_notices_a_process_that_hangs_and_goes_on_with_another(
    fuzzer: ModuleType, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(fuzzer, "LIMIT_SECONDS", 3.0)
    worker = fuzzer.Worker()
    try:
        (tmp_path / "fine.txt").write_text("x")
        assert worker.read(tmp_path / "fine.txt")["outcome"] == "UnreadableFile"
        os.kill(worker.process.pid, signal.SIGSTOP)
        assert worker.read(tmp_path / "fine.txt")["outcome"] == "hang"
        assert worker.read(tmp_path / "fine.txt")["outcome"] == "UnreadableFile"  # by a new process
    finally:
        worker.close()


def test_the_same_seed_damages_the_same_bytes(fuzzer: ModuleType) -> None:
    content = bytes(range(256)) * 4
    assert fuzzer.mutate(content, random.Random(3)) == fuzzer.mutate(content, random.Random(3)) != content
