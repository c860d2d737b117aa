"""Figures of the documentation as SVG, for docs/make_pictures.py."""
