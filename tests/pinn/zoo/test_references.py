"""Each reference solution against a method that shares no formula or code with it."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import erfc

from whence.pinn.zoo import (
    _allen_cahn_spectral,
    _cole_hopf,
    allen_cahn,
    burgers,
    diffusion,
    drift_diffusion,
    poisson_disk,
    wave,
)

EVERY = [
    diffusion.solution,
    wave.solution,
    drift_diffusion.solution,
    burgers.solution,
    allen_cahn.solution,
]

# Central differences of eighth order on the offsets −4..4.
FIRST = np.array(
    [1 / 280, -4 / 105, 1 / 5, -4 / 5, 0, 4 / 5, -1 / 5, 4 / 105, -1 / 280]
)
SECOND = np.array(
    [-1 / 560, 8 / 315, -1 / 5, 8 / 5, -205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560]
)
OFFSETS = np.arange(-4, 5)


def difference(u, stencil, order, x, t, dx=0.0, dt=0.0):
    """Differentiate ``u`` at (x, t) along x by steps dx, or along t by steps dt."""
    values = [
        c * u(x + k * dx, t + k * dt) for c, k in zip(stencil, OFFSETS, strict=True)
    ]
    return np.sum(values, axis=0) / (dx + dt) ** order


def scattered(n, low, high, seed=0):
    """Return n places in (low, high) and times in (0.1, 1), away from t = 0 for differences."""
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, n), rng.uniform(0.1, 1, n)


# --- closed forms -----------------------------------------------------------------------------


def test_diffusion_satisfies_its_equation():
    x, t = scattered(200, -1, 1)
    u_t = difference(diffusion.solution, FIRST, 1, x, t, dt=0.02)
    u_xx = difference(diffusion.solution, SECOND, 2, x, t, dx=0.03)
    force = -np.exp(-t) * (1 - np.pi**2) * np.sin(np.pi * x)
    assert np.abs(u_t - u_xx - force).max() < 1e-9 * np.pi**2


def test_wave_satisfies_its_equation():
    x, t = scattered(200, 0, 1)
    u_tt = difference(wave.solution, SECOND, 2, x, t, dt=0.003)
    u_xx = difference(wave.solution, SECOND, 2, x, t, dx=0.006)
    assert np.abs(u_tt - 4 * u_xx).max() < 1e-9 * (8 * np.pi) ** 2


def test_drift_diffusion_satisfies_its_equation():
    x, t = scattered(200, 0, 2 * np.pi)
    u_t = difference(drift_diffusion.solution, FIRST, 1, x, t, dt=0.001)
    u_x = difference(drift_diffusion.solution, FIRST, 1, x, t, dx=0.02)
    u_xx = difference(drift_diffusion.solution, SECOND, 2, x, t, dx=0.03)
    assert np.abs(u_t - u_xx + 20 * u_x).max() < 1e-9 * 40


def test_initial_values():
    x = np.linspace(0, 1, 101)
    zero = np.zeros_like(x)
    sine = np.sin(np.pi * x)
    standing = sine + 0.5 * np.sin(4 * np.pi * x)
    drift = np.sin(2 * x + np.pi / 4)
    bent = x**2 * np.cos(np.pi * x)
    assert np.allclose(diffusion.solution(x, zero), sine, rtol=0, atol=1e-14)
    assert np.allclose(wave.solution(x, zero), standing, rtol=0, atol=1e-14)
    assert np.allclose(drift_diffusion.solution(x, zero), drift, rtol=0, atol=1e-14)
    assert np.allclose(burgers.solution(-x, zero), sine, rtol=0, atol=1e-14)
    assert np.allclose(allen_cahn.solution(-x, zero), bent, rtol=0, atol=1e-12)


def test_wave_starts_at_rest():
    x, still = np.linspace(0, 1, 11), np.full(11, 1e-6)
    # u(x, t) − u(x, 0) is of order t² if u_t(x, 0) = 0
    change = wave.solution(x, still) - wave.solution(x, 0 * still)
    assert np.abs(change).max() < (8 * np.pi * 1e-6) ** 2


def test_boundary_values():
    t = np.linspace(0, 1, 101)
    left, right, zero = -np.ones_like(t), np.ones_like(t), np.zeros_like(t)
    for side in (left, right):
        assert not diffusion.solution(side, t).any()
        assert not burgers.solution(side, t).any()
        assert np.array_equal(allen_cahn.solution(side, t), left)
    assert not wave.solution(zero, t).any()
    assert not wave.solution(right, t).any()
    ends = [drift_diffusion.solution(zero + end, t) for end in (0, 2 * np.pi)]
    assert np.allclose(*ends, rtol=0, atol=1e-13)


# --- Burgers ----------------------------------------------------------------------------------


def burgers_points():
    """Return scattered points: everywhere, inside the shock, and at tiny times."""
    rng = np.random.default_rng(1)
    x = np.concatenate(
        [
            rng.uniform(-1, 1, 30),
            rng.choice([-1, 1], 30) * 10 ** rng.uniform(-8, -1, 30),
            rng.uniform(-1, 1, 15),
            rng.choice([-1, 1], 5) * (1 - 10 ** rng.uniform(-8, -1, 5)),
        ]
    )
    t = np.concatenate(
        [
            rng.uniform(0, 1, 30),
            rng.uniform(0.2, 1, 30),
            10 ** rng.uniform(-8, -2, 14),
            [1e-6],
            rng.uniform(0, 1, 5),
        ]
    )
    return x, t


def burgers_series(x, t):
    """Evaluate the Cole-Hopf solution's Fourier-Bessel series, in 80 digits as it cancels.

    exp(−K cos πx) = I₀(K) + 2 Σ (−1)ⁿ Iₙ(K) cos nπx with K = 1/(2πν) = 50, each term decaying at
    the rate ν n² π², and u = −2ν ∂_x log of it.
    """
    with mpmath.workdps(80):
        pi = mpmath.pi
        viscosity = mpmath.mpf("0.01") / pi
        bessel = [(-1) ** n * mpmath.besseli(n, 50) for n in range(240)]
        values = []
        for at, time in zip(x.tolist(), t.tolist(), strict=True):
            potential, slope = bessel[0], mpmath.mpf(0)
            once = mpmath.expjpi(at)
            turn = mpmath.mpc(1)
            for n in range(1, 240):
                turn *= once
                term = 2 * bessel[n] * mpmath.exp(-viscosity * (n * pi) ** 2 * time)
                potential += term * turn.real
                slope -= term * n * pi * turn.imag
            values.append(float(-2 * viscosity * slope / potential))
    return np.array(values)


def test_burgers_equals_its_fourier_bessel_series():
    x, t = burgers_points()
    exact = burgers_series(x, t)
    error = np.abs(burgers.solution(x, t) - exact)
    assert error.max() < 1e-13
    assert (
        error / np.abs(exact)
    ).max() < 1e-11  # relative at the point, shock centre included


@pytest.mark.parametrize("nodes", [140, 260])
def test_burgers_has_converged_in_its_nodes(nodes):
    x, t = burgers_points()
    other = _cole_hopf.evaluate(x, t, nodes)
    assert np.abs(burgers.solution(x, t) - other).max() < 1e-13


def test_burgers_is_odd_and_chunks_do_not_matter():
    x, t = scattered(_cole_hopf.CHUNK + 7, -1, 1)
    whole = burgers.solution(x, t)
    assert np.array_equal(burgers.solution(-x, t), -whole)
    assert np.array_equal(burgers.solution(x[-9:], t[-9:]), whole[-9:])
    assert (
        burgers.solution(np.zeros(3), np.array([0.0, 1e-6, 1.0])).tolist() == [0.0] * 3
    )


# --- Allen-Cahn -------------------------------------------------------------------------------


def chebyshev_radau(degree, times):
    """Solve by Chebyshev collocation in x on [−1, 1] (even part) and Radau in t.

    Returns places (n,) and u of shape (n, len(times)).
    """
    angle = np.pi * np.arange(degree + 1) / degree
    x = np.cos(angle)
    sign = (-1.0) ** np.arange(degree + 1) * np.where(
        np.arange(degree + 1) % degree, 1, 2
    )
    apart = (
        -2 * np.sin((angle[:, None] + angle) / 2) * np.sin((angle[:, None] - angle) / 2)
    )
    d = np.outer(sign, 1 / sign) / (apart + np.eye(degree + 1))
    d -= np.diag(d.sum(axis=1))
    d2 = d @ d
    half = degree // 2
    fold = d2[: half + 1, : half + 1].copy()
    fold[:, :half] += d2[: half + 1, :half:-1]  # u(−x) = u(x)
    inner, edge = 0.001 * fold[1:, 1:], -0.001 * fold[1:, 0]

    def slope(_, u):
        return inner @ u + edge - 5 * (u**3 - u)

    def jacobian(_, u):
        return inner - np.diag(5 * (3 * u**2 - 1))

    x = x[1 : half + 1]
    start = x**2 * np.cos(np.pi * x)
    solved = solve_ivp(
        slope,
        (0, 1),
        start,
        "Radau",
        times,
        jac=jacobian,
        rtol=1e-9,
        atol=1e-10,
        first_step=1e-6,
    )
    return x, solved.y


def test_allen_cahn_equals_chebyshev_collocation_with_radau():
    times = np.array([1e-4, 1e-3, 0.013, 0.1, 0.237, 0.5, 0.7331, 0.9, 1.0])
    x, u = chebyshev_radau(512, times)
    for column, t in zip(u.T, times, strict=True):
        ours = allen_cahn.solution(-x, np.full_like(x, t))
        assert np.abs(ours - column).max() < 2e-9, t


def test_allen_cahn_has_converged():
    fine = _allen_cahn_spectral.solve(400, 2000)
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(-1, 1, 1000), 1 - 10 ** rng.uniform(-7, -1, 1000)])
    t = np.concatenate([rng.uniform(0, 1, 1000), 10 ** rng.uniform(-8, 0, 1000)])
    error = np.abs(
        allen_cahn.solution(x, t) - _allen_cahn_spectral.evaluate(fine, x, t)
    )
    assert error[:1000].max() < 1e-10
    assert error.max() < 1e-9


@pytest.mark.parametrize("time", [1e-7, 1e-6, 3e-6])
def test_allen_cahn_early_boundary_layer(time):
    # To first order in t: u₀ + t u_t(x, 0), less the heat-equation layer that holds u(1, t) at −1.
    x = 1 - np.geomspace(1e-7, 0.1, 200)
    start = x**2 * np.cos(np.pi * x)
    bend = (2 - np.pi**2 * x**2) * np.cos(np.pi * x) - 4 * np.pi * x * np.sin(np.pi * x)
    jump = 0.001 * (np.pi**2 - 2)
    eta = (1 - x) / np.sqrt(0.004 * time)
    layer = (1 + 2 * eta**2) * erfc(eta) - 2 * eta / np.sqrt(np.pi) * np.exp(-(eta**2))
    rate = 0.001 * bend - 5 * (start**3 - start) - jump * layer
    ours = allen_cahn.solution(x, np.full_like(x, time))
    assert np.abs(ours - start - time * rate).max() < 1e-9


def test_allen_cahn_on_its_own_nodes_and_steps():
    solution = _allen_cahn_spectral.solution()
    for i in (0, 1, 500, len(solution.times) - 1):
        t = np.full_like(solution.nodes, min(solution.times[i], 1.0))
        ours = allen_cahn.solution(solution.nodes, t)
        assert np.abs(ours - solution.u[i]).max() < 1e-13
    assert solution is _allen_cahn_spectral.solution()


def test_allen_cahn_chunks_do_not_matter():
    x, t = scattered(_allen_cahn_spectral.CHUNK + 7, -1, 1)
    whole = allen_cahn.solution(x, t)
    assert np.array_equal(allen_cahn.solution(-x, t), whole)
    assert np.array_equal(allen_cahn.solution(x[-9:], t[-9:]), whole[-9:])


# --- inputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", EVERY)
def test_refuses_bad_points(reference):
    with pytest.raises(ValueError, match=r"equal shape \(n,\), got \(2,\) and \(3,\)"):
        reference(np.zeros(2), np.zeros(3))
    with pytest.raises(
        ValueError, match=r"equal shape \(n,\), got \(2, 1\) and \(2, 1\)"
    ):
        reference(np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"x must be finite: 1 of 2 .* x\[1\] = nan"):
        reference(np.array([0.0, np.nan]), np.zeros(2))
    with pytest.raises(ValueError, match=r"t must be finite: 1 of 2 .* t\[0\] = inf"):
        reference(np.zeros(2), np.array([np.inf, 0.0]))
    with pytest.raises(ValueError, match=r"t must be at least 0, got -0\.5"):
        reference(np.zeros(2), np.array([0.1, -0.5]))


@pytest.mark.parametrize("reference", [burgers.solution, allen_cahn.solution])
def test_refuses_points_outside_the_domain(reference):
    with pytest.raises(ValueError, match=r"t must be at most 1\.0, got 1\.5"):
        reference(np.zeros(1), np.array([1.5]))
    with pytest.raises(
        ValueError, match=r"x must be within \[-1\.0, 1\.0\], got -2\.0"
    ):
        reference(np.array([0.5, -2.0]), np.zeros(2))


@pytest.mark.parametrize("reference", EVERY)
def test_takes_no_points_and_returns_float64(reference):
    empty = reference(np.empty(0), np.empty(0))
    assert empty.shape == (0,)
    single = reference(
        np.array([0.5], dtype=np.float32), np.array([0.25], dtype=np.float32)
    )
    assert single.dtype == np.float64
    assert single.shape == (1,)


# --- the disk ---------------------------------------------------------------------------------


def test_poisson_disk_is_the_integral_of_the_mass_within():
    """By Gauss' theorem −2πr u′ is the mass within r, which quadrature sums from the rim."""
    radii = np.array([0.0, 1e-9, 1e-4, 0.01, 0.02, 0.05, 0.3, 0.999, 1.0])
    turns = np.linspace(0.3, 6.0, len(radii))

    def slope(r):
        return -np.expm1(-(r**2) / (2 * 0.02**2)) / (2 * np.pi * r)

    exact = [
        quad(slope, r, min(r + 0.2, 1.0), epsabs=1e-15, limit=200)[0]
        + quad(slope, min(r + 0.2, 1.0), 1.0, epsabs=1e-15)[0]
        for r in radii
    ]
    values = poisson_disk.solution(radii * np.cos(turns), radii * np.sin(turns))
    assert np.allclose(values, exact, rtol=0, atol=1e-13)
    center = (np.euler_gamma - np.log(2 * 0.02**2)) / (4 * np.pi)
    assert values[0] == pytest.approx(center, rel=1e-15)
