"""`hbt auto`: from a labeled file to a package in one command, composed of the other workflows."""
