"""Prints all figures as one table: what is required, what was measured. Run: make bench, or python -m tests.bench

--no-cluster leaves out what starts a whole cluster; --store sqlite or etcd measures the API server over that one only.
The exit code is 0 whatever the figures are: a machine under load is no defect.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence

import uvloop

from tests.bench import codec
from tests.bench.api import measure_api
from tests.bench.api_scale import measure_scale
from tests.bench.api_server import STORES
from tests.bench.cluster import measure_cluster, skipped_figures
from tests.bench.cni import measure_cni
from tests.bench.controllers import measure_controllers
from tests.bench.definitions import measure_definitions
from tests.bench.figures import Figure, print_figures, print_heading, skipped
from tests.bench.overlay import measure_overlay
from tests.bench.scheduler import measure_scheduler
from tests.bench.scheduler_plugins import measure_scheduler_plugins
from tests.bench.scheduler_road import measure_scheduler_road
from tests.bench.simulation import measure_simulation
from tests.bench.storage import main as print_storage
from tiphys_component import log


def measure_codec() -> list[Figure]:
    """A typical pod each way."""
    found = codec.measure()
    size = f"{found.json_bytes:,} bytes of JSON"
    return [
        Figure("codec, a typical pod: message to JSON", found.to_json_us, "µs", 60, size),
        Figure("codec, a typical pod: JSON to message", found.from_json_us, "µs", 60, size),
        Figure("codec, with the bytes: message to JSON", found.dumps_us, "µs"),
        Figure("codec, with the bytes: JSON to message", found.loads_us, "µs"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Print the figures of this machine.")
    parser.add_argument("--no-cluster", action="store_true", help="leave out what starts a whole cluster")
    parser.add_argument("--store", choices=STORES, action="append", help="store behind the API server; both by default")
    options = parser.parse_args(argv)
    # What is measured in this process tells of what is wrong, and not of each thing that it does.
    log.configure("warning")
    _print_machine()
    print_heading()
    figures = _measure(measure_codec())
    figures += uvloop.run(measure_api(_stores(options.store or STORES)))
    figures += _measure(measure_scale())
    figures += _measure(measure_controllers())
    for store in _stores(options.store or STORES):
        figures += uvloop.run(measure_definitions(store))
    figures += _measure(measure_simulation())
    figures += _measure(measure_scheduler())
    figures += _measure(measure_scheduler_plugins())
    for road in measure_scheduler_road(_stores(options.store or STORES)):
        figures += _measure([road])
    figures += _measure(measure_cni())
    figures += _measure(measure_overlay())
    figures += _measure(skipped_figures("--no-cluster") if options.no_cluster else measure_cluster())
    sys.stdout.write("\nThe store and the watch cache by themselves:\n")
    sys.stdout.flush()
    uvloop.run(print_storage())
    sys.stdout.write("\n")
    _print_machine()
    short = [figure.name for figure in figures if figure.verdict == "short"]
    sys.stdout.write(f"short: {'; '.join(short) or 'nothing'}\n")
    return 0


def _print_machine() -> None:
    """What else the machine did: under load a core gives less for the same CPU time."""
    sys.stdout.write(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    sys.stdout.flush()


def _measure(figures: list[Figure]) -> list[Figure]:
    print_figures(figures)
    return figures


def _stores(wanted: Sequence[str]) -> list[str]:
    """Those that are here."""
    if "etcd" in wanted and shutil.which("etcd") is None:
        print_figures(
            [skipped("etcd: all figures of the API server", "not installed: etcd; apt-get install etcd-server")]
        )
        return [store for store in wanted if store != "etcd"]
    return list(wanted)


if __name__ == "__main__":
    sys.exit(main())
