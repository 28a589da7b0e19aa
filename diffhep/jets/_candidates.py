"""Which mergers are possible in a step of a probabilistic clustering."""

import equinox as eqx


class AbstractCandidates(eqx.Module):
    """The mergers among which a step draws. All have the same deterministic limit."""


class AllPairs(AbstractCandidates):
    """Any pair and any beam.

    The probability of a history is continuous in the momenta. The work of a step grows
    with the square of the number of pseudojets.
    """


class NearestNeighbours(AbstractCandidates):
    """Each pseudojet with its nearest neighbour in the plane, and with the beam.

    Two that are nearest to one another are offered twice. The work of a step grows with
    the number of pseudojets. The probability of a history jumps where a neighbour
    changes: the gradient to whatever moves momenta misses that, the gradients to the
    radius, the power and the sharpness do not.
    """


class NearestOnly(AbstractCandidates):
    """The pseudojet of least distance, with its nearest neighbour or with the beam.

    Two candidates. The probability of a history jumps where another pseudojet becomes
    the one of least distance, which it may do with the radius and the power, too: no
    gradient includes that. It is little, as steps far apart from one another lead to
    the same jets in any order, and the noise is the least.
    """
