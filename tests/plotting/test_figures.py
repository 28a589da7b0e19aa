import builtins

import jax
import jax.numpy as jnp
import jaxtyping
import matplotlib.patches
import numpy as np
import pytest

from diffhep.helix import to_cylinder
from diffhep.plotting import (
    TRACK_PULLS,
    VERTEX_PULLS,
    RatioTemplates,
    arcs_to_radii,
    covariance_ellipse,
    event_display,
    helix_points,
    loss_curve,
    mass_distribution,
    moments,
    parameter_trajectories,
    pull_plot,
    ratio_histogram,
    resolution_plot,
    roc_curve,
    roc_points,
    sigma_comparison,
)


EDGES = np.linspace(-3.0, 3.0, 7)


def _draw(figure):
    figure.canvas.draw()
    return figure


def _texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def _polylines(axes):
    return [line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 2]


def _templates(scale=1.0):
    total = np.array([90.0, 70.0, 40.0, 20.0, 8.0, 2.0])
    return RatioTemplates(
        edges=EDGES,
        signal=scale * np.array([0.0, 1.0, 3.0, 6.0, 7.0, 5.0]),
        backgrounds={"Z + light": 0.8 * total, "Z + bb": 0.2 * total},
        up=1.05 * total,
        down=0.96 * total,
        hard_signal=np.ones(6),
        hard_background=total,
    )


def test_helix_agrees_with_circle():
    # An independent description: centre and radius of the circle, by trigonometry.
    d0, z0, phi, theta, qop, field = 1.3, -2.0, 0.4, 1.1, -0.25, 3.0
    radius = np.sin(theta) / (0.299792458e-3 * field * qop)
    centre = (d0 - radius) * np.array([-np.sin(phi), np.cos(phi)])
    arcs = np.array([-300.0, 0.0, 1e-9, 250.0, 900.0])
    points = helix_points(np.array([d0, z0, phi, theta, qop]), field, arcs)
    assert np.allclose(np.hypot(*(points[:, :2] - centre).T), abs(radius), rtol=1e-12)
    turned = phi - arcs / radius
    expected = centre + radius * np.stack([-np.sin(turned), np.cos(turned)], axis=-1)
    assert np.allclose(points[:, :2], expected, atol=1e-9)
    assert np.allclose(points[:, 2], z0 + arcs / np.tan(theta), rtol=1e-12)


def test_helix_agrees_with_the_simulation():
    track, field = np.array([0.4, 12.0, -2.1, 0.8, -0.3]), 3.8
    radii = np.array([30.0, 150.0, 900.0])
    arcs = arcs_to_radii(track, field, radii)
    points = helix_points(track, field, arcs)
    for radius, arc, point in zip(radii, arcs, points, strict=True):
        crossing = to_cylinder(jnp.asarray(track), jnp.array(radius), jnp.array(field))
        assert np.isclose(arc, crossing.arc, rtol=1e-12)
        assert np.isclose(point[2], crossing.z, rtol=1e-12)
        azimuth = np.arctan2(point[1], point[0])
        assert np.isclose(np.cos(azimuth - float(crossing.azimuth)), 1.0, rtol=1e-12)


def test_straight_track_is_regular():
    track = np.array([0.5, 0.0, 0.3, 1.2, 0.0])
    arcs = arcs_to_radii(track, 2.0, np.array([30.0, 500.0]))
    points = helix_points(track, 2.0, arcs)
    assert np.allclose(np.hypot(points[:, 0], points[:, 1]), [30.0, 500.0], rtol=1e-12)


def test_unreached_radius_is_nan():
    # 0.2 GeV in 4 T curls up with a diameter of 334 mm.
    track = np.array([0.0, 0.0, 0.0, np.pi / 2, 5.0])
    arcs = arcs_to_radii(track, 4.0, np.array([330.0, 340.0]))
    assert np.isfinite(arcs[0])
    assert np.isnan(arcs[1])


def test_ellipse_axes():
    angle, variances = 0.6, np.array([0.09, 0.0025])
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    covariance = rotation @ np.diag(variances) @ rotation.T
    long, short, direction = covariance_ellipse(covariance, 2.0)
    assert np.isclose(long, 0.6)
    assert np.isclose(short, 0.1)
    assert np.isclose(np.tan(direction), np.tan(angle))


def test_display_tracks_pass_through_hits(event, barrel):
    figure = _draw(event_display(event, barrel))
    transverse = figure.axes[0]
    drawn = np.concatenate(_polylines(transverse))
    found = np.asarray(event.hits.mask)
    azimuth = np.asarray(event.hits.position[..., 0])[found]
    radius = np.broadcast_to(np.asarray(barrel.radii), found.shape)[found]
    hits = radius[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=-1)
    distance = np.linalg.norm(hits[:, None] - drawn[None], axis=-1).min(axis=1)
    assert len(hits) > 100
    assert distance.max() < 1e-6
    scattered = transverse.collections[0].get_offsets()
    assert np.allclose(np.asarray(scattered), hits)


