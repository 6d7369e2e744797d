"""The command line: ``deeplinear ask TABLE.csv``, ``laws FILE:FUNCTION``, ``list``, ``run NAME``, ``verify NAME``,
``data fetch|status`` and ``about``; the same with ``python -m deeplinear``."""

import argparse
import contextlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path

import torch
from tqdm import tqdm

from . import __version__, about, asking, data, networks, recorded, shards, verification
from .experiments import EXPERIMENTS, data_of


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 1 for an error that it names, 130 when interrupted, and 141 where
    whoever reads the output, such as ``head``, has read enough."""
    options = _parser().parse_args(arguments)
    try:
        status = {"run": _run, "verify": _verify, "data": _data, "ask": _ask, "laws": _laws, "list": _list,
                  "about": _about}[options.command](options)
        sys.stdout.flush()  # here, where a closed pipe is heard
        return status
    except KeyboardInterrupt as stop:
        print(f"stopping, {stop.args[0] if stop.args else 'nothing is kept; the same command starts again'}", file=sys.stderr)
        return 130
    except (data.DataUnavailable, recorded.RecordError, shards.JobFailed, shards.WorkerDied, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 141
        hint = ". What was finished is kept; the same command goes on from there" if options.command == "run" else ""
        print(f"error: {str(error) or type(error).__name__}{hint}", file=sys.stderr)
        return 1


def _nobody_reads():
    """Whether the pipe behind standard output is closed; then what is left to print goes nowhere, without a word."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _parser():
    parser = argparse.ArgumentParser(prog="deeplinear", description="Ask whether depth helps on a table, read the laws of a "
                                     "network, run and record the book's experiments.")
    parser.add_argument("--version", action="version", version=f"deeplinear {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("ask", help="will depth help on this table? predict, race, and say")
    ask.add_argument("table", metavar="TABLE.csv")
    ask.add_argument("--target", required=True, metavar="NAME", help="the column to predict from the others")
    ask.add_argument("--power", type=int, default=2, metavar="2|4", help="of the residuals in the loss (default: 2)")
    ask.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the race; more give a longer one (default: 60)")
    ask.add_argument("--missing", action="append", default=[], metavar="MARK", help="a number or text that means missing; repeatable")
    ask.add_argument("--keep", action="append", default=[], metavar="NAME", help="a column that is data though it seems to number "
                     "the rows, or its values to mean missing: not doubted; repeatable")
    ask.add_argument("--without", action="append", default=[], metavar="NAME", help="a column to leave out; repeatable")
    ask.add_argument("--figure", metavar="FILE", help="the figure, SVG (default: TABLE-ask.svg here)")
    ask.add_argument("--html", metavar="FILE", help="a page of all that is said, with the figure")
    laws = commands.add_parser("laws", help="what gradient flow keeps on a network of yours, and what was refused")
    laws.add_argument("place", metavar="FILE:FUNCTION", help="a function without arguments that returns (net, example)")
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
    run.add_argument("--dry-run", action="store_true", help="only say the jobs and about how long they take")
    verify = commands.add_parser("verify", help="run one job of a record again and note whether it still gives the same")
    verify.add_argument("name")
    verify.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verify.add_argument("--out", default=str(data.book_folder("results")), help="folder of the record (default: %(default)s)")
    verify.add_argument("--job", type=int, metavar="N", help="which job, counted from 0 (default: the first of the smallest)")
    about_data = commands.add_parser("data", help="look for the data sets, or fetch them")
    about_data.add_argument("action", choices=("status", "fetch"))
    commands.add_parser("about", help="say what numbers may hang on here: versions, processor, threads, data; for a report")
    return parser


def _about(_):
    print(about.about())
    return 0


def _list(_):
    for name, module in EXPERIMENTS.items():
        print(f"{name}: {module.SUMMARY}")
    return 0


def _run(options):
    if options.dask is not None and options.workers is not None:
        raise ValueError("--workers counts local processes and --dask has its own; expected one of them")
    module, device = data.named("experiment", options.name, EXPERIMENTS), _device(options)
    if options.dry_run:
        print(_plan(module, device, options))
        return 0
    with recorded.held(options.name, options.out):
        print(f"recorded: {_record(module, device, options)}")
    return 0


def _work(module, device, options, download=True):
    """What is to be done, the data set, and where it comes from; :class:`data.DataUnavailable` without the data."""
    config = module.SCALES[options.scale]
    dataset = data_of(module, config, download)
    origin = recorded.origin(module.__file__)
    inputs = f"{origin['source_sha256']} {dataset.sha256} torch {torch.__version__}"
    return shards.Work(module.__name__, config, device, inputs, Path(options.out)), dataset, origin


def _plan(module, device, options):
    """The jobs of a run, those that an earlier command has finished, and an estimate from the record of the full scale.

    Nothing is downloaded. Without the data set no job is taken as finished, as its digest is a part of their names.
    """
    jobs, needs = module.jobs(module.SCALES[options.scale], device), []
    try:
        work, _, _ = _work(module, device, options, download=False)
        done = [work.finished(index).is_file() for index in range(len(jobs))]
    except data.DataUnavailable:
        done, needs = [False] * len(jobs), [f"all jobs need the data set {module.SCALES[options.scale].dataset}, which is not "
                                            "here: the run fetches it first, and finished jobs are not looked for"]
    waiting = [job for job, finished in zip(jobs, done) if not finished]
    lines = ["job {}: {}{}".format(index, ", ".join(f"{key} {value}" for key, value in job.items() if key != "size"),
                                   " (finished)" if done[index] else "") for index, job in enumerate(jobs)] + needs
    size = sum(job["size"] for job in waiting)
    lines.append(f"{len(waiting)} of {len(jobs)} jobs to run, {size:.1e} config-steps, on {device}, into {options.out}")
    processes = options.workers or (1 if device != "cpu" else min(len(waiting), os.cpu_count() or 1)) or 1
    try:
        full = recorded.load(module.NAME, folder=data.book_folder("results"), quiet=True).provenance
        share = size / sum(job["size"] for job in module.jobs(module.SCALES["full"], "cpu"))
        minutes = full["compute_seconds"] * share / 60 / processes
        lines.append(f"estimate: {'under a minute' if minutes < 1 else f'{minutes:.0f} minutes'} in {processes} process(es), from "
                     f"what the recorded run took on {full['device']}")
    except (recorded.RecordError, KeyError):
        lines.append("no estimate: the book has no record of it")
    return "\n".join(lines)


def _record(module, device, options):
    torch.set_num_threads(1)  # here and in every worker: more threads a process only wait for each other
    work, dataset, origin = _work(module, device, options)
    config, jobs = work.config, module.jobs(work.config, device)
    try:
        results = shards.execute(work, jobs, options.dask, options.workers)
    except KeyboardInterrupt as stop:
        checkpoint = any(work.folder.glob("*.part*.npz"))
        raise KeyboardInterrupt("a checkpoint is written; the same command goes on from it" if checkpoint else
                                "finished jobs are kept; the same command goes on from there") from stop
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


def _ask(options):
    frame = asking.read(options.table)
    figure = Path(options.figure or f"{Path(options.table).stem}-ask.svg")
    if figure.suffix.lower() != ".svg":
        raise ValueError(f"the figure is {str(figure)!r}; expected a name that ends in .svg")
    for place in [figure, *([Path(options.html)] if options.html else [])]:
        if not place.parent.is_dir():
            raise ValueError(f"no folder {place.parent} for {place.name}; expected one that exists")
    with tqdm(total=100, desc="race", bar_format="{desc} {percentage:3.0f} %|{bar}| {elapsed}", disable=None) as bar:
        answer = asking.ask(frame, options.target, options.power, options.seconds, lambda share: bar.update(100 * share - bar.n),
                            missing=options.missing, keep=options.keep, without=options.without)
    said = [str(answer)]  # printed last: the files are there even where nobody reads on
    if answer.race.runners:
        figure.write_text(answer.figure.svg(), encoding="utf-8")
        said.append(f"figure      {figure}")
    if options.html:
        Path(options.html).write_text(asking.page(answer, Path(options.table).name), encoding="utf-8")
        said.append(f"page        {options.html}")
    print("\n".join(said))
    return 0


def _laws(options):
    print(networks.laws(*_net_and_example(options.place)))
    return 0


def _net_and_example(place):
    """What the function at ``FILE:FUNCTION`` returns; ``ValueError`` where that is no network with an example."""
    file, colon, name = place.rpartition(":")
    if not colon or not file or not name:
        raise ValueError(f"{place!r} names no function; expected FILE:FUNCTION, such as model.py:build")
    if not Path(file).is_file():
        raise ValueError(f"no file {file}; expected FILE:FUNCTION with a file of Python")
    spec = importlib.util.spec_from_file_location("deeplinear_asked", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no file of Python; expected a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(Path(file).resolve().parent))  # as if the file itself were run
    with contextlib.ExitStack() as after:
        after.callback(sys.path.remove, sys.path[0])
        try:
            spec.loader.exec_module(module)
            function = _function(vars(module), file, name)
            found = function()
        except _NoFunction:
            raise
        except Exception as error:  # whatever the user's own code raises
            said = f": {error}" if str(error) else ""
            raise ValueError(f"{place} failed with {type(error).__name__}{_line(error, file)}{said}") from error
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], torch.nn.Module)
            and isinstance(found[1], torch.Tensor | tuple | dict)):
        kinds = ", ".join(type(part).__name__ for part in found) if isinstance(found, tuple) else type(found).__name__
        raise ValueError(f"{place} returns {kinds}; expected (net, example), a torch.nn.Module and a tensor, a tuple of "
                         "arguments or a dict of keywords")
    return found


class _NoFunction(ValueError):
    """A name that is none of a function."""


def _function(items, file, name):
    """The function of this name among the ``items`` of a file."""
    functions = {key: item for key, item in items.items() if callable(item) and not key.startswith("__")}
    if name in items and name not in functions:
        raise _NoFunction(f"{name} in {file} is of the type {type(items[name]).__name__}; expected a function without arguments "
                          "that returns (net, example)")
    try:
        return data.named(f"in {file} the function", name, functions)
    except ValueError as error:
        raise _NoFunction(str(error)) from error


def _line(error, file):
    """The last line of the file that an error came through, in words."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == Path(file).resolve()
             or frame.filename == file]
    return f" in line {lines[-1]}" if lines else ""


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
