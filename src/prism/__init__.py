"""PRISM: supervised fine-tuning, adversarial alignment and verifiable-reward RL for vision-language models."""

__version__ = "0.1.0"
