import dataclasses
import hashlib
import json
from importlib import metadata
from typing import Any

import equinox as eqx

from ._constants import LUMINOUS_REGION, MAX_ETA, MIN_PT
from ._packages import require
from ._worker import SCHEMA_VERSION, STRATA


MAX_EVENTS = 100_000_000
"""Events of a process at most: the numbers of its events begin at a multiple of it."""
_MAX_PROCESSES = 20
_MAX_SEED = 900_000_000


class Process(eqx.Module):
    """A physics process, as Pythia's commands, and how many events to make of it."""

    name: str
    """Short name, used in file names."""
    label: int
    """1 for signal, 0 for background."""
    commands: tuple[str, ...]
    """Commands for Pythia that choose process, phase space and decays."""
    num_tried: int
    """Events to generate."""
    chunk_size: int = 500
    """Events per chunk: the unit of work and of resumption."""
    keep_per_chunk: tuple[int, ...] | None = None
    """At most so many events per chunk are kept of the strata b, c and light; the
    weights make up for the rest. `None`: all are kept, as one stratum."""
    k_factor: float = 1.0
    """Factor on Pythia's leading-order cross-section."""

    def __check_init__(self):
        if not self.name.isidentifier():
            raise ValueError(
                f"The process name {self.name!r} will be part of a file name; use "
                "letters, digits and underscores."
            )
        if self.label not in (0, 1):
            raise ValueError(
                f"`label` of {self.name!r} is {self.label}; give 1 for signal or 0 for "
                "background."
            )
        for field in ("num_tried", "chunk_size", "k_factor"):
            if getattr(self, field) <= 0:
                raise ValueError(
                    f"`{field}` of {self.name!r} must be positive, but is "
                    f"{getattr(self, field)}."
                )
        if self.num_tried > MAX_EVENTS:
            raise ValueError(
                f"`num_tried` of {self.name!r} is {self.num_tried}; at most "
                f"{MAX_EVENTS} events can be numbered, so split the process in two."
            )
        keep = self.keep_per_chunk
        if keep is not None and (len(keep) != len(STRATA) or min(keep) < 1):
            raise ValueError(
                f"`keep_per_chunk` of {self.name!r} is {list(keep)}; give one positive "
                f"number for each of {list(STRATA)}."
            )

    @property
    def num_chunks(self) -> int:
        """Number of chunks, the last of which may be smaller."""
        return -(-self.num_tried // self.chunk_size)

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of the strata with weights of their own."""
        return ("all",) if self.keep_per_chunk is None else STRATA


def zh_nunubb(*, num_tried: int = 2200) -> Process:
    """The signal: q qbar to Z H, Z to neutrinos, H to b bbar, pT(Z) > 150 GeV.

    Pythia's leading-order cross-section at 14 TeV, 9.12 +- 0.03 fb, includes the
    branching fractions of the decays left open: 79.1 +- 0.3 fb with all decays open
    times 0.582 (H to b bbar) times 0.200 (Z to neutrinos) is 9.20 fb. The contribution
    of gg to ZH is left out; `k_factor` may scale it in.

    Args:
        num_tried: Events to generate.

    Returns:
        The process.
    """
    return Process(
        name="zh_nunubb",
        label=1,
        commands=(
            "HiggsSM:ffbar2HZ=on",
            "PhaseSpace:pTHatMin=150.",
            "23:onMode=off",
            "23:onIfAny=12 14 16",
            "25:onMode=off",
            "25:onIfMatch=5 -5",
        ),
        num_tried=num_tried,
        chunk_size=550,
    )


def z_jets(*, num_tried: int = 9600) -> Process:
    """The background: Z to neutrinos with a jet, pT(Z) > 150 GeV.

    Pythia's leading-order cross-section at 14 TeV, 37.0 +- 0.1 pb, includes the
    branching fraction of Z to neutrinos: 185.3 +- 0.7 pb with all decays open, a ratio
    of 0.200 +- 0.001. Further jets, and with them most b and c quarks, come from the
    parton shower. All events with a b or c hadron are kept, and a third of the
    others, whose weight makes up for it.

    Args:
        num_tried: Events to generate. About 9 % are in the stratum b, 17 % in c.

    Returns:
        The process.
    """
    return Process(
        name="z_jets",
        label=0,
        commands=(
            "WeakBosonAndParton:qqbar2gmZg=on",
            "WeakBosonAndParton:qg2gmZq=on",
            "WeakZ0:gmZmode=2",
            "PhaseSpace:pTHatMin=150.",
            "23:onMode=off",
            "23:onIfAny=12 14 16",
        ),
        num_tried=num_tried,
        chunk_size=800,
        keep_per_chunk=(800, 800, 250),
    )


class GeneratorConfig(eqx.Module):
    """Everything that the generated events depend on."""

    name: str = "zh"
    """Name of the data set, the beginning of its folder's name."""
    processes: tuple[Process, ...] = (zh_nunubb(), z_jets())
    """What to generate."""
    beam_energy: float = 14_000.0
    """Energy of the two protons in their centre of mass, in GeV."""
    min_pt: float = MIN_PT
    """Least transverse momentum of a stored particle, in GeV."""
    max_eta: float = MAX_ETA
    """Largest absolute pseudorapidity of a stored particle."""
    vertex_spread: tuple[float, ...] = LUMINOUS_REGION
    """Standard deviation of the collision point in x, y and z, in mm."""
    max_decay_length: float = 10.0
    """Particles with a longer mean decay length (c tau) than this, in mm, do not decay:
    with 10 mm K0S, Lambda and the charged hyperons are stable, as is usual at LHC."""
    multiparton_interactions: bool = True
    """Whether to simulate the underlying event."""
    seed: int = 1
    """Seed of everything."""

    def __check_init__(self):
        if not self.name.replace("-", "_").isidentifier():
            raise ValueError(
                f"The name {self.name!r} will be a folder's name; use letters, digits, "
                "dashes and underscores."
            )
        names = [process.name for process in self.processes]
        if not names or len(names) > _MAX_PROCESSES or len(set(names)) < len(names):
            raise ValueError(
                f"The processes are {names}; give between 1 and {_MAX_PROCESSES} with "
                "different names."
            )
        for field in ("beam_energy", "min_pt", "max_eta", "max_decay_length"):
            if getattr(self, field) <= 0:
                raise ValueError(
                    f"`{field}` must be positive, but is {getattr(self, field)}."
                )
        if len(self.vertex_spread) != 3 or min(self.vertex_spread) < 0:
            raise ValueError(
                f"`vertex_spread` is {list(self.vertex_spread)}; give three lengths "
                "(x, y, z) in mm, zero or more."
            )

    def jobs(self) -> list[dict[str, Any]]:
        """What to do, chunk by chunk: the jobs of the workers, without a path."""
        return [
            self._job(number, process, chunk)
            for number, process in enumerate(self.processes)
            for chunk in range(process.num_chunks)
        ]

    def _job(self, number: int, process: Process, chunk: int) -> dict[str, Any]:
        first = chunk * process.chunk_size
        x, y, z = self.vertex_spread
        switch = "on" if self.multiparton_interactions else "off"
        commands = [
            f"Beams:eCM={self.beam_energy}",
            f"PartonLevel:MPI={switch}",
            "ParticleDecays:limitTau0=on",
            f"ParticleDecays:tau0Max={self.max_decay_length}",
            "Beams:allowVertexSpread=on",
            f"Beams:sigmaVertexX={x}",
            f"Beams:sigmaVertexY={y}",
            f"Beams:sigmaVertexZ={z}",
            *process.commands,
            "Random:setSeed=on",
            f"Random:seed={_seed(self.seed, process.name, chunk)}",
        ]
        keep = process.keep_per_chunk
        return {
            "commands": commands,
            "num_tried": min(process.chunk_size, process.num_tried - first),
            "keep": None if keep is None else list(keep),
            "min_pt": self.min_pt,
            "max_eta": self.max_eta,
            "first_event": number * MAX_EVENTS + first,
            "summary": {
                "schema_version": SCHEMA_VERSION,
                "config_hash": config_hash(self),
                "process": process.name,
                "chunk": chunk,
            },
        }


def config_to_dict(config: GeneratorConfig) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON.

    Args:
        config: The configuration.

    Returns:
        Nested dictionaries and lists.
    """
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: GeneratorConfig) -> str:
    """The key of a configuration: equal keys mean equal events.

    Args:
        config: The configuration.

    Returns:
        12 hexadecimal digits, from the configuration, Pythia's version and ours.

    Raises:
        ImportError: Pythia is not installed.
    """
    require("pythia8mc")
    content = {
        "config": config_to_dict(config),
        "pythia8mc": metadata.version("pythia8mc"),
        "schema_version": SCHEMA_VERSION,
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _seed(seed: int, process: str, chunk: int) -> int:
    digest = hashlib.sha256(f"{seed}/{process}/{chunk}".encode()).digest()
    # Pythia takes 1 to 900 000 000.
    return int.from_bytes(digest[:8], "big") % _MAX_SEED + 1
