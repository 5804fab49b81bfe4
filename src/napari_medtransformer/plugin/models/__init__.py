"""Choosing and bringing a model: the picker, its list and cards, downloads, and the model that is loaded."""
