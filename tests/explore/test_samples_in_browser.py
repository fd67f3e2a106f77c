"""The page of a supervised model in a real browser: what a person does, and what is then seen.

``make test-browser`` installs what these need where that can be; elsewhere they are passed over.
"""

import csv
import io
import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from sample_models import (
    MODELS,
    N_TEST,
    N_TRAINING,
    influence_of,
    served_samples,
    session_of,
)

import whence as wh

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright: make test-browser installs it"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium: make test-browser installs it"
)
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
HOSTILE = "<img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module", name="chromium")
def _chromium():
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", name="server")
def _server():
    with served_samples(session_of("images")) as server:
        yield server


@contextmanager
def opened(chromium, address, size="wide", **options):
    """Yield the page when all of it is there; anything wrong that it says is an error."""
    width, height = SIZES[size]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, accept_downloads=True, **options
    )
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda line: faults.append(line.text) if line.type == "error" else None,
    )
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    page.requests = requests
    yield page
    assert not faults
    assert page.locator("#problem").is_hidden()
    context.close()


@pytest.fixture(name="page")
def _page(chromium, server):
    with opened(chromium, server.address) as page:
        yield page


@pytest.fixture(scope="module", name="table")
def _table():
    influence, test = influence_of("images")
    return influence.attribute(wh.Loss(test)).values


def wait_for(page, name, value):
    """Wait until the page says that it shows something."""
    page.wait_for_function(
        "([name, value]) => document.body.dataset[name] === value", arg=[name, value]
    )


def choose(page, index):
    page.locator(f"#tests [data-index='{index}']").click()
    wait_for(page, "shown", f"{index}@")


def downloaded(page, button):
    """Return the bytes of what a button saves."""
    with page.expect_download() as download:
        page.locator(button).click()
    return download.value.path().read_bytes()


def rows_of(page, button):
    """Return a table that a button saves, a mapping for each row."""
    text = downloaded(page, button).decode()
    return list(csv.DictReader(io.StringIO(text)))


def shown_indices(page, name):
    cards = page.locator(f"#{name} [data-training]")
    return [int(card.get_attribute("data-training")) for card in cards.all()]


def suspects_shown(page):
    rows = page.locator("#suspects tbody tr").all()
    return [int(row.get_attribute("data-suspect")) for row in rows]


def test_nothing_comes_from_elsewhere(page, server):
    assert page.requests
    local = (server.address, "data:", "blob:")
    assert all(url.startswith(local) for url in page.requests)


def test_a_chosen_sample_has_its_helpful_and_harmful(page, table):
    choose(page, 5)
    row = table[5]
    for name, order in (("helpful", np.argsort(-row)), ("harmful", np.argsort(row))):
        is_wanted = row[order] > 0 if name == "helpful" else row[order] < 0
        assert shown_indices(page, name) == order[is_wanted][:8].tolist()
    text = page.locator("#helpful .card").first.inner_text()
    label = int(MODELS["images"]()[1][1][np.argmax(row)])
    assert text.splitlines()[0] == str(label)
    assert f"+{row.max():.3g}" in text
    assert page.locator("#sample-text").inner_text().startswith("Test sample 5 is")


def test_the_numbers_are_those_of_the_attribution(page, table):
    choose(page, 7)
    values = [float(row["influence"]) for row in rows_of(page, "#sample-csv")]
    limit = 1e-12 * np.abs(table[7]).max()
    np.testing.assert_allclose(values, table[7], rtol=0, atol=limit)


def test_the_address_keeps_the_view(page, chromium):
    choose(page, 9)
    page.locator("#reduce").select_option("sum")
    page.locator("#by").select_option("loss")
    page.wait_for_function("() => document.body.dataset.suspects.startsWith('loss:')")
    page.locator("#from").select_option("1")
    wait_for(page, "shown", "9@1")
    with opened(chromium, page.url) as again:
        wait_for(again, "shown", "9@1")
        assert again.locator("#reduce").input_value() == "sum"
        assert again.locator("#by").input_value() == "loss"
        assert shown_indices(again, "helpful") == shown_indices(page, "helpful")
        assert suspects_shown(again) == suspects_shown(page)


