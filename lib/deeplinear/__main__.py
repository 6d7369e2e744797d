"""The command line: ``python -m deeplinear list``, ``run NAME``, ``verify NAME``, ``data fetch|status`` and ``about``."""

import argparse
import sys
from pathlib import Path

import torch

from . import about, data, recorded, shards, verification
from .experiments import EXPERIMENTS, data_of


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 1 for an error that it names, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deeplinear", description="Run and record the book's experiments.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the experiments")
    run = commands.add_parser("run", help="run one experiment and record it")
    run.add_argument("name")
    run.add_argument("--scale", choices=("quick", "full"), default="quick")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument("--out", default="recorded", help="folder of the record (default: recorded)")
    run.add_argument("--workers", type=_count, metavar="N", help="local processes (default: one a core, one for a GPU)")
    run.add_argument("--dask", metavar="ADDRESS", help="run the jobs on this Dask scheduler's workers, which "
                     "must have the same version installed; --device is theirs, auto means cpu, and cuda asks for workers "
                     "with the resource GPU; Ctrl-C keeps finished jobs only")
    verify = commands.add_parser("verify", help="run one job of a record again and note whether it still gives the same")
    verify.add_argument("name")
    verify.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verify.add_argument("--out", default=str(data.book_folder("results")), help="folder of the record (default: %(default)s)")
    verify.add_argument("--job", type=int, metavar="N", help="which job, counted from 0 (default: the first of the smallest)")
    about_data = commands.add_parser("data", help="look for the data sets, or fetch them")
    about_data.add_argument("action", choices=("status", "fetch"))
    commands.add_parser("about", help="say what numbers may hang on here: versions, processor, threads, data; for a report")
    options = parser.parse_args(arguments)
    if options.command == "about":
        print(about.about())
        return 0
    if options.command == "list":
        for name, module in EXPERIMENTS.items():
            print(f"{name}: {module.SUMMARY}")
        return 0
    try:
        return {"run": _run, "verify": _verify, "data": _data}[options.command](options)
    except KeyboardInterrupt:
        way = "goes on from the last checkpoint" if options.command == "run" else "starts again"
        print(f"interrupted; the same command {way}", file=sys.stderr)
        return 130
    except (data.DataUnavailable, recorded.RecordError, shards.JobFailed, shards.WorkerDied, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        hint = ". What was finished is kept; the same command goes on from there" if options.command == "run" else ""
        print(f"error: {str(error) or type(error).__name__}{hint}", file=sys.stderr)
        return 1


def _run(options):
    if options.dask is not None and options.workers is not None:
        raise ValueError("--workers counts local processes and --dask has its own; expected one of them")
    module, device = data.named("experiment", options.name, EXPERIMENTS), _device(options)
    with recorded.held(options.name, options.out):
        print(f"recorded: {_record(module, device, options)}")
    return 0


def _record(module, device, options):
    config = module.SCALES[options.scale]
    torch.set_num_threads(1)  # here and in every worker: more threads a process only wait for each other
    dataset = data_of(module, config)
    origin = recorded.origin(module.__file__)
    inputs = f"{origin['source_sha256']} {dataset.sha256} torch {torch.__version__}"
    work = shards.Work(module.__name__, config, device, inputs, Path(options.out))
    jobs = module.jobs(config, device)
    results = shards.execute(work, jobs, options.dask, options.workers)
    metrics, summary, arrays = module.collect(config, jobs, results)
    devices = sorted({str(result["_device"]) for result in results})
    path = recorded.write(
        options.name, config=config, metrics=metrics, summary=summary, arrays=arrays, dataset=dataset,
        origin={**origin, "compute_seconds": round(sum(float(result["_seconds"]) for result in results))},
        scale=options.scale, device=" and ".join(devices), folder=options.out)
    shards.forget(work)
    return path


def _verify(options):
    module, device = data.named("experiment", options.name, EXPERIMENTS), _device(options)
    recorded.load(options.name, folder=options.out, quiet=True)  # before a folder is made for the lock
    with recorded.held(options.name, options.out):
        found, job = verification.verify(module, options.out, device, options.job)
    described = ", ".join(f"{key} {value}" for key, value in job.items() if key != "size")
    print(f"verified: {options.name}, job {described}: " + ("bit for bit as recorded" if not found.distance else
          f"{found.distance:.1e} from the record" + (f", where a shake moves {found.moved:.1e}" if found.moved else "")))
    return 0


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes; expected 1, 2, ...")
    return int(text)


def _device(options):
    if getattr(options, "dask", None) is not None:
        return "cpu" if options.device == "auto" else options.device
    available = "cuda" if torch.cuda.is_available() else "cpu"
    if options.device == "cuda" and available == "cpu":
        raise ValueError("device cuda was asked for; this machine offers cpu only")
    return available if options.device == "auto" else options.device


def _data(options):
    missing, fetch = 0, options.action == "fetch"
    for name in data.SETS:
        try:
            found = data.load(name, download=fetch)
            print(f"{name}: there, {len(found.X)} rows, SHA-256 {found.sha256[:12]}...")
        except data.DataUnavailable as error:
            missing += 1
            print(f"{name}: {error}")
    return 1 if missing and fetch else 0


if __name__ == "__main__":
    sys.exit(main())
