import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from . import _worker


_ERRORS = {"OSError": OSError, "ValueError": ValueError}


def work_off(
    jobs: Sequence[dict[str, Any]],
    *,
    num_workers: int,
    report: Callable[[int], None],
) -> None:
    """Nothing; each job has been done by one of several worker processes.

    The workers are scripts of their own (see `_worker`): they need no `__main__` guard
    in the user's program and import no JAX. If anything goes wrong, or Ctrl-C is
    pressed, they are stopped and their unfinished files removed.

    Args:
        jobs: What to do.
        num_workers: Number of processes.
        report: Called with the number of events tried since the last call, from
            several threads.

    Raises:
        ValueError: Pythia refuses the job.
        OSError: A file cannot be written, or a worker died.
    """
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    failures: list[Exception] = []

    def talk(process: subprocess.Popen[str], complaints: Any) -> None:
        # Any failure ends the whole work: the others stop before their next job.
        with contextlib.suppress(queue.Empty):
            while not failures:
                job = waiting.get_nowait()
                try:
                    _do(job, process, complaints, report)
                except Exception as error:
                    failures.append(error)

    folders = {Path(job["path"]).parent for job in jobs}
    # Opening and closing happens here, in the thread that Ctrl-C interrupts.
    with contextlib.ExitStack() as stack:
        crew = [
            stack.enter_context(_worker_process(folders))
            for _ in range(min(num_workers, len(jobs)))
        ]
        threads = [threading.Thread(target=talk, args=m, daemon=True) for m in crew]
        for thread in threads:
            thread.start()
        # A join without a time limit would not see Ctrl-C on some platforms.
        while not failures and any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.05)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _worker_process(
    folders: set[Path],
) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            # -P: the folder of the script must not shadow other modules.
            [sys.executable, "-P", _worker.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        ) as process,
    ):
        try:
            yield process, complaints
        finally:
            with contextlib.suppress(OSError):
                # A dead worker leaves an unsent job in the pipe's buffer.
                _pipe(process.stdin).close()
            process.kill()
            process.wait()
            for folder in folders:
                for path in folder.glob(f".*.{process.pid}.tmp"):
                    path.unlink(missing_ok=True)


def _do(
    job: dict[str, Any],
    process: subprocess.Popen[str],
    complaints: Any,
    report: Callable[[int], None],
) -> None:
    with contextlib.suppress(BrokenPipeError):
        _pipe(process.stdin).write(json.dumps(job) + "\n")
        _pipe(process.stdin).flush()
    for line in _pipe(process.stdout):
        answer = json.loads(line)
        if "progress" in answer:
            report(answer["progress"])
        elif "error" in answer:
            raise _ERRORS[answer["kind"]](answer["error"])
        else:
            return
    code = process.wait()
    complaints.seek(0)
    said = complaints.read().strip().splitlines()
    raise OSError(
        f"A worker process ended with code {code} in chunk {job['summary']['chunk']} "
        f"of {job['summary']['process']!r} ({said[-1] if said else 'it said nothing'});"
        " run again to resume, with fewer workers if memory is short."
    )


def _pipe(pipe: Any) -> Any:
    # `Popen` declares its pipes as optional; ours were asked for. They and temporary
    # files are no `typing.IO` at run time, hence `Any`.
    if pipe is None:
        raise OSError("A worker process has no pipes; run again.")
    return pipe
