"""`python -m asr_distill`: the command line, for processes that are started without its script."""

from asr_distill.cli import main

if __name__ == "__main__":
    main()
