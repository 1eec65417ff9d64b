"""Three implementations of MMLU; scripts/mmlu_tasks.py writes the files of the subjects."""
