"""The server gives the numbers of the influence, and nothing to anyone without its address."""

import http.client
import json
import socket

import numpy as np
import pytest
from asking import ask, asked, request
from explorers import ode, served, small_run

import whence as wh
from whence import pinn
from whence.explore import Session
from whence.explore.answers import Answers
from whence.explore.run_questions import RunQuestions
from whence.explore.server import HOST, Explorer


def test_the_numbers_are_those_of_the_influence(explorer, session):
    for of, at in (("u", [0.1, 0.5]), ("u_x", [-0.3, 0.2])):
        body = asked(explorer, "influence", of=of, at=",".join(map(str, at)))
        values = np.frombuffer(body, "<f8")
        # To the last bit: what the session gives is held to the attribution in test_session.
        np.testing.assert_array_equal(values, session.influence_at(at, of).values)


def test_points_are_those_of_the_attribution(explorer, result):
    influence = wh.Influence(result.objective)
    row = influence.attribute(wh.Output([[0.1, 0.5]])).isel(target=0)
    n = row.sizes["point"]
    columns = np.frombuffer(asked(explorer, "points"), "<f8").reshape(-1, n)
    x, t, term, index, loss, entered, residual = columns
    assert np.array_equal(x, row.x.values)
    assert np.array_equal(t, row.t.values)
    assert np.array_equal(index, row["index"].values)
    names = np.array(list(result.objective.terms))
    assert np.array_equal(names[term.astype(int)], row["term"].values)
    assert loss.sum() == pytest.approx(float(result.objective.loss()), rel=1e-12)
    assert (entered == 0).all()
    pde = result.objective.terms["pde"]
    expected = pde.residual(result.objective.parameters.tensors(), pde.points)
    sizes = expected.detach().norm(dim=1)
    np.testing.assert_allclose(residual[: len(sizes)], sizes, rtol=1e-12)


