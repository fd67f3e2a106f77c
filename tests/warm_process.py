"""A process that has imported whence, and forks one for each command: to import takes longest."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass

SERVER = """
import json, os, sys, traceback

# What figures, files and derivatives load at their first use, as well as the commands.
import distributed
import netCDF4
import torch.fx.experimental.symbolic_shapes
from matplotlib import pyplot
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PpmImagePlugin

from whence.cli import influence, main, plot, score, train

for line in sys.stdin:
    arguments, out, err = json.loads(line)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)
        continue
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    code = 1
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


@contextmanager
def commands(folder, **environment):
    """Yield a function that runs a command line of whence in a process of its own."""
    command = [sys.executable, "-c", SERVER]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, env={**os.environ, **environment}, **streams
    ) as server:

        def run(*arguments):
            out, err = folder / "out", folder / "err"
            line = json.dumps([[str(word) for word in arguments], str(out), str(err)])
            print(line, file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            return Ended(code, out.read_text(), err.read_text())

        yield run
        server.stdin.close()
