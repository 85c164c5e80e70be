"""The ``evsnn`` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import sys

import click

from evsnn_cli.bench import bench
from evsnn_cli.console import CONTEXT_SETTINGS, report_error
from evsnn_cli.convert_mnist import convert_mnist
from evsnn_cli.convert_nmnist import convert_nmnist
from evsnn_cli.evaluate import evaluate
from evsnn_cli.info import info
from evsnn_cli.plot import plot
from evsnn_cli.train import train


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"evsnn {version('evsnn')}")
        context.exit()


_HELP = """Event-driven training of deep spiking neural networks.

Networks learn by backpropagation on spikes and membrane potentials and run event by event: no time
steps, exact microsecond times, work only where a spike is.

\b
evsnn train                     learn digits from the MNIST subset in the package
evsnn convert-mnist             download MNIST and turn it into events
evsnn train mnist.h5            train on an event file
"""


@click.group(context_settings=CONTEXT_SETTINGS, help=_HELP)
@click.option("--debug/--no-debug", default=False, show_default=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def cli(debug: bool) -> None:
    """Hold the subcommands together."""


for _command in (train, evaluate, convert_mnist, convert_nmnist, info, plot, bench):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        code = cli.main(args=given, prog_name="evsnn", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except Exception as error:
        if debug:
            raise
        code = report_error(error)
    sys.exit(code if isinstance(code, int) else 0)