def test_a_field_of_the_solution_and_of_a_point(explorer, result):
    (run,) = json.loads(asked(explorer, "runs"))
    n = 21
    field = np.frombuffer(asked(explorer, "field", of="u"), "<f8").reshape(n, n)
    # Time goes across, x up, both from their lowest value on.
    assert (run["across"], run["up"]) == (1, 0)
    places = [[-1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [0.0, 0.5]]
    corners = [field[0, 0], field[-1, 0], field[0, -1], field[n // 2, n // 2]]
    np.testing.assert_allclose(corners, result.solution(places)[:, 0])

    error = np.frombuffer(asked(explorer, "field", of="error(u)"), "<f8")
    expected = result.solution.error(places)[0, 0]
    np.testing.assert_allclose(error.reshape(n, n)[0, 0], expected)
    body = asked(explorer, "point", term="initial_u", index=3, of="u")
    followed = np.frombuffer(body, "<f8").reshape(n, n)
    row = Session(result).influence_of("initial_u", 3, "u", places)
    ours = [followed[0, 0], followed[-1, 0], followed[0, -1], followed[n // 2, n // 2]]
    np.testing.assert_allclose(ours, row.values, rtol=1e-6)


def test_an_answer_and_a_region(explorer, result):
    answer = json.loads(asked(explorer, "answer", of="u", at="0.1,0.5"))
    assert answer["value"] == pytest.approx(float(result.solution([[0.1, 0.5]])[0, 0]))
    assert "Solver exact" in answer["quality"]

    members = {"pde": [1, 2, 3], "initial_u": [0]}
    body = json.dumps({"points": members, "of": "u", "at": [0.1, 0.5]})
    status, reply = ask(explorer, "api/region", body)
    assert status == 200
    region = Session(result).region(members, [0.1, 0.5])
    assert json.loads(reply)["exact"] == pytest.approx(region.exact, rel=1e-6)
    assert json.loads(reply)["size"] == 4


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("influence?of=u&at=7,0.5", "lie outside"),
        ("influence?of=nonsense&at=0,0.5", "nonsense"),
        ("influence?of=u&at=a,b", "could not convert"),
        ("influence?of=u", "the question needs numbers as at"),
        ("influence?at=0,0.5", "the question needs of="),
        ("point?term=pde&index=100000&of=u", "100000"),
        ("point?term=walls&index=1&of=u", "walls"),
        ("field?of=nan", "nan"),
        ("field?of=u&axes=inf,0&through=0,0", "one whole number as axes"),
        ("field?of=u&axes=0.5,1&through=0,0", "one whole number as axes"),
        ("field?of=" + "9" * 400, "is no formula"),
    ],
)
def test_a_question_that_has_no_answer(explorer, query, said):
    status, body = ask(explorer, f"api/{query}")
    assert status == 400
    assert said in json.loads(body)["error"]


def test_whatever_goes_wrong_there_is_a_reply(explorer, monkeypatch, capsys):
    """Without one the page would take the server for gone."""

    def fail(asked):
        raise RuntimeError("singular")

    monkeypatch.setitem(explorer.api._by_name, "runs", fail)
    status, body = ask(explorer, "api/runs")
    assert status == 500
    assert json.loads(body)["error"] == "RuntimeError: singular"
    # Who started it sees where.
    assert "in fail" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "/", "/api/runs", "/wrong/api/runs", "//", "/%2e%2e/etc/passwd",
        "/{token}", "/{token}/../pyproject.toml", "/{token}/../../etc/passwd",
        "/{token}/%2e%2e/session.py", "/{token}/session.py", "/{token}/api/other",
        "/{token}//etc/passwd", "/{token}/api/../run.html",
    ],
)  # fmt: skip
def test_nothing_else_is_there(explorer, path):
    if path == "/{token}":
        path = "/{token}x"
    status, body = request(explorer, path.format(token=explorer.token))
    assert status == 404
    assert b"error" in body
    assert len(body) < 100


def test_a_page_from_elsewhere_gets_nothing(explorer):
    """A name that leads to this machine (DNS rebinding) comes with its own Host."""
    status, _ = ask(explorer, "api/runs", Host="evil.example:80")
    assert status == 404
    status, _ = ask(explorer, "", Host=f"localhost:{explorer.server_port}")
    assert status == 200


def test_bodies_that_are_no_questions(explorer):
    assert ask(explorer, "api/region", b"not json")[0] == 400
    assert ask(explorer, "api/region", b"[1]")[0] == 400
    assert ask(explorer, "api/region", b"{}")[0] == 400
    assert ask(explorer, "main.js", b"{}")[0] == 404
    assert (
        ask(explorer, "api/region", b"{}", **{"Content-Length": "99999999"})[0] == 413
    )
    assert ask(explorer, "api/region", b"{}", **{"Content-Length": "-1"})[0] == 413


def test_the_page_and_its_rules(explorer):
    connection = http.client.HTTPConnection(HOST, explorer.server_port, timeout=60)
    kinds = {"": "text/html", "main.js": "text/javascript", "style.css": "text/css"}
    for name, kind in kinds.items():
        connection.request("GET", f"/{explorer.token}/{name}")
        reply = connection.getresponse()
        assert reply.status == 200
        assert reply.getheader("Content-Type").startswith(kind)
        assert reply.getheader("Content-Security-Policy").startswith(
            "default-src 'self'"
        )
        assert b"http://" not in reply.read().replace(
            b"http://www.w3.org/2000/svg", b""
        )
    connection.close()


def test_only_this_machine_is_served_and_a_busy_port_is_passed_over(result):
    questions = RunQuestions(Answers(Session(result), resolution=5))
    with socket.socket() as busy:
        busy.bind((HOST, 0))
        busy.listen()
        port = busy.getsockname()[1]
        with Explorer(questions, port) as explorer:
            assert explorer.server_port > port
            assert explorer.server_address[0] == "127.0.0.1"
            with Explorer(questions, explorer.server_port) as second:
                assert second.server_port > explorer.server_port
                assert second.token != explorer.token


def test_ports_end(result):
    questions = RunQuestions(Answers(Session(result), resolution=5))
    with socket.socket() as busy:
        busy.bind((HOST, 65535))
        busy.listen()
        with pytest.raises(OSError, match="ports 65535 to 65535 are all busy"):
            Explorer(questions, 65535)


def test_a_slice_is_named_by_its_axes(explorer, result):
    turned = asked(explorer, "field", of="u", axes="0,1", through="0,0")
    field = np.frombuffer(turned, "<f8").reshape(21, 21)
    plain = np.frombuffer(asked(explorer, "field", of="u"), "<f8").reshape(21, 21)
    assert np.array_equal(field.T, plain)
    line = asked(explorer, "field", of="u", axes="0", through="0,0.5")
    values = np.frombuffer(line, "<f8")
    np.testing.assert_allclose(values, plain[:, 10], rtol=0, atol=1e-12)


def test_formulas_are_arithmetic(explorer, result):
    x = np.frombuffer(asked(explorer, "field", of="x"), "<f8")
    u = np.frombuffer(asked(explorer, "field", of="u"), "<f8")
    formula = np.frombuffer(asked(explorer, "field", of="2*abs(u) - x**2"), "<f8")
    np.testing.assert_allclose(formula, 2 * abs(u) - x**2, rtol=0, atol=1e-14)
    error = np.frombuffer(asked(explorer, "field", of="abs(error(u))"), "<f8")
    assert (error >= 0).all()
    status, body = ask(explorer, "api/field?of=__import__('os')")
    assert status == 400
    assert "is no formula" in json.loads(body)["error"]


def test_records_of_the_training(explorer, result):
    history = json.loads(asked(explorer, "history"))
    np.testing.assert_allclose(history["loss"], result.history["loss"])
    assert "stage" not in history
    rounds = np.frombuffer(asked(explorer, "rounds"), "<f8").reshape(5, -1)
    assert rounds.shape[1] == result.objective.n_points
    assert (rounds[3] == 0).all()
    assert (rounds[4] == -1).all()
    assert json.loads(asked(explorer, "spectra")) == {}
    assert json.loads(asked(explorer, "findings")) == {"text": "", "indicators": []}


def test_terms_to_each_other(explorer, result):
    names = list(result.objective.terms)
    table = np.frombuffer(asked(explorer, "terms"), "<f8").reshape(len(names), -1)
    influence = wh.Influence(result.objective)
    expected = influence.attribute(wh.TermLoss(*names)).by_term()
    np.testing.assert_allclose(table, expected.values, rtol=1e-9)


def test_a_region_is_checked_by_training_on(tmp_path):
    saved = small_run(out=tmp_path / "run")
    with served(saved) as explorer:
        members = {"pde": list(range(20))}
        body = json.dumps({"points": members, "of": "u", "at": [0.1, 0.5]})
        status, reply = ask(explorer, "api/retrain", body)
        assert status == 200
        number = json.loads(reply)["number"]
        job = {"state": "running"}
        while job["state"] == "running":
            job = json.loads(asked(explorer, "job", number=number))
    assert job["state"] == "done"
    expected = Session(saved).retrained_without(members, [0.1, 0.5], progress=False)
    assert job["measured"] == pytest.approx(expected, rel=1e-6)


def test_a_run_in_memory_is_not_trained_on(explorer):
    body = json.dumps({"points": {"pde": [1]}, "of": "u", "at": [0.1, 0.5]})
    number = json.loads(ask(explorer, "api/retrain", body)[1])["number"]
    explorer.api.reply("job", {"number": number})
    job = {"state": "running"}
    while job["state"] == "running":
        job = json.loads(asked(explorer, "job", number=number))
    assert "save it first" in job["error"]
    assert ask(explorer, "api/job?number=99")[0] == 400
    (run,) = json.loads(asked(explorer, "runs"))
    assert "retrain" not in run["can"]


def test_runs_that_are_compared_have_the_same_coordinates(result):
    line = pinn.train(
        ode(),
        pinn.MLP([1, 4, 1], seed=0),
        points=9,
        schedule=[pinn.GaussNewton(2)],
        progress=False,
    )
    with pytest.raises(ValueError, match="need the same coordinates, got x, t"):
        RunQuestions(Answers(Session(result)), Answers(Session(line)))
    both = RunQuestions(Answers(Session(line)), Answers(Session(line)))
    with Explorer(both, port=0) as explorer:
        explorer.start()
        first, second = json.loads(asked(explorer, "runs"))
        assert first == second
        assert (first["across"], first["up"]) == (0, None)
        field = np.frombuffer(asked(explorer, "field", of="u", run=1), "<f8")
        expected = line.solution(np.linspace(0, 1, 401)[:, None])[:, 0]
        np.testing.assert_allclose(field, expected)
        assert ask(explorer, "api/field?of=u&run=2")[0] == 400
