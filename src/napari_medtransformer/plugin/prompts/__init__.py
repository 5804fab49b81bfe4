"""The Prompt dock: prompts on the canvas, answers, objects, what is kept and what leaves the session."""
