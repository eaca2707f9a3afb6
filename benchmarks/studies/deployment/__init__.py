"""Studies of packages where they run: fresh machines, servers, other harnesses."""