def test_an_address_that_means_nothing_is_passed_over(chromium, server):
    nonsense = "#sample=999&label=77&order=mood&start=x&relabel=5,a:b,7:&drop=-1,1e9"
    with opened(chromium, server.address + nonsense) as page:
        wait_for(page, "shown", "0@")
        assert page.url.endswith("#sample=0")


def test_training_samples_of_one_label(page, table):
    choose(page, 5)
    page.locator("#from").select_option("2")
    wait_for(page, "shown", "5@2")
    labels = MODELS["images"]()[1][1].numpy()
    order = np.argsort(-table[5])
    expected = [i for i in order if labels[i] == 2 and table[5][i] > 0][:8]
    assert shown_indices(page, "helpful") == expected
    # A row of the histogram does the same, and takes it back.
    page.locator("#histogram .row").nth(2).click()
    wait_for(page, "shown", "5@")


def test_a_confusion_cell_filters(page):
    counts = session_of("images").confusion().values
    label, predicted = next(
        (a, b) for a in range(3) for b in range(3) if a != b and counts[a, b]
    )
    page.locator("#confusion .cell").nth(3 * label + predicted).click()
    session = session_of("images")
    known = session.test_outcomes["predicted"]
    labels = session.test.labels()
    expected = np.flatnonzero((labels == label) & (known == predicted)).tolist()
    wait_for(page, "tests", f"{len(expected)}:{','.join(map(str, expected))}")
    cards = page.locator("#tests [data-index]").all()
    assert [int(card.get_attribute("data-index")) for card in cards] == expected
    # The explained sample is one of these.
    wait_for(page, "shown", f"{expected[0]}@")
    assert f"label={label}&predicted={predicted}" in page.url

    of_training = session.training_outcomes["predicted"]
    members = (session.training.labels() == label) & (of_training == predicted)
    wanted = set(np.flatnonzero(members).tolist())
    page.wait_for_function(
        "n => document.querySelectorAll('#suspects tbody tr').length === n",
        arg=len(wanted),
    )
    assert set(suspects_shown(page)) == wanted

    page.locator("#unfilter").click()
    page.wait_for_function(f"() => document.body.dataset.tests.startsWith('{N_TEST}:')")
    assert "label=" not in page.url


def test_a_cell_of_the_labels_shows_its_samples(page):
    page.locator("#classes .cell").nth(3 * 1 + 2).click()
    page.wait_for_function("() => document.body.dataset.shown.endsWith('@2')")
    labels = MODELS["images"]()[3][1].numpy()
    n = int((labels == 1).sum())
    page.wait_for_function(f"() => document.body.dataset.tests.startsWith('{n}:')")
    values = session_of("images").by_class().values
    rows = rows_of(page, "#classes-csv")
    ours = [[float(row[name]) for name in "012"] for row in rows]
    np.testing.assert_allclose(ours, values, rtol=1e-10)


def test_decisions_about_suspects(page, chromium):
    first, second, third = suspects_shown(page)[:3]

    def button(index, kind):
        return page.locator(
            f"#suspects [data-suspect='{index}'] [data-decision={kind}]"
        )

    button(first, "drop").click()
    button(second, "relabel").click()
    session = session_of("images")
    guess = int(session.training_outcomes["predicted"][second])
    field = page.locator(f"#suspects [data-suspect='{second}'] select")
    assert field.input_value() == str(guess)
    other = (guess + 1) % 3
    field.select_option(str(other))
    button(third, "accept").click()
    assert page.locator("#decided").inner_text() == (
        "1 accepted, 1 relabelled, 1 dropped"
    )

    labels = session.training.labels()
    expected = {first: ("drop", ""), second: ("relabel", str(other))}
    expected[third] = ("accept", "")

    def check(page):
        rows = rows_of(page, "#decisions-csv")
        assert [int(row["index"]) for row in rows] == sorted(expected)
        for row in rows:
            index = int(row["index"])
            assert (row["decision"], row["new_label"]) == expected[index]
            assert int(row["label"]) == labels[index]
        assert json.loads(downloaded(page, "#dropped-json")) == [first]

    check(page)
    with opened(chromium, page.url) as again:
        check(again)

    # The same once more takes a decision back.
    button(first, "drop").click()
    assert json.loads(downloaded(page, "#dropped-json")) == []
    assert "drop=" not in page.url


