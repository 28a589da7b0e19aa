"""Simulation of the detector's response."""

from ._calorimeter import smear_energy as smear_energy
from ._hits import DetectHits as DetectHits, SimulateHits as SimulateHits
from ._noise import (
    AddNoise as AddNoise,
    expected_noise as expected_noise,
    place_noise as place_noise,
)
from ._place import PlaceDetector as PlaceDetector
from ._towers import MeasureTowers as MeasureTowers
from ._transport import (
    SimulatedHits as SimulatedHits,
    simulate_hits as simulate_hits,
)
