"""``python -m domainformer`` is the command line."""

from domainformer.cli import main

if __name__ == "__main__":
    main()
