"""Our track fits beside those of ACTS: the same hits of the same tracks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffhep.geometry import Telescope, build_telescope, effective_thickness
from diffhep.helix import Ionisation, to_plane
from diffhep.tracking import fit_track, smooth_track

from . import _acts_telescope as telescope
from ._acts_peer import ask
from ._harness import QUICK, Row


JOB = {"events": 1 if QUICK else 4, "tracks": 1000}
NEAR = 0.05
"""The bar on the median difference, in standard deviations."""
SAME = 0.02
"""The bar on the median ratio of variances, less one."""
KALMAN = "kalman, third"
LOSSES = "kalman, losses, third"
PLANES = "Kalman filter, planes"
PERIGEE = ("d0", "z0", "phi", "theta", "q/p")
PLANE = ("-z", "y", "phi", "theta", "q/p")


class Fits(NamedTuple):
    """Parameters of many tracks."""

    parameters: Float[Array, "*tracks 5"]
    """What was fitted."""
    variance: Float[Array, "*tracks 5"]
    """Their variances."""


def measure(python: str) -> tuple[list[Row], dict[str, Any]]:
    """The rows of the fits.

    Args:
        python: The interpreter that has ACTS.

    Returns:
        The rows; and the numbers of each parameter by itself, for the file.
    """
    tracks = ask(python, "_acts_fits", JOB)
    detector = _telescope()
    ours = _fit(tracks, detector, None)
    lossy = _fit(tracks, detector, Ionisation())
    smooth = _smooth(tracks, detector)
    pairs = {
        "global fit": (ours, _theirs(tracks, "global")),
        "Kalman filter": (ours, _theirs(tracks, KALMAN)),
        "Kalman filter with losses": (lossy, _theirs(tracks, LOSSES)),
        PLANES: (smooth, _planes(tracks, KALMAN)),
    }
    rows: list[Row] = []
    failed = sum("global" not in track for track in tracks)
    details: dict[str, Any] = {"tracks": len(tracks), "global fits failed": failed}
    for name, pair in pairs.items():
        found = _compare(*pair, PLANE if name == PLANES else PERIGEE)
        rows += _rows(name, found)
        details[name] = found
    return [*rows, *_causes(tracks, ours, lossy)], details


def _telescope() -> Telescope:
    number, root = telescope.PLANES, 12**0.5

    def build(thickness: float) -> Telescope:
        return build_telescope(
            distance=[telescope.SPACING * (i + 1) for i in range(number)],
            pitch_across=[telescope.SIGMA_ACROSS * root] * number,
            pitch_z=[telescope.SIGMA_ALONG * root] * number,
            thickness=[thickness] * number,
            efficiency=[0.99] * number,
            field=telescope.FIELD,
        )

    # Ours adds services to the sensors, and theirs has none.
    bare = build(telescope.THICKNESS)
    services = float(effective_thickness(bare)[0]) - telescope.THICKNESS
    return build(telescope.THICKNESS - services)


def _hits(tracks: list[Any]) -> Float[Array, "tracks planes 2"]:
    return jnp.asarray([track["hits"] for track in tracks])


def _fit(tracks: list[Any], detector: Telescope, ionisation: Ionisation | None) -> Fits:
    mask = jnp.ones(telescope.PLANES, bool)

    @jax.jit
    @jax.vmap
    def fit(hits):
        found = fit_track(hits, mask, detector, ionisation=ionisation)
        return Fits(found.parameters, jnp.diagonal(found.covariance))

    return fit(_hits(tracks))


def _smooth(tracks: list[Any], detector: Telescope) -> Fits:
    # Ours are perigees of the helices that arrive at the planes: brought to those.
    mask = jnp.ones(telescope.PLANES, bool)

    def arrive(parameters, distance):
        ahead = jnp.asarray([1.0, 0.0, 0.0])
        end = to_plane(parameters, distance * ahead, ahead, detector.field)
        _, y, z = end.position
        phi = jnp.arctan2(end.direction[1], end.direction[0])
        return jnp.stack([-z, y, phi, parameters[3], parameters[4]])

    def state(parameters, covariance, distance):
        jacobian = jax.jacfwd(arrive)(parameters, distance)
        moved = jacobian @ covariance @ jacobian.T
        return Fits(arrive(parameters, distance), jnp.diagonal(moved))

    @jax.jit
    @jax.vmap
    def smooth(hits):
        found = smooth_track(hits, mask, detector)
        return jax.vmap(state)(found.parameters, found.covariance, detector.distance)

    return smooth(_hits(tracks))


def _theirs(tracks: list[Any], name: str) -> Fits:
    # NaN where the fit failed.
    missing = {"parameters": [np.nan] * 5, "covariance": [[np.nan] * 5] * 5}
    fits = [track.get(name, missing) for track in tracks]
    covariance = jnp.asarray([fit["covariance"] for fit in fits])
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    return Fits(jnp.asarray([fit["parameters"] for fit in fits]), variance)


def _planes(tracks: list[Any], name: str) -> Fits:
    missing = {
        key: [[np.nan] * 5] * telescope.PLANES for key in ("states", "variances")
    }
    fits = [track.get(name, missing) for track in tracks]
    states = jnp.asarray([fit["states"] for fit in fits])
    return Fits(states, jnp.asarray([fit["variances"] for fit in fits]))


def _compare(
    ours: Fits, theirs: Fits, names: Sequence[str] = PERIGEE
) -> dict[str, dict[str, list[float]]]:
    # For each parameter: of half of the tracks, of 95 %, of all that ACTS fitted.
    fitted = np.isfinite(np.asarray(theirs.parameters[..., 0]))
    ours, theirs = (Fits(*(x[fitted] for x in fits)) for fits in (ours, theirs))
    width = jnp.sqrt(ours.variance)
    distance = jnp.abs(ours.parameters - theirs.parameters) / width
    ratio = jnp.abs(theirs.variance / ours.variance - 1)
    return {
        quantity: {
            name: [float(jnp.quantile(x[:, i], q)) for q in (0.5, 0.95, 1.0)]
            for i, name in enumerate(names)
        }
        for quantity, x in {"distance": distance, "variance": ratio}.items()
    }


def _rows(
    name: str, found: dict[str, dict[str, list[float]]], *, judged: bool = True
) -> list[Row]:
    # The worst of the five parameters.
    def worst(quantity: str) -> list[float]:
        return np.max(list(found[quantity].values()), axis=0).tolist()

    rows = []
    for quantity, words, bar in (
        ("distance", "|difference|, s.d.", NEAR),
        ("variance", "|ratio of variances - 1|", SAME),
    ):
        median, most, all_of_them = worst(quantity)
        rows += [
            Row(
                f"{name}: {words}, 50 %",
                median,
                bar=bar if judged else None,
            ),
            Row(f"{name}: {words}, 95 %", most),
            Row(f"{name}: {words}, largest", all_of_them),
        ]
    return rows


def _causes(tracks: list[Any], ours: Fits, lossy: Fits) -> list[Row]:
    # Where the models differ, each by itself. Below 3 GeV what losses do is more than
    # the noise of the filter.
    slow = jnp.abs(ours.parameters[:, 4]) > 1 / 3

    def gain(fits: Fits, without: Fits) -> float:
        moved = jnp.abs(without.parameters[:, 4]) - jnp.abs(fits.parameters[:, 4])
        energy = 1e3 * moved / ours.parameters[:, 4] ** 2
        return float(jnp.nanmedian(energy[slow]))

    theirs = [_theirs(tracks, name) for name in (LOSSES, KALMAN)]
    first = _compare(ours, _theirs(tracks, "kalman"))
    empty = ("global, empty", "kalman, empty, third")
    both = [track for track in tracks if empty[0] in track and empty[1] in track]
    found = _compare(_theirs(both, empty[0]), _theirs(both, empty[1]))
    return [
        Row(
            "losses below 3 GeV add a median momentum of, MeV, peer ACTS",
            gain(lossy, ours),
            gain(*theirs),
        ),
        *_rows("Kalman filter, first pass", first, judged=False),
        Row(
            "ACTS, Kalman and global, no material: |ratio of variances - 1|, 95 %",
            max(values[1] for values in found["variance"].values()),
        ),
    ]
