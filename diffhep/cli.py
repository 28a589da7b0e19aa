"""The command line: `diffhep demo`, `diffhep generate`, `diffhep check-gradient`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ._version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words of the command line; those of the process unless given.

    Returns:
        The exit status: 0 done, 1 a check failed, 2 a mistake in the input, 130
        interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print(
            "\ndiffhep: interrupted; what was finished is kept, and the same command "
            "goes on from there.",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("DIFFHEP_TRACEBACK"):
            raise
        print(f"diffhep: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffhep",
        description="Differentiable high-energy physics, end to end.",
        epilog="Set DIFFHEP_TRACEBACK=1 to see where an error came from.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--cache",
            type=Path,
            help="folder of generated events, checkpoints and compiled code",
        )
        sub.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="set a field of the configuration; may be repeated",
        )
        sub.add_argument("--config", type=Path, help="TOML file of such fields")
        return sub

    demo = command("demo", "Events to uncertainty, optimised as one; writes a report.")
    demo.add_argument(
        "--output", type=Path, default=Path("report"), help="folder of the report"
    )
    check = command("check-gradient", "The end-to-end gradient against its oracles.")
    check.add_argument(
        "--events", type=int, default=2000, help="events of the second part"
    )
    check.add_argument(
        "--parameters",
        nargs="+",
        metavar="NAME",
        help="parameters of the second part (their names in the table); all by default",
    )
    check.add_argument(
        "--json", type=Path, help="write the table here as well, as JSON"
    )
    command("generate", "Generate the events and print their expected yields.")
    return parser


def _run(options: argparse.Namespace) -> int:
    # Imported here: `diffhep --help` shall not wait for JAX.
    from .demo import (  # noqa: PLC0415
        check_gradient_command,
        configure_jax,
        demo_command,
        generate_command,
        read_config,
    )

    config = read_config(options.config, options.set)
    if options.command == "generate":
        return generate_command(config, cache=options.cache)
    configure_jax(cache=options.cache)
    if options.command == "demo":
        return demo_command(config, cache=options.cache, output=options.output)
    return check_gradient_command(
        config,
        cache=options.cache,
        num_events=options.events,
        names=options.parameters,
        output=options.json,
    )


if __name__ == "__main__":
    sys.exit(main())
