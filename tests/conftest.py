"""Small tensors are many times slower on several threads, the more so beside other processes."""

import gc
import os

# Read when torch and scipy load their BLAS; numpy is already in, by way of zarr's plugin.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collectstart():
    """Modules and tests are a million objects that stay: no garbage is looked for among them.

    That takes a third of the time to collect tests, and a second each time later.
    """
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


# --- methods on several blocks of points, and workers ---------------------------------------------


@pytest.fixture(params=["influence", "grad_dot", "grad_cos", "tracin", "empirical"])
def many(request):
    """A method on more points than go through the network at once."""
    from many_points import MAKE, N, objective

    # Losses are taken at more points at once than are linearized.
    n = 9000 if request.param == "empirical" else N
    return MAKE[request.param](objective(n=n))


@pytest.fixture
def narrow(monkeypatch):
    """Bands of a block, and two targets that are solved for at once."""
    monkeypatch.setattr("whence.attribution.bands.CHUNK_POINTS", 1000)
    monkeypatch.setattr("whence.attribution.tiled.TARGET_BLOCK", 2)


@pytest.fixture(scope="session")
def forked_workers():
    """Workers that are forked of a process that has imported what they need.

    Workers of users import it themselves, which takes each of them longer than most tests: in
    tests those that commands start do so.
    """
    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        # Of distributed, which sets first what it would have imported itself.
        get_mp_context().set_forkserver_preload(
            ["distributed", "whence", "whence.studies.work"]
        )
        yield


@pytest.fixture
def process(forked_workers):
    """What starts a function of a module in a process of its own, as workers are."""
    from multiprocessing import get_context

    def start(function, *arguments):
        begun = get_context("forkserver").Process(target=function, args=arguments)
        begun.start()
        return begun

    return start


@pytest.fixture(scope="module")
def client(forked_workers):
    """Two workers, processes of their own; gone with the module.

    A test that forks, as loaders of torch do, beside the threads of a cluster waits for ever.
    """
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client
