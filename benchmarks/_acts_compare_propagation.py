"""Our propagation beside that of ACTS: to the same surfaces in the same field."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffhep.geometry import (
    AbstractField,
    AbstractSurface,
    CylinderSurface,
    GriddedField,
    LineSurface,
    PlaneSurface,
    Trilinear,
    build_solenoid,
    sample_field,
)
from diffhep.helix import (
    cartesian_from_perigee,
    closest_to_point,
    momentum_at,
    perigee_from_cartesian,
    position_at,
    propagate_to,
    to_cylinder,
    to_plane,
)

from ._acts_peer import ask
from ._harness import QUICK, Row


NUM_TRACKS = 64 if QUICK else 256
FIELD = 2.0
RADIUS = 500.0
SIZE = 1600.0
FARTHEST = 1e-3
"""The bar on positions, in mm."""
STEEPEST = 1e-6
"""The bar on directions, in rad."""
RELATIVE = 1e-6
"""The bar on covariances, in units of the standard deviations."""
NAMES = (
    "perigee",
    "point",
    "tilted plane",
    "plane along z",
    "cylinder",
    "perigee on the track",
)
"""The surfaces, in the order in which ACTS is asked."""

Vector = Float[Array, " 3"]
Number = Float[Array, ""]
End = tuple[Vector, Vector]


class Tracks(NamedTuple):
    """Where tracks start, and their surfaces."""

    position: Float[Array, "tracks 3"]
    """Where a track starts, in mm."""
    direction: Float[Array, "tracks 3"]
    """Unit vector along the momentum there."""
    charge_over_momentum: Float[Array, " tracks"]
    """In 1/GeV."""
    line: Float[Array, "tracks 3"]
    """A point, and one of a line along z, up to some 60 mm from the track; in mm."""
    own: Float[Array, "tracks 3"]
    """One of a line along z that meets the track, in mm."""
    ahead: Float[Array, "tracks 3"]
    """One of the planes, on the track, in mm."""
    tilted: Float[Array, "tracks 3 3"]
    """Axes of a plane of any orientation; the last is its normal."""
    upright: Float[Array, "tracks 3 3"]
    """Those of a plane along z."""


Go = Callable[[Vector, Vector, Number, Tracks], End]
"""From a position, a direction and q/p to a surface of a track."""
Bound = Callable[[Vector, Number, Tracks], Float[Array, " 2"]]
"""The two local coordinates on a surface, from a point and the direction's azimuth."""


def measure(python: str) -> list[Row]:
    """The rows of propagation.

    Args:
        python: The interpreter that has ACTS.

    Returns:
        The rows.
    """
    tracks = _tracks()
    # Wider than long: far from uniform.
    grid = sample_field(
        build_solenoid(central=FIELD, radius=2000.0, length=2000.0),
        low=[-SIZE] * 3,
        high=[SIZE] * 3,
        nodes=[33] * 3,
        interpolation=Trilinear(),
    )
    theirs = _asked(python, tracks, {"field": FIELD})
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "field.txt")
        _write(file, grid)
        mapped = _asked(python, tracks, {"map": str(file)})
    helix, plane = _uniform(), "tilted plane"
    lines = ("perigee", "perigee on the track", plane)
    return [
        *_compare("uniform", tracks, helix, theirs),
        *_compare_covariances(
            "uniform", tracks, {x: helix[x] for x in lines}, theirs, judged=lines[1:]
        ),
        *_compare("map", tracks, _integrated(grid), mapped),
        *_compare_covariances("map", tracks, {plane: _integrated(grid)[plane]}, mapped),
    ]


def _tracks() -> Tracks:
    # Of 0.5 to 50 GeV, that have left the axis, with surfaces ahead.
    random = np.random.default_rng(1)
    shape = (NUM_TRACKS,)
    momentum = np.exp(random.uniform(np.log(0.5), np.log(50), shape))
    charge = np.where(np.arange(NUM_TRACKS) % 2 == 0, 1.0, -1.0)
    columns = [
        random.uniform(-50, 50, shape),
        random.uniform(-100, 100, shape),
        random.uniform(-np.pi, np.pi, shape),
        np.arccos(random.uniform(-0.9, 0.9, shape)),
        charge / momentum,
    ]
    parameters, field = jnp.stack(columns, axis=1), jnp.asarray(FIELD)
    sine = jnp.sin(parameters[:, 3])
    arc = sine * random.uniform(50, 400, shape)
    further = arc + sine * random.uniform(300, 900, shape)
    along = jax.vmap(position_at, (0, 0, None))
    headed = jax.vmap(momentum_at, (0, 0, None))
    direction = _unit(headed(parameters, arc, field))
    towards = _unit(direction + _unit(headed(parameters, further, field)))
    # Tilted by up to 53 degrees, and still ahead.
    tilt = _unit(jnp.asarray(random.normal(size=(NUM_TRACKS, 3))))
    roll = jnp.asarray(random.normal(size=(NUM_TRACKS, 3)))
    return Tracks(
        position=along(parameters, arc, field),
        direction=direction,
        charge_over_momentum=parameters[:, 4],
        line=jnp.asarray(random.uniform(-10, 10, (NUM_TRACKS, 3))),
        own=along(parameters, jnp.zeros_like(arc), field),
        ahead=along(parameters, further, field),
        tilted=_frame(_unit(towards + 0.8 * tilt), roll),
        upright=_frame(_unit(towards.at[:, 2].set(0.0)), roll),
    )


