"""What goes wrong, told in napari's notifications: one line for a user's mistake, never a dialog with a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from napari.utils.notifications import show_error, show_info, show_warning

from napari_medtransformer.errors import MedTransformerError

logger = logging.getLogger(__name__)


def tell(message: str) -> None:
    """A passing remark."""
    show_info(message)


def warn(message: str) -> None:
    """Something was done otherwise than asked, or could not be done."""
    show_warning(message)


def report(error: BaseException) -> None:
    """Show an error: ours in its own words; any other as one line too, its traceback in the log."""
    if isinstance(error, MedTransformerError):
        show_error(str(error))
        return
    logger.error("unexpected error", exc_info=error)
    text = " ".join(str(error).split()) or "no further message"
    show_error(f"Something went wrong inside the plugin: {type(error).__name__}: {text}. The log has the details.")


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error of this project into a notification."""
    try:
        yield
    except MedTransformerError as error:
        report(error)
