"""The sandboxed process that stays: calls, bounds, and a new one after each end."""

import multiprocessing
import threading

import pytest

import worker_guest
from groundup.base.errors import GroundupError
from groundup.base.sandbox import Limits
from groundup.base.worker import Worker

LIMITS = Limits(seconds=1, memory_bytes=256 << 20, output_bytes=1 << 20)


@pytest.fixture
def worker():
    made = Worker("worker_guest:evaluate", LIMITS)
    yield made
    made.close()


def test_calls_are_answered_by_one_process(worker):
    assert worker.call({"code": "[1, 2.5, None, 'é\\ud800']"}).value == [1, 2.5, None, "é\ud800"]
    first, second = (worker.call({"code": "os.getpid(), len(counted)"}).value for _ in range(2))
    assert first[0] == second[0]
    assert worker.call({"code": "os.environ.get('HOME', '').startswith('/tmp')"}).ok


def test_errors_leave_the_process_alive(worker):
    before = worker.call({"code": "id(counted)"}).value
    for code in ("1 / 0", "exit(3)", "object()", "{1, 2}", "print('x' * 100)"):
        outcome = worker.call({"code": code})
        assert outcome.kind == ("ok" if "print" in code else "error"), code
    assert worker.call({"code": "id(counted)"}).value == before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("[0 for _ in iter(int, 1)]", "memory"),
        ("sum(1 for _ in iter(int, 1))", "timeout"),
        ("bytearray(1 << 30)", "memory"),
        ("'a' * (2 << 20)", "output"),
        ("os.abort()", "crash"),
        ("os._exit(0)", "crash"),
        ("os.write(3, b'x' * 100) and os._exit(0)", "output"),
    ],
)
def test_a_bound_ends_the_process_and_the_next_call_starts_another(worker, code, kind):
    outcome = worker.call({"code": code})
    assert outcome.kind in (kind, "timeout", "crash") if kind in ("memory", "output") else outcome.kind == kind
    assert outcome.message
    assert worker.call({"code": "1 + 1"}).value == 2


def test_arguments_that_are_no_json(worker):
    with pytest.raises(TypeError):
        worker.call({"code": object()})
    assert worker.call({"code": "1 + 1"}).value == 2
    assert worker.call({"wrong": 1}).kind == "error"


def test_threads_take_turns(worker):
    answers = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(worker.call({"code": f"{i} * 2"}).value)) for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0, 2, 4, 6, 8, 10, 12, 14]


def _ask(worker, queue):
    queue.put([worker.call({"code": "40 + 2"}).value, worker._process.pid])
    worker.close()


def test_after_a_fork_parent_and_child_have_their_own(worker):
    """As data loaders fork: neither reads the other's answers."""
    worker.call({"code": "1"})
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_ask, args=(worker, queue))
    child.start()
    value, number = queue.get(timeout=300)
    child.join(300)
    assert value == 42
    assert number != worker._process.pid
    assert worker.call({"code": "1 + 1"}).value == 2


def test_what_cannot_start_is_an_error():
    for function in ("worker_guest:nothing", "no_such_module:run"):
        with pytest.raises(GroundupError, match="did not start"):
            Worker(function, LIMITS).call({})
    assert worker_guest.evaluate("1 + 1") == 2
