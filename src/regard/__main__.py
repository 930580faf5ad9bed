"""`python -m regard`, and `torchrun -m regard` for many processes."""

from regard.cli.main import main

if __name__ == "__main__":
    main()
