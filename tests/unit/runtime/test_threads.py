import pytest
import torch

from prism.runtime import threads
from prism.runtime.threads import choose_threads


@pytest.fixture(autouse=True)
def _restore_threads(monkeypatch):
    before = torch.get_num_threads()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    torch.set_num_threads(before)


def test_small_models_get_one_thread():
    torch.set_num_threads(2)
    choice = choose_threads(1_000_000)
    assert (choice.num_threads, torch.get_num_threads()) == (1, 1)
    assert "OMP_NUM_THREADS" in choice.reason


def test_large_models_get_the_cores_this_process_may_use(monkeypatch):
    monkeypatch.setattr(threads, "num_processors", lambda: 2)
    assert choose_threads(1_000_000_000).num_threads == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_users_choice_stands(monkeypatch, variable):
    torch.set_num_threads(2)
    monkeypatch.setenv(variable, "2")
    choice = choose_threads()
    assert (choice.num_threads, torch.get_num_threads()) == (2, 2)
    assert variable in choice.reason


def test_cuda_is_left_alone(monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_threads().num_threads == torch.get_num_threads() == 2
