"""`python -m broker`"""

from broker.cli.commands import main

if __name__ == "__main__":
    main()