def test_display_draws_only_live_slots(event, barrel):
    figure = _draw(event_display(event, barrel))
    transverse, region = figure.axes[:2]
    assert len(_polylines(transverse)) == int(event.tracks.mask.sum())
    labels = [text for text in _texts(figure) if text.startswith("jet ")]
    assert len(labels) == 3
    # Each ellipse is drawn twice, with a halo.
    ellipses = [p for p in region.patches if isinstance(p, matplotlib.patches.Ellipse)]
    assert len(ellipses) == 6
    for patch, slot in zip(ellipses[:4], (0, 0, 1, 1), strict=True):
        covariance = np.asarray(event.secondary_vertices.covariance)[slot, :2, :2]
        long, short, _ = covariance_ellipse(covariance, 2.0)
        assert np.isclose(patch.width, 2 * long)
        assert np.isclose(patch.height, 2 * short)


def test_display_bars_hold_the_energy(event, barrel):
    transverse = event_display(event, barrel).axes[0]
    bars = [
        patch
        for patch in transverse.patches
        if isinstance(patch, matplotlib.patches.Wedge) and patch.width is not None
    ]
    heights = np.array([bar.width for bar in bars])
    energy = np.asarray(event.towers.momentum)[np.asarray(event.towers.mask), 3]
    ratio = heights / energy
    assert np.allclose(ratio, ratio[0])


def test_display_of_a_bare_event(event, barrel):
    figure = _draw(event_display(event.keep("tracks"), barrel, title="bare"))
    assert "bare" in _texts(figure)


def test_display_rejects_a_batch(event, barrel):
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), event)
    with pytest.raises(ValueError, match="shows one event"):
        event_display(batch, barrel)


def test_moments_of_a_known_sample():
    sample = np.array([1.0, 2.0, 3.0, 6.0, np.nan])
    mean, mean_error, width, _ = moments(sample)
    assert np.isclose(mean, 3.0)
    assert np.isclose(width, np.sqrt(14 / 3))
    assert np.isclose(mean_error, np.sqrt(14 / 3) / 2)


def test_moments_errors_of_a_gaussian():
    sample = np.random.default_rng(0).normal(size=200_000)
    _, mean_error, width, width_error = moments(sample)
    assert np.isclose(mean_error, width / np.sqrt(sample.size))
    # The kurtosis of 200,000 draws is 3 within 0.011, half of which enters.
    assert np.isclose(width_error, width / np.sqrt(2 * sample.size), rtol=0.02)


def test_moments_need_values():
    with pytest.raises(ValueError, match="at least 2 finite values"):
        moments(np.array([np.nan, 1.0]))


def test_pull_plot_prints_the_moments_of_live_slots():
    rng = np.random.default_rng(1)
    pulls = rng.normal(0.1, 1.2, size=(50, 20, 5))
    mask = np.broadcast_to(np.arange(20) < 15, (50, 20))
    pulls[~mask] = np.nan
    live = pulls[mask]
    figure = _draw(pull_plot(jnp.asarray(pulls), mask=jnp.asarray(mask)))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for column, title in enumerate(titles):
        width = np.std(live[:, column], ddof=1)
        assert title.startswith(TRACK_PULLS[column])
        assert f"width {width:.3f} ± " in title
    heights = figure.axes[0].patches[0].get_data()
    area = (heights.values * np.diff(heights.edges)).sum()
    inside = np.mean(np.abs(live[:, 0]) < 4.5)
    assert np.isclose(area, inside)


def test_pull_plot_of_vertices_and_wrong_names():
    pulls = np.random.default_rng(2).normal(size=(300, 3))
    assert len(_draw(pull_plot(pulls, names=VERTEX_PULLS)).axes) == 3
    with pytest.raises(ValueError, match="5 names"):
        pull_plot(pulls)


def test_resolution_plot_shows_the_widths():
    rng = np.random.default_rng(3)
    momentum = rng.uniform(1.0, 4.0, size=6000)
    impact = rng.normal(size=6000) * np.where(momentum < 2, 0.08, 0.02)
    relative = rng.normal(size=6000) * 0.01
    mask = np.ones(6000, bool)
    mask[:100], impact[:100] = False, np.nan
    edges = np.array([1.0, 2.0, 4.0, 9.0])
    figure = resolution_plot(momentum, impact, relative, mask=mask, edges=edges)
    left, right = _draw(figure).axes
    points = left.lines[0].get_ydata()
    # Two bins are filled; 2000 tracks give a width within 1.6 %, three errors 5 %.
    assert np.allclose(points, [80.0, 20.0], rtol=0.05)
    assert np.allclose(right.lines[0].get_ydata(), 1.0, rtol=0.05)
    with pytest.raises(ValueError, match="none is alive"):
        resolution_plot(momentum, impact, relative, mask=np.zeros(6000, bool))


