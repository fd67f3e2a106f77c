"""Figures of supervised models: what they show is what the data say, and what they refuse."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from matplotlib.colors import to_hex

import whence as wh
from whence import plots
from whence.attribution.labels import SIGN
from whence.evaluation import bad_data
from whence.plots.style import BLUE, VERMILION


def made_up(values, labels, effect="remove", sign=None, **attrs) -> xr.DataArray:
    """An attribution as methods give it, with all that a Loss knows of its targets."""
    values = np.atleast_2d(np.asarray(values, dtype=float))
    t, n = values.shape
    coords = {
        "label": ("point", np.asarray(labels)),
        "index": ("point", np.arange(n)),
        "target_label": ("target", np.arange(t) % 2),
        "target_index": ("target", np.arange(t) + 7),
        "quantity": ("target", np.asarray(["loss data"] * t, dtype=object)),
    }
    attrs = {
        "method": "influence",
        "effect": effect,
        "sign": sign or SIGN[effect],
        **attrs,
    }
    return xr.DataArray(values, coords, ("target", "point"), attrs=attrs)


def random_case(targets=1, n=300, classes=10, heavy=False):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((targets, n))
    return made_up(values**9 if heavy else values, rng.integers(0, classes, n))


@pytest.fixture(scope="module")
def trained():
    """A classifier of two blobs, one point of which has a wrong label."""
    torch.manual_seed(0)
    y = torch.arange(40) % 2
    x = torch.randn(40, 4, dtype=torch.float64) + 3 * y[:, None]
    y[0] = 1
    model = torch.nn.Linear(4, 2, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss = loss + 0.01 * sum((p**2).sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    return wh.Objective.supervised(model, (x, y), wh.CrossEntropy()), x, y


def drawn(figure):
    figure.canvas.draw()
    return figure


def heights(ax):
    return np.array([bar.get_height() for bar in ax.patches])


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def legend(figure, k=0):
    return [text.get_text() for text in figure.axes[k].get_legend().get_texts()]


# histograms


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_histograms_count_every_sample_once_in_the_panel_of_its_label(classes, heavy):
    data = random_case(classes=classes, heavy=heavy)
    figure = drawn(plots.influence_histograms(data))
    assert [ax.get_ylabel().split("\n")[0] for ax in figure.axes] == [
        f"label {c}" for c in range(classes)
    ]
    for c, ax in enumerate(figure.axes):
        values = data.values[0, data.label.values == c]
        centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in ax.patches])
        counts = heights(ax)
        assert counts.sum() == len(values)
        assert counts[centres > 0].sum() == (values >= 0).sum()  # zero is an edge
        assert f"n = {len(values)}\n" in ax.texts[0].get_text()
        assert f"{100 * np.mean(values > 0):.0f} % positive" in ax.texts[0].get_text()


def test_histograms_emphasise_the_targets_own_label():
    figure = plots.influence_histograms(
        random_case(classes=3), names=["cat", "dog", "eel"]
    )
    colours = [to_hex(ax.patches[0].get_facecolor()).upper() for ax in figure.axes]
    assert colours == [VERMILION, BLUE, BLUE]
    names = [ax.get_ylabel() for ax in figure.axes]
    assert names == ["cat\n(the target's)", "dog", "eel"]
    assert "on the loss of target 7 (label cat), by label" in figure.get_suptitle()


def test_histograms_of_heavy_tails_say_that_the_axis_is_logarithmic():
    figure = plots.influence_histograms(random_case(classes=2, heavy=True))
    assert figure.axes[0].get_xscale() == "symlog"
    assert "logarithmic beyond" in figure.axes[-1].get_xlabel()
    figure = plots.influence_histograms(random_case(classes=2))
    assert figure.axes[0].get_xscale() == "linear"
    assert "logarithmic" not in figure.axes[-1].get_xlabel()


def test_histograms_of_several_targets_are_of_their_mean():
    data = random_case(targets=4, classes=2)
    figure = plots.influence_histograms(data, bins=10)
    assert figure.get_suptitle().startswith(
        "Average influence of 300 samples on the loss of 4 "
    )
    assert "target's" not in "".join(ax.get_ylabel() for ax in figure.axes)
    mean = data.mean("target").values
    for c, ax in enumerate(figure.axes):
        assert (
            f"mean {mean[data.label.values == c].mean():+.1e}" in ax.texts[0].get_text()
        )
    one = data.isel(target=[1, 3])  # all of label 1
    figure = plots.influence_histograms(one)
    assert "2 targets of label 1" in figure.get_suptitle()
    assert figure.axes[1].get_ylabel() == "label 1\n(the targets')"


@pytest.mark.parametrize(
    ("effect", "positive", "negative"),
    [("remove", "helps", "harms"), ("add", "harms", "helps")],
)
def test_the_sign_is_said_in_words(effect, positive, negative):
    data = made_up([1.0, -2.0], [0, 1], effect)
    figure = plots.influence_histograms(data)
    above = [text.get_text() for text in figure.axes[0].texts[1:]]
    assert above == [f"{positive} →", f"← {negative}"]
    verb = {"remove": "removing", "add": "adding"}[effect]
    words = f"Positive: {verb} the sample would raise the loss (it {positive}); negative: lower it"
    assert f"{words} (it {negative})." in caption(figure)
    shown = plots.extreme_images(data, np.ones((2, 3, 3)))
    rows = [ax.get_ylabel().replace("\n", " ") for ax in shown.axes if ax.get_ylabel()]
    long = {"helps": "most helpful", "harms": "most harmful"}
    assert rows == [long[positive], long[negative]]


def test_an_output_neither_helps_nor_harms_and_an_unknown_sign_is_not_guessed():
    data = made_up([1.0, -2.0], [0, 1])
    output = data.assign_coords(quantity=("target", ["u"]))
    figure = plots.influence_histograms(output)
    assert [t.get_text() for t in figure.axes[0].texts[1:]] == [
        "removing raises it →",
        "← removing lowers it",
    ]
    assert "helps" not in caption(figure)
    odd = made_up(
        [1.0, -2.0], [0, 1], sign="alignment of gradients", solver_converged=0
    )
    figure = plots.influence_histograms(odd)
    assert [t.get_text() for t in figure.axes[0].texts[1:]] == [
        "positive →",
        "← negative",
    ]
    assert "alignment of gradients" in figure.axes[-1].get_xlabel()
    assert caption(figure).endswith("Caution: the solver did not converge.")


def test_histograms_of_zeros_and_of_one_sample():
    drawn(plots.influence_histograms(made_up(np.zeros(4), [0, 0, 1, 1])))
    figure = drawn(plots.influence_histograms(made_up([-3.0], [1])))
    assert heights(figure.axes[0]).sum() == 1


def test_histograms_of_what_methods_return(trained):
    objective, x, y = trained
    method = wh.Influence(objective, damping=1e-2)
    drawn(plots.influence_histograms(method.attribute(wh.Loss(x[:3], y[:3]))))
    own = method.self_influence()
    figure = drawn(plots.influence_histograms(own))
    assert "on the point's own loss" in figure.get_suptitle()
    total = method.attribute_sum(wh.Loss(x, y))
    assert "on the sum of loss" in plots.influence_histograms(total).get_suptitle()
    cosine = wh.GradCos(objective).attribute(wh.Output(x[:1], "output_0"))
    drawn(plots.influence_histograms(cosine))


def test_histograms_refuse_what_they_cannot_show():
    data = random_case(classes=2)
    with pytest.raises(TypeError, match="expected an attribution"):
        plots.influence_histograms(data.values)
    with pytest.raises(ValueError, match="dimensions"):
        plots.influence_histograms(data.rename(point="sample"))
    with pytest.raises(ValueError, match="dimensions"):
        plots.influence_histograms(data.expand_dims(feature=3))
    with pytest.raises(ValueError, match=r"no coordinate 'label' .*assign_coords"):
        plots.influence_histograms(data.drop_vars("label"))
    with pytest.raises(ValueError, match="finite"):
        plots.influence_histograms(data * np.nan)
    several = xr.concat([data, data * np.nan], "target")
    with pytest.raises(ValueError, match="finite"):
        plots.influence_histograms(several)
    with pytest.raises(ValueError, match=r"'label' must be finite .*: 300 of 300"):
        plots.influence_histograms(data.assign_coords(label=("point", [np.nan] * 300)))
    with pytest.raises(ValueError, match="a value for each of the 300 points"):
        plots.influence_histograms(data, label=np.arange(3))
    with pytest.raises(ValueError, match="bins must be a positive integer"):
        plots.influence_histograms(data, bins=0)
    with pytest.raises(ValueError, match=r"none for the labels \[1\]"):
        plots.influence_histograms(data, names=["cat"])
    with pytest.raises(TypeError, match="names must be a mapping"):
        plots.influence_histograms(data, names="cats")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list, pd.Series])
def test_histograms_are_by_any_values_without_a_coordinate(kind):
    data = random_case()
    ages = np.linspace(20, 80, 300)
    figure = drawn(plots.influence_histograms(data, kind(ages)))
    assert len(figure.axes) == 8
    assert figure.get_suptitle().replace("\n", " ").endswith("by group")
    assert figure.axes[0].get_ylabel() == "20 … 27.4"
    assert "300 values of group are put into 8 ranges" in caption(figure)
    counted = np.histogram(data.values[0, ages < 27.5], 50)[0].sum()
    assert heights(figure.axes[0]).sum() == counted


def test_histograms_by_any_coordinate():
    data = random_case().assign_coords(site=("point", ["Bonn", "Kiel", "Ulm"] * 100))
    figure = plots.influence_histograms(data, "site")
    assert [ax.get_ylabel() for ax in figure.axes] == [
        "site Bonn",
        "site Kiel",
        "site Ulm",
    ]
    named = pd.Series(["Bonn", "Kiel", "Ulm"] * 100, name="town")
    figure = plots.influence_histograms(data, named)
    assert figure.axes[0].get_ylabel() == "town Bonn"

    many = data.assign_coords(label=("point", np.arange(300) // 2))
    figure = plots.influence_histograms(many)
    assert len(figure.axes) == 20
    assert (
        "of 150 values of label the 20 most frequent are shown"
        in caption(figure).lower()
    )


# images

VALUES = [0.5, -0.1, 0.2, -0.4, 0.9, 0.0]
LABELS = [0, 1, 1, 0, 1, 0]


def numbered(n=6, shape=(2, 3)):
    """Images, each of them grey throughout and lighter than the one before."""
    return np.broadcast_to(
        np.arange(n, dtype=float).reshape(n, *[1] * len(shape)), (n, *shape)
    )


def images_of(figure):
    """What each panel shows, as the numbers that were given (of six images)."""
    held = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    return [float(np.unique(np.round(np.asarray(a) * 5, 6)).item()) for a in held]


def captions(figure):
    return [ax.get_xlabel() for ax in figure.axes if ax.images]


def test_images_are_those_of_highest_and_lowest_influence_in_order():
    figure = drawn(plots.extreme_images(made_up(VALUES, LABELS), numbered(), k=2))
    assert images_of(figure) == [4, 0, 3, 1]
    assert captions(figure) == [
        "1\n#4  +9.0e-01",
        "0\n#0  +5.0e-01",
        "0\n#3  -4.0e-01",
        "1\n#1  -1.0e-01",
    ]
    thick = [ax.spines["left"].get_linewidth() > 1 for ax in figure.axes if ax.images]
    assert thick == [False, True, True, False]  # label 0 is the target's


def test_more_images_than_samples_are_asked_for():
    figure = drawn(plots.extreme_images(made_up(VALUES, LABELS), numbered(), k=20))
    assert images_of(figure) == [
        4,
        0,
        2,
        3,
        1,
    ]  # nothing of no influence, none on the wrong side
    helpful = made_up([1.0, 2.0], [0, 1])
    figure = drawn(plots.extreme_images(helpful, numbered(2)))
    assert [t.get_text() for ax in figure.axes for t in ax.texts] == ["none"]


def test_many_images_go_on_in_a_further_row():
    values, labels = np.arange(1.0, 31.0), np.zeros(30, int)
    figure = drawn(plots.extreme_images(made_up(values, labels), numbered(30), k=14))
    shown = [ax for ax in figure.axes if ax.images]
    assert len(shown) == 14
    rows = [round(ax.get_position().y0, 3) for ax in shown]
    assert len(set(rows[:10])) == 1
    assert len(set(rows[10:])) == 1
    assert rows[0] > rows[10]


def test_the_target_is_to_the_left():
    data = made_up(VALUES, LABELS)
    figure = drawn(
        plots.extreme_images(
            data, numbered(), k=2, target_image=numbered()[5], names=["cat", "ox"]
        )
    )
    assert images_of(figure) == [5, 4, 0, 3, 1]
    target, *others = [ax for ax in figure.axes if ax.images]
    assert target.get_title() == "target 7"
    assert target.get_xlabel() == "label cat"
    assert all(ax.get_position().x0 > target.get_position().x1 for ax in others)
    assert captions(figure)[1] == "ox\n#4  +9.0e-01"


def test_images_of_the_targets_label_only():
    figure = plots.extreme_images(
        made_up(VALUES, LABELS), numbered(), same_label_only=True
    )
    assert images_of(figure) == [0, 3]
    assert figure.get_suptitle().replace("\n", " ").endswith("among those of label 0")


def test_images_of_most_average_influence_on_several_targets():
    data = made_up([VALUES, [0.0, -1.9, 0.0, 1.4, 0.0, 0.1]], LABELS)
    figure = drawn(plots.extreme_images(data, numbered(), k=3))
    assert captions(figure) == [
        "0\n#3  +5.0e-01",
        "1\n#4  +4.5e-01",
        "0\n#0  +2.5e-01",
        "1\n#1  -1.0e+00",
    ]
    assert "most average influence on the loss of 2 targets" in figure.get_suptitle()
    assert "Thick orange" not in caption(figure)  # their labels differ

    shared = data.assign_coords(target_label=("target", [1, 1]))
    figure = plots.extreme_images(shared, numbered(), same_label_only=True)
    assert images_of(figure) == [4, 2, 1]
    heading = figure.get_suptitle().replace("\n", " ")
    assert heading.endswith("of 2 targets of label 1 among those of label 1")


def test_images_of_a_label_only():
    data = made_up(VALUES, LABELS)
    figure = plots.extreme_images(data, numbered(), names=["cat", "ox"], of_label=1)
    assert images_of(figure) == [4, 2, 1]
    assert figure.get_suptitle().endswith("among those of label ox")


@pytest.mark.parametrize("shape", [(1, 8, 9), (8, 9, 1), (3, 8, 9), (8, 9, 3), (8, 9)])
@pytest.mark.parametrize("tensor", [False, True])
def test_images_of_every_usual_shape(shape, tensor):
    images = np.arange(6 * np.prod(shape)).reshape(6, *shape).astype(np.float32) - 50
    given = torch.from_numpy(images) if tensor else images
    figure = plots.extreme_images(
        made_up(VALUES, LABELS), given, 1, target_image=given[0]
    )
    held = next(ax for ax in figure.axes if ax.images).images[0].get_array()
    expected = images[0]
    if 3 in shape:
        expected = np.moveaxis(expected, 0, -1) if shape[0] == 3 else expected
    else:
        expected = expected.reshape(8, 9)
    scaled = (expected - images.min()) / np.ptp(images)
    np.testing.assert_allclose(np.asarray(held), scaled, atol=1e-6)


def test_a_part_of_the_points_keeps_its_places_in_the_data():
    part = made_up(VALUES, LABELS).isel(point=[3, 4])
    figure = plots.extreme_images(part, numbered()[[3, 4]], target_image=numbered()[0])
    assert captions(figure)[1:] == ["1\n#4  +9.0e-01", "0\n#3  -4.0e-01"]


def test_images_are_refused_that_do_not_suit():
    data = made_up(VALUES, LABELS)
    show = plots.extreme_images
    with pytest.raises(ValueError, match="6 points, but there are 5 images"):
        show(data, numbered(5))
    with pytest.raises(ValueError, match=r"shape \(n, H, W\).*got \(6, 64\)"):
        show(data, np.ones((6, 64)))
    with pytest.raises(ValueError, match="1, 3 or 4 channels"):
        show(data, np.ones((6, 5, 8, 8)))
    with pytest.raises(TypeError, match="numbers"):
        show(data, np.array(["a"] * 6))
    with pytest.raises(ValueError, match="finite"):
        show(data, numbered() * np.nan)
    with pytest.raises(ValueError, match=r"like the images, \(2, 3\), got \(4, 3\)"):
        show(data, numbered(), target_image=np.ones((4, 3)))
    with pytest.raises(ValueError, match="k must be a positive integer"):
        show(data, numbered(), k=0)
    two = made_up([VALUES, VALUES], LABELS)
    with pytest.raises(ValueError, match=r"target_image is of one target, .* has 2"):
        show(two, numbered(), target_image=numbered()[0])
    with pytest.raises(ValueError, match=r"no label in common .* of_label="):
        show(two, numbered(), same_label_only=True)
    with pytest.raises(ValueError, match="no point has the label 7, of such as 0, 1"):
        show(data, numbered(), of_label=7)
    with pytest.raises(ValueError, match="leave out same_label_only"):
        show(data, numbered(), of_label=1, same_label_only=True)
    with pytest.raises(ValueError, match="'target_label'"):
        show(data.drop_vars("target_label"), numbered(), same_label_only=True)
    with pytest.raises(ValueError, match="no coordinate 'label'"):
        show(data.drop_vars("label"), numbered(), same_label_only=True)
    with pytest.raises(ValueError, match="no point has the target's own label, 0"):
        show(data.isel(point=[1, 2]), numbered(2), same_label_only=True)
    bare = show(data.drop_vars(["label", "target_label"]), numbered(), k=1)
    assert captions(bare) == ["#4  +9.0e-01", "#3  -4.0e-01"]


# suspicious images


def ranked_samples(**more):
    known = {"suspicion": [0.1, 0.5, 0.9, 0.3], "rank": [3, 1, 0, 2], **more}
    return xr.Dataset(
        {name: ("point", values) for name, values in known.items()},
        {"label": ("point", [0, 1, 1, 0]), "index": ("point", [10, 11, 12, 13])},
    )


def test_suspicious_images_come_in_order_of_rank():
    figure = drawn(plots.suspicious_images(ranked_samples(), numbered(4), k=3))
    held = [float(np.max(ax.images[0].get_array())) for ax in figure.axes if ax.images]
    np.testing.assert_allclose(held, [2 / 3, 1 / 3, 1.0])
    assert captions(figure) == [
        "1\n#12  9.0e-01",
        "1\n#11  5.0e-01",
        "0\n#13  3.0e-01",
    ]
    assert figure.get_suptitle() == "The 3 most suspicious training samples"
    assert "Thick" not in caption(figure)


def test_suspects_that_the_model_predicts_otherwise_are_framed():
    ranked = ranked_samples(predicted=[0, 1, 2, 1])
    names = ["cat", "ox", "a name that is far too long for this"]
    figure = drawn(plots.suspicious_images(ranked, numbered(4), names=names))
    assert captions(figure)[0] == "ox\nmodel: a name tha…\n#12  9.0e-01"
    shown = [ax for ax in figure.axes if ax.images]
    thick = [ax.spines["left"].get_linewidth() > 1 for ax in shown]
    assert thick == [True, False, True, False]
    assert "the model predicts another label" in caption(figure)


def test_suspicious_images_refuse_what_are_no_suspects():
    with pytest.raises(TypeError, match="suspects"):
        plots.suspicious_images(made_up(VALUES, LABELS), numbered())
    with pytest.raises(ValueError, match="4 points, but there are 6 images"):
        plots.suspicious_images(ranked_samples(), numbered())


# description


def test_description_names_the_samples_that_matter_most():
    text = plots.describe_samples(made_up(VALUES, LABELS), names=["cat", "ox"], k=2)
    assert text.split("\n") == [
        "Influence of 6 samples on the loss of target 7 (label cat): 3 positive, 2 negative; the "
        "strongest 10 % carry 43 % of the total absolute influence.",
        "Removing raises the loss (helps): 4 (ox) +9.0e-01, 0 (cat) +5.0e-01.",
        "Removing lowers the loss (harms): 3 (cat) -4.0e-01, 1 (ox) -1.0e-01.",
    ]


def test_description_of_several_targets_and_of_nothing():
    text = plots.describe_samples(made_up([[1.0, 2.0], [3.0, -2.0]], [0, 1]))
    assert text.startswith(
        "Average influence of 2 samples on the loss of 2 targets: 1 positive, 0"
    )
    assert text.endswith("Removing lowers the loss (harms): none.")
    text = plots.describe_samples(made_up([0.0, 0.0], [0, 1]))
    assert (
        text
        == "None of the 2 samples has any influence on the loss of target 7 (label 0)."
    )
    odd = made_up([1.0], [0], sign="alignment", solver_converged=0).drop_vars("label")
    text = plots.describe_samples(odd)
    assert "(but the solver did not converge)" in text
    assert text.endswith("Most positive: 0 +1.0e+00.\nMost negative: none.")


def test_labels_may_be_words():
    for kind in (str, object):
        data = made_up(VALUES, np.array(["cat", "ox"], dtype=kind)[LABELS])
        data = data.assign_coords(target_label=("target", np.array(["ox"], dtype=kind)))
        assert (
            captions(plots.extreme_images(data, numbered(), k=1))[0]
            == "ox\n#4  +9.0e-01"
        )
        assert "(helps): 4 (ox) +9.0e-01, 0 (cat)" in plots.describe_samples(data)
        panels = plots.influence_histograms(data).axes
        assert [ax.get_ylabel() for ax in panels] == [
            "label cat",
            "label ox\n(the target's)",
        ]


# confusion

TRUE, PREDICTED = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]
# F1: 0: 2·2/(3 + 2) = 0.8; 1: 2·2/(2 + 4) = 2/3; 2: 0. Weighted: (3·0.8 + 2·2/3) / 6 = 0.6222.


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_confusion_has_counts_and_scores_by_hand(kind):
    figure = drawn(
        plots.confusion(kind(TRUE), kind(PREDICTED), names=["cat", "dog", "eel"])
    )
    matrix, bars = figure.axes
    counts = np.array([int(text.get_text()) for text in matrix.texts]).reshape(3, 3)
    np.testing.assert_array_equal(counts, [[2, 1, 0], [0, 2, 0], [0, 1, 0]])
    np.testing.assert_allclose(
        [bar.get_width() for bar in bars.patches], [0.8, 2 / 3, 0]
    )
    assert [text.get_text() for text in bars.texts] == [
        "0.80 (3)",
        "0.67 (2)",
        "0.00 (1)",
    ]
    assert figure.get_suptitle() == (
        "Confusion of 6 samples\naccuracy 0.667, macro F1 0.489, weighted F1 0.622"
    )
    ticks = [
        [t.get_text() for t in f()]
        for f in (matrix.get_xticklabels, matrix.get_yticklabels)
    ]
    assert ticks == [["cat", "dog", "eel"]] * 2
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == (
        "predicted class",
        "true class",
    )


def test_confusion_agrees_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    true = rng.integers(0, 12, 400)
    guess = np.where(rng.random(400) < 0.5, true, rng.integers(0, 14, 400))
    figure = plots.confusion(true, guess)
    words = [
        float(w.split()[-1]) for w in figure.get_suptitle().split("\n")[1].split(",")
    ]
    f1 = [
        metrics.f1_score(true, guess, average=a, zero_division=0)
        for a in ("macro", "weighted")
    ]
    np.testing.assert_allclose(
        words, [metrics.accuracy_score(true, guess), *f1], atol=6e-4
    )


def test_confusion_of_many_classes_has_a_bar_of_colours_and_no_numbers():
    figure = drawn(plots.confusion(np.arange(40), np.arange(40)))
    assert not figure.axes[0].texts
    assert figure.axes[2].get_ylabel() == "share of the true class"
    assert len(figure.axes[0].get_yticklabels()) == 40


def test_confusion_of_words_as_labels():
    figure = drawn(plots.confusion(["a", "b"], ["a", "a"]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "0", "1", "0"]


def test_confusion_refuses_what_are_no_classes():
    with pytest.raises(ValueError, match="3 labels, but 2 predictions"):
        plots.confusion([0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match=r"predicted must be .*\.argmax\(1\)"):
        plots.confusion([0, 1], torch.rand(2, 2))
    with pytest.raises(ValueError, match="labels must be one class"):
        plots.confusion([], [])
    with pytest.raises(ValueError, match="finite"):
        plots.confusion([0, np.nan], [0, 1])


# losses


def test_losses_are_drawn_by_epoch_and_the_best_is_marked():
    rows = [
        {
            "epoch": 10 * k,
            "train_loss": 1 / k,
            "validation_loss": v,
            "validation_accuracy": a,
        }
        for k, v, a in ((1, 1.0, 0.5), (2, 0.7, None), (3, 0.8, 0.9))
    ]
    figure = drawn(plots.losses(rows))
    top, low = figure.axes
    assert legend(figure) == [
        "training loss",
        "validation loss",
        "lowest validation loss:\n0.7 at epoch 20",
    ]
    assert legend(figure, 1)[1] == "highest validation accuracy:\n0.9 at epoch 30"
    np.testing.assert_array_equal(top.lines[0].get_xdata(), [10, 20, 30])
    np.testing.assert_allclose(top.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(
        low.lines[0].get_xdata(), [10, 30]
    )  # not measured at 20
    assert top.lines[2].get_xydata().tolist() == [[20, 0.7]]
    assert (top.get_ylabel(), low.get_ylabel(), low.get_xlabel()) == (
        "loss",
        "accuracy",
        "epoch",
    )


def test_losses_of_columns_count_epochs_and_leave_other_columns_out():
    columns = {"train_loss": [1.0, 1e-3], "learning_rate": ["a", "b"], "label": "mlp"}
    figure = drawn(plots.losses(columns))
    assert legend(figure) == ["training loss"]
    assert figure.axes[0].get_yscale() == "log"
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [1, 2])
    assert len(figure.axes) == 1
    assert legend(
        plots.losses({"val_loss": [1.0], "my_own_loss": [2.0], "loss": [3.0]})
    ) == [
        "validation loss",
        "my own loss",
        "loss",
    ]


def test_losses_refuse_what_is_no_history():
    with pytest.raises(ValueError, match="one epoch or more"):
        plots.losses([])
    with pytest.raises(ValueError, match="one epoch or more"):
        plots.losses({"train_loss": []})
    with pytest.raises(TypeError, match="history must be rows"):
        plots.losses([1.0, 2.0])
    with pytest.raises(ValueError, match="one length"):
        plots.losses({"train_loss": [1.0], "validation_loss": [1.0, 2.0]})
    with pytest.raises(ValueError, match=r"columns such as 'train_loss'.*got epoch"):
        plots.losses([{"epoch": 1}])
    with pytest.raises(TypeError, match="'train_loss' of history must hold numbers"):
        plots.losses({"train_loss": ["high", "low"]})


# bad samples


def found(scores, bad=(True, False, False, True)):
    return bad_data.detection(scores, list(bad))


def test_detection_has_a_curve_of_each_method_whose_area_is_its_average_precision():
    curves = {"poor": found([0.1, 0.9, 0.8, 0.2]), "good": found([0.9, 0.1, 0.8, 0.2])}
    figure = drawn(plots.detection(curves))
    assert legend(figure) == ["good: AP 0.833", "poor: AP 0.417", "random: 0.500"]
    ax = figure.axes[0]
    for line, name in zip(ax.lines, ("good", "poor"), strict=False):
        assert line.get_drawstyle() == "steps-pre"
        recall, precision = line.get_data()
        assert recall[0] == 0
        area = (np.diff(recall) * precision[1:]).sum()
        np.testing.assert_allclose(area, curves[name].attrs["average_precision"])
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), 0.5)
    assert ax.lines[-1].get_linestyle() == "--"
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert "50 % of all" in figure.get_suptitle()


def test_many_methods_have_lines_that_differ():
    figure = drawn(
        plots.detection({f"m{k}": found([0.9, 0.1, 0.8, 0.2]) for k in range(13)})
    )
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 14


def test_detection_refuses_what_are_no_curves():
    curve = found([0.9, 0.1, 0.8, 0.2])
    with pytest.raises(TypeError, match="mapping from a method's name"):
        plots.detection(curve)
    with pytest.raises(TypeError, match=r"curve of 'a' must be an xarray\.Dataset"):
        plots.detection({"a": [0.1]})
    with pytest.raises(ValueError, match="got none"):
        plots.detection({})
    with pytest.raises(ValueError, match="no 'recall' on dimension 'rank'"):
        plots.detection({"a": curve.drop_vars("recall")})
    with pytest.raises(ValueError, match="no attribute 'share'"):
        plots.detection({"a": curve.assign_attrs(share=1).drop_attrs()[["precision", "recall"]]
                         .assign_attrs(average_precision=0.1)})  # fmt: skip
    other = found([0.9, 0.1, 0.8, 0.2], (True, False, False, False))
    with pytest.raises(ValueError, match="of other data"):
        plots.detection({"a": curve, "b": other})


def test_label_report_has_two_bars_for_each_label_with_their_numbers():
    scores, bad = [5.0, 1.0, 3.0, 2.0, -4.0], [True, False, False, False, True]
    report = bad_data.label_report(scores, bad, [0, 0, 1, 1, 2])
    figure = drawn(plots.label_report(report, names=["cat", "dog", "eel"]))
    ax = figure.axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(widths, [5, 0, -4, 1, 2.5, 0])
    assert [text.get_text() for text in ax.texts] == [
        "n = 1",
        "no corrupted sample",
        "n = 1",
        "n = 1",
        "n = 2",
        "no clean sample",
    ]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["cat", "dog", "eel"]
    assert ax.yaxis_inverted()  # the first label on top
    assert legend(figure) == ["corrupted", "clean"]


def test_label_report_refuses_what_is_none():
    with pytest.raises(TypeError, match=r"xarray\.Dataset"):
        plots.label_report([1, 2])
    report = bad_data.label_report([5.0, 1.0], [True, False], [0, 1])
    with pytest.raises(ValueError, match="no 'n_clean' on dimension 'label'"):
        plots.label_report(report.drop_vars("n_clean"))


def test_figures_of_samples_are_saved(tmp_path):
    figure = plots.extreme_images(made_up(VALUES, LABELS), numbered())
    png, svg = plots.save(figure, tmp_path / "images")
    assert png.stat().st_size > 1000
    assert svg.read_bytes().startswith(b"<?xml")
