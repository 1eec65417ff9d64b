"""Raw fine-tuning data to the rows that ``swift sft`` reads. Usable alone: ``python -m data_prep --help``."""
