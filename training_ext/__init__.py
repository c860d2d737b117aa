"""The numerical parts of the methods: functions and modules on tensors, without click, pluggy or a host.

It mirrors the host's ``training/`` package: ``augment`` and ``heads`` hold what a pass goes through, one module per
method holds its loss equations. Each docstring gives symbols, shapes, ranges and the source of its equation.
"""