def test_keys_choose_samples(page):
    choose(page, 0)
    page.locator("#tests [data-index='0']").focus()
    page.keyboard.press("ArrowRight")
    wait_for(page, "shown", "1@")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("() => !document.body.dataset.shown.startsWith('1@')")
    below = int(page.evaluate("document.activeElement.dataset.index"))
    places = page.evaluate(
        """below => [1, below].map((index) => {
          const box = document.querySelector(`[data-index='${index}']`).getBoundingClientRect();
          return [box.left, box.top];
        })""",
        below,
    )
    assert places[0][0] == places[1][0]
    assert places[0][1] < places[1][1]
    page.keyboard.press("End")
    wait_for(page, "shown", f"{N_TEST - 1}@")
    # One of them alone is reached by Tab.
    assert page.locator("#tests [data-index][tabindex='0']").count() == 1


def test_keys_in_a_matrix(page):
    cells = page.locator("#confusion .cell")
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('label=1&predicted=1')")
    # The cell keeps the focus, so that one can go on.
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('label=1&predicted=0')")


def test_keys_decide(page):
    first, second = suspects_shown(page)[:2]
    page.locator("#suspects tbody tr").first.focus()
    page.keyboard.press("d")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("r")
    page.wait_for_function("() => location.hash.includes('relabel=')")
    assert f"relabel={second}:" in page.url
    assert f"drop={first}" in page.url
    page.keyboard.press("a")
    page.wait_for_function("() => !location.hash.includes('relabel=')")
    assert f"accept={second}" in page.url


def test_figures_are_saved(page):
    for name in ("histogram", "classes", "confusion"):
        drawing = downloaded(page, f"#{name}-svg")
        assert drawing.startswith(b"<svg")
        assert b"http://www.w3.org/2000/svg" in drawing
        assert downloaded(page, f"#{name}-png").startswith(b"\x89PNG")
    assert downloaded(page, "#sample-png").startswith(b"\x89PNG")


def test_tables_are_saved_whole(page, table):
    assert len(rows_of(page, "#tests-csv")) == N_TEST
    ranking = rows_of(page, "#suspects-csv")
    order = np.argsort(session_of("images").suspects()["rank"].values)
    assert [int(row["index"]) for row in ranking] == order.tolist()
    assert len(ranking) == N_TRAINING > 25

    index = int(page.evaluate("document.body.dataset.shown").split("@")[0])
    labels = MODELS["images"]()[1][1].numpy()
    sums = [float(row["sum"]) for row in rows_of(page, "#histogram-csv")]
    expected = [table[index][labels == k].sum() for k in range(3)]
    np.testing.assert_allclose(sums, expected, rtol=1e-9)
    counts = [list(row.values())[1:] for row in rows_of(page, "#confusion-csv")]
    expected = session_of("images").confusion().values
    assert np.array_equal(np.array(counts, dtype=int), expected)


def test_more_suspects_on_the_next_page(page):
    before = suspects_shown(page)
    page.locator("#suspects-pages button").last.click()
    page.wait_for_function("() => location.hash.includes('first=25')")
    page.wait_for_function(
        "first => !document.querySelector(`[data-suspect='${first}']`)", arg=before[0]
    )
    assert not set(before) & set(suspects_shown(page))


