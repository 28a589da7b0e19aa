"""Events: Pythia 8 collisions through a cache of Parquet files, and fast toys."""

from ._toy import toy_events as toy_events
