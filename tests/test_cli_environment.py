"""How threads wait for each other is set before torch is loaded, and only there."""

import os
import subprocess
import sys

import pytest

from whence.cli.environment import WAITING_VARIABLES, let_threads_sleep

WHEN_TORCH_IS_LOADED = """
import importlib.abc, os, runpy, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print("at torch:", os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
sys.argv = ["whence", "train", "burgers"]
"""
AS_MODULE = "runpy.run_module('whence.cli', run_name='__main__')"
AS_SCRIPT = "from whence.cli import main; main()"


def policy_at_torch(how, **variables):
    environment = {k: v for k, v in os.environ.items() if k not in WAITING_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", WHEN_TORCH_IS_LOADED + how],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("how", [AS_MODULE, AS_SCRIPT])
def test_threads_sleep_from_the_start(how):
    assert policy_at_torch(how) == "at torch: PASSIVE"


@pytest.mark.parametrize(
    ("name", "value", "policy"),
    [
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE"),
        ("GOMP_SPINCOUNT", "1000", "None"),
        ("KMP_BLOCKTIME", "200", "None"),
    ],
)
def test_what_the_user_set_stays(name, value, policy):
    assert policy_at_torch(AS_MODULE, **{name: value}) == f"at torch: {policy}"


def test_nothing_is_set_where_it_would_do_nothing(monkeypatch):
    import torch

    assert sys.modules["torch"] is torch
    for name in WAITING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    let_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ
