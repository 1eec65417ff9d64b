import sys

from pipeline.tracking.experiment import main

sys.exit(main(sys.argv[1:]))
