"""What the detector is made of."""

from ._barrel import Barrel as Barrel
