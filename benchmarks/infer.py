"""What inference promises, measured: no seams, no lost time, constant memory.

    python benchmarks/infer.py seams            # TIE and seam z of every mode on real scenes
    python benchmarks/infer.py speed            # megapixels per second against the bare generator
    python benchmarks/infer.py memory           # peak memory against the size of the scene
    python benchmarks/infer.py gpu              # share of the matrix rate, time of a full scene

Scenes for `seams` are those of the package, and of ../shared/data where that is. Without --model
the generator has random weights: seams come from the cut, not from what was learned. Each
subcommand has --help.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks import infer_gpu, infer_memory, infer_seams, infer_speed

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="seams|speed|memory|gpu")
    for name, module in (
        ("seams", infer_seams),
        ("speed", infer_speed),
        ("memory", infer_memory),
        ("gpu", infer_gpu),
    ):
        described = module.__doc__ or ""
        command = commands.add_parser(name, help=described.splitlines()[0], description=described)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
