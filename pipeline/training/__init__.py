"""Training: its settings, what they need and cost, how a running one is watched, and what proves that it learned."""
