"""What holds for every test."""

from __future__ import annotations

import signal

# A shell that starts this in the background has SIGINT ignored, and children inherit that: Ctrl-C could not be tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
