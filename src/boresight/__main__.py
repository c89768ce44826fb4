from boresight.cli.main import main

main()
