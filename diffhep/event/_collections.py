"""Padded collections of one event. A slot with `mask=False` may hold anything, NaN too.

Nobody may depend on a dead slot. Charged and neutral particles, tracks, towers and
constituents share one axis: slot i of `Tracks` is the track of slot i of `Particles`.
"""

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int


class Particles(eqx.Module):
    """Stable particles as the generator made them (truth)."""

    momentum: Float[Array, "particles 4"]
    """Four-momentum (px, py, pz, E), in GeV."""
    vertex: Float[Array, "particles 3"]
    """Production vertex (x, y, z), in mm."""
    charge: Float[Array, " particles"]
    """Electric charge, in units of e."""
    pdg_id: Int[Array, " particles"]
    """Particle Data Group identifier."""
    origin: Int[Array, " particles"]
    """Heaviest hadron among the ancestors: 5 bottom, 4 charm, 0 neither."""
    mask: Bool[Array, " particles"]
    """Which slots hold a particle."""


class Hits(eqx.Module):
    """Measurements of each particle on each layer of the detector."""

    position: Float[Array, "particles layers 2"]
    """The two coordinates that the layer measures: azimuth [rad] and z [mm] on a
    cylinder, azimuth and radius [mm] on a disc, two distances [mm] on a plane."""
    logit: Float[Array, "particles layers"]
    """Log-odds that the hit is found; minus infinity where none can be."""
    mask: Bool[Array, "particles layers"]
    """Which hits were found."""


class Clusters(eqx.Module):
    """What the layers report, hits and noise alike: nobody says whose they are."""

    position: Float[Array, "layers clusters 2"]
    """The two coordinates that the layer measures; see `Hits`."""
    particle: Int[Array, "layers clusters"]
    """Truth: the slot of the particle, -1 for noise. To train and to test."""
    mask: Bool[Array, "layers clusters"]
    """Which slots hold a cluster."""


class Tracks(eqx.Module):
    """Fitted helix tracks at their perigee to the z axis."""

    parameters: Float[Array, "tracks 5"]
    """(d0 [mm], z0 [mm], phi [rad], theta [rad], q/p [1/GeV]), the ACTS convention."""
    covariance: Float[Array, "tracks 5 5"]
    """Covariance of `parameters`, in the units of their products."""
    chi2: Float[Array, " tracks"]
    """Chi-squared of the fit."""
    ndf: Float[Array, " tracks"]
    """Degrees of freedom of the fit."""
    mask: Bool[Array, " tracks"]
    """Which slots hold a fitted track."""


class Towers(eqx.Module):
    """Calorimeter measurements of neutral particles."""

    momentum: Float[Array, "towers 4"]
    """Four-momentum (px, py, pz, E) of a massless particle from the origin, in GeV."""
    mask: Bool[Array, " towers"]
    """Which slots hold a tower."""


class Constituents(eqx.Module):
    """What the jets are made of."""

    momentum: Float[Array, "constituents 4"]
    """Four-momentum (px, py, pz, E), in GeV."""
    charged: Bool[Array, " constituents"]
    """Which are tracks (the slot in `Tracks` is the same)."""
    mask: Bool[Array, " constituents"]
    """Which slots hold a constituent."""


class MergeHistory(eqx.Module):
    """The discrete outcome of a clustering: which pseudojets merged, in order.

    A pseudojet is named by one constituent slot inside it: after `(keep, take)` the
    merged pseudojet sits in slot `keep` and slot `take` is dead.
    """

    keep: Int[Array, " steps"]
    """Slot that receives the sum, or that is declared a jet."""
    take: Int[Array, " steps"]
    """Slot that is absorbed; -1 where `keep` is declared a jet (merged with the beam);
    -2 where nothing is left to do."""


class Jets(eqx.Module):
    """Jets, by falling transverse momentum (or, in e+e- collisions, energy)."""

    momentum: Float[Array, "jets 4"]
    """Four-momentum (px, py, pz, E), in GeV."""
    membership: Bool[Array, "jets constituents"]
    """Which constituents belong to which jet."""
    weight: Float[Array, " jets"]
    """Smooth selection weight: exactly zero below the threshold in transverse momentum,
    so that a jet may enter and leave without a step; zero in dead slots."""
    mask: Bool[Array, " jets"]
    """Which slots hold a jet."""


class Vertices(eqx.Module):
    """Fitted vertices."""

    position: Float[Array, "vertices 3"]
    """Position (x, y, z), in mm."""
    covariance: Float[Array, "vertices 3 3"]
    """Covariance of `position`, in mm^2."""
    track_weight: Float[Array, "vertices tracks"]
    """Weight of each track in the fit, 0 to 1."""
    chi2: Float[Array, " vertices"]
    """Weighted chi-squared of the fit."""
    ndf: Float[Array, " vertices"]
    """Weighted degrees of freedom."""
    mask: Bool[Array, " vertices"]
    """Which slots hold a vertex."""
