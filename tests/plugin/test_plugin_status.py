"""What the Prompt dock says at its foot."""

from __future__ import annotations

import pytest

from napari_medtransformer.plugin.status import duration_in_words, overlap_in_words, status_line


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0984, "98 ms"), (0.9, "900 ms"), (1.26, "1.3 s"), (9.9, "9.9 s"), (120.198, "120 s")]
)
def test_a_duration_is_said_as_finely_as_it_matters(seconds: float, said: str) -> None:
    assert duration_in_words(seconds) == said


@pytest.mark.parametrize(("score", "said"), [(-0.11, "0%"), (0.224, "22%"), (1.04, "100%")])
def test_no_overlap_is_below_none_or_above_all(score: float, said: str) -> None:
    assert overlap_in_words(score) == said


def test_the_answer_is_shown_as_one_however_long_the_worker_takes_to_say_that_it_is_done(
    open_desk, torso, liver
) -> None:
    desk = open_desk(torso())
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    said: list[tuple[str, str]] = []
    desk.controller.changed.connect(lambda: said.append(status_line(desk.controller)))
    z, y, x = liver
    desk.prompt((z, y + 4, x))
    desk.wait()
    # a dock that is brought up to date with the last change says this until the next
    assert said[-1][0] == "ready"
    assert "2 points" in said[-1][1]


def test_an_answer_that_is_no_longer_wanted_leaves_nothing_waiting(open_desk, torso, liver) -> None:
    desk = open_desk(torso())
    desk.show(liver)
    desk.prompt(liver)
    desk.wait()
    said: list[str] = []
    desk.controller.changed.connect(lambda: said.append(status_line(desk.controller)[0]))
    z, y, x = liver
    desk.prompt((z, y + 4, x))
    desk.controller.undo()
    desk.wait()
    assert said[-1] == "ready"
