"""`hbt push` and `hbt pull`: packages to and from folders, .zip files and Hugging Face repositories."""
