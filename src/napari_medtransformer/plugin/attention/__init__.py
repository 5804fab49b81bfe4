"""The Attention dock: what asks, which head answers, how it is drawn, what it causes, what is taken away."""
