"""Policies, prompt encoding, sparse upcycling and the discriminator."""

from prism.models.discriminator import BranchKind, Discriminator, response_branch
from prism.models.policy import load_policy, save_policy
from prism.models.processor import PromptEncoder
from prism.models.upcycle import upcycle

__all__ = [
    "BranchKind",
    "Discriminator",
    "PromptEncoder",
    "load_policy",
    "response_branch",
    "save_policy",
    "upcycle",
]
