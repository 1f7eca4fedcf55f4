"""MaxIP search and conditional gradients against their baselines; one command each (README.md)."""
