"""Training and fine-tuning; only the command line imports it."""
