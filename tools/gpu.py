"""One visit to a machine with a GPU: the GPU's tests, the benchmark, then the recorded experiments, in a stated time.

    python3 tools/gpu.py [--seconds 600] [--out FOLDER] [--wheels FOLDER] [--resume ARCHIVE]      (make gpu)

Runs with the interpreter at hand and needs no network: the library is taken from ``lib``, and what the interpreter lacks
from a folder of wheels. Work stays in ``.gpu``. What is unfinished when the time is up leaves checkpoints, and the next
call goes on from them; ``FOLDER/gpu.tar`` holds records, finished jobs and checkpoints for a call on another machine.
Exit status 1 where something failed, 130 when interrupted, else 0, also where no CUDA device is found, as one line says.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("results", "benchmarks", "logs", "done.json")  # of the work, those that travel
ORDER = ("mnist-convnet", "mnist-tutorial", "mnist-balance",  # hours on a CPU, and the headlines of chapters 10 and 11
         "regression-models", "regression-depth",  # the longest after them
         "phase-diagram", "l4-tries", "layers-and-rule", "two-scales", "relu-balance")
GRACE = 20  # seconds that a command has to leave a checkpoint
LEAST = 15  # seconds below which nothing is begun


@dataclasses.dataclass(frozen=True)
class Task:
    """``command``: what to run; ``finished()``: whether that has been done, now or in an earlier call; ``note()`` is called
    when the command has succeeded and leaves nothing else to tell by."""

    name: str
    command: list
    finished: Callable
    note: Callable = lambda: None


class Trouble(RuntimeError):
    """Nothing can be run; the message says what to do."""


def main(arguments=None):
    """Run what the time allows; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="that the whole call may take (default: 600)")
    parser.add_argument("--out", type=Path, help="folder of gpu.tar (default: .gpu)")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of what the interpreter lacks")
    parser.add_argument("--resume", type=Path, help="a gpu.tar to go on from")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries this program out")
    parser.add_argument("--scale", choices=("full", "quick"), default="full")
    parser.add_argument("--work", type=Path, default=ROOT / ".gpu", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    end, archive = now() + options.seconds - GRACE, (options.out or options.work) / "gpu.tar"
    try:
        import torch
        if options.device == "cuda" and not torch.cuda.is_available():
            print(f"no CUDA device here (torch {torch.__version__}): nothing to run")
            return 0
        if options.resume:
            unpack(options.resume, options.work)
        prepare(options.wheels, options.work / "site")
        return visit(tasks(options), options.work, end, archive)
    except (Trouble, OSError, ImportError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; the next call goes on from {archive}", file=sys.stderr)
        return 130


def now():
    """Seconds on a clock that never goes back."""
    return time.monotonic()


def visit(tasks, work, end, archive):
    """Run the tasks in turn until ``end``, packing after each; returns 1 where one failed, else 0."""
    failed, environment = [], _environment(work / "site")
    for task in tasks:
        if task.finished():
            print(f"{task.name}: done before")
            continue
        if end - now() < LEAST:
            print(f"{task.name}: not begun, the time is up")
            continue
        started, log = now(), work / "logs" / f"{task.name}.log"
        try:
            status = run(task.command, log, end, environment)
            if status == 0:
                task.note()
        finally:
            pack(work, archive)
        if task.finished():
            print(f"{task.name}: done in {now() - started:.0f} s", flush=True)
        elif status is None:
            print(f"{task.name}: stopped after {now() - started:.0f} s; the next call goes on", flush=True)
        else:
            failed.append(task.name)
            print(f"{task.name}: failed with exit status {status}; the end of {log}:\n{_end_of(log)}", flush=True)
    pack(work, archive)
    print(f"packed: {archive}; the records in it: tar -xf {shlex.quote(str(archive))} -C book results")
    return 1 if failed else 0


def run(command, log, end, environment):
    """The exit status of a command, or None where it was interrupted because the time was up; it prints to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        # In a session of its own, so that Ctrl-C reaches it once, from here: a second one would cost its checkpoint.
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment,
                                   start_new_session=True)
        try:
            while process.poll() is None and now() < end:
                time.sleep(0.1)
            return process.poll()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tasks(options):
    """The GPU's tests, the benchmark, and every experiment that has no record of today's source."""
    python, quick = [sys.executable, "-m"], options.scale == "quick"
    marked = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    # Without conftest.py and the settings of pyproject.toml, which need plugins that this interpreter may lack.
    test = [*python, "pytest", "-q", "-m", "gpu", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "--noconftest", "-o",
            "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider", *marked]
    bench = [sys.executable, ROOT / "benchmarks" / "bench.py", "--out", options.work / "benchmarks",
             *(["--smoke", "--rounds", "1", "--seconds", "0.005"] if quick else ["--rounds", "5", "--seconds", "0.1"])]
    yield _noted("tests", test, options, marked)
    yield _noted("bench", bench, options, (ROOT / "benchmarks").glob("*.py"))
    for name in _experiments():
        command = [*python, "deeplinear", "run", name, "--scale", options.scale, "--device", options.device,
                   "--out", options.work / "results"]
        yield Task(name, command, lambda name=name: _recorded(name, options))


def prepare(wheels, site):
    """Make the library importable; what the interpreter lacks is installed from ``wheels`` into ``site``."""
    sys.path[:0] = [str(ROOT / "lib"), str(site)]
    needs = _needs()
    if wheels is not None:
        names = {_normal(path.name.partition("-")[0]) for path in wheels.glob("*.whl")}
        if not names:
            raise Trouble(f"no wheels in {wheels}; expected what this interpreter lacks, from: pip download -d {wheels} NAME")
        lacking = sorted(name for name in names if not _has(name, needs.get(name, "")))
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-deps",
                               "--find-links", wheels, "--target", site, *lacking],
                              capture_output=True, text=True) if lacking else None
        if done and done.returncode:
            raise Trouble(f"pip could not install {', '.join(lacking)} from {wheels}: {done.stderr.strip()}")
        importlib.invalidate_caches()
    lacking = [name + (f">={least}" if least else "") for name, least in needs.items() if not _has(name, least)]
    if lacking:
        raise Trouble(f"{sys.executable} lacks {', '.join(lacking)}; put wheels of these, and of what they need, into a folder "
                      "and name that: make gpu WHEELS=FOLDER")


def pack(work, archive):
    """Put records, finished jobs, checkpoints, measurements and logs into one file, whole or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}.part")
    try:
        with tarfile.open(temporary, "w") as tar:
            for path in sorted(path for part in PARTS for path in [work / part, *(work / part).rglob("*")]):
                if path.is_file() and path.suffix not in (".lock", ".part"):
                    tar.add(path, path.relative_to(work).as_posix())
        os.replace(temporary, archive)
    finally:
        temporary.unlink(missing_ok=True)


def unpack(archive, work):
    """Put the files of an archive where they belong; of two versions of a file the newer one stays."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.is_absolute() or ".." in name.parts or name.parts[0] not in PARTS:
                raise Trouble(f"{archive} holds {member.name!r}; expected files below {', '.join(PARTS)} only")
            target = work / name
            if target.exists() and target.stat().st_mtime >= member.mtime:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
            temporary.write_bytes(tar.extractfile(member).read())
            os.utime(temporary, (member.mtime, member.mtime))
            os.replace(temporary, target)


def _noted(name, command, options, files):
    """A task that leaves no record: ``done.json`` notes with which files, torch and device it has succeeded."""
    import torch
    from deeplinear import recorded, sources
    path = options.work / "done.json"
    made_with = [*(sources.digest(file) for file in (*files, ROOT / "lib" / "deeplinear" / "__init__.py")), str(torch.__version__),
                 options.scale, recorded.device_name(options.device)]

    def noted():
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def note():
        path.write_text(json.dumps({**noted(), name: made_with}, indent=1) + "\n", encoding="utf-8")

    return Task(name, command, lambda: noted().get(name) == made_with, note)


def _experiments():
    from deeplinear.experiments import EXPERIMENTS
    return sorted(EXPERIMENTS, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def _recorded(name, options):
    from deeplinear import recorded, sources
    from deeplinear.experiments import EXPERIMENTS
    module = EXPERIMENTS[name]
    with contextlib.suppress(recorded.RecordError):
        record = recorded.load(name, module.SCALES[options.scale], options.work / "results", quiet=True)
        return record.stands_for(sources.digest(module.__file__))
    return False


def _needs():
    """What the library and the GPU's tests require: names with their least versions, or nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [re.fullmatch(r"([\w.-]+)(?:>=([\w.]+))?", line.replace(" ", "")) for line in [*project["dependencies"], "pytest"]]
    return {_normal(part[1]): part[2] or "" for part in parts}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _has(name, least):
    """Whether a package is there, in this version at least; the interpreter may lack the package that reads requirements."""
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return [int(number) for number in re.findall(r"\d+", found)] >= [int(number) for number in re.findall(r"\d+", least)]


def _environment(site):
    paths = [str(ROOT / "lib"), str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def _end_of(log):
    return "\n".join("    " + line for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
