from ..event import Event, Particles


def particles_of(event: Event) -> Particles:
    """The particles of an event.

    Args:
        event: One event.

    Returns:
        Its particles.

    Raises:
        ValueError: There are none.
    """
    if event.particles is None:
        raise ValueError("The event lacks `particles`; load or generate events first.")
    return event.particles
