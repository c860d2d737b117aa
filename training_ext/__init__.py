"""The numerical parts: the contract, passes, and one module of equations per method, without click and pluggy. Only
``loss`` needs a host. Docstrings give symbols, shapes, ranges and the source of an equation."""
