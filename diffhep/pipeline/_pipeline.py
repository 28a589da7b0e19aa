import zlib
from collections.abc import Iterator, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..estimators import Gradient
from ..event import Event
from ._stage import AbstractStage


class Pipeline(eqx.Module):
    """Stages applied in turn to one event. Its gradient is a pipeline.

    The wiring is checked when the pipeline is built. Each stage's random key is derived
    from the stage's name, so that adding a stage does not reshuffle the others.

    Raises:
        ValueError: A stage reads what no earlier stage writes and `inputs` lacks, or
            two stages have one name.
    """

    stages: tuple[AbstractStage, ...]
    names: tuple[str, ...] = eqx.field(static=True)
    inputs: frozenset[str] = eqx.field(static=True)

    def __init__(
        self,
        stages: Sequence[AbstractStage],
        *,
        inputs: Sequence[str] | frozenset[str] = ("particles",),
        names: Sequence[str] | None = None,
    ):
        """A pipeline.

        Args:
            stages: The stages, in order.
            inputs: Fields that the events bring with them.
            names: Names of the stages; the class names unless given.
        """
        self.stages = tuple(stages)
        self.inputs = frozenset(inputs)
        self.names = tuple(names or (type(stage).__name__ for stage in stages))

    def __check_init__(self):
        if len(self.names) != len(self.stages):
            raise ValueError(
                f"There are {len(self.stages)} stages but {len(self.names)} names; "
                "give one name to each stage."
            )
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise ValueError(
                f"Two stages are named {repeated[0]!r}, and would draw the same random "
                "numbers; pass `names=`."
            )
        available = self.inputs
        for name, stage in zip(self.names, self.stages, strict=True):
            if missing := sorted(stage.reads - available):
                raise ValueError(
                    f"{name} reads {missing}, which no earlier stage writes and which "
                    f"is not in the inputs {sorted(self.inputs)}; add the stage that "
                    "writes it before, or name it in `inputs`."
                )
            available |= stage.writes

    @property
    def reads(self) -> frozenset[str]:
        """Fields that the events must bring."""
        written: frozenset[str] = frozenset()
        needed: frozenset[str] = frozenset()
        for stage in self.stages:
            needed |= stage.reads - written
            written |= stage.writes
        return needed

    @property
    def writes(self) -> frozenset[str]:
        """Fields that the stages fill."""
        return frozenset().union(*(stage.writes for stage in self.stages))

    @property
    def gradient(self) -> Gradient:
        """The weakest promise of any stage."""
        promises = {stage.gradient for stage in self.stages}
        for promise in (Gradient.BIASED, Gradient.UNBIASED):
            if promise in promises:
                return promise
        return Gradient.EXACT

    def __call__(self, event: Event, *, key: PRNGKeyArray) -> Event:
        """One event through all stages.

        Args:
            event: One event, with the `inputs` filled.
            key: Random key of the event.

        Returns:
            The event with everything filled.
        """
        for name, stage in zip(self.names, self.stages, strict=True):
            event = stage(event, key=jax.random.fold_in(key, zlib.crc32(name.encode())))
        return event

    def __getitem__(self, name: str) -> AbstractStage:
        """The stage of a name, here or inside a stage that holds a pipeline.

        Args:
            name: Name of a stage.

        Returns:
            The stage.

        Raises:
            KeyError: No stage has that name.
        """
        for known, stage in self.walk():
            if known == name:
                return stage
        names = [known for known, _ in self.walk()]
        raise KeyError(f"No stage is named {name!r}; there are {names}.")

    def walk(self) -> Iterator[tuple[str, AbstractStage]]:
        """Names and stages in order, those inside a stage after it."""
        for name, stage in zip(self.names, self.stages, strict=True):
            yield name, stage
            inner = getattr(stage, "pipeline", None)
            if isinstance(inner, Pipeline):
                yield from inner.walk()

    def describe(self) -> str:
        """A table: what each stage reads and writes, its gradient and parameters."""
        rows = [("stage", "reads", "writes", "gradient", "parameters")]
        rows += [
            (
                name,
                ", ".join(sorted(stage.reads)) or "-",
                ", ".join(sorted(stage.writes)) or "-",
                stage.gradient.value,
                str(_count_parameters(stage)),
            )
            for name, stage in self.walk()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        return "\n".join(line.rstrip() for line in lines)


def _count_parameters(stage: AbstractStage) -> int:
    leaves = jax.tree.leaves(eqx.filter(stage, eqx.is_inexact_array))
    return sum(int(jnp.size(leaf)) for leaf in leaves)
