from prism.rewards.memory import Remembered


def test_short_texts_are_remembered_and_long_ones_are_not():
    calls = []

    def measure(text: str) -> int:
        calls.append(text)
        return len(text)

    remembered = Remembered(measure)
    long = "x" * 1000
    assert [remembered(text) for text in ("ab", "ab", long, long)] == [2, 2, 1000, 1000]
    assert calls == ["ab", long, long]
    remembered.cache_clear()
    assert remembered("ab") == 2 and calls[3:] == ["ab"]
