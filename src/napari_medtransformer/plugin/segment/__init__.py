"""The Segment dock: automatic runs over whole volumes, their layers, their measures."""