@pytest.mark.parametrize("name", ["images", "values", "sequences"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_window(chromium, name, size):
    names = {"classes": ["a rather long name of a class", HOSTILE]}
    if name == "values":
        names = {"features": [f"a rather long name of column {k}" for k in range(4)]}
    for scheme in ("light", "dark"):
        with (
            served_samples(session_of(name, **names)) as server,
            opened(chromium, server.address, size, color_scheme=scheme) as page,
        ):
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= SIZES[size][0]


def test_light_and_dark_differ_and_can_be_read(chromium, server):
    """Text in cells is black or white, whichever stands out: contrast of 4.5 (WCAG AA)."""
    papers = []
    for scheme in ("light", "dark"):
        with opened(chromium, server.address, color_scheme=scheme) as page:
            papers.append(
                page.evaluate("getComputedStyle(document.body).backgroundColor")
            )
            pairs = page.evaluate(
                """[...document.querySelectorAll('.cell')].map((cell) => {
                  const parts = [...cell.querySelectorAll('rect, text')];
                  return parts.map((part) => part.getAttribute('fill'));
                })"""
            )
            assert len(pairs) == 18
            for fill, text in pairs:
                assert contrast(fill, text) >= 4.5, (fill, text)
    assert papers[0] != papers[1]


def contrast(*colors):
    """Return the contrast ratio of two colours #rrggbb, of WCAG 2."""
    shades = []
    for color in colors:
        parts = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(
            parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4
        )
        shades.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(shades) / min(shades)


def test_a_regression_has_values_and_no_confusion(chromium):
    influence, test = influence_of("values")
    table = influence.attribute(wh.Loss(test)).values
    session = session_of("values", features=["first", HOSTILE, "third", "fourth"])
    with (
        served_samples(session) as server,
        opened(chromium, server.address) as page,
    ):
        assert page.locator("#confusion").is_hidden()
        choose(page, 3)
        assert shown_indices(page, "helpful")[0] == int(table[3].argmax())
        assert "has the value" in page.locator("#sample-text").inner_text()
        assert page.locator("#histogram .row").count() == 8
        assert HOSTILE in page.locator("#tests thead").inner_text()
        assert page.locator("img").count() == 0

        (first, *_) = suspects_shown(page)
        row = page.locator(f"#suspects [data-suspect='{first}']")
        row.locator("[data-decision=relabel]").click()
        row.locator("input").fill("-1.5")
        row.locator("input").press("Enter")
        (decision,) = rows_of(page, "#decisions-csv")
        assert (decision["decision"], decision["new_label"]) == ("relabel", "-1.5")
        page.locator("#tests tbody tr").first.focus()
        page.keyboard.press("ArrowDown")
        wait_for(page, "shown", "1@")


def test_targets_of_several_numbers_have_no_labels(chromium):
    influence, test = influence_of("pairs")
    table = influence.attribute(wh.Loss(test)).values
    with (
        served_samples(session_of("pairs")) as server,
        opened(chromium, server.address) as page,
    ):
        for name in ("label", "predicted", "from", "classes", "confusion"):
            assert page.locator(f"#{name}").is_hidden(), name
        choose(page, 4)
        assert shown_indices(page, "harmful")[0] == int(table[4].argmin())
        assert page.locator("#histogram .row").count() == 1
        assert page.locator("[data-decision=relabel]").count() == 0


def test_sequences_are_shown_as_numbers(chromium):
    x, _ = MODELS["sequences"]()[3]
    with (
        served_samples(session_of("sequences")) as server,
        opened(chromium, server.address) as page,
    ):
        text = " ".join(map(str, x[0].tolist()))
        assert text in page.locator("#tests tbody tr").first.inner_text()
        assert page.locator("#sample-input").inner_text() == text


def test_hostile_names_are_text(chromium):
    """Names of classes are the user's: none of them becomes part of the page."""
    session = session_of("images", classes=[HOSTILE, 'b "quoted", too', "c"])
    with (
        served_samples(session) as server,
        opened(chromium, server.address) as page,
    ):
        assert HOSTILE in page.locator("#label").inner_text()
        title = page.locator("#confusion .cell title").first.text_content()
        assert HOSTILE in title
        page.locator("#label").select_option("0")
        page.wait_for_function(
            "name => document.getElementById('tests-caption').textContent.includes(name)",
            arg=HOSTILE,
        )
        assert page.locator("img").count() == 0
        assert "taken" not in page.title()
        # A file that holds them is read as it was written.
        rows = rows_of(page, "#confusion-csv")
        assert [row["label / predicted"] for row in rows] == [
            HOSTILE,
            'b "quoted", too',
            "c",
        ]
        assert downloaded(page, "#confusion-png").startswith(b"\x89PNG")
