"""The server of a supervised model gives its numbers, some samples at a time."""

import json
import urllib.error
import urllib.request
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from sample_models import (
    MODELS,
    N_TEST,
    N_TRAINING,
    influence_of,
    served_samples,
    session_of,
)

import whence as wh
from whence import cli
from whence.cli.explore import questions_of
from whence.explore import SampleSession
from whence.explore.sample_answers import PAGE, SampleAnswers
from whence.explore.sample_questions import SampleQuestions
from whence.explore.server import Api

HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module", name="server")
def _server():
    with served_samples(session_of("images")) as server:
        yield server


def ask(server, name, **values):
    """Return the body of a reply."""
    url = f"{server.address}api/{name}?{urlencode(values)}"
    with urllib.request.urlopen(url, timeout=60) as reply:
        return reply.read()


def refusal(server, name, **values):
    """Return what is said of a question that is refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, name, **values)
    return refused.value.code, json.loads(refused.value.read())["error"]


def test_the_numbers_are_those_of_the_influence(server):
    influence, test = influence_of("images")
    table = influence.attribute(wh.Loss(test)).values
    for i in (0, 11):
        values = np.frombuffer(ask(server, "influence", sample=i), "<f8")
        limit = 1e-12 * np.abs(table[i]).max()
        np.testing.assert_allclose(values, table[i], rtol=0, atol=limit)


def test_what_there_is(server):
    model = json.loads(ask(server, "model"))
    assert (model["n_training"], model["n_test"]) == (N_TRAINING, N_TEST)
    assert model["groups"] == ["0", "1", "2"]
    assert model["input"]["kind"] == "image"
    assert model["input"]["sizes"] == {"small": [6, 6], "large": [6, 6]}

    _, data, _, _ = MODELS["images"]()
    group, label = np.frombuffer(ask(server, "training"), "<f8").reshape(2, N_TRAINING)
    assert np.array_equal(group, data[1])
    assert np.array_equal(label, data[1])
    counts = np.array(json.loads(ask(server, "confusion"))["values"])
    assert model["summary"]["accuracy"] == pytest.approx(np.trace(counts) / N_TEST)


def test_pixels_are_those_of_the_data(server):
    _, data, _, test = MODELS["images"]()
    for of, images in (("test", test[0]), ("training", data[0])):
        body = ask(server, "inputs", of=of, indices="5,2", size="small")
        pixels = np.frombuffer(body, "<f8").reshape(2, 6, 6)
        assert np.array_equal(pixels, images[[5, 2], 0])


def test_test_samples_by_page_order_and_filter(server):
    page = json.loads(ask(server, "tests", start=20, count=10, order="number"))
    assert page["total"] == N_TEST
    assert [row["index"] for row in page["rows"]] == [20, 21, 22, 23]

    ordered = json.loads(ask(server, "tests", start=0, count=99, order="loss"))
    losses = [row["loss"] for row in ordered["rows"]]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == N_TEST

    counts = json.loads(ask(server, "confusion"))["values"]
    for label in range(3):
        for predicted in range(3):
            asked = {"label": label, "predicted": predicted}
            some = json.loads(
                ask(server, "tests", start=0, count=99, order="number", **asked)
            )
            assert some["total"] == counts[label][predicted]
            assert all(row["group"] == label for row in some["rows"])
            assert all(row["predicted"] == predicted for row in some["rows"])

    wrong = json.loads(ask(server, "tests", start=0, count=99, order="wrong"))
    assert wrong["total"] == N_TEST - np.trace(np.array(counts)) > 0


def test_suspects_by_page_and_filter(server):
    session = session_of("images")
    ranked = session.suspects()
    order = np.argsort(ranked["rank"].values)
    page = json.loads(ask(server, "suspects", by="self_influence", start=3, count=4))
    assert [row["index"] for row in page["rows"]] == order[3:7].tolist()
    assert [row["rank"] for row in page["rows"]] == [3, 4, 5, 6]
    suspicion = [row["suspicion"] for row in page["rows"]]
    np.testing.assert_allclose(suspicion, ranked.suspicion.values[order[3:7]])

    labels = session.training.labels()
    known = session.training_outcomes["predicted"]
    misread = np.flatnonzero(labels != known)
    label, predicted = int(labels[misread[0]]), int(known[misread[0]])
    groups = {"label": label, "predicted": predicted}
    some = json.loads(ask(server, "suspects", by="loss", start=0, count=99, **groups))
    expected = np.flatnonzero((labels == label) & (known == predicted)).tolist()
    assert sorted(row["index"] for row in some["rows"]) == expected
    assert some["total"] == len(expected) < N_TRAINING


def test_classes_on_classes(server):
    table = json.loads(ask(server, "classes", reduce="sum"))
    expected = session_of("images").by_class("sum").values
    np.testing.assert_allclose(table["values"], expected)
    assert table["groups"] == [0, 1, 2]


def test_at_most_a_page_is_sent():
    influence, (x, y) = influence_of("values")
    many = x.repeat(20, 1), y.repeat(20, 1)
    answers = SampleAnswers(SampleSession(influence, many))
    page = answers.tests(0, 10**6)
    assert (page["total"], len(page["rows"])) == (20 * N_TEST, PAGE)
    with pytest.raises(ValueError, match=f"at most {PAGE}"):
        answers.inputs("test", list(range(PAGE + 1)))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("influence", {"sample": N_TEST}, f"numbered 0 … {N_TEST - 1}"),
        ("influence", {"sample": "inf"}, "one whole number"),
        ("influence", {}, "numbers as sample"),
        ("inputs", {"of": "test", "indices": "-1", "size": "small"}, "numbered"),
        ("inputs", {"of": "test", "indices": "inf", "size": "small"}, "whole numbers"),
        ("inputs", {"of": "other", "indices": "1", "size": "small"}, "kind of samples"),
        ("inputs", {"of": "test", "indices": "1", "size": "huge"}, "size of images"),
        ("tests", {"start": 0, "count": 0, "order": "number"}, "count"),
        ("tests", {"start": 0, "count": 5, "order": "mood"}, "order"),
        ("suspects", {"by": "mood", "start": 0, "count": 5}, "kind of suspicion"),
        ("classes", {"reduce": "mood"}, "reduction"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(server, name, values, message):
    code, error = refusal(server, name, **values)
    assert code == 400
    assert message in error


def test_a_regression_has_no_confusion_matrix():
    with served_samples(session_of("values", features=["a", "b", "c", "d"])) as server:
        assert "needs a classifier" in refusal(server, "confusion")[1]
        model = json.loads(ask(server, "model"))
        assert (model["target"], model["classes"]) == ("value", None)
        assert model["input"]["columns"] == ["a", "b", "c", "d"]


def test_the_page_says_how_far_from_a_minimum_rather_than_the_terminal(recwarn):
    model, data, loss, test = MODELS["images"]()
    with torch.no_grad():
        model[1].weight.zero_()
    influence = wh.Influence(model, data, loss, damping=1e-3)
    answers = SampleAnswers(SampleSession(influence, test))
    api = Api(SampleQuestions(answers))
    for question in ("sample", "suspects"):
        asked_for = {"sample": "0", "by": "self_influence", "start": "0", "count": "5"}
        reply = api.reply(question, asked_for)
        assert "far from a minimum" in json.loads(reply.body)["quality"]
    assert not [warning for warning in recwarn if "minimum" in str(warning.message)]


def test_names_that_do_not_fit_the_columns_are_left():
    answers = SampleAnswers(session_of("values", features=["a", "b"]))
    assert answers.model()["input"]["columns"] == ["x0", "x1", "x2", "x3"]


# --- the command ---

FILE = """
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(40, 3).double()
y = (x[:, 0] > 0).long()
data, test = (x[:30], y[:30]), (x[30:], y[30:])
model = nn.Linear(3, 2).double()
loss = nn.CrossEntropyLoss()
"""


def test_the_command_reads_a_model_file(tmp_path):
    path = tmp_path / "flowers.py"
    path.write_text(f"{FILE}\nclasses = ['rose', {HOSTILE!r}]\nfeatures = 3\n")
    questions = questions_of([path])
    assert questions.page == "samples.html"
    model = json.loads(questions.by_name()["model"]({}).body)
    assert model["title"] == "flowers"
    assert model["groups"] == ["rose", HOSTILE]
    # What is no list of names is something else of the file's.
    assert model["input"]["columns"] == ["x0", "x1", "x2"]


def test_a_file_without_test_data(tmp_path, capsys):
    path = tmp_path / "flowers.py"
    path.write_text(FILE.replace("data, test =", "data, _ ="))
    assert cli.main(["explore", str(path), "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert "names no test data: add test = (inputs, targets)" in error
    assert len(error.strip().splitlines()) == 1
