"""Two iterations of every pair of methods, built-in or an example, on each host given.

    python benchmarks/pairs.py HOST [HOST ...]

Prints each pair that is refused or goes wrong, and how many there are. Exit code 1 if one goes wrong. The test suite
has each method with a fixed set of eight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DRIVER = Path(__file__).parents[1] / "tests" / "drivers" / "combine.py"


def main() -> None:
    failed = 0
    for host in sys.argv[1:]:
        done = subprocess.run([sys.executable, DRIVER, "all"], cwd=host, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        faults = json.loads(done.stdout.splitlines()[-1])
        for pair, fault in faults.items():
            if fault:
                print(f"{pair}: {fault}")
        wrong = [fault for fault in faults.values() if fault and not fault.startswith("refused")]
        print(f"{host}: {len(faults)} pairs, {len(wrong)} go wrong")
        failed += bool(wrong)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
