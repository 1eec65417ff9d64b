"""Question banks of the user's own: their files, how they are asked in either harness, how their answers are scored."""
