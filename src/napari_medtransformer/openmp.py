"""How torch's threads wait and where its arrays lie: settings of programs, not of the library, for the two faces.

torch shares most of its work between the threads of a team (OpenMP). Every thread that asks torch for something large
gets a team of its own, and keeps it. Many small layers come after one another in an answer to a click, so what counts
is how soon a team notices the next one. A thread that sleeps has to be woken, which takes longer than some layers, and
on few cores it often wakes on the core that waits for it: two threads were then no faster than one. So a team looks out
for work for about a millisecond before it sleeps (`wait_briefly`), instead of the three that libgomp, or the 200 that
other libraries take, which hold up a window that is being drawn.

libgomp no longer lets anybody look out once all teams together have more threads than there are cores. So threads that
ask for little keep to themselves (`keep_to`), and one that is done with a lot ends, and its team with it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SPINS = "100000"
"""About a millisecond of libgomp's waiting loop."""
_BLOCKTIME_MS = "1"
"""The same for LLVM's and Intel's library."""


def wait_briefly() -> None:
    """Let idle OpenMP threads look out for work for a millisecond and then sleep, unless the user chose otherwise.

    Without effect once torch is loaded.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys()
    if "torch" not in sys.modules and not chosen:
        os.environ.update(GOMP_SPINCOUNT=_SPINS, KMP_BLOCKTIME=_BLOCKTIME_MS)


def use_large_pages() -> None:
    """Let torch's arrays lie in large pages of memory where Linux has them, unless the user chose otherwise.

    Else every fresh array of a network costs a fault per 4 kB: a sixth of the time of a window of 96³ voxels. Without
    effect once torch is loaded.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_to(count: int) -> None:
    """Let torch use so many threads for what the calling thread asks, and leave the number of all others alone."""
    import torch

    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    if count < before:
        # That number is also what threads get that have not used torch yet; it is put back by one that ends at once.
        restoring = threading.Thread(target=torch.set_num_threads, args=(before,), name="threads of torch")
        restoring.start()
        restoring.join()


@contextmanager
def without_team() -> Iterator[None]:
    """Inside, the calling thread does alone what it asks of torch."""
    import torch

    before = torch.get_num_threads()
    keep_to(1)
    try:
        yield
    finally:
        keep_to(before)
