"""``whence explore``: it says where its page is, ends by Ctrl-C, refuses what it cannot show."""

import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial

from whence import cli


def test_it_serves_until_an_interrupt(tmp_path):
    steps = ["--schedule", "gauss_newton:2", "--resampler", "none", "--quiet"]
    run = str(tmp_path / "run")
    assert (
        cli.main(["train", "burgers", *steps, "--points", "pde=50", "--out", run]) == 0
    )
    command = [sys.executable, "-m", "whence.cli", "explore", run, "--no-browser"]
    began = time.perf_counter()
    # Tests that run in the background ignore interrupts, and so would what they start.
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    server = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    try:
        line = server.stdout.readline()
        print(f"whence explore: its address after {time.perf_counter() - began:.1f} s")
        assert line.startswith("explorer: http://127.0.0.1:")
        with urllib.request.urlopen(line.split()[1]) as reply:
            assert b"<title>whence explore</title>" in reply.read()
        server.send_signal(signal.SIGINT)
        rest, _ = server.communicate(timeout=240)
        assert (server.returncode, rest) == (0, "ended\n")
    finally:
        server.kill()
        server.wait()


def test_what_cannot_be_shown(tmp_path, capsys):
    assert cli.main(["explore", str(tmp_path / "none"), "--no-browser"]) == 2
    assert "holds no whence run" in capsys.readouterr().err
    assert cli.main(["explore", str(tmp_path), "--port", "70000"]) == 2
    assert "--port must lie in 0 … 65535, got 70000" in capsys.readouterr().err
