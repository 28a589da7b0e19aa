"""Constants of charged tracks, with their sources."""

KAPPA = 0.299792458e-3
"""Transverse momentum per field and radius, in GeV / (T mm): the speed of light."""

MUON_MASS = 0.1056583755
"""Mass of the muon, in GeV (Particle Data Group 2024)."""

PION_MASS = 0.13957039
"""Mass of the charged pion, in GeV (Particle Data Group 2024)."""
