"""Start the handler host. Run by path under an environment's interpreter, never imported.

Usage: ``python -P -s host_main.py <command fd> <event fd> [<state file>]``. The package beside
this file is loaded under its own name: with this folder on the module path, handlers could import
the builder's modules by accident.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "dscache_host"


def load_package() -> None:
    """Make the folder `host` importable as `dscache_host`."""
    folder = Path(__file__).resolve().parent / "host"
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{folder}: the builder's installation is damaged")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_package()
    importlib.import_module(f"{PACKAGE}.guard").main(sys.argv)
