"""Scripts of a host, drivers and commands, run on the CPU as a user runs them."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DRIVERS = Path(__file__).parents[1] / "drivers"
ON_CPU = {"PYTHONDONTWRITEBYTECODE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
UNREACHABLE = {  # no connection to the network
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}


def environment(**env: str) -> dict[str, str]:
    """Return the environment of a script on the CPU. A given PYTHONPATH comes before this process's."""
    paths = [path for path in (env.get("PYTHONPATH"), os.environ.get("PYTHONPATH")) if path]
    return {**os.environ, **ON_CPU, **env, "PYTHONPATH": os.pathsep.join(paths)}


def run_script(
    host: Path, script: str, *args: str, check: bool = True, timeout: int = 300, fresh: bool = False, **env: str
) -> subprocess.CompletedProcess:
    """Run a script in a host's folder, with our warnings shown. Returns the finished process.

    The script runs in a fork of a process that has imported torch, which saves the seconds that every import of torch
    takes. `fresh` starts a new Python; a script that starts processes itself needs it."""
    argv = [script, *map(str, args)]
    if fresh:
        command = [sys.executable, *argv]
        done = subprocess.run(
            command, cwd=host, env=environment(**env), capture_output=True, text=True, timeout=timeout
        )
    else:
        done = _run_forked(argv, host, environment(**env), timeout)
    if check and done.returncode:
        raise AssertionError(f"{script} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def _run_forked(argv: list[str], cwd: Path, env: dict[str, str], timeout: int) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as top:
        stdout, stderr = Path(top, "stdout"), Path(top, "stderr")
        request = {"argv": argv, "cwd": str(cwd), "env": env, "timeout": timeout}
        code = _ask(request | {"stdout": str(stdout), "stderr": str(stderr)})
        return subprocess.CompletedProcess(argv, code, stdout.read_text(), stderr.read_text())


class Started:
    """A script that was started in its own process group, with the part of Popen's interface that tests use."""

    def __init__(self, host: Path, argv: list[str], env: dict[str, str], timeout: int = 600):
        self.argv, self.returncode = argv, None
        descriptor, name = tempfile.mkstemp()
        os.close(descriptor)
        self._output = Path(name)
        request = {"argv": argv, "cwd": str(host), "env": env, "timeout": timeout, "start": True}
        self.pid = _ask(request | {"stdout": name, "stderr": name})

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.argv, timeout)
            time.sleep(0.02)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Wait for its end. Returns all that it printed, standard error included."""
        self.wait(timeout)
        output = self._output.read_text()
        self._output.unlink()
        return output, None


def start_script(host: Path, script: str, *args: str, fresh: bool = False, **env: str) -> subprocess.Popen | Started:
    """Start a script as run_script runs it, in its own process group, with one file for all output."""
    argv = [script, *map(str, args)]
    if not fresh:
        return Started(host, argv, environment(**env))
    return subprocess.Popen(
        [sys.executable, *argv],
        cwd=host,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _ask(request: dict) -> int | None:
    server = _fork_server()
    print(json.dumps(request), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


@functools.cache
def _fork_server() -> subprocess.Popen:
    """Start the process that run_script forks. It ends when its standard input does, with this process."""
    return subprocess.Popen(
        [sys.executable, str(DRIVERS / "fork_server.py"), os.path.join(os.environ["TESTS_SHARED"], "bytecode")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run_many(host: Path, runs: list[list[str]], script: str = "train.py", **env: str) -> list[dict]:
    """Run a script of a host once for each list of arguments. Returns code, stdout and stderr of each."""
    with tempfile.TemporaryDirectory() as top:
        asked, answered = Path(top, "runs.json"), Path(top, "results.json")
        asked.write_text(json.dumps([{"args": args} for args in runs]))
        run_script(host, str(DRIVERS / "run_many.py"), script, str(asked), str(answered), **env)
        return json.loads(answered.read_text())


def invoke(host: Path, *args: str) -> subprocess.CompletedProcess:
    """Run the command `stylegan-plugins` in the host's folder. The test looks at the exit status."""
    code = "import sys; from stylegan_plugins.cli import main; sys.argv[0] = 'stylegan-plugins'; main()"
    return run_script(host, "-c", code, *args, check=False)


def report_of(host: Path, driver: str, *args: str) -> dict:
    """Run a driver in a host's folder. Returns the JSON of the last line that it prints."""
    return json.loads(run_script(host, str(DRIVERS / driver), *args).stdout.splitlines()[-1])


def free_port() -> int:
    """Return a port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
