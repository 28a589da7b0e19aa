import equinox as eqx
import numpy as np
from jaxtyping import Int

from ..event import Event


class Stratum(eqx.Module):
    """One part of the sample whose events have one weight in common."""

    process: str
    """Name of the process."""
    name: str
    """`b`, `c`, `light`, or `all` where the process is not divided."""
    label: int
    """1 for signal, 0 for background."""
    num_tried: int
    """Events of the process that were generated."""
    num_found: int
    """How many of them belong here."""
    num_kept: int
    """How many of those are stored."""
    sigma_pb: float
    """Cross-section of the stratum, in pb, with branching fractions and k-factor."""
    sigma_error_pb: float
    """Its statistical error, in pb."""
    weight_pb: float
    """Cross-section per stored event, in pb."""


class Dataset(eqx.Module):
    """Generated events with the strata that they come from."""

    events: Event
    """A batch with particles, truth vertex, label, weight, index and status filled."""
    stratum: Int[np.ndarray, " events"]
    """Position in `strata` for each event."""
    strata: tuple[Stratum, ...]
    """What was generated."""
    luminosity_fb: float
    """Integrated luminosity that the weights are for, in 1/fb."""

    @property
    def num_events(self) -> int:
        """Number of events."""
        return len(self.stratum)

    def describe(self) -> str:
        """A table: events, cross-section and expected yield of each stratum."""
        header = ["process", "stratum", "tried", "found", "kept", "used"]
        rows = [[*header, "sigma [fb]", "+-", f"yield at {self.luminosity_fb:g}/fb"]]
        used = np.bincount(self.stratum, minlength=len(self.strata))
        weight = np.exp(np.asarray(self.events.log_weight, dtype=float))
        expected = np.bincount(self.stratum, weight, minlength=len(self.strata))
        for part, number, sum_of_weights in zip(
            self.strata, used, expected, strict=True
        ):
            counts = (part.num_tried, part.num_found, part.num_kept, number)
            rows.append(
                [
                    *(part.process, part.name, *map(str, counts)),
                    f"{part.sigma_pb * 1000:.5g}",
                    f"{part.sigma_error_pb * 1000:.2g}",
                    f"{sum_of_weights:.6g}",
                ]
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)
