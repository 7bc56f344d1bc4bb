"""What makes a release: source distribution, wheels, their tests, and the checks before they go out."""
