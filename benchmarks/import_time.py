"""How long `import mdsens` takes beside what it stands on: each in a fresh process, median of five.

`import mdsens` is lazy: mdsens.public is what the first public name loads. jax-md is listed because it is
what mdsens does not import until it is used. Budgets: mdsens 0.1 s, mdsens.public 2 s.
"""

import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

RUNS = 5
MODULES = ("jax", "equinox", "mdsens", "mdsens.public", "ase.io", "jax_md")


def seconds(module: str) -> float:
    """Median time of an import, without the start of Python."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in range(RUNS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def main():
    times = {
        module: seconds(module)
        for module in ("jax", "equinox", "mdsens", "mdsens.public", "ase.io", "jax_md")
    }
    table = Table("import", "seconds", "of mdsens.public")
    for module, time in times.items():
        table.add_row(module, f"{time:.2f}", f"{time / times['mdsens.public']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
