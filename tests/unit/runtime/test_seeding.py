import hashlib
import random

import pytest

from prism.runtime.seeding import derive_seed, python_random


def test_seed_is_the_documented_hash_of_the_parts():
    digest = hashlib.blake2b(b"i1:0s7:rollouti2:12", digest_size=8).digest()
    assert derive_seed(0, "rollout", 12) == int.from_bytes(digest, "big") >> 1


def test_parts_that_look_alike_do_not_collide():
    parts = [(1, 2), (12,), ("12",), ("1", 2), (1, "2"), ("1", "2"), (-1, 2), (), ("",), ("", ""), ("i1:2",), ("é",)]
    seeds = [derive_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)


def test_seeds_have_63_bits_and_look_uniform():
    seeds = [derive_seed("stage", step) for step in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    top_bit = sum(seed >> 62 for seed in seeds) / len(seeds)
    assert abs(top_bit - 0.5) < 0.06


@pytest.mark.parametrize("part", [True, 1.5, None, b"x"])
def test_other_types_are_refused(part):
    with pytest.raises(TypeError):
        derive_seed(0, part)


def test_a_python_generator_starts_from_its_seed():
    assert python_random(3, "x").random() == random.Random(derive_seed(3, "x")).random()
