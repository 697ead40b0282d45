"""One module per data format: how its rows become prompts and completions, and back."""
