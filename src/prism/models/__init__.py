"""Policies, prompt encoding, sparse upcycling and the discriminator."""

from prism.models.discriminator import Discriminator, recorded_mode
from prism.models.policy import checkpoint_weights, load_policy, save_policy
from prism.models.processor import PromptEncoder
from prism.models.upcycle import upcycle, widen
from prism.models.views import Mode, View, response_branch, view_text, views_of, visible_prompt

__all__ = [
    "Discriminator",
    "Mode",
    "PromptEncoder",
    "View",
    "checkpoint_weights",
    "load_policy",
    "recorded_mode",
    "response_branch",
    "save_policy",
    "upcycle",
    "view_text",
    "views_of",
    "visible_prompt",
    "widen",
]
