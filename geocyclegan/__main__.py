"""`python -m geocyclegan` is the `geocyclegan` command."""

from geocyclegan.cli.main import main

main()