def _unit(vector: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def _frame(
    normal: Float[Array, "tracks 3"], roll: Float[Array, "tracks 3"]
) -> Float[Array, "tracks 3 3"]:
    first = _unit(jnp.cross(normal, roll))
    return jnp.stack([first, jnp.cross(normal, first), normal], axis=1)


def _asked(python: str, tracks: Tracks, field: dict[str, Any]) -> list[Any]:
    def job(track: Tracks) -> dict[str, Any]:
        listed = Tracks(*(np.asarray(x).tolist() for x in track))
        plane = {"kind": "plane", "point": listed.ahead}
        return {
            "position": listed.position,
            "direction": listed.direction,
            "charge_over_momentum": listed.charge_over_momentum,
            "surfaces": [
                {"kind": "perigee", "point": listed.line},
                {"kind": "point", "point": listed.line},
                plane | {"axes": listed.tilted},
                plane | {"axes": listed.upright},
                {"kind": "cylinder", "radius": RADIUS},
                {"kind": "perigee", "point": listed.own},
            ],
        }

    jobs = [job(Tracks(*(x[i] for x in tracks))) for i in range(NUM_TRACKS)]
    return ask(python, "_acts_propagation", field | {"tracks": jobs})


def _uniform() -> dict[str, Go]:
    # The helix in closed form.
    field = jnp.asarray(FIELD)

    def here(position, direction, charge, reference):
        return perigee_from_cartesian(position, direction, charge, reference, field)

    def perigee(line, position, direction, charge, track):
        del track
        parameters = here(position, direction, charge, line)
        return cartesian_from_perigee(parameters, line)[:2]

    def point(position, direction, charge, track):
        parameters = here(position, direction, charge, track.position)
        end = closest_to_point(parameters, track.line - track.position, field)
        return end.position + track.position, end.direction

    def plane(axes, position, direction, charge, track):
        # About where the track starts: the plane is less than half a turn from there.
        parameters = here(position, direction, charge, track.position)
        end = to_plane(parameters, track.ahead - track.position, axes[2], field)
        return end.position + track.position, end.direction

    def cylinder(position, direction, charge, track):
        del track
        parameters = here(position, direction, charge, jnp.zeros(3))
        end = to_cylinder(parameters, jnp.asarray(RADIUS), field)
        across = jnp.sin(parameters[3])
        place = [RADIUS * jnp.cos(end.azimuth), RADIUS * jnp.sin(end.azimuth), end.z]
        towards = [
            across * jnp.cos(end.direction),
            across * jnp.sin(end.direction),
            jnp.cos(parameters[3]),
        ]
        return jnp.stack(place), jnp.stack(towards)

    return {
        "perigee": lambda *a: perigee(a[3].line, *a),
        "perigee on the track": lambda *a: perigee(a[3].own, *a),
        "point": point,
        "tilted plane": lambda *a: plane(a[3].tilted, *a),
        "plane along z": lambda *a: plane(a[3].upright, *a),
        "cylinder": cylinder,
    }


def _integrated(
    field: AbstractField,
) -> dict[str, Go]:
    # By integration.
    upright = jnp.asarray([0.0, 0.0, 1.0])

    def reach(surface: AbstractSurface, furthest, position, direction, charge):
        end = propagate_to(
            position,
            direction,
            charge,
            field,
            surface,
            furthest=furthest,
            adjoint=diffrax.ForwardMode(),
        )
        return end.position, jnp.where(end.reached, end.direction, jnp.nan)

    def perigee(position, direction, charge, track):
        # pyright takes the class variable `upwards` for a field.
        surface = LineSurface(point=track.line, along=upright)  # pyright: ignore
        return reach(surface, -2000.0, position, direction, charge)

    def plane(axes, position, direction, charge, track):
        surface = PlaneSurface(point=track.ahead, normal=axes[2])  # pyright: ignore
        return reach(surface, 2000.0, position, direction, charge)

    def cylinder(position, direction, charge, track):
        del track
        surface = CylinderSurface(radius=jnp.asarray(RADIUS))  # pyright: ignore
        return reach(surface, 2000.0, position, direction, charge)

    return {
        "perigee": perigee,
        "tilted plane": lambda *a: plane(a[3].tilted, *a),
        "plane along z": lambda *a: plane(a[3].upright, *a),
        "cylinder": cylinder,
    }


def _compare(
    where: str, tracks: Tracks, ours: dict[str, Go], theirs: list[Any]
) -> list[Row]:
    rows = []
    for name, go in ours.items():
        ends = [answers[NAMES.index(name)] for answers in theirs]
        for error in {end["error"] for end in ends if "error" in end}:
            print(f"ACTS, {where}, {name}: {error}")
        position, direction = jax.jit(jax.vmap(go))(*tracks[:3], tracks)
        far = _largest(position - _column(ends, "position", (3,)))
        steep = _largest(direction - _column(ends, "direction", (3,)))
        rows += [
            Row(f"{where}, {name}: position, mm", far, bar=FARTHEST),
            Row(f"{where}, {name}: direction, rad", steep, bar=STEEPEST),
        ]
    return rows


def _compare_covariances(
    where: str,
    tracks: Tracks,
    ours: dict[str, Go],
    theirs: list[Any],
    *,
    judged: Sequence[str] = (),
) -> list[Row]:
    rows = []
    for name, go in ours.items():
        ends = [answers[NAMES.index(name)] for answers in theirs]
        matrix = jax.jit(jax.vmap(_covariance(go, BOUND[name])))(*tracks[:3], tracks)
        difference = matrix - _column(ends, "covariance", (5, 5))
        width = jnp.sqrt(jnp.diagonal(matrix, axis1=1, axis2=2))
        off = difference / (width[:, :, None] * width[:, None, :])
        bar = RELATIVE if name in judged else None
        far = float(jnp.max(jnp.abs(off)))
        rows.append(Row(f"{where}, {name}: covariance, in s.d.", far, bar=bar))
    return rows


def _column(ends: list[Any], name: str, shape: tuple[int, ...]) -> Array:
    missing = np.full(shape, np.nan)
    return jnp.asarray(np.stack([np.asarray(end.get(name, missing)) for end in ends]))


def _largest(difference: Float[Array, "tracks 3"]) -> float:
    return float(jnp.max(jnp.linalg.norm(difference, axis=1)))


def _covariance(go: Go, bound: Bound) -> Callable[..., Float[Array, "5 5"]]:
    # On the surface, for a unit matrix in the frame of the start: two coordinates
    # across the track, phi, theta and q/p.
    def at_end(position, direction, charge, track):
        phi = jnp.arctan2(direction[1], direction[0])
        theta = jnp.arccos(direction[2])
        first = _unit(jnp.cross(jnp.asarray([0.0, 0.0, 1.0]), direction))
        second = jnp.cross(direction, first)

        def end(local):
            a, b, phi, theta, charge = local
            across = jnp.sin(theta)
            towards = [across * jnp.cos(phi), across * jnp.sin(phi), jnp.cos(theta)]
            moved = position + a * first + b * second
            place, heading = go(moved, jnp.stack(towards), charge, track)
            azimuth = jnp.arctan2(heading[1], heading[0])
            angles = [azimuth, jnp.arccos(heading[2]), charge]
            return jnp.concatenate([bound(place, azimuth, track), jnp.stack(angles)])

        zero = jnp.zeros_like(phi)
        jacobian = jax.jacfwd(end)(jnp.stack([zero, zero, phi, theta, charge]))
        return jacobian @ jacobian.T

    return at_end


def _on_perigee(line: Vector, place: Vector, azimuth: Number) -> Float[Array, " 2"]:
    x, y, z = place - line
    return jnp.stack([y * jnp.cos(azimuth) - x * jnp.sin(azimuth), z])


def _on_plane(place: Vector, azimuth: Number, track: Tracks) -> Float[Array, " 2"]:
    del azimuth
    return track.tilted[:2] @ (place - track.ahead)


BOUND: dict[str, Bound] = {
    "perigee": lambda *a: _on_perigee(a[2].line, *a[:2]),
    "perigee on the track": lambda *a: _on_perigee(a[2].own, *a[:2]),
    "tilted plane": _on_plane,
}


def _write(file: Path, grid: GriddedField) -> None:
    # The format that `acts.MagneticFieldMapXyz` reads: x y z Bx By Bz.
    values = np.asarray(grid.values)
    nodes = np.moveaxis(np.indices(values.shape[:3]), 0, -1)
    places = np.asarray(grid.origin) + np.asarray(grid.spacing) * nodes
    table = np.concatenate([places, values], axis=-1).reshape(-1, 6)
    np.savetxt(file, table, fmt="%.17g")