def test_loss_curve():
    steps = np.arange(20)
    sigma = 0.3 + 0.2 * np.exp(-steps / 5.0)
    sigma[3] = np.nan
    history = {"step": steps, "sigma_mu": sigma, "price": [1.0] * 20}
    history["sigma_mu_error"] = np.full(20, 0.01)
    figure = _draw(loss_curve(history, title="Training"))
    assert len(figure.axes) == 2
    assert len(figure.axes[0].lines[0].get_ydata()) == 19
    assert "0.5" in _texts(figure)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"step": [0, 1], "speed": [1, 2]}, "'speed'"),
        ({"step": [0, 1]}, "at least one of"),
        ({"step": [0, 1], "price": [1.0]}, "2 steps"),
    ],
)
def test_loss_curve_rejects(history, message):
    with pytest.raises(ValueError, match=message):
        loss_curve(history)


def test_parameter_trajectories():
    steps = np.arange(10)
    radii = np.tile(np.array([30.0, 60.0, 120.0]), (10, 1))
    values = {"layer radius": radii, "jet radius": 0.4 + 0.01 * steps}
    units = {"layer radius": "mm"}
    figure = _draw(parameter_trajectories(steps, values, units=units))
    assert [len(axes.lines) for axes in figure.axes] == [3, 1]
    assert figure.axes[0].get_ylabel() == "[mm]"
    with pytest.raises(ValueError, match="'pitch' has the shape"):
        parameter_trajectories(steps, {"pitch": np.ones(4)})
    with pytest.raises(ValueError, match="no parameter"):
        parameter_trajectories(steps, {})


def test_ratio_histogram_stacks():
    figure = _draw(ratio_histogram({"Before": _templates(), "After": _templates(2.0)}))
    upper = figure.axes[0]
    first, second = (patch.get_data() for patch in upper.patches[:2])
    assert np.allclose(second.baseline, first.values)
    assert np.allclose(second.values, [90.0, 70.0, 40.0, 20.0, 8.0, 2.0])
    lower = figure.axes[2]
    assert np.allclose(lower.patches[0].get_data().values, 1.05)


def test_ratio_histogram_rejects(monkeypatch):
    # The run-time check of shapes is off at a user's: our own sentence must appear.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="'signal' has the shape"):
        RatioTemplates(
            edges=EDGES, signal=np.ones(5), backgrounds={"Z + jets": np.ones(6)}
        )
    with pytest.raises(ValueError, match="no templates"):
        ratio_histogram({})


def test_mass_distribution_has_unit_area():
    rng = np.random.default_rng(4)
    values, weights = rng.normal(120.0, 10.0, 400), rng.uniform(0.5, 1.5, 400)
    values[0] = np.nan
    figure = _draw(
        mass_distribution({"ZH": (values, weights)}, np.linspace(50, 200, 31))
    )
    data = figure.axes[0].patches[0].get_data()
    assert np.isclose((data.values * np.diff(data.edges)).sum(), 1.0)


def test_sigma_comparison():
    rows = {
        "train, soft": ((0.41, 0.011), (0.33, 0.010)),
        "held out, hard": ((0.44, 0.012), (0.44, 0.012)),
    }
    figure = _draw(sigma_comparison(rows, title="Result"))
    texts = _texts(figure)
    assert "0.330 ± 0.010" in texts
    assert "\N{MINUS SIGN}19.5 %" in texts
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [*rows]
    with pytest.raises(ValueError, match="nothing to compare"):
        sigma_comparison({})


def test_roc_area_counts_pairs():
    rng = np.random.default_rng(5)
    # Rounded, so that there are ties.
    signal = np.round(rng.normal(0.7, 1.0, 80), 1)
    background = np.round(rng.normal(0.0, 1.0, 90), 1)
    weight = rng.uniform(0.5, 1.5, 80)
    above = (signal[:, None] > background) + 0.5 * (signal[:, None] == background)
    expected = (above.mean(axis=1) * weight).sum() / weight.sum()
    poisoned = np.append(signal, np.nan), np.append(weight, 1.0)
    *_, area = roc_points(poisoned[0], background, signal_weight=poisoned[1])
    assert np.isclose(area, expected)
    _draw(roc_curve({"after": (signal, background)}))
    with pytest.raises(ValueError, match="background is finite"):
        roc_points(signal, np.full(3, np.nan))


def test_missing_matplotlib(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'diffhep\[plot\]'"):
        sigma_comparison({"row": ((1.0, 0.1), (0.9, 0.1))})
