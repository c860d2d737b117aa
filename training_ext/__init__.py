"""The numerical parts, without click and pluggy: the contract, passes, and one module of equations per method. Only
``loss`` needs a host. Docstrings give symbols, shapes, ranges and the source of an equation."""
