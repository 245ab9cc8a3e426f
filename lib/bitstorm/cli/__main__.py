"""`python -m bitstorm.cli`."""

from bitstorm.cli import main

if __name__ == "__main__":
    main()
