"""`python -m faceage` is the same as `faceage`."""

from faceage.cli import main

if __name__ == "__main__":
    main()
