"""From raw data to a fine-tuned model and a trustworthy answer to "did it help?"."""
