"""Print the lowest version of each dependency that the installed package allows, as requirements for pip.

    pip install $(python scripts/maintenance/lowest_versions.py --without torch torchvision)

`docs/compatibility.md` says which tests then run.
"""

from __future__ import annotations

import argparse
from importlib.metadata import requires

from packaging.requirements import Requirement


def lowest(without: list[str]) -> list[str]:
    """Return `name==version` for each dependency with a lower bound."""
    found = []
    for requirement in map(Requirement, requires("gam-yolo") or ()):
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator in {">=", "=="}]
        if not requirement.marker and bounds and requirement.name not in without:
            found.append(f"{requirement.name}=={bounds[0]}")
    return found


def main() -> None:
    """Print the requirements on one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", nargs="*", default=[], help="dependencies to leave out")
    print(*lowest(parser.parse_args().without))


if __name__ == "__main__":
    main()
