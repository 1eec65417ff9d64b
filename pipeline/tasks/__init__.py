"""Task files of our own for lm-eval: data that its own process reads."""
