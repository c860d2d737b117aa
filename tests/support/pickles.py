"""Network pickles of small networks, written by a host's own classes."""

from __future__ import annotations

from pathlib import Path

from support.scripts import DRIVERS, run_script


def make_pickle(host: Path, out: Path, **settings: int) -> Path:
    """Write a pickle; for settings see drivers/make_pickle.py."""
    run_script(host, str(DRIVERS / "make_pickle.py"), str(out), *[f"{key}={value}" for key, value in settings.items()])
    return out


def make_pickles(shared, name: str, hosts: dict[str, Path], **settings: int) -> dict[str, Path]:
    """Write a pickle for each family, in a folder of that name that test processes share."""

    def fill(top: Path) -> None:
        for family, host in hosts.items():
            make_pickle(host, top / f"{family}.pkl", **settings)

    top = shared(name, fill)
    return {family: top / f"{family}.pkl" for family in hosts}
