"""The benchmarks there are: well-known ones by one name, what the installed harnesses declare, data in folders."""
