"""Hosts: find, fetch, recognise, edit and repair them."""
