import os
import signal
import threading

import pytest

from prism.runtime.interrupt import Interrupted, InterruptFlag

# Newer Pythons warn of fork beside threads; the children here only write files and leave.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def received(monkeypatch):
    """Signals that reach whatever handled them before the flag."""
    numbers = []
    previous = {n: signal.signal(n, lambda number, _: numbers.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    yield numbers
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_sets_the_flag(received, number, capfd):
    with pytest.raises(Interrupted), InterruptFlag() as flag:
        assert flag.signal_number is None
        os.kill(os.getpid(), number)
        assert flag.signal_number == number
        raise Interrupted(number, "saved")
    assert received == []
    assert "second signal" in capfd.readouterr().err
    os.kill(os.getpid(), number)
    assert received == [number]


def test_exit_codes():
    assert Interrupted(signal.SIGTERM, "x").code == 143
    assert Interrupted(signal.SIGINT, "x").code == 130
    assert Interrupted(signal.SIGTERM, "saved at step 3").message == "saved at step 3"


def test_an_unanswered_signal_is_delivered_when_the_block_ends(received):
    with InterruptFlag():
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == []
    assert received == [signal.SIGTERM]


def test_another_error_is_not_replaced_by_the_signal(received):
    with pytest.raises(KeyError), InterruptFlag():
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError
    assert received == []


def test_a_second_signal_ends_the_process():
    child = os.fork()
    if child == 0:
        with InterruptFlag():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_outside_the_main_thread_it_does_nothing():
    results = []

    def work():
        with InterruptFlag() as flag:
            results.append(flag.signal_number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [None]
