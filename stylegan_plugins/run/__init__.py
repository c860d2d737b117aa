"""One training run: arguments, session, states, resume, fine-tuning, signals, progress."""
