"""What generated events and toys have in common."""

MIN_PT = 1.0
"""Least transverse momentum of a particle, in GeV."""
MAX_ETA = 2.0
"""Largest absolute pseudorapidity of a particle."""
LUMINOUS_REGION = (0.010, 0.010, 45.0)
"""Standard deviation of the collision point (x, y, z), in mm: about that of the LHC."""
