"""Propagation to surfaces by the EigenStepper of ACTS, in a process of its own.

Run as `python -m benchmarks._acts_propagation JOB RESULT`, two JSON files; see `run`.
Needs `pip install pyacts==48.1.0`.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ._acts_peer import load


LONGEST = 5.0
"""Longest step, in mm. Python cannot set the limit of ACTS, nor its tolerance:
surfaces on the way make it short. A long one may also end more than 0.1 mm behind a
plane, which then counts as passed."""

Vector = Sequence[float]


def run(job: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Each track at each of its surfaces.

    Args:
        job: `field`, in T along z, or `map`, the file of a field map; `tracks`, each
            with `position` [mm], `direction`, `charge_over_momentum` [1/GeV] and
            `surfaces`: each a `kind` with its `point`, `axes` (the last is the normal)
            or `radius`.

    Returns:
        For each track and surface its `position`, its `direction`, and the `covariance`
        of the parameters on the surface for a unit matrix at the start, both without
        time. Or an `error`.
    """
    go = _Propagation(load("acts"), job)
    return [
        [_tried(go, track, target) for target in track["surfaces"]]
        for track in job["tracks"]
    ]


def _tried(
    go: "_Propagation", track: dict[str, Any], target: dict[str, Any]
) -> dict[str, Any]:
    try:
        return go(track, target)
    except RuntimeError as error:
        return {"error": str(error)}


class _Propagation:
    # What stays the same from track to track.
    def __init__(self, acts: Any, job: dict[str, Any]) -> None:
        unit = acts.UnitConstants
        self.acts, self.mapped = acts, "map" in job
        if self.mapped:
            field = acts.MagneticFieldMapXyz(job["map"], unit.mm, unit.T)
        else:
            field = acts.ConstantBField(acts.Vector3(0, 0, job["field"] * unit.T))
        self.propagator = acts.EigenVoidPropagator(
            acts.EigenStepper(field), acts.VoidNavigator(), acts.logging.FATAL
        )
        self.context = acts.GeometryContext.dangerouslyDefaultConstruct()
        self.options = acts.PropagatorPlainOptions(
            self.context, acts.MagneticFieldContext()
        )
        self.options.surfaceTolerance = 1e-7

    def __call__(self, track: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
        acts, surface = self.acts, self._surface(target)
        position, direction = track["position"], track["direction"]
        parameters = acts.BoundTrackParameters.createCurvilinear(
            acts.Vector4(*position, 0.0),
            acts.Vector3(*direction),
            track["charge_over_momentum"],
            acts.BoundMatrix.Identity(),
            acts.ParticleHypothesis.pion,
        )
        while abs(left := self._left(target, position, direction)) > LONGEST:
            step = math.copysign(LONGEST, left)
            ahead = [x + step * t for x, t in zip(position, direction, strict=True)]
            between = self._between(target, ahead, direction)
            parameters = self._step(parameters, between)
            position, direction = self._place(parameters, between)
        parameters = self._step(parameters, surface)
        position, direction = self._place(parameters, surface)
        covariance = [[parameters.covariance[i, j] for j in range(5)] for i in range(5)]
        return {"position": position, "direction": direction, "covariance": covariance}

    def _step(self, parameters: Any, surface: Any) -> Any:
        return self.propagator.propagateToSurface(parameters, surface, self.options)

    def _place(self, parameters: Any, surface: Any) -> tuple[Vector, Vector]:
        # Where bound parameters are in space.
        first, second, phi, theta = list(parameters.parameters)[:4]
        across = math.sin(theta)
        direction = [across * math.cos(phi), across * math.sin(phi), math.cos(theta)]
        position = surface.localToGlobal(
            self.context,
            self.acts.Vector2(first, second),
            self.acts.Vector3(*direction),
        )
        return list(position), direction

    def _left(
        self, target: dict[str, Any], position: Vector, direction: Vector
    ) -> float:
        # In a uniform field ACTS reaches perigees and points well in one go.
        short = self.mapped or target["kind"] in {"plane", "cylinder"}
        return _distance(target, position, direction) if short else 0.0

    def _between(self, target: dict[str, Any], point: Vector, direction: Vector) -> Any:
        # Points may lie behind, as planes may not; their derivatives are approximate.
        if target["kind"] in {"plane", "cylinder"}:
            return self._plane(point, _frame(direction))
        return self.acts.Surface.createPoint(self.acts.Vector3(*point))

    def _surface(self, target: dict[str, Any]) -> Any:
        acts, make = self.acts, self.acts.Surface
        kind = target["kind"]
        if kind == "perigee":
            return make.createPerigee(acts.Vector3(*target["point"]))
        if kind == "point":
            return make.createPoint(acts.Vector3(*target["point"]))
        if kind == "cylinder":
            bounds = acts.CylinderBounds(target["radius"], 1e5)
            return make.createCylinder(acts.Transform3.Identity(), bounds)
        return self._plane(target["point"], target["axes"])

    def _plane(self, point: Vector, axes: Sequence[Vector]) -> Any:
        acts = self.acts
        columns = acts.RotationMatrix3(*(acts.Vector3(*axis) for axis in axes))
        place = acts.Transform3(acts.Vector3(*point), columns)
        return acts.Surface.createPlane(place, acts.RectangleBounds(1e6, 1e6))


def _dot(first: Vector, second: Vector) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def _distance(target: dict[str, Any], position: Vector, direction: Vector) -> float:
    # To the surface, along a straight line.
    if target["kind"] == "cylinder":
        square = _dot(direction[:2], direction[:2])
        half = _dot(position[:2], direction[:2])
        rest = _dot(position[:2], position[:2]) - target["radius"] ** 2
        return (math.sqrt(half**2 - square * rest) - half) / square
    offset = [a - x for a, x in zip(target["point"], position, strict=True)]
    if target["kind"] == "plane":
        normal = target["axes"][2]
        return _dot(offset, normal) / _dot(direction, normal)
    # All three of them about a point, two about a line.
    axes = slice(2 if target["kind"] == "perigee" else 3)
    return _dot(offset[axes], direction[axes]) / _dot(direction[axes], direction[axes])


def _frame(direction: Vector) -> list[Vector]:
    # Two axes across a direction that is not along z, and the direction.
    x, y, z = direction
    size = math.hypot(x, y)
    first = (-y / size, x / size, 0.0)
    return [first, (-z * x / size, -z * y / size, size), direction]


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(run(job)))
