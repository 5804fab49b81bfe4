"""Hashes that take long are computed where nobody waits for them."""

from __future__ import annotations

import threading

import pytest

from napari_medtransformer.prompting import slice_model
from napari_medtransformer.prompting.slice_model import SliceModel


@pytest.mark.parametrize("name", ["model_fingerprint", "volume_fingerprint"])
def test_one_fingerprint_is_had_while_another_takes_long(monkeypatch, region_model, blocks, name) -> None:
    slow, quick = (SliceModel(region_model, blocks, None, 1_000_000) for _ in range(2))
    begun, go_on = threading.Event(), threading.Event()
    compute = getattr(slice_model, name)

    def slowly(what: object) -> str:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(60)
        return compute(what)

    monkeypatch.setattr(slice_model, name, slowly)
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(getattr(slow, name)))
    thread.start()
    assert begun.wait(60)
    own = getattr(quick, name)  # with a lock that all share, this would wait until the other is done
    assert found == []
    go_on.set()
    thread.join()
    assert found == [own]
