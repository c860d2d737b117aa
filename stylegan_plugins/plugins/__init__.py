"""Built-in plug-ins: one method, one file."""
