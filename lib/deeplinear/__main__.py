"""The command line: ``python -m deeplinear list`` and ``python -m deeplinear run NAME``."""

import argparse
import difflib
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from . import data, recorded
from .experiments import EXPERIMENTS

HERE = Path(__file__).parent
NUMERICS = ("data.py", "losses.py", "chain.py", "preconditioner.py", "descent.py")


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deeplinear", description="Run and record the book's experiments.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the experiments")
    run = commands.add_parser("run", help="run one experiment and record it")
    run.add_argument("name")
    run.add_argument("--scale", choices=("quick", "full"), default="quick")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument("--out", default="recorded", help="folder of the record (default: recorded)")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name, module in EXPERIMENTS.items():
            print(f"{name}: {module.SUMMARY}")
        return 0
    try:
        return _run(options)
    except (data.DataUnavailable, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options):
    if options.name not in EXPERIMENTS:
        close = difflib.get_close_matches(options.name, EXPERIMENTS, cutoff=0.4) or sorted(EXPERIMENTS)
        raise ValueError(f"experiment {options.name!r} is unknown; did you mean {', '.join(close)}?")
    available = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and available == "cpu":
        raise ValueError("device cuda was asked for; this machine offers cpu only")
    device = available if options.device == "auto" else options.device
    torch.set_num_threads(1)
    module = EXPERIMENTS[options.name]
    config = module.SCALES[options.scale]
    origin = recorded.origin([Path(module.__file__), *(HERE / name for name in NUMERICS)])
    metrics, summary, arrays, dataset = module.run(config, device, lambda runs: tqdm(runs, disable=None))
    path = recorded.write(
        options.name, config=config, metrics=metrics, summary=summary, arrays=arrays, dataset=dataset, origin=origin,
        scale=options.scale, device=device, folder=options.out)
    print(f"recorded: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
