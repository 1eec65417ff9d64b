"""One SwanLab experiment per run, written by a process of its own that follows the run directory."""
