"""One training run: arguments, session, training states, resume, fine-tuning, signals, progress."""
